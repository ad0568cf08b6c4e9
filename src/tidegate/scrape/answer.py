"""Reads one HTTP/1.1 answer from the pieces in which it arrives. Pure: bytes in, an answer or an error out.

Takes bodies by content-length, in chunks, and up to the end of the connection. What a scrape never asks for
(compression, upgrades, other protocol versions) is refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from tidegate.protocol.errors import ScrapeError, ScrapeFailure

MAX_HEAD_BYTES = 65_536
"""Longest status line with headers; also the longest trailers of a chunked body."""
MAX_CHUNK_LINE_BYTES = 4096
"""Longest line with the size of a chunk and its extensions."""

_START = b"HTTP/1."
_HEX_DIGITS = b"0123456789abcdefABCDEF"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One whole answer, of whatever status."""

    status: int
    content_type: str
    """As the server wrote it, in lower case; empty when it did not say."""
    body: bytes


class AnswerReader:
    """Reads one answer; `feed` every piece, in whatever sizes, until it is returned. Memory stays within the limits."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._head = b""
        self._status = 0
        self._content_type = ""
        self._chunks: _ChunkReader | None = None
        self._expected: int | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._keep_alive = False
        self.started = False
        """Whether a byte has come."""

    @property
    def keep_alive(self) -> bool:
        """Whether the connection is good for another request, once the answer is there."""
        return self._keep_alive

    def feed(self, piece: bytes) -> HttpAnswer | None:
        """Take what has arrived; return the answer if that completes it.

        Raises:
            ScrapeError: the bytes are no answer that can be read, or go beyond a limit.
        """
        self.started = True
        if not self._status:
            remainder = self._feed_head(piece)
            if remainder is None:
                return None
            piece = remainder
        if self._chunks is not None:
            return self._feed_chunks(self._chunks, piece)
        self._add(piece)
        if self._expected is None or self._body_bytes < self._expected:
            return None
        return self._finish(surplus=self._body_bytes - self._expected)

    def end(self) -> HttpAnswer:
        """The connection has ended; return the answer if it was to be read up to here.

        Raises:
            ScrapeError: something is missing.
        """
        if self._status and self._expected is None and self._chunks is None:
            self._keep_alive = False
            return self._finish(surplus=0)
        missing = "before the answer began" if not self.started else "in the middle of the answer"
        raise ScrapeError(f"the server closed the connection {missing}", reason=ScrapeFailure.CLOSED)

    def _feed_head(self, piece: bytes) -> bytes | None:
        """Take a piece of the head; return what follows it, or None while it is incomplete."""
        searched = max(0, len(self._head) - 3)
        head = self._head + piece if self._head else piece
        while True:
            if not head.startswith(_START[: len(head)]):
                raise _not_http(f"begins with {head[:40]!r}")
            end = head.find(b"\r\n\r\n", searched)
            if (end if end >= 0 else len(head)) > MAX_HEAD_BYTES:
                raise ScrapeError(f"the headers exceed {MAX_HEAD_BYTES} bytes", reason=ScrapeFailure.TOO_LARGE)
            if end < 0:
                self._head = head
                return None
            status = _parse_status(head)
            if status >= 200:
                break
            head = head[end + 4 :]  # An interim answer: the real one follows.
            searched = 0
        self._status = status
        self._head = b""
        self._read_headers(head[:end])
        return head[end + 4 :]

    def _read_headers(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        headers: dict[bytes, bytes] = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            name = name.lower()
            value = value.strip()
            if not colon or (name == b"content-length" and headers.get(name, value) != value):
                raise _not_http(f"has the header line {line[:40]!r}")
            headers[name] = value
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise _not_http(f"is compressed ({headers[b'content-encoding'][:40]!r}), though that was not asked for")
        self._content_type = headers.get(b"content-type", b"").decode("latin-1").lower()
        connection = headers.get(b"connection", b"").lower()
        self._keep_alive = b"close" not in connection and (first[7:8] == b"1" or b"keep-alive" in connection)
        self._choose_framing(headers)

    def _choose_framing(self, headers: dict[bytes, bytes]) -> None:
        coding = headers.get(b"transfer-encoding")
        length = headers.get(b"content-length")
        if self._status in (204, 304):
            self._expected = 0
        elif coding is not None:
            if coding.lower() != b"chunked" or length is not None:
                raise _not_http(f"has transfer-encoding {coding[:40]!r}, content-length {length!r}")
            self._chunks = _ChunkReader()
        elif length is not None:
            if not length.isdigit() or len(length) > 18:
                raise _not_http(f"has content-length {length[:40]!r}")
            self._expected = int(length)
            self._check_size(self._expected)

    def _feed_chunks(self, chunks: "_ChunkReader", piece: bytes) -> HttpAnswer | None:
        for part in chunks.feed(piece):
            self._add(part)
        return self._finish(surplus=chunks.surplus) if chunks.complete else None

    def _add(self, part: bytes) -> None:
        self._body_bytes += len(part)
        if self._expected is None:
            self._check_size(self._body_bytes)
        self._body.append(part)

    def _check_size(self, size: int) -> None:
        if size > self._max_body_bytes:
            raise ScrapeError(f"the body exceeds {self._max_body_bytes} bytes", reason=ScrapeFailure.TOO_LARGE)

    def _finish(self, surplus: int) -> HttpAnswer:
        body = b"".join(self._body)
        if surplus:
            # Bytes nobody asked for: whatever follows on this connection could be taken for the next answer.
            self._keep_alive = False
            body = body[: self._expected]
        return HttpAnswer(self._status, self._content_type, body)


class _Expect(Enum):
    SIZE = auto()
    END_OF_DATA = auto()
    TRAILER = auto()


class _ChunkReader:
    """Takes the framing off a chunked body; extensions and trailers are read over."""

    def __init__(self) -> None:
        self._expect = _Expect.SIZE
        self._line = b""
        self._due = 0
        self._trailer_bytes = 0
        self.complete = False
        self.surplus = 0
        """Bytes that came behind the complete body."""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield the parts of the body that a piece holds."""
        data = self._line + piece
        position = 0
        self._line = b""
        while not self.complete:
            if self._due:
                part = data[position : position + self._due]
                if not part:
                    return
                self._due -= len(part)
                position += len(part)
                yield part
                continue
            end = data.find(b"\r\n", position)
            line = data[position : end if end >= 0 else None]
            if len(line) > MAX_CHUNK_LINE_BYTES:
                raise _not_http(f"has a line of more than {MAX_CHUNK_LINE_BYTES} bytes between its chunks")
            if end < 0:
                self._line = line
                return
            self._take_line(line)
            position = end + 2
        self.surplus = len(data) - position

    def _take_line(self, line: bytes) -> None:
        if self._expect is _Expect.SIZE:
            self._due = _parse_chunk_size(line)
            self._expect = _Expect.END_OF_DATA if self._due else _Expect.TRAILER
        elif self._expect is _Expect.TRAILER:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > MAX_HEAD_BYTES:
                raise ScrapeError(f"the trailers exceed {MAX_HEAD_BYTES} bytes", reason=ScrapeFailure.TOO_LARGE)
            self.complete = not line
        elif line:
            raise _not_http(f"has {line[:20]!r} where a chunk should end")
        else:
            self._expect = _Expect.SIZE


def _parse_status(head: bytes) -> int:
    """Read the status from ``HTTP/1.1 200 OK``."""
    code = head[9:12]
    if head[7:9] not in (b"1 ", b"0 ") or not code.isdigit() or head[12:13] not in (b" ", b"\r") or code < b"100":
        raise _not_http(f"begins with {head[:40]!r}")
    status = int(code)
    if status == 101:
        raise _not_http("switches to another protocol")
    return status


def _parse_chunk_size(line: bytes) -> int:
    # int() alone would also take signs, underscores and 0x.
    digits = line.partition(b";")[0].strip(b" \t")
    if not digits or len(digits) > 16 or digits.strip(_HEX_DIGITS):
        raise _not_http(f"has the chunk size {line[:20]!r}")
    return int(digits, 16)


def _not_http(problem: str) -> ScrapeError:
    return ScrapeError(f"the answer is not the HTTP/1.1 asked for: it {problem}", reason=ScrapeFailure.NOT_HTTP)
