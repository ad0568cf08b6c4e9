"""What the exporter publishes of a server: its exposition with what it lacks, or its load in another engine's names.

Publishing path: Fetched → **exposition**, with series of the exporter's own about the fetch.
"""

import re
from collections.abc import Collection, Mapping

from tidegate.protocol.engines import EngineMapping
from tidegate.protocol.exposition import scan
from tidegate.publish.dialects import render_signals
from tidegate.publish.exporter.composites import add_composites
from tidegate.publish.exporter.fetches import Fetched
from tidegate.publish.families import Kind, MetricFamily
from tidegate.publish.prometheus import PrometheusBackend
from tidegate.scrape.probe import Scrape

_END = b"# EOF"
"""The last line of an OpenMetrics exposition."""
_COUNTER = re.compile(rb"^(# (?:HELP|TYPE) \S+)_total ", re.MULTILINE)

_UP = ("up", "Whether the last scrape of the server gave its load.", Kind.GAUGE)
_SCRAPE = ("scrape_seconds", "How long the last scrape of the server took.", Kind.GAUGE)
_AGE = ("age_seconds", "How long ago the server said what is published here.", Kind.GAUGE)
_SCRAPES = ("scrapes_total", "Scrapes of the server, by result.", Kind.COUNTER)


def render_load(scrape: Scrape, engine: EngineMapping | None, *, wall_time: float) -> bytes:
    """Return the server's exposition with its missing composites; in the names of `engine`, only its load.

    A server that gives no exposition is published in the names of its own engine. `wall_time`: now; seconds since the
    Unix epoch.
    """
    if engine is None and scrape.exposition is not None:
        return add_composites(scrape.exposition, scrape.engine)
    return render_signals(scrape.signals, engine or scrape.engine, model=_model(scrape), lora_updated_at=wall_time)


def render_status(last: Fetched | None, counts: Mapping[str, int], *, now: float) -> bytes:
    """Return the exporter's own series. `counts`: scrapes by result. `now`: seconds, monotonic."""
    backend = PrometheusBackend()

    def publish(described: tuple[str, str, Kind], value: float, labels: Mapping[str, str]) -> None:
        name, text, kind = described
        family = MetricFamily(name=f"tidegate_exporter_{name}", help=text, kind=kind, label="", fields={})
        backend.create_series(family, labels).set(value)

    if last is not None:
        publish(_UP, 0 if last.scrape is None else 1, {})
        publish(_SCRAPE, round(last.took_s, 6), {})
        if last.scrape is not None:
            publish(_AGE, round(now - last.scrape.signals.observed_at, 6), {})
    for result, count in counts.items():
        publish(_SCRAPES, count, {"result": result})
    return backend.exposition()


def join(exposition: bytes, added: bytes) -> bytes:
    """Return one exposition of two, in the format of the first. `added`: in the text format, as ours are."""
    body = exposition.removesuffix(b"\n")
    if body == _END or body.endswith(b"\n" + _END):
        body = body.removesuffix(_END).removesuffix(b"\n")
        added = _COUNTER.sub(rb"\1 ", added) + _END + b"\n"  # OpenMetrics announces counters without the suffix.
    return body + (b"\n" if body else b"") + added


def only(exposition: bytes, names: Collection[str]) -> bytes:
    """Return the lines of some families of an exposition of ours."""
    wanted = {name.encode() for name in names}
    # Not splitlines: a label's text may hold a carriage return.
    return b"".join(line + b"\n" for line in exposition.split(b"\n") if line and _name(line) in wanted)


def _name(line: bytes) -> bytes:
    word = line.split(b" ", 3)[2] if line.startswith(b"# ") else line.split(b" ", 1)[0]
    return word.split(b"{", 1)[0]


def _model(scrape: Scrape) -> str:
    """Return the name of the model whose load it is; of several all, with commas; of none that is named, nothing."""
    if scrape.exposition is None:
        return ""
    samples = scan(scrape.exposition, scrape.engine.families)
    label = scrape.engine.model_labels[0]
    return ",".join(dict.fromkeys(sample.labels[label] for sample in samples if label in sample.labels))
