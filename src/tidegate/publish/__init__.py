"""The model server's side: batch-manager statistics become the composite metrics.

Publishing path: statistics JSON → statistics.BatchManagerStatistics → reporter.Reporter, by the table in families →
a MetricBackend: prometheus.PrometheusBackend, or triton.PbUtilsBackend inside Triton → exposition.

`statistics`, `families`, `reporter`, `llm_iterations`, `llm_poller` and `triton` run inside a Triton container:
standard library only; triton.TritonReporter is the whole path there. `dialects` writes LoadSignals under any engine's
names. `exporter` and `check` stand beside a server and scrape it.
"""
