"""Tables of configurations as HTML, sortable by column, the best of each kind marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from compat.report import evidence, shown, text
from compat.report.distinctions import DISTINCTIONS
from compat.report.model import Configuration
from compat.report.records import esc, heads, scroll

COLUMNS = {
    "model": "Model",
    "target": "Target",
    "recipe": "Precision",
    "machine": "Machine",
    "best_in": "Best in",
    "rating": "Rating",
    "ran": "Ran",
    "speed": "Speed (RTFx)",
    "latency": "Latency, median",
    "rtf": "RTF, upper bound",
    "speed_up": "Speed-up over the CPU",
    "metric": "Task metric (95 % interval)",
    "degradation": "Its degradation",
    "snr": "SNR, lowest",
    "memory": "Peak memory",
    "cold": "Cold start",
    "size": "Model size",
    "limits": "What limits it",
    "measured": "Measured",
}
"""Every column of a table of configurations, with its heading."""

SIDE_BY_SIDE = (
    *("recipe", "best_in", "rating", "speed", "metric", "degradation", "memory", "cold", "size"),
    *("limits", "measured"),
)
"""Columns of a table that compares the precisions of one target."""

EVERY = (
    *("model", "target", "recipe", "best_in", "rating", "speed", "metric", "degradation", "memory"),
    *("cold", "size", "ran", "machine", "latency", "rtf", "speed_up", "snr", "measured"),
)
"""Columns of a table of all configurations of a model that ran."""

ON_ONE_MACHINE = (
    *("target", "recipe", "model", "best_in", "rating", "speed", "latency", "metric"),
    *("degradation", "memory", "cold", "size", "measured"),
)
"""Columns of a table of all configurations of a model that ran on one machine."""

KINDS = {"side": SIDE_BY_SIDE, "every": EVERY, "one": ON_ONE_MACHINE}
"""Maps the name of a kind of table, as templates use it, to its columns."""


class Listing:
    """Makes tables of configurations.

    The cells of a configuration are kept, because many pages show the same ones.
    """

    def __init__(self, made: str) -> None:
        self.made = made
        self._cells: dict[str, dict[str, str]] = {}

    def table(
        self,
        configurations: Iterable[Configuration],
        columns: Sequence[str],
        root: str,
        distinctions: Mapping[str, tuple[str, ...]],
        caption: str,
    ) -> Markup:
        """Return one sortable table of configurations; ``root`` leads to the site's root."""
        rows = [
            self._row(one, columns, root, distinctions.get(one.id, ())) for one in configurations
        ]
        names = heads(COLUMNS[column] for column in columns)
        inside = (
            f'<table class="list sortable"><caption class="hidden">{esc(caption)}</caption>'
            f"<thead><tr>{names}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        )
        return Markup(scroll(caption, inside))  # noqa: S704 (all text went through esc)

    def _row(
        self, one: Configuration, columns: Sequence[str], root: str, distinctions: Sequence[str]
    ) -> str:
        cells = self._said(one)
        parts = []
        for index, column in enumerate(columns):
            inside = _distinctions(distinctions) if column == "best_in" else cells[column]
            if column == "machine":
                link = f"{root}machines/{text.slug(one.machine)}.html"
                inside = f'<td><a href="{link}">{esc(one.machine_name)}</a></td>'
            if index == 0:
                link = f"{root}configurations/{one.anchor}.html"
                label = {"recipe": one.recipe, "model": one.variant}.get(column, one.target)
                inside = f'<th scope="row"><a href="{link}">{esc(label)}</a></th>'
            parts.append(inside)
        facts = {
            "machine": one.machine,
            "task": one.task,
            "precision": one.precision,
            "hardware": one.hardware,
        }
        data = "".join(f' data-{key}="{esc(value)}"' for key, value in facts.items())
        best = ' class="best"' if distinctions else ""
        return f"<tr{data}{best}>{''.join(parts)}</tr>"

    def _said(self, one: Configuration) -> dict[str, str]:
        if one.id not in self._cells:
            self._cells[one.id] = _cells(one, self.made)
        return self._cells[one.id]


def _distinctions(distinctions: Sequence[str]) -> str:
    tags = " ".join(
        '<span class="distinction">'
        f'<span aria-hidden="true">{DISTINCTIONS[name]}</span> {name}</span>'
        for name in distinctions
    )
    return f"<td>{tags}</td>"


def rating(one: Configuration) -> str:
    """Return a rating as HTML: symbol, words and badges."""
    tags = "".join(f' <span class="tag">{esc(b)}</span>' for b in text.badges(one.rating))
    return (
        f'<span class="rating look-{text.appearance(one.rating)}"><span aria-hidden="true">'
        f"{text.symbol(one.rating)}</span> {esc(one.rating.label)}</span>{tags}"
    )


def _number(value: float | None, said: str, look: str = "num") -> str:
    """Return a table cell that sorts by ``value`` and shows ``said``; a dash for None."""
    if value is None:
        return f'<td class="{look}" data-v="">{text.DASH}</td>'
    return f'<td class="{look}" data-v="{value!r}">{esc(said)}</td>'


def _cells(one: Configuration, made: str) -> dict[str, str]:
    f = one.figures
    timed = one.evidence == "device"
    old = ' <span class="tag old">old</span>' if shown.is_old(one, made) else ""
    heading, _, _ = evidence.KINDS[one.kind]
    metric = shown.metric(one)
    order = list(text.RATINGS)
    place = order.index(text.appearance(one.rating))
    rtfx = f.rtfx if timed else None
    speed = shown.speed(one).removeprefix("RTFx ")
    return {
        "model": f"<td>{esc(one.variant)}</td>",
        "target": f"<td>{esc(one.target)}</td>",
        "recipe": f"<td>{esc(one.recipe)}</td>",
        "machine": "",
        "rating": f'<td data-v="{place}">{rating(one)}</td>',
        "ran": f"<td>{esc(heading)}</td>",
        "speed": _number(rtfx, speed),
        "latency": _number(f.median_s if timed else None, text.latency(f)),
        "rtf": _number(f.rtf_upper if timed else None, text.quantity("rtf", f.rtf_upper)),
        "speed_up": _number(f.speed_up, text.quantity("speed_up", f.speed_up)),
        "metric": _number(f.metric_value if metric else None, metric, "num wide"),
        "degradation": _number(
            f.degradation, text.quantity("degradation", f.degradation, f.metric, f.declared)
        ),
        "snr": _number(f.snr_db, text.quantity("snr_db", f.snr_db)),
        "memory": _number(f.peak_bytes, text.quantity("bytes", f.peak_bytes)),
        "cold": _number(f.cold_s, text.quantity("cold_s", f.cold_s)),
        "size": _number(f.model_bytes, text.quantity("bytes", f.model_bytes)),
        "limits": f'<td class="limit">{esc(shown.limits(one)) or text.DASH}</td>',
        "measured": f'<td data-v="{esc(one.measured[1])}"><time datetime="{esc(one.measured[0])}">'
        f"{esc(shown.measured(one)) or text.DASH}</time>{old}</td>",
    }
