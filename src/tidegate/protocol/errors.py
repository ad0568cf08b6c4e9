"""What can go wrong, split by who can act on it. The message alone must be enough to act."""


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


class ScrapeError(TidegateError):
    """A model server did not give its metrics: unreachable, slow, refused, too large, or not an exposition."""
