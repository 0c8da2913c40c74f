"""The checks of the project's suites, each with its current version.

They are listed here, not in the suites, so that a report knows the current versions without
importing pytest and without trusting a results file. A version is raised when old numbers can no
longer be compared with new ones; reports then show the old numbers as stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

VERSIONS: Mapping[str, int] = MappingProxyType(
    {
        "support.loads": 1,
        "support.placed": 1,
        "accuracy.task": 1,
        "accuracy.numerics": 1,
        "latency.task": 1,
        "latency.throughput": 1,
        "latency.host": 1,
        "latency.sustained": 1,
        "energy.task": 1,
        "memory.peak": 1,
        "robustness.stress": 1,
        "robustness.search": 1,
    }
)
"""Check to version. A check that is missing here is an outside author's."""
