"""A load run as JSON, for programs: docs/bench.md names the keys. A change that breaks readers gets another FORMAT.

Bench: LoadFigures → **JSON**.
"""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import msgspec

from tidegate import __version__
from tidegate.bench.load_compare import Added, AddedDurations
from tidegate.bench.load_figures import CpuUse, Durations, TargetFigures
from tidegate.bench.load_report import describe_lengths
from tidegate.bench.load_run import LoadFigures, LoadSetup
from tidegate.bench.results import RequestResult

FORMAT = "tidegate-bench-load/1"

Json = Mapping[str, Any]


def render_json(figures: LoadFigures, *, started: datetime) -> bytes:
    """Return all figures and every request; `started` is when the run began."""
    generator = figures.generator
    document: Json = {
        "format": FORMAT,
        "tidegate": __version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "started": started.isoformat(timespec="seconds"),
        "label": figures.setup.label,
        "complete": sum(target.requests for target in figures.targets) == figures.planned,
        "workload": _workload(figures.setup),
        "targets": [_target(target) for target in figures.targets],
        "added": {f"{measure}_s": _added(added) for measure, added in figures.added.items()} or None,
        "server_cpu": _cpu(figures.server_cpu),
        "generator": {
            "late_s": _durations(generator.late),
            "late_max_s": generator.late_max_s,
            "not_sent": generator.not_sent,
            "cpu": _cpu(generator.cpu),
            "core_wait_s": generator.core_wait_s,
            "warnings": list(generator.warnings),
        },
        "requests": [_request(place, result) for place, results in enumerate(figures.results) for result in results],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _workload(setup: LoadSetup) -> Json:
    plan = setup.plan
    return {
        "seed": plan.seed,
        "rate_per_s": plan.rate_per_s,
        "gap_variation": plan.variation,
        "requests": plan.requests,
        "duration_s": plan.duration_s,
        "warm_up_s": plan.warm_up_s,
        "input_tokens": describe_lengths(plan.input_tokens),
        "output_tokens": describe_lengths(plan.output_tokens),
        "shared_prefix_tokens": plan.shared_prefix_tokens,
        "prefixes": plan.prefixes,
        "timeout_s": setup.timeout_s,
        "max_open": setup.max_open,
        "slo": None if setup.slo is None else asdict(setup.slo),
    }


def _target(target: TargetFigures) -> Json:
    return {
        "name": target.name,
        "url": target.target.url,
        "api": target.target.api,
        "model": target.target.model,
        "requests": target.requests,
        "failed": target.failed,
        "errors": target.errors,
        "elapsed_s": target.elapsed_s,
        "drain_s": target.drain_s,
        "answered_per_s": target.answered_per_s,
        "output_tokens_per_s": target.output_tokens_per_s,
        "kept_slo": target.kept_slo,
        "goodput_per_s": target.goodput_per_s,
        "output_tokens": target.output_tokens,
        "tokens_per_answer": target.tokens_per_answer,
        "requests_counted_by_server": target.counted_by_server,
        "input_tokens": target.input_tokens,
        "cached_tokens": target.cached_tokens,
        "peak_open": target.peak_open,
        "served_by": target.served_by,
        "ttft_s": _durations(target.ttft),
        "tpot_s": _durations(target.tpot),
        "e2e_s": _durations(target.e2e),
    }


def _durations(durations: Durations | None) -> Json | None:
    if durations is None:
        return None
    return {
        "count": durations.count,
        "mean": durations.mean_s,
        "p50": durations.p50_s,
        "p90": durations.p90_s,
        "p99": durations.p99_s,
        "doubtful": [f"p{percent}" for percent in (50, 90, 99) if durations.is_doubtful(percent)],
    }


def _added(added: AddedDurations | None) -> Json | None:
    if added is None:
        return None
    intervals = {name: _interval(getattr(added, name)) for name in ("mean", "p50", "p90", "p99")}
    return {"pairs": added.pairs, **intervals}


def _interval(added: Added) -> Json:
    return {"value": added.seconds, "low": added.low_s, "high": added.high_s}


def _cpu(use: CpuUse | None) -> Json | None:
    if use is None:
        return None
    return {
        "cpu_s": use.seconds,
        "elapsed_s": use.elapsed_s,
        "cores": use.cores,
        "streamed_events": use.streamed,
        "cpu_per_event_s": use.per_token_s,
    }


def _request(place: int, result: RequestResult) -> Json:
    return {
        "target": place,
        "at_s": result.at_s,
        "late_s": result.late_s,
        "status": result.status,
        "error": result.error,
        "detail": result.detail,
        "ttft_s": result.ttft_s,
        "tpot_s": result.tpot_s,
        "e2e_s": result.e2e_s,
        "output_tokens": result.output_tokens,
        "input_tokens": result.prompt_tokens,
        "cached_tokens": result.cached_tokens,
        "served_by": result.served_by,
    }
