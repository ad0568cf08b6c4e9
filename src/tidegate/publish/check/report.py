"""What `check` found out about one server, and the same as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.protocol.conformance.finding import Finding
from tidegate.protocol.conformance.verdict import is_conformant
from tidegate.protocol.conformance.watching import Movement
from tidegate.protocol.signals import LoadSignals, LoraSignals


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReport:
    """One server, checked as far as that was possible."""

    url: str
    """As the user gave it."""
    metrics_url: str = ""
    """Where its exposition is; empty: none was found."""
    engine: str | None = None
    signals: LoadSignals
    sources: Mapping[str, str]
    """Where each signal that is known came from, in words."""
    findings: tuple[Finding, ...]
    """Errors first."""
    checked: bool
    """False: there was no exposition to check."""
    movements: tuple[Movement, ...] = ()
    """What moved, where it was watched."""

    @property
    def conformant(self) -> bool:
        """Whether the server keeps the protocol: it was checked, and no finding is an error."""
        return self.checked and is_conformant(self.findings)


def not_checked(url: str, finding: Finding) -> ServerReport:
    """Return the report on a server whose exposition could not be had."""
    return ServerReport(url=url, signals=LoadSignals(observed_at=0.0), sources={}, findings=(finding,), checked=False)


def as_document(report: ServerReport) -> dict[str, Any]:
    """Return a report as JSON knows it. A signal that is not known is null."""
    document: dict[str, Any] = {
        "url": report.url,
        "engine": report.engine,
        "signals": signals_document(report.signals),
        "sources": dict(report.sources),
        "findings": findings_document(report.findings),
        "conformant": report.conformant,
    }
    if report.movements:
        document["watch"] = {
            movement.name: {
                "first": movement.first,
                "last": movement.last,
                "min": movement.least,
                "max": movement.most,
                "changes": movement.changes,
            }
            for movement in report.movements
        }
    return document


def signals_document(signals: LoadSignals) -> dict[str, Any]:
    """Return the signals as JSON knows them."""
    return {
        "queued_requests": signals.queued_requests,
        "running_requests": signals.running_requests,
        "kv_utilization": signals.kv_utilization,
        "block_size": signals.block_size,
        "num_blocks": signals.num_blocks,
        "lora": None if signals.lora is None else _lora_document(signals.lora),
    }


def findings_document(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """Return findings as JSON knows them."""
    return [
        {"rule": finding.rule, "level": str(finding.level), "message": finding.message, "fix": finding.fix}
        for finding in findings
    ]


def _lora_document(lora: LoraSignals) -> dict[str, Any]:
    return {"max": lora.max_adapters, "running": sorted(lora.running), "waiting": sorted(lora.waiting)}


def exit_status(reports: Sequence[ServerReport]) -> int:
    """Return 0 when all servers are conformant, 2 when one could not be checked, otherwise 1."""
    if not all(report.checked for report in reports):
        return 2
    return 0 if all(report.conformant for report in reports) else 1
