"""Example lines of a published results file: one of each kind, shortened."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from compat.judge.results import Line, Run

CHECK = "accuracy.numerics"
"""The check whose lines are shown. Its observations have values and limits."""
_SHORT = ("arguments", "checks", "facts", "hashes", "metrics", "values", "versions")
"""Fields of which only the first :data:`_MOST` entries are shown."""
_MOST = 2


def example_lines(runs: tuple[Run, ...]) -> str:
    """Return a line of each kind as a JSON block, from the first run that has :data:`CHECK`."""
    run = next(one for one in runs if any(o.check == CHECK and o.limits for o in one.observations))
    observation = next(o for o in run.observations if o.check == CHECK and o.limits)
    planned = next(one for one in run.planned if one.case.id == observation.case)
    started = next(s for s in run.started if (s.case, s.check) == (observation.case, CHECK))
    lines: tuple[Line, ...] = (run.header, planned, started, observation)
    return "\n".join(["```json", *(json.dumps(_shortened(line)) for line in lines), "```"])


def _shortened(line: Line) -> dict[str, Any]:
    fields = msgspec.to_builtins(line)
    return {
        name: value[:1] if name == "limits" else _first(value) if name in _SHORT else value
        for name, value in fields.items()
        if value not in ("", None, [], {})
    }


def _first(value: Any) -> Any:
    """Return the first entries of a list or an object, and of the objects inside an object."""
    if isinstance(value, dict):
        return {name: _first(one) for name, one in list(value.items())[:_MOST]}
    return list(value[:_MOST]) if isinstance(value, (list, tuple)) else value
