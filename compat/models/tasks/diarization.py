"""Diarization: who speaks when, scored by the diarization error rate."""

from __future__ import annotations

from compat.contract.item import Item
from compat.inputs.corpus import TestSet

STRESS_SHARE = 0.1
"""Share of a stress input's time in which an answer may differ from the reference's."""


STRESS_SECONDS = 3.0
"""As long as shorter stress inputs count: in a tenth of a second a frame is a sixth."""


def _some(test_set: TestSet, rate: int, seconds: float) -> list[Item]:
    """Read as many recordings, spread over the set, as fit into a time; one at least."""
    lengths = [float(line["duration"]) for line in test_set.lines]
    count = len(lengths)
    while count > 1 and sum(lengths[index] for index in test_set.spread(count)) > seconds:
        count -= 1
    return test_set.items(rate, count)
