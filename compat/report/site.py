"""The static site: self-contained, works from a disk and offline."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from compat.contract.errors import CompatError
from compat.contract.precision import find_precision
from compat.report import badges, text
from compat.report.model import Cell, Configuration, Record, Report

if TYPE_CHECKING:
    from jinja2 import Environment

MARKER = ".compat-site"
"""A file that says that a folder is a site, so that rendering may replace it."""
MOST_ROWS = 1_000
"""Samples of one list, and values of one table, that a page shows; ``data.json`` has them all."""


def write_site(report: Report, folder: Path) -> Path:
    """Render the site into ``folder``, replacing an earlier one as a whole; return its index.

    Everything is rendered into a new folder beside it first: an interruption leaves the old site.

    Raises:
        CompatError: the folder holds something else than a site, or cannot be written.
    """
    folder = folder.absolute()
    foreign = folder.exists() and not (folder / MARKER).exists()
    if foreign and (not folder.is_dir() or any(folder.iterdir())):
        raise CompatError(
            f"{folder} exists and is no site of this suite, so it is not replaced.",
            "Name a new or an empty folder.",
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.new."))
    except OSError as error:
        raise CompatError(f"cannot write beside {folder}: {error.strerror}.") from error
    try:
        _render(report, fresh)
        fresh.chmod(0o755)
        _replace(folder, fresh)
    except OSError as error:
        raise CompatError(
            f"cannot write the site to {folder}: {error.strerror}. An earlier site is kept."
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder / "index.html"


def _replace(folder: Path, fresh: Path) -> None:
    """Put ``fresh`` in the place of ``folder``, putting the old one back if that fails."""
    if not folder.exists():
        os.replace(fresh, folder)
        return
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
    os.replace(folder, old / "site")
    try:
        os.replace(fresh, folder)
    except BaseException:
        os.replace(old / "site", folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _render(report: Report, folder: Path) -> None:
    environment = _environment()
    (folder / "cells").mkdir()
    (folder / "badges").mkdir()
    (folder / "assets").mkdir()
    (folder / MARKER).write_text("This folder is replaced as a whole by compat report.\n")
    for asset in ("style.css", "theme.js", "site.js"):
        source = resources.files("compat.report").joinpath("assets", asset)
        (folder / "assets" / asset).write_bytes(source.read_bytes())
    if report.configurations:
        (folder / "assets" / "plotly.min.js").write_text(_plotly(), encoding="utf-8")

    def page(name: str, template: str, **values: Any) -> None:
        depth = name.count("/")
        rendered = environment.get_template(template).render(
            report=report, root="../" * depth, page=name, **values
        )
        (folder / name).write_text(rendered, encoding="utf-8")

    # One look for a configuration on every page.
    drawn = points(report.configurations)
    page("index.html", "index.html", data=_index_data(report, drawn), counts=_counts(report))
    page("machines.html", "machines.html")
    page("methods.html", "methods.html")
    places = {
        record.anchor: (f"{cell.slug}.html#{record.anchor}", record)
        for cell in report.cells
        for one in cell.configurations
        for record in one.records
    }
    runs = {run.key: run for machine in report.machines for run in machine.runs}
    for cell in report.cells:
        page(
            f"cells/{cell.slug}.html",
            "cell.html",
            cell=cell,
            places=places,
            runs=runs,
            data=_cell_data(cell, drawn),
        )
        (folder / "badges" / f"{cell.slug}.svg").write_text(badges.badge(cell), encoding="utf-8")
    (folder / "data.json").write_bytes(data_json(report))
    (folder / "summary.json").write_bytes(summary_json(report))


@cache
def _plotly() -> str:
    """Return the plotting library, 5 MB of script."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def data_json(report: Report) -> bytes:
    """Return the whole report as JSON, without the raw predictions of the models.

    Predictions stay in the results files: they are what scores are recomputed from, and would
    make every page's data many times larger.
    """
    tree = msgspec.to_builtins(report)
    labels = {one.id: one.rating.label for one in report.configurations}
    for cell in tree["cells"]:
        for one in cell["configurations"]:
            one["rating"]["label"] = labels[one["id"]]
            for record in one["records"]:
                if record["observation"] is not None:
                    record["observation"].pop("predictions", None)
    return msgspec.json.format(msgspec.json.encode(tree), indent=1)


