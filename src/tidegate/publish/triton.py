"""Published series as custom metrics of Triton, from inside a Python-backend model.

Publishing path: Reporter → **PbUtilsBackend** → Triton's own exposition, on its metrics port. TritonReporter is all of
it for a model on TensorRT-LLM's LLM API: docs/triton.md.
"""

import json
import logging
import threading
from collections.abc import Mapping
from typing import Any, Self

from tidegate.publish.families import Kind, MetricFamily
from tidegate.publish.llm_poller import LlmPoller, StatisticsSource
from tidegate.publish.reporter import Reporter, Series

_LOGGER = logging.getLogger(__name__)


class PbUtilsBackend:
    """Creates series through `triton_python_backend_utils`, which exists only inside Triton and so is passed in.

    Every change of a series is a message from the model's process to Triton's (20 µs, measured with Triton 2.51), and a
    scrape may fall between two of them. Triton drops the series of a family with the last reference to it, that is,
    with this object and its series.
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


class TritonLog:
    """Writes to Triton's log; to Python's where there is none."""

    def __init__(self, pb_utils: Any, name: str) -> None:
        """`name`: whose lines these are."""
        logger = getattr(pb_utils, "Logger", None)
        self._warn = _LOGGER.warning if logger is None else logger.log_warn
        self._info = _LOGGER.info if logger is None else logger.log_info
        self._name = name

    def warn(self, line: str) -> None:
        """Say what is wrong, and the way out."""
        self._warn(f"tidegate: {self._name}: {line}")

    def info(self, line: str) -> None:
        """Say what is well again."""
        self._info(f"tidegate: {self._name}: {line}")


class TritonReporter:
    """Publishes the load of one instance of a model whose LLM is TensorRT-LLM's, until it is stopped.

    None of its methods raises on account of the LLM or of Triton's metrics: the model serves on. What is wrong goes
    to Triton's log.
    """

    def __init__(self, pb_utils: Any, args: Mapping[str, str], llm: StatisticsSource) -> None:
        """`pb_utils`: the module triton_python_backend_utils. `args`: those of the model's `initialize`."""
        self._pb_utils = pb_utils
        self._model, self._version = args["model_name"], args["model_version"]
        self._instance = instance_of(args)
        self._log = TritonLog(pb_utils, args["model_instance_name"])
        self._poller = LlmPoller(llm, self._create_reporter, self._log)
        self._lock = threading.Lock()
        self._lengths: Reporter | None = None
        self._lengths_failed = False

    def start(self) -> Self:
        """Begin to publish; returns itself. The LLM must be there, and nobody else take its statistics away."""
        self._poller.start()
        return self

    def stop(self) -> None:
        """Leave no thread behind. To be called before the LLM is shut down."""
        self._poller.stop()

    def observe(self, *, input_tokens: int | None = None, output_tokens: int | None = None) -> None:
        """Count one finished request's token lengths in the histograms. To be called from any thread."""
        self._poller.served()
        with self._lock:
            if self._lengths_failed:
                return
            try:
                if self._lengths is None:
                    self._lengths = self._create_reporter()
                self._lengths.observe(input_tokens=input_tokens, output_tokens=output_tokens)
            except Exception as error:  # a request must not fail for want of a metric
                self._lengths_failed = True
                self._log.warn(f"token lengths cannot be published: {type(error).__name__}: {error}")

    def _create_reporter(self) -> Reporter:
        backend = PbUtilsBackend(self._pb_utils)
        return Reporter(backend, model=self._model, version=self._version, instance=self._instance)


def instance_of(args: Mapping[str, str]) -> str | None:
    """Return what tells an instance from its model's others, "0_1"; None where the model has one instance only.

    Triton calls an instance after its model, its group and its number in there: tensorrt_llm_0_1.
    """
    groups = json.loads(args["model_config"]).get("instance_group", [])
    # On GPUs Triton makes `count` instances for each GPU of the group.
    instances = sum(int(group.get("count", 1)) * max(1, len(group.get("gpus", []))) for group in groups)
    if instances <= 1:
        return None
    return args["model_instance_name"].removeprefix(f"{args['model_name']}_")
