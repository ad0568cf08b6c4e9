"""Published series as a Prometheus exposition, and as a collector for prometheus_client.

Publishing path: Reporter → **PrometheusBackend** → exposition. The names are exactly those of the families:
prometheus_client's own metrics would append `_total` to a counter and add `_created` series, which Triton's exposition
does not have.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tidegate.publish.families import Kind, MetricFamily

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What to answer with `PrometheusBackend.exposition`."""

_LABEL_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


class PrometheusSeries:
    """One series; a histogram's `value` is the sum of what it observed."""

    def __init__(self, family: MetricFamily, labels: Mapping[str, str]) -> None:
        self._family = family
        self._labels = dict(sorted(labels.items()))
        self._value: float = 0
        self._counts = [0] * (len(family.buckets) + 1)

    def set(self, value: float, /) -> None:
        """Replace a gauge's value."""
        self._value = value

    def increment(self, value: float, /) -> None:
        """Add `value`, > 0, to a counter."""
        self._value += value

    def observe(self, value: float, /) -> None:
        """Count `value` in a histogram."""
        self._counts[bisect_left(self._family.buckets, value)] += 1
        self._value += value

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Yield name, labels and value of each line of the exposition, labels sorted but `le` last."""
        name = self._family.name
        if self._family.kind is not Kind.HISTOGRAM:
            yield name, self._labels, self._value
            return
        cumulated = list(accumulate(self._counts))
        bounds = [*map(_number, self._family.buckets), "+Inf"]
        for bound, count in zip(bounds, cumulated, strict=True):
            yield f"{name}_bucket", {**self._labels, "le": bound}, count
        yield f"{name}_sum", self._labels, self._value
        yield f"{name}_count", self._labels, cumulated[-1]


class PrometheusBackend(Collector):
    """Keeps series in memory; a family is exposed once it has one. For use from one thread."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[MetricFamily, list[PrometheusSeries]]] = {}

    def create_series(self, family: MetricFamily, labels: Mapping[str, str]) -> PrometheusSeries:
        """Return a new series of `family`, exposed from now on, after those created before it."""
        series = PrometheusSeries(family, labels)
        self._families.setdefault(family.name, (family, []))[1].append(series)
        return series

    def exposition(self) -> bytes:
        """Return all series in the text format 0.0.4, written as Triton writes them."""
        lines: list[str] = []
        for family, series in self._families.values():
            lines.append(f"# HELP {family.name} {family.help.translate(_HELP_ESCAPES)}\n")
            lines.append(f"# TYPE {family.name} {family.kind}\n")
            lines.extend(render_sample(*sample) for one in series for sample in one.samples())
        return "".join(lines).encode()

    def collect(self) -> Iterator[Metric]:
        """Yield the families for a registry, a counter as one of unknown type.

        prometheus_client announces whatever is typed as a counter under its name with `_total` appended; the exact name
        matters more to whoever selects by it. `exposition` gives both.
        """
        for family, series in self._families.values():
            metric = Metric(family.name, family.help, "unknown" if family.kind is Kind.COUNTER else family.kind)
            for one in series:
                for name, labels, value in one.samples():
                    metric.add_sample(name, labels, value)
            yield metric


def render_sample(name: str, labels: Mapping[str, str], value: float) -> str:
    """Return one line of an exposition, with its newline; labels in the order given."""
    written = ",".join(f'{key}="{text.translate(_LABEL_ESCAPES)}"' for key, text in labels.items())
    braced = f"{{{written}}}" if written else ""
    return f"{name}{braced} {_number(value)}\n"


def _number(value: float) -> str:
    # Triton writes whole numbers without a decimal point, and some readers take its gauges for integers.
    return str(int(value)) if float(value).is_integer() else repr(float(value))
