"""The protocol that a worker performs: all measurements of one case, in stages.

A stage is computed when it is first asked for and remembered. Stages return JSON. They measure and
compare but judge nothing, since thresholds are applied where the results are written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from compat.measure import accuracy, energy, latency, robustness
from compat.measure.case_under_test import CaseUnderTest


class Protocol:
    """Measures one case, built from a :class:`CaseRequest` given as a mapping."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.case = CaseUnderTest(request)
        self._remembered: dict[str, Any] = {}

    def stage(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Perform a stage, or return its remembered result."""
        if name in REPEATABLE:
            return REPEATABLE[name](self.case, **arguments)
        key = name + json.dumps(arguments, sort_keys=True)
        if key not in self._remembered:
            self._remembered[key] = STAGES[name](self.case, **arguments)
        return self._remembered[key]


def loads(case: CaseUnderTest) -> dict[str, Any]:
    """Compile and run one standard input; report cold start, sizes, executed precision."""
    return case.first_run


def placed(case: CaseUnderTest) -> dict[str, Any]:
    """Report where the compiled nodes ran."""
    _ = case.first_run
    placement = case.execution.placement()
    return {
        "share": placement.share,
        "devices": dict(placement.devices),
        "method": placement.method,
    }


def standard(case: CaseUnderTest) -> dict[str, Any]:
    """Run and time every standard input once; accuracy judges these outputs."""
    faults = case.faults(list(case.standard.predictions.values()))
    return {"seconds": dict(case.standard.seconds), "faults": faults}


def memory(case: CaseUnderTest) -> dict[str, Any]:
    """Report the peak bytes of this process and of the device over all standard inputs."""
    peak = case.standard
    return {
        "peak_bytes": peak.peak_bytes,
        "baseline_bytes": case.timings.get("baseline_bytes", 0),
        "model_bytes": case.execution.model_bytes(),
        "device_peak_bytes": peak.device_peak_bytes,
    }


STAGES: Mapping[str, Callable[..., Any]] = {
    "loads": loads,
    "placed": placed,
    "standard": standard,
    "task": accuracy.task,
    "numerics": accuracy.numerics,
    "suspicions": latency.suspicions,
    "host": latency.host,
    "energy": energy.energy,
    "throughput": latency.throughput,
    "batches": latency.batches,
    "stress": robustness.stress,
    "searchable": robustness.searchable,
    "memory": memory,
}
REPEATABLE: Mapping[str, Callable[..., Any]] = {
    "timed": latency.timed,
    "processors": latency.processors,
    "rounds": energy.rounds,
    "found": robustness.found,
}
"""Stages that measure again whenever they are asked for, as their results are not remembered."""
