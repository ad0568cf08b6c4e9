"""What all rules say of one answer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tidegate.protocol.conformance import consistency, kinds, lora, presence, series, syntax, transport, values
from tidegate.protocol.conformance.evidence import Answer, Evidence, gather
from tidegate.protocol.conformance.finding import Finding, Level
from tidegate.protocol.conformance.sources import render_source
from tidegate.protocol.engines import EngineMapping
from tidegate.protocol.signals import LoadSignals

_ORDER = list(Level)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One server, judged."""

    signals: LoadSignals
    sources: Mapping[str, str]
    """Where each signal that is known came from, in words."""
    findings: tuple[Finding, ...]
    """Errors first, then warnings."""

    @property
    def conformant(self) -> bool:
        """Whether no finding is an error."""
        return is_conformant(self.findings)


def judge(answer: Answer, engine: EngineMapping) -> Verdict:
    """Return what one answer is worth."""
    return judge_evidence(gather(answer, engine))


def judge_evidence(evidence: Evidence) -> Verdict:
    """Return the same of an answer that has been read."""
    findings = [*transport.judge(evidence.answer)]
    for theme in (presence, values, kinds, consistency, series, lora, syntax):
        findings.extend(theme.judge(evidence))
    sources = {signal: render_source(origin.source) for signal, origin in evidence.load.origins.items()}
    return Verdict(evidence.load.signals, sources, in_order(findings))


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings by level, errors first; within a level as they were made."""
    return tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.level)))


def is_conformant(findings: Iterable[Finding]) -> bool:
    """Return whether none of them is an error."""
    return all(finding.level is not Level.ERROR for finding in findings)
