"""Rule on the format of the exposition, line by line."""

from collections.abc import Iterator

from tidegate.protocol.conformance.evidence import Evidence
from tidegate.protocol.conformance.finding import Finding, Level, Rule

SYNTAX = Rule("syntax-error", Level.ERROR, "A line breaks the exposition format; tells line and column.")
RULES = (SYNTAX,)

_SHOWN = 5


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yield the first errors, each with its place; the last one tells how many more there are."""
    reading = evidence.reading
    shown = reading.problems[:_SHOWN]
    for number, problem in enumerate(shown, 1):
        left = reading.problem_count - number if number == len(shown) else 0
        more = f"; {left} more such errors" if left else ""
        yield SYNTAX.finding(
            f"line {problem.line}, column {problem.column}: {problem.text}{more}",
            "Mend what writes this line: strict readers, Prometheus among them, drop the whole exposition.",
        )
