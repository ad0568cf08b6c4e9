"""Reads one HTTP/1.1 answer from the pieces in which it arrives. Pure: bytes in, an answer or an error out.

Takes bodies by content-length, in chunks, and up to the end of the connection. What a scrape never asks for
(compression, upgrades, other protocol versions) is refused.
"""

from dataclasses import dataclass
from enum import Enum, auto

from tidegate.protocol.errors import ScrapeError, ScrapeFailure

MAX_HEAD_BYTES = 65_536
"""Longest status line with headers; also the longest trailers of a chunked body."""
MAX_CHUNK_LINE_BYTES = 4096
"""Longest line with the size of a chunk and its extensions."""
MAX_CHUNKS = 20_000
"""Most chunks of one body: what a chunk costs does not depend on its size. One for each line of 84 kB makes 951."""

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
    """Reads one answer; `feed` every piece, in whatever sizes, until it is returned.

    However small the pieces and chunks, it holds no more than a body of the size allowed and the last piece.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._head = b""
        self._status = 0
        self._content_type = ""
        self._chunks: _ChunkReader | None = None
        self._expected: int | None = None
        self._body = bytearray()  # a list of two-byte pieces would take forty times the memory
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
            self._chunks.feed(piece)
            return self._finish(surplus=self._chunks.surplus) if self._chunks.complete else None
        if self._expected is None:
            _check_size(len(self._body) + len(piece), self._max_body_bytes)
            self._body += piece
            return None
        missing = self._expected - len(self._body)
        self._body += piece[:missing]
        return self._finish(surplus=len(piece) - missing) if len(piece) >= missing else None

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
        begin = 0
        while True:
            first = head[begin : begin + 40]
            if not first.startswith(_START[: len(first)]):
                raise _not_http(f"begins with {first!r}")
            end = head.find(b"\r\n\r\n", searched)
            if (end if end >= 0 else len(head)) - begin > MAX_HEAD_BYTES:
                raise ScrapeError(f"the headers exceed {MAX_HEAD_BYTES} bytes", reason=ScrapeFailure.TOO_LARGE)
            if end < 0:
                self._head = head[begin:]
                return None
            status = _parse_status(first)
            if status >= 200:
                break
            begin = searched = end + 4  # An interim answer: the real one follows.
        self._status = status
        self._head = b""
        self._read_headers(head[begin:end])
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
            self._chunks = _ChunkReader(self._body, self._max_body_bytes)
        elif length is not None:
            if not length.isdigit() or len(length) > 18:
                raise _not_http(f"has content-length {length[:40]!r}")
            self._expected = int(length)
            _check_size(self._expected, self._max_body_bytes)

    def _finish(self, surplus: int) -> HttpAnswer:
        if surplus:
            # Bytes nobody asked for: whatever follows on this connection could be taken for the next answer.
            self._keep_alive = False
        return HttpAnswer(self._status, self._content_type, bytes(self._body))


class _Expect(Enum):
    SIZE = auto()
    END_OF_DATA = auto()
    TRAILER = auto()


class _ChunkReader:
    """Takes the framing off a chunked body; extensions and trailers are read over."""

    def __init__(self, body: bytearray, max_body_bytes: int) -> None:
        """Append to `body` what the chunks hold."""
        self._body = body
        self._max_body_bytes = max_body_bytes
        self._expect = _Expect.SIZE
        self._line = b""
        self._due = 0
        self._chunks = 0
        self._trailer_bytes = 0
        self.complete = False
        self.surplus = 0
        """Bytes that came behind the complete body."""

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the answer."""
        data = self._line + piece if self._line else piece
        position = 0
        self._line = b""
        while not self.complete:
            if self._due:
                part = data[position : position + self._due]
                self._body += part
                self._due -= len(part)
                position += len(part)
                if self._due:
                    return
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
            self._take_size(_parse_chunk_size(line))
        elif self._expect is _Expect.TRAILER:
            self._trailer_bytes += len(line) + 2
            if self._trailer_bytes > MAX_HEAD_BYTES:
                raise ScrapeError(f"the trailers exceed {MAX_HEAD_BYTES} bytes", reason=ScrapeFailure.TOO_LARGE)
            self.complete = not line
        elif line:
            raise _not_http(f"has {line[:20]!r} where a chunk should end")
        else:
            self._expect = _Expect.SIZE

    def _take_size(self, size: int) -> None:
        self._chunks += 1
        if size and self._chunks > MAX_CHUNKS:
            raise ScrapeError(f"the body has more than {MAX_CHUNKS} chunks", reason=ScrapeFailure.TOO_LARGE)
        _check_size(len(self._body) + size, self._max_body_bytes)
        self._due = size
        self._expect = _Expect.END_OF_DATA if size else _Expect.TRAILER


def _check_size(body_bytes: int, limit_bytes: int) -> None:
    if body_bytes > limit_bytes:
        raise ScrapeError(f"the body exceeds {limit_bytes} bytes", reason=ScrapeFailure.TOO_LARGE)


def _parse_status(first: bytes) -> int:
    """Read the status from ``HTTP/1.1 200 OK``; what comes behind it does not matter."""
    code = first[9:12]
    if first[7:9] not in (b"1 ", b"0 ") or not code.isdigit() or first[12:13] not in (b" ", b"\r") or code < b"100":
        raise _not_http(f"begins with {first!r}")
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
