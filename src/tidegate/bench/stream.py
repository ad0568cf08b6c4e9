"""Reads a streamed answer by looking at its bytes.

Bench: workload → client (**stream**) → results → report. A load client that parses every chunk's JSON takes the
processor from the servers it measures: here the first chunk with content is parsed, then only errors and usage.
"""

from dataclasses import dataclass
from typing import Annotated

import msgspec

from tidegate.protocol.errors import TidegateError

MAX_LINE_BYTES = 256 * 1024
"""One line of a stream; a longer one ends the request as malformed."""


class MalformedStreamError(TidegateError):
    """What the server streams is not server-sent events with pieces of an answer in them."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one API streams an answer."""

    text_key: bytes
    """What an event with text has in it; the key, in its quotes."""
    event: str
    """What an event is, for an error's message."""
    ends_with_done: bool = True
    """Whether a last event [DONE] says that the answer is complete; else the end of the body does."""


CHAT = Dialect(b'"content"', "a chat completion chunk")
COMPLETION = Dialect(b'"text"', "a completion chunk")
GENERATE_STREAM = Dialect(b'"text_output"', "an output of generate_stream", ends_with_done=False)


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    text: str | None = None


Count = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
"""Of tokens; what is beyond is nonsense that would spoil every sum."""


class _PromptDetails(msgspec.Struct):
    cached_tokens: Count | None = None


class Usage(msgspec.Struct):
    """What the server counted; tokens. None where it does not say."""

    completion_tokens: Count = 0
    prompt_tokens: Count | None = None
    prompt_tokens_details: _PromptDetails | None = None

    @property
    def cached_tokens(self) -> int | None:
        """Tokens of the prompt that were in the server's cache."""
        return None if self.prompt_tokens_details is None else self.prompt_tokens_details.cached_tokens


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    system_fingerprint: str | None = None
    usage: Usage | None = None
    error: msgspec.Raw = msgspec.Raw()
    text_output: str | list[str] | None = None
    served_by: str | None = None

    @property
    def has_text(self) -> bool:
        return bool(self.text_output) or any(choice.delta.content or choice.text for choice in self.choices)


_decoder = msgspec.json.Decoder(_Chunk)


class StreamReader:
    """One answer, fed as it arrives. Its attributes tell what has been seen so far."""

    def __init__(self, dialect: Dialect = CHAT) -> None:
        self._dialect = dialect
        self.first_content_at: float | None = None
        self.last_content_at: float | None = None
        self.served_by: str | None = None
        self.error: str | None = None
        """The first error event's JSON, shortened."""
        self.done = False
        self.content_chunks = 0
        """Events with text in them."""
        self.usage: Usage | None = None
        self._incomplete = bytearray()

    @property
    def output_tokens(self) -> int:
        """Tokens as the server counted them, or else the chunks that carried content."""
        return self.content_chunks if self.usage is None else self.usage.completion_tokens

    @property
    def complete(self) -> bool:
        """Whether the answer is whole, now that its body has ended."""
        return self.done or not self._dialect.ends_with_done

    def feed(self, data: bytes, now: float) -> None:
        """Take in the next bytes, cut anywhere, received at `now`. Raises MalformedStreamError."""
        end = data.rfind(b"\n") + 1
        if end == 0:
            self._incomplete += data
        else:
            lines = bytes(self._incomplete) + data[:end] if self._incomplete else data[:end]
            self._incomplete[:] = data[end:]
            self._read(lines, now)
        if len(self._incomplete) > MAX_LINE_BYTES:
            raise MalformedStreamError(f"a line of the stream is longer than {MAX_LINE_BYTES} bytes")

    def _read(self, lines: bytes, now: float) -> None:
        if self.first_content_at is None:
            for line in lines.split(b"\n"):
                self._read_until_content(line, now)
        else:
            self._count(lines, now)
        # A quote inside generated text is written \", so these words match keys only.
        if b'"error"' in lines or b'"completion_tokens"' in lines:
            for line in lines.split(b"\n"):
                self._read_rare(line)
        if b"[DONE]" in lines:
            self.done = self.done or any(_payload(line) == b"[DONE]" for line in lines.split(b"\n"))

    def _read_until_content(self, line: bytes, now: float) -> None:
        if self.first_content_at is not None:
            self._count(line, now)
        elif self._dialect.text_key in line:
            chunk = self._decode(line)
            if chunk.has_text:
                self.first_content_at = now
                self.served_by = chunk.system_fingerprint or chunk.served_by
                self._count(line, now)

    def _count(self, lines: bytes, now: float) -> None:
        found = lines.count(self._dialect.text_key)
        if found:
            self.content_chunks += found
            self.last_content_at = now

    def _read_rare(self, line: bytes) -> None:
        if b'"error"' not in line and b'"completion_tokens"' not in line:
            return
        chunk = self._decode(line)
        if chunk.usage is not None:
            self.usage = chunk.usage
        error = bytes(chunk.error)
        if error not in (b"", b"null") and self.error is None:
            self.error = error[:200].decode(errors="replace")

    def _decode(self, line: bytes) -> _Chunk:
        try:
            return _decoder.decode(_payload(line) or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedStreamError(f"an event of the stream is not {self._dialect.event}: {error}") from error


def _payload(line: bytes) -> bytes:
    """Return what follows `data:`, or nothing for the other fields of server-sent events."""
    return line[5:].strip() if line.startswith(b"data:") else b""
