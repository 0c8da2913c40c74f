"""Claims in words: numbers with units, what a check claims, and the command that repeats it."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from compat.judge.claims import Check, Claimed
from compat.report import text

_UNITS: dict[str, Callable[[float], str]] = {
    "ratio": text.ratio,
    "share": text.percent,
    "points": text.points,
    "seconds": text.duration,
    "bytes": text.data_size,
    "number": lambda value: f"{value:.3g}",
    "count": lambda value: f"{value:g}",
    "yes": lambda value: "yes" if value else "no",
}


def shown(value: float, ends: tuple[float, float] | None, unit: str) -> str:
    """Return a number with its unit, and with its interval unless both ends equal the number."""
    form = _UNITS.get(unit, _UNITS["number"])
    if ends is None or ends == (value, value):
        return form(value)
    return f"{form(value)} ({form(ends[0])} to {form(ends[1])})"


def claimed_words(check: Check) -> str:
    """Return what a check claims, in words: a rating, or limits with their unit."""
    claimed: Claimed = check.claimed
    if claimed.word:
        return claimed.word
    unit = check.arguments.get("unit")
    if unit is None:
        unit = {"stage-share": "share", "number": "number", "best-batch": "count"}.get(
            check.kind, "ratio"
        )
    if (
        unit == "yes"
        or check.kind in ("passed", "best-rated")
        or check.arguments.get("compute") == "same"
    ):
        return "yes" if claimed.at_least else "no"
    form = _UNITS.get(unit, _UNITS["number"])
    if claimed.at_least is not None and claimed.at_most is not None:
        if claimed.at_least == claimed.at_most:
            return form(claimed.at_least)
        return f"{form(claimed.at_least)} to {form(claimed.at_most)}"
    if claimed.at_least is not None:
        return f"≥ {form(claimed.at_least)}"
    return f"≤ {form(claimed.at_most or 0.0)}"


def command(check: Check) -> str:
    """Return the command that repeats the measurement of a check."""
    if check.kind == "experiment":
        return f"compat experiment {check['name']} --save"
    if check.kind == "arithmetic":
        return "compat claims ID"
    if check.kind in ("rating", "best-rated"):
        return f"pytest -m {shlex.quote(check['hardware'])}"
    patterns = [
        check.arguments[key] for key in ("slow", "fast", "case", "over") if key in check.arguments
    ]
    patterns += check.arguments.get("cases", [])
    chosen: dict[str, dict[str, None]] = {}
    for pattern in patterns:
        model, target, recipe = pattern.split("/")
        variant, _, weights = model.partition("@")
        for name, value in zip(
            ("models", "weights", "targets", "recipes"),
            (variant, weights, target, recipe),
            strict=True,
        ):
            chosen.setdefault(name, {})[value] = None
    words = ["pytest"]
    for name, values in chosen.items():
        if "*" not in values:
            words.append(f"--{name} {shlex.quote(','.join(values))}")
    if check.kind == "best-batch":
        words.append("--full -k throughput")
    return " ".join(words)
