"""Rules on the series of one server: duplicates, and several models or ranks behind one URL."""

from collections.abc import Iterator, Mapping, Sequence

from tidegate.protocol.conformance.evidence import REQUIRED, Evidence
from tidegate.protocol.conformance.finding import Finding, Level, Rule
from tidegate.protocol.readings import is_count

DUPLICATE = Rule("duplicate-series", Level.ERROR, "A series occurs twice: same name, same labels.")
SEVERAL = Rule(
    "several-models-or-ranks", Level.INFO, "Several models or ranks are behind one URL; tells how they are combined."
)
BLOCK_SIZES = Rule("block-sizes-differ", Level.WARNING, "The models of one server have KV-cache blocks of other sizes.")
RULES = (DUPLICATE, SEVERAL, BLOCK_SIZES)

_SHOWN = 3


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yield what several series say of one server."""
    yield from _duplicates(evidence)
    yield from _several(evidence)
    origin = evidence.load.origins.get("block_size")
    if origin is not None:
        sizes = sorted({int(reading.value) for reading in origin.readings if is_count(reading.value) and reading.value})
        if len(sizes) > 1:
            yield BLOCK_SIZES.finding(
                f"block_size: blocks of {_list(list(map(str, sizes)))} tokens; the smallest counts",
                "Serve such models from servers of their own, where prefixes are matched by blocks.",
            )


def _duplicates(evidence: Evidence) -> Iterator[Finding]:
    lines: dict[tuple[str, frozenset[tuple[str, str]]], int] = {}
    again: list[str] = []
    for sample, line in zip(evidence.reading.samples, evidence.reading.lines, strict=True):
        first = lines.setdefault((sample.family, frozenset(sample.labels.items())), line)
        if first != line:
            again.append(f"{sample.family} in lines {first} and {line}")
    if again:
        yield DUPLICATE.finding(
            f"series that occur twice: {_list(again)}", "Publish each once: readers take either, or the sum of both."
        )


def _several(evidence: Evidence) -> Iterator[Finding]:
    origins = evidence.load.origins
    labels = [reading.labels for signal in REQUIRED if signal in origins for reading in origins[signal].readings]
    models = list(dict.fromkeys(_model(evidence, one) for one in labels))
    ranks = max((len(origins[signal].readings) for signal in REQUIRED if signal in origins), default=0)
    if len(models) > 1:
        what = "models" if len({model[0] for model in models}) > 1 else "instances of one model"
        yield SEVERAL.finding(
            f"{len(models)} {what} ({_list(list(map(_name, models)))}): queued and running requests and blocks are "
            "summed, kv_utilization is that of the fullest, block_size the smallest"
        )
    elif ranks > 1:
        yield SEVERAL.finding(
            f"{ranks} ranks of one model: queued and running requests are summed, kv_utilization is that of the "
            "fullest, num_blocks the largest number that any names"
        )


def _model(evidence: Evidence, labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(labels.get(name, "") for name in evidence.engine.model_labels)


def _name(model: tuple[str, ...]) -> str:
    return " ".join(part for part in model if part) or "without a name"


def _list(items: Sequence[str]) -> str:
    """Return the first few of them, with the count of the others."""
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(item[:80] for item in items[:_SHOWN]) + more
