"""The load of a server in any engine's own metric names.

Publishing path: LoadSignals → **render_signals** → exposition. The inverse of `protocol.load.parse_signals`, from the
same mappings.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from tidegate.protocol.engines import EngineMapping, LoraLabels, SeriesLabel, SeriesValue
from tidegate.protocol.selectors import Selector
from tidegate.protocol.signals import LoadSignals, LoraSignals
from tidegate.publish.families import STATISTICS_FAMILIES, Kind, MetricFamily
from tidegate.publish.prometheus import PrometheusBackend

_HELP: Mapping[str, str] = MappingProxyType(
    {
        "queued_requests": "Requests accepted but not running.",
        "running_requests": "Requests in the running batch.",
        "kv_utilization": "Used / total KV-cache blocks, from 0 to 1.",
        "block_size": "Tokens in one KV-cache block.",
        "num_blocks": "KV-cache blocks.",
    }
)
_FAMILY_HELP: Mapping[str, str] = MappingProxyType({family.name: family.help for family in STATISTICS_FAMILIES})
"""Of families in which several signals are."""


def render_signals(signals: LoadSignals, engine: EngineMapping, *, model: str, lora_updated_at: float = 0.0) -> bytes:
    """Return an exposition that says these signals as `engine` does, under the newest of its names.

    Signals that are None, or that the engine does not publish, are left out. `lora_updated_at`: since when the LoRA
    adapters are those; seconds since the Unix epoch.
    """
    backend = PrometheusBackend()
    model_label = {engine.model_labels[0]: model}
    infos: dict[Selector, dict[str, str]] = {}
    for signal, source, value in _published(signals, engine):
        if isinstance(source, SeriesLabel):
            infos.setdefault(source.selector, {})[source.label] = str(value)
        else:
            labels = {**dict(source.selector.labels), **model_label}
            backend.create_series(_family(source.selector, _HELP[signal]), labels).set(value)
    for selector, info in infos.items():
        labels = {**dict(selector.labels), **info, **model_label}
        backend.create_series(_family(selector, "Constants of the server."), labels).set(1)
    if engine.lora is not None and signals.lora is not None:
        family = _family(engine.lora.selector, "LoRA adapters of running and waiting requests.")
        backend.create_series(family, _lora_labels(signals.lora, engine.lora)).set(lora_updated_at)
    return backend.exposition()


def _lora_labels(lora: LoraSignals, names: LoraLabels) -> dict[str, str]:
    return {
        names.running: ",".join(sorted(lora.running)),
        names.waiting: ",".join(sorted(lora.waiting)),
        names.max_adapters: "" if lora.max_adapters is None else str(lora.max_adapters),
    }


def _published(signals: LoadSignals, engine: EngineMapping) -> Iterator[tuple[str, SeriesValue | SeriesLabel, float]]:
    """Yield each signal that is known and published, with its newest source."""
    for signal in _HELP:
        value: float | None = getattr(signals, signal)
        # A composite is what readers make of an older server's ingredients; nobody writes it.
        written = (one for one in getattr(engine, signal) if isinstance(one, SeriesValue | SeriesLabel))
        source = next(written, None)
        if value is not None and source is not None and signal not in engine.withdrawn:
            yield signal, source, value


def _family(selector: Selector, text: str) -> MetricFamily:
    text = _FAMILY_HELP.get(selector.family, text)
    return MetricFamily(name=selector.family, help=text, kind=Kind.GAUGE, label="", fields={})
