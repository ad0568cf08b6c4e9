"""The responses of a model, read with suspicion: what they hold is up to whoever wrote the model.

Flow: response → **Tensor** by name → texts and numbers.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.frontend.generator import GenerationError

_INTS = {
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
}
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One output of one response."""

    datatype: str
    data: bytes
    """Little-endian, row by row; before each element of type BYTES its length, in four bytes."""


Response = Mapping[str, Tensor]
"""The outputs of one response by name."""


def read_text(response: Response, name: str) -> bytes | None:
    """Return the first element of an output that is text; None: it is not there, or empty.

    Raises:
        GenerationError: 502, the tensor is malformed or no text.
    """
    tensor = response.get(name)
    if tensor is None or (tensor.datatype == "BYTES" and not tensor.data):
        return None
    if tensor.datatype != "BYTES":
        raise _malformed(name, f"of type {tensor.datatype[:20]}, not BYTES")
    if len(tensor.data) < _LENGTH.size:
        raise _malformed(name, f"{len(tensor.data)} bytes long, too short for the length of a text")
    end = _LENGTH.size + _LENGTH.unpack_from(tensor.data)[0]
    if end > len(tensor.data):
        raise _malformed(name, f"{len(tensor.data)} bytes long, and its first text ends at {end}")
    return tensor.data[_LENGTH.size : end]


def read_count(response: Response, name: str) -> int | None:
    """Return the first element of an output that is a count, >= 0; None: it is not there, or empty.

    Raises:
        GenerationError: 502, the tensor is malformed, no number, or below 0.
    """
    tensor = response.get(name)
    if tensor is None or (tensor.datatype in _INTS and not tensor.data):
        return None
    if tensor.datatype not in _INTS:
        raise _malformed(name, f"of type {tensor.datatype[:20]}, no whole number")
    number = struct.Struct("<" + _INTS[tensor.datatype])
    if len(tensor.data) < number.size:
        raise _malformed(name, f"{len(tensor.data)} bytes long, too short for {tensor.datatype}")
    count = int(number.unpack_from(tensor.data)[0])
    if count < 0:
        raise _malformed(name, f"{count}, and cannot be below 0")
    return count


def _malformed(name: str, problem: str) -> GenerationError:
    return GenerationError(f"The model's output {name} is {problem}", status=502)
