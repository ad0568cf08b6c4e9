"""Published series as custom metrics of Triton, from inside a Python-backend model.

Publishing path: Reporter → **PbUtilsBackend** → Triton's own exposition, on its metrics port.
"""

from collections.abc import Mapping
from typing import Any

from tidegate.publish.families import Kind, MetricFamily
from tidegate.publish.reporter import Series


class PbUtilsBackend:
    """Creates series through `triton_python_backend_utils`, which exists only inside Triton and so is passed in.

    Every change of a series is a message from the model's process to Triton's (20 µs, measured with Triton 2.51), and a
    scrape may fall between two of them. Triton drops a series with its last reference; the Reporter keeps them.
    """

    def __init__(self, pb_utils: Any) -> None:
        family = pb_utils.MetricFamily
        self._create_family = family
        self._kinds = {Kind.GAUGE: family.GAUGE, Kind.COUNTER: family.COUNTER, Kind.HISTOGRAM: family.HISTOGRAM}
        self._families: dict[str, Any] = {}

    def create_series(self, family: MetricFamily, labels: Mapping[str, str]) -> Series:
        """Return a new series of `family`, on Triton's exposition from now on."""
        created = self._families.get(family.name)
        if created is None:
            created = self._create_family(name=family.name, description=family.help, kind=self._kinds[family.kind])
            self._families[family.name] = created
        # Triton refuses buckets for what is no histogram, and for a histogram anything but a list.
        buckets = list(family.buckets) if family.kind is Kind.HISTOGRAM else None
        series: Series = created.Metric(labels=dict(labels), buckets=buckets)
        return series
