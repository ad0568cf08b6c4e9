"""What can go wrong, split by who can act on it. The message alone must be enough to act."""

from enum import StrEnum


class TidegateError(Exception):
    """Something a person can act on; commands print it as one line, without a traceback."""


class ConfigError(TidegateError):
    """The operator's files or arguments are wrong.

    The message reads ``place: key: problem. fix``; `where` and `key` may be empty.
    """

    def __init__(self, problem: str, *, fix: str = "", where: str = "", key: str = "") -> None:
        self.problem = problem
        self.fix = fix
        self.where = where
        self.key = key
        located = ": ".join(part for part in (where, key, problem) if part)
        super().__init__(f"{located}. {fix}" if fix else located)


class ScrapeFailure(StrEnum):
    """What kept a model server's metrics from being read; the value is the word metrics and logs use."""

    UNREACHABLE = "unreachable"
    """The serving port refused the connection, or no connection came about: the server is down."""
    NO_METRICS = "no_metrics"
    """Only a metrics port beside the serving port could not be reached: the server itself may well be up."""
    EXHAUSTED = "exhausted"
    """We have no file descriptor, port or memory left for a connection: says nothing of the server."""
    TIMEOUT = "timeout"
    """The whole answer was not there in time."""
    CLOSED = "closed"
    """The server closed the connection before its answer was complete."""
    NOT_HTTP = "not_http"
    """The answer breaks HTTP/1.1, or uses a part of it that was not asked for."""
    TOO_LARGE = "too_large"
    """The answer goes beyond a limit on its headers or its body."""
    BAD_STATUS = "bad_status"
    """The status is not 200."""
    NOT_AN_EXPOSITION = "not_an_exposition"
    """The body is no exposition, or holds nothing of the engine."""


_FROM_THE_SERVER = frozenset(
    {ScrapeFailure.NOT_HTTP, ScrapeFailure.TOO_LARGE, ScrapeFailure.BAD_STATUS, ScrapeFailure.NOT_AN_EXPOSITION}
)
"""What only a server that is there can have sent."""


class ScrapeError(TidegateError):
    """A model server did not give its metrics: unreachable, slow, refused, too large, or not an exposition.

    The message reads ``url: problem``; `url` is empty where bytes are read without knowing whence they came.
    """

    def __init__(self, problem: str, *, reason: ScrapeFailure = ScrapeFailure.NOT_AN_EXPOSITION, url: str = "") -> None:
        self.problem = problem
        self.reason = reason
        self.url = url
        super().__init__(f"{url}: {problem}" if url else problem)

    @property
    def server_reachable(self) -> bool | None:
        """Whether the serving port took the connection; None when that was not tried, or cannot be told."""
        if self.unreachable:
            return False
        return True if self.reason in _FROM_THE_SERVER else None

    @property
    def unreachable(self) -> bool:
        """Whether the server as a whole cannot be reached, not its metrics only."""
        return self.reason is ScrapeFailure.UNREACHABLE


class RequestRejected(TidegateError):  # noqa: N818 - a refusal, not a malfunction
    """A request that is answered by us instead of a model server. The client reads the message."""

    def __init__(self, message: str, *, status: int, reason: str = "") -> None:
        """`status`: HTTP. `reason`: a word for the header that tells machines why; empty: none."""
        self.status = status
        self.reason = reason
        super().__init__(message)
