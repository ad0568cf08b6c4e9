"""Reads a streamed chat completion by looking at its bytes.

Bench: workload → client (**stream**) → results → report. A load client that parses every chunk's JSON takes the
processor from the servers it measures: here the first chunk with content is parsed, then only errors and usage.
"""

import msgspec

from tidegate.protocol.errors import TidegateError

MAX_LINE_BYTES = 256 * 1024
"""One line of a stream; a longer one ends the request as malformed."""


class MalformedStreamError(TidegateError):
    """What the server streams is not server-sent events with chat completion chunks in them."""


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)


class _Usage(msgspec.Struct):
    completion_tokens: int = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    system_fingerprint: str | None = None
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw()


_decoder = msgspec.json.Decoder(_Chunk)


class StreamReader:
    """One answer, fed as it arrives. Its attributes tell what has been seen so far."""

    def __init__(self) -> None:
        self.first_content_at: float | None = None
        self.last_content_at: float | None = None
        self.served_by: str | None = None
        self.error: str | None = None
        """The first error event's JSON, shortened."""
        self.done = False
        self._content_chunks = 0
        self._usage_tokens: int | None = None
        self._incomplete = bytearray()

    @property
    def output_tokens(self) -> int:
        """Tokens as the server counted them, or else the chunks that carried content."""
        return self._content_chunks if self._usage_tokens is None else self._usage_tokens

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
        elif b'"content"' in line:
            chunk = _decode(line)
            if any(choice.delta.content for choice in chunk.choices):
                self.first_content_at = now
                self.served_by = chunk.system_fingerprint
                self._count(line, now)

    def _count(self, lines: bytes, now: float) -> None:
        found = lines.count(b'"content"')
        if found:
            self._content_chunks += found
            self.last_content_at = now

    def _read_rare(self, line: bytes) -> None:
        if b'"error"' not in line and b'"completion_tokens"' not in line:
            return
        chunk = _decode(line)
        if chunk.usage is not None:
            self._usage_tokens = chunk.usage.completion_tokens
        error = bytes(chunk.error)
        if error not in (b"", b"null") and self.error is None:
            self.error = error[:200].decode(errors="replace")


def _payload(line: bytes) -> bytes:
    """Return what follows `data:`, or nothing for the other fields of server-sent events."""
    return line[5:].strip() if line.startswith(b"data:") else b""


def _decode(line: bytes) -> _Chunk:
    try:
        return _decoder.decode(_payload(line) or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedStreamError(f"an event of the stream is not a chat completion chunk: {error}") from error
