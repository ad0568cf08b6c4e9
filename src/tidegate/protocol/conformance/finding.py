"""What a rule says of a server."""

from dataclasses import dataclass
from enum import StrEnum

LONGEST_MESSAGE = 600
"""Most characters of a message, before any are escaped."""


class Level(StrEnum):
    """How much a finding weighs."""

    ERROR = "error"
    """The server does not keep the protocol: pickers that rely on it are misled."""
    WARNING = "warning"
    """It keeps the protocol, but some readers or some moments are not served well."""
    INFO = "info"
    """Nothing to mend: what one should know when reading the figures."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found at one server."""

    rule: str
    """Id of the rule."""
    level: Level
    message: str
    """What is so, and where; one line."""
    fix: str
    """The way out; empty where there is nothing to mend."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; its module makes the findings."""

    id: str
    """Kebab-case; once published it stays."""
    level: Level
    summary: str
    """What a finding of this rule means, in general."""

    def finding(self, message: str, fix: str = "") -> Finding:
        """Return a finding of this rule; its message may hold what a server wrote."""
        return Finding(self.id, self.level, _one_line(message), fix)


def _one_line(message: str) -> str:
    """Cut a message where it gets too long, and escape what a terminal would act on."""
    cut = message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in cut)
