"""The checks of the project's suites, each with its current version.

Here and not in the suites, so that a report knows what is current without importing pytest, and
never has to believe a results file about it. A version is raised when numbers of before can no
longer be compared with new ones: what an older version measured is then shown as stale.
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
