"""Keeps the published series in step with the batch manager.

Publishing path: BatchManagerStatistics → **Reporter** → a metric back end (prometheus_client, Triton) → exposition.
"""

from collections.abc import Mapping
from typing import Protocol

from tidegate.publish.families import INPUT_TOKENS_FAMILY, OUTPUT_TOKENS_FAMILY, STATISTICS_FAMILIES, Kind, MetricFamily
from tidegate.publish.statistics import BatchManagerStatistics


class Series(Protocol):
    """One series of a family. Each kind uses one method: gauges set, counters increment, histograms observe.

    The method names are those of Triton's `pb_utils.Metric`, which is a Series as it is.
    """

    def set(self, value: float, /) -> None:
        """Replace a gauge's value."""

    def increment(self, value: float, /) -> None:
        """Add `value`, > 0, to a counter."""

    def observe(self, value: float, /) -> None:
        """Count `value` in a histogram."""


class MetricBackend(Protocol):
    """Where series live. Called once per series; the series begins at 0, or without observations."""

    def create_series(self, family: MetricFamily, labels: Mapping[str, str]) -> Series:
        """Return a new series of `family`; `labels` are all its labels and differ from call to call."""


class Reporter:
    """Publishes one model's statistics, value by value under its own label.

    A series begins with its first known value: what a server never says is absent, not 0. A real batch manager says
    everything from its first iteration on, so its idle server shows zeros, as Triton's backend does. A figure missing
    later leaves its series at the last value, and never touches another series. The families of in-flight batching,
    static batching and disaggregated serving therefore exist only where the statistics have such figures.
    """

    def __init__(self, backend: MetricBackend, *, model: str, version: str, instance: str | None = None) -> None:
        """`instance`: which of several instances of the model this is; None where it is the only one."""
        self._backend = backend
        self._labels = {"model": model, "version": version}
        if instance is not None:
            self._labels["instance"] = instance
        self._series: dict[tuple[str, str], Series] = {}
        self._last: dict[tuple[str, str], float] = {}

    def report(self, statistics: BatchManagerStatistics) -> None:
        """Bring every series up to date whose value `statistics` knows; one that is unchanged costs nothing."""
        for family in STATISTICS_FAMILIES:
            for label_value, field in family.fields.items():
                value: float | None = getattr(statistics, field)
                if value is not None:
                    self._update(family, label_value, value)

    def observe(self, *, input_tokens: int | None = None, output_tokens: int | None = None) -> None:
        """Count one finished request's token lengths; None where they are not known."""
        if input_tokens is not None:
            self._get(INPUT_TOKENS_FAMILY, "total_input_tokens").observe(input_tokens)
        if output_tokens is not None:
            self._get(OUTPUT_TOKENS_FAMILY, "total_output_tokens").observe(output_tokens)

    def _update(self, family: MetricFamily, label_value: str, value: float) -> None:
        """Set a gauge to `value`, or move a counter on to that total, never back.

        A total below the last one is a restarted batch manager, which counts from 0 again: the published counter goes
        on from where it was, so that a rate over it stays right.
        """
        key = (family.name, label_value)
        series = self._get(family, label_value)
        last = self._last.get(key, 0)
        if value == last:
            return
        if family.kind is Kind.COUNTER:
            growth = value - last if value > last else value
            if growth > 0:
                series.increment(growth)
        else:
            series.set(value)
        self._last[key] = value

    def _get(self, family: MetricFamily, label_value: str) -> Series:
        key = (family.name, label_value)
        series = self._series.get(key)
        if series is None:
            series = self._backend.create_series(family, {family.label: label_value, **self._labels})
            self._series[key] = series
        return series