def summary_json(report: Report) -> bytes:
    """Return the ratings and the number of every status, for scripts and badges."""
    summary = {
        "rule_version": report.rule_version,
        "newest": report.newest,
        "statuses": _counts(report),
        "problems": list(report.problems),
        "cells": [
            {
                "row": cell.row,
                "hardware": cell.hardware,
                "rating": cell.label,
                "floor": cell.best.rating.floor if cell.best else None,
                "ceiling": cell.best.rating.ceiling if cell.best else None,
                "badges": list(cell.best.rating.badges) if cell.best else [],
                "configuration": cell.best.id if cell.best else None,
                "why": list(cell.best.why) if cell.best else [],
                "page": f"cells/{cell.slug}.html",
                "badge": f"badges/{cell.slug}.svg",
            }
            for cell in report.cells
        ],
    }
    return msgspec.json.format(msgspec.json.encode(summary), indent=1)


def _counts(report: Report) -> dict[str, int]:
    """Return the number of checks by status, in the order of :data:`text.STATUSES`."""
    seen = Counter(record.status for one in report.configurations for record in one.records)
    return {status: seen[status] for status in text.STATUSES if seen[status]}


# --- what the scripts in the pages need ------------------------------------------------------


PALETTE = (
    ("#0a56b8", "#7db4ff"),
    ("#bf7326", "#cc8033"),
    ("#8c1c54", "#e6398f"),
    ("#33078c", "#8f70cc"),
    ("#402c03", "#ffd98c"),
    ("#268cbf", "#b2e5ff"),
    ("#bf280a", "#e6aca1"),
)
"""Colours of the light and of the dark theme, told apart by eyes without red, green or blue cones.

Seven is what such eyes can tell apart beside 3 to 1 of contrast with the card; more targets than
that share colours, and differ in the form of their symbols.
"""

FORMS = ("", "-open", "-dot", "-open-dot")
"""Forms of one symbol, for configurations that agree in colour and precision."""


def points(configurations: Sequence[Configuration]) -> list[dict[str, Any]]:
    """Return what the charts show of configurations, each row of the matrix being a chart.

    Colour is the target and symbol the precision; recipes of one precision, and machines, differ
    in the symbol's form.
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
    """Return what the charts show of a configuration; ``several`` families share its chart."""
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


def _index_data(report: Report, drawn: list[dict[str, Any]]) -> dict[str, Any]:
    cells = {}
    for cell in report.cells:
        cells[cell.slug] = [
            {
                "machine": text.clean(one.machine),
                "task": text.clean(one.task),
                "precision": text.clean(one.precision),
                "look": text.appearance(one.rating),
                "symbol": text.symbol(one.rating),
                "head": text.clean(text.head_and_note(one.rating)[0]),
                "note": text.clean(text.head_and_note(one.rating)[1]),
                "detail": text.detail(one),
                "badges": text.badges(one.rating),
            }
            for one in cell.configurations
        ]
    return {"cells": cells, "points": drawn, "palette": PALETTE}


def _cell_data(cell: Cell, drawn: list[dict[str, Any]]) -> dict[str, Any]:
    inside = {text.clean(one.id) for one in cell.configurations}
    return {"points": [one for one in drawn if one["id"] in inside], "palette": PALETTE}


def _by_case(records: tuple[Record, ...]) -> list[tuple[str, list[Record]]]:
    cases: dict[str, list[Record]] = {}
    for record in records:
        cases.setdefault(record.case.id, []).append(record)
    return list(cases.items())


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        """Clean everything that a template shows, unless it is markup of our own."""
        return (
            value if isinstance(value, Markup) or not isinstance(value, str) else text.clean(value)
        )

    def script_json(value: Any) -> Markup:
        """Return JSON that no content can turn into the end of its script element."""
        encoded = msgspec.json.encode(value).decode()
        for character in "<>&\u2028\u2029":
            encoded = encoded.replace(character, f"\\u{ord(character):04x}")
        return Markup(encoded)  # noqa: S704 (every character with a meaning in HTML is escaped)

    environment = Environment(
        loader=PackageLoader("compat.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    environment.filters.update(
        script_json=script_json,
        slug=text.slug,
        one_line=text.one_line,
        quantity=lambda value, key, metric="", declared=text.NOTHING: text.quantity(
            key, value, metric, declared
        ),
    )
    environment.globals.update(
        text=text,
        look=text.appearance,
        head_and_note=text.head_and_note,
        symbol=text.symbol,
        by_case=_by_case,
        ratings=text.RATINGS,
        statuses=text.STATUSES,
        state_symbols=text.STATE_SYMBOLS,
        most_rows=MOST_ROWS,
    )
    return environment
