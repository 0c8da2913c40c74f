"""The data of the charts of configurations: points, colours and symbols."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from compat.contract.precision import find_precision
from compat.report import text
from compat.report.model import Configuration

PALETTE = (
    ("#0a56b8", "#7db4ff"),
    ("#bf7326", "#cc8033"),
    ("#8c1c54", "#e6398f"),
    ("#33078c", "#8f70cc"),
    ("#402c03", "#ffd98c"),
    ("#268cbf", "#b2e5ff"),
    ("#bf280a", "#e6aca1"),
)
"""Pairs of colours, for the light and the dark theme, that colour-blind readers can tell apart.

No more than seven keep a contrast of 3 to 1 with the card as well. More targets than that share
colours, and differ in the form of their symbols.
"""

FORMS = ("", "-open", "-dot", "-open-dot")
"""Variants of one symbol (Plotly suffixes), for configurations of one colour and precision."""


def points(configurations: Sequence[Configuration]) -> list[dict[str, Any]]:
    """Return the points of the charts, one for each configuration; each row is a chart.

    The colour shows the target and the symbol the precision. Points that agree in both, as recipes
    of one precision or machines, differ in the symbol's form.
    """
    found = []
    for row in dict.fromkeys(one.row for one in configurations):
        inside = [one for one in configurations if one.row == row]
        targets = sorted({one.target for one in inside})
        several = len({one.family for one in inside}) > 1
        looks: dict[str, tuple[int, str]] = {}
        taken = Counter[tuple[int, str]]()
        for one in sorted(inside, key=lambda one: one.id):
            base = (
                targets.index(one.target) % len(PALETTE),
                precision.symbol if (precision := find_precision(one.precision)) else "cross",
            )
            looks[one.id] = (base[0], base[1] + FORMS[taken[base] % len(FORMS)])
            taken[base] += 1
        found += [_point(one, *looks[one.id], several) for one in inside]
    return found


def _point(one: Configuration, colour: int, symbol: str, several: bool) -> dict[str, Any]:
    """Return the point of one configuration; ``several`` is true if families share its chart."""
    f = one.figures
    lines = [one.variant.partition("@")[0]] if several else []
    lines = [text.one_line(part) for part in (*lines, one.target, one.recipe, one.machine_short)]
    upper = f"upper end {text.quantity('rtf', f.rtf_upper)}"
    if f.interval_coverage is not None:
        upper += f" of an interval with {text.percent(f.interval_coverage)} coverage"
    return {
        "id": text.clean(one.id),
        "lines": lines,
        "name": f"{' '.join(lines[:-1])} ({lines[-1]})",
        "full": text.one_line(one.name),
        "colour": colour,
        "symbol": symbol,
        "row": text.one_line(one.row),
        "task": text.clean(one.task),
        "machine": text.clean(one.machine),
        "machine_short": text.one_line(one.machine_short),
        "hardware": text.one_line(one.hardware),
        "precision": text.clean(one.precision),
        "rating": f"{text.symbol(one.rating)} {text.clean(one.rating.label)}",
        "rtf": f.rtf,
        "rtf_upper": f.rtf_upper,
        "degradation": f.degradation,
        "degradation_interval": f.degradation_interval,
        "metric": text.metric_name(f.metric),
        "metric_set": text.one_line(f.metric_set),
        "metric_case": text.one_line(f.metric_case),
        "percent": text.is_share(f.metric, f.declared),
        "seconds": f.seconds,
        "speed": f"RTF {text.quantity('rtf', f.rtf)} ({upper})",
        "accuracy": text.one_line(
            f"degradation {text.quantity('degradation', f.degradation, f.metric, f.declared)} of "
            f"{f.metric_case}; {text.task_metric(one)}"
        ),
        "how": text.one_line(
            f"{one.evidence} evidence; executed {f.executed or 'not stated'}; "
            f"{f.threads or 'unknown'} threads; batch {f.batch or 'unknown'}"
        ),
    }
