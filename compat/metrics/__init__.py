"""Scores: pure functions from outputs, references and clock readings to plain numbers.

Every score is a built-in number that JSON can carry, so neither NaN nor infinite. The modules
import only NumPy; jiwer, whisper-normalizer and SciPy are imported by the functions that use them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

SCORER_VERSION = 2
"""Raised whenever a definition changes, so that scores of two definitions are never compared."""

Unit = Literal["share", "points", "dB", "seconds", "cosine", "ratio", "count", "number"]
"""Unit of a metric. A share lies between 0 and 1 and is shown in per cent; points are the
difference of two shares; a ratio is shown as a factor (1.5 ×)."""


@dataclass(frozen=True)
class Metric:
    """The declaration of one number that a task reports, with its unit and its direction."""

    name: str
    unit: Unit
    better: Literal["lower", "higher", ""] = ""
    """The better direction; empty for a number that judges nothing, such as a count."""
    primary: bool = False
    """Whether it is the task's own metric, which a cell shows; each task has one."""
    compute: Callable[[Any, Any], float] | str | None = None
    """Function that takes the truths and the answers of a test set, in the form that the task gives
    them, or its name ``package.module:function``. None if the task computes the number itself.
    """

    @property
    def facts(self) -> dict[str, Any]:
        """The declaration as JSON, as it stands beside the values in a results file."""
        return {"unit": self.unit, "better": self.better, "primary": self.primary}


DEGRADATION = Metric("degradation", "points", "lower")
"""Difference by which the primary metric is worse than the reference's on the same inputs."""
NO_WORSE_SHARE = Metric("no_worse_share", "share", "higher")
"""Share of the inputs on which an answer is no worse than the reference's."""

POOLED = "pooled"
"""Name, among the test sets of a task's values, of all sets together."""
