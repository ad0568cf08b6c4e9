"""What the rules say of the fixtures. `python tests/verdicts.py` writes the golden files anew."""

import json
from pathlib import Path
from typing import Any

from tidegate.protocol.conformance.evidence import Answer
from tidegate.protocol.conformance.verdict import Verdict, judge
from tidegate.protocol.engines import ENGINES, EngineMapping, detect_engine

FIXTURES = Path(__file__).parent / "fixtures" / "metrics"
EXPOSITIONS = sorted(path for path in FIXTURES.glob("*/*.txt") if not path.name.endswith(".headers.txt"))
CONTENT_TYPES = {
    "vllm": "text/plain; version=1.0.0; charset=utf-8",
    "triton": "text/plain; charset=utf-8",
    "llamacpp": "text/plain; version=0.0.4",
}
"""As the servers answered, by the directory."""

TEXT = "text/plain; version=0.0.4; charset=utf-8"


def answer(exposition: str | bytes, *, content_type: str = TEXT, took_s: float = 0.01) -> Answer:
    """Return a scrape that went well."""
    body = exposition.encode() if isinstance(exposition, str) else exposition
    return Answer(body=body, content_type=content_type, took_s=took_s)


def verdict(exposition: str | bytes, engine: str = "vllm", **fields: Any) -> Verdict:
    """Return what the rules say of an exposition."""
    return judge(answer(exposition, **fields), ENGINES[engine])


def found(verdict: Verdict, rule: str) -> list[str]:
    """Return the messages of one rule."""
    return [finding.message for finding in verdict.findings if finding.rule == rule]


def golden_path(path: Path) -> Path:
    """Return where the verdict on a fixture is."""
    return path.with_suffix(".verdict.json")


def document(path: Path) -> dict[str, Any]:
    """Return the verdict on a fixture, as the golden file has it."""
    exposition = path.read_bytes()
    engine: EngineMapping | None = detect_engine(exposition)
    assert engine is not None
    said = judge(answer(exposition, content_type=CONTENT_TYPES[path.parent.name]), engine)
    return {
        "engine": engine.name,
        "conformant": said.conformant,
        "sources": dict(said.sources),
        "findings": [
            {"rule": finding.rule, "level": str(finding.level), "message": finding.message, "fix": finding.fix}
            for finding in said.findings
        ],
    }


def render(path: Path) -> str:
    """Return the text of the golden file of a fixture."""
    return json.dumps(document(path), indent=2) + "\n"


if __name__ == "__main__":
    for exposition_path in EXPOSITIONS:
        golden_path(exposition_path).write_text(render(exposition_path))
