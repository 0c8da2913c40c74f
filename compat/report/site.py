"""Render the static site, which is self-contained: it works from a disk and offline."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from compat.contract.errors import CompatError
from compat.judge.rating import GATES
from compat.metrics.words import METRICS
from compat.processes import no_collection
from compat.report import (
    badges,
    changes,
    charts,
    claims_page,
    evidence,
    exports,
    feed,
    listing,
    shown,
    text,
    words,
)
from compat.report.advice import Advice, advise
from compat.report.candidates import CPU, Limits
from compat.report.compare import KINDS
from compat.report.distinctions import DISTINCTIONS, distinctions
from compat.report.failures import OWNERS, failures, shipped
from compat.report.gates import ASKED
from compat.report.listing import Listing
from compat.report.matrix import face, index_data, matrix, summary
from compat.report.model import Cell, Configuration, Record, Report
from compat.report.records import level, records, state_of
from compat.report.shares import in_shares
from compat.report.tables import flatten

if TYPE_CHECKING:
    from jinja2 import Environment

MARKER = ".compat-site"
"""Name of the file that marks a folder as a site, so that rendering may replace it."""
MOST_LISTED = 1_000
"""Most configurations of one table; ``data.csv`` has all of them."""
MOST_DRAWN = 300
"""Most configurations in the charts of one page; the best are shown."""
MANY = 1_000
"""Number of configurations from which several processes write the pages."""
Place = tuple[str, Record]
"""Address of a record from a configuration's page, and the record."""
FOLDERS = ("cells", "badges", "assets", "models", "machines", "configurations", "lines")


def write_site(report: Report, folder: Path) -> Path:
    """Render the site into ``folder``, replacing an earlier one as a whole; return its index.

    Everything is rendered into a new folder beside it first: an interruption leaves the old site.

    Raises:
        CompatError: the folder is not empty and no site, or cannot be written.
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
        with no_collection():
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
    """Move ``fresh`` to the place of ``folder``; if that fails, put the old folder back."""
    if not folder.exists():
        fresh.replace(folder)
        return
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
    folder.replace(old / "site")
    try:
        fresh.replace(folder)
    except BaseException:
        (old / "site").replace(folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _render(report: Report, folder: Path) -> None:
    for name in FOLDERS:
        (folder / name).mkdir()
    (folder / MARKER).write_text("This folder is replaced as a whole by compat report.\n")
    for asset in ("style.css", "theme.js", "site.js", "charts.js"):
        source = resources.files("compat.report").joinpath("assets", asset)
        (folder / "assets" / asset).write_bytes(source.read_bytes())
    if report.configurations:
        (folder / "assets" / "plotly.min.js").write_text(_plotly(), encoding="utf-8")
    parquet = exports.write_parquet(report, folder / "data.parquet")
    _Pages(report, folder, parquet).write()
    with (folder / "data.json").open("wb") as file:
        file.writelines(exports.data_chunks(report))
    (folder / "summary.json").write_bytes(exports.summary_json(report))
    (folder / "data.csv").write_text(exports.data_csv(report), encoding="utf-8")
    (folder / "table.md").write_text(exports.table_markdown(report), encoding="utf-8")


@cache
def _plotly() -> str:
    """Return the script of the plotting library, 5 MB."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


class _Pages:
    """Renders the pages of one report."""

    def __init__(self, report: Report, folder: Path, parquet: bool) -> None:
        self.report, self.folder = report, folder
        self.environment = _environment()
        self.environment.globals.update(
            report=report, parquet=parquet, matrix=matrix(report), summary=summary(report)
        )
        self.listing = Listing(report.made)
        self.configurations = report.configurations
        self.distinctions = distinctions(self.configurations)
        self.names = {machine.id: machine for machine in report.machines}
        self.runs = {run.key: run for machine in report.machines for run in machine.runs}
        self.failures, self.unable = failures(self.configurations, shipped())

    def page(self, name: str, template: str, **values: Any) -> None:
        root = "../" * name.count("/")
        rendered = self.environment.get_template(template).render(root=root, page=name, **values)
        (self.folder / name).write_text(rendered, encoding="utf-8")

    def table(
        self,
        configurations: Iterable[Configuration],
        columns: str,
        root: str,
        caption: str,
        among: Iterable[Configuration] = (),
    ) -> Any:
        """Return a table of configurations with the best of each kind marked.

        They are the best ``among`` the given configurations, by default among the table's own.
        """
        chosen = list(configurations)
        best = distinctions(list(among) or chosen)
        names = listing.KINDS[columns]
        return self.listing.table(chosen[:MOST_LISTED], names, root, best, caption)

    def write(self) -> None:
        report = self.report
        self.environment.globals.update(table=self.table)
        self.page(
            "index.html",
            "index.html",
            data=index_data(report),
            counts=exports.counts(report),
            ages=exports.counts_by_age(report),
            failing=len(self.failures),
        )
        self.page("embed.html", "embed.html")
        self.page("failures.html", "failures.html", failures=self.failures, unable=self.unable)
        self.page(
            "changes.html",
            "changes.html",
            kinds=KINDS,
            names=self.names,
            places=changes.places(report),
        )
        (self.folder / "feed.xml").write_text(
            feed.atom(report.changes.events, "changes.html"), encoding="utf-8"
        )
        self.page("coverage.html", "coverage.html")
        self.page("methods.html", "methods.html")
        claims_page.write(report, self.page)
        self.page("machines.html", "machines.html")
        drawn = {point["id"]: point for point in charts.points(self.configurations)}
        by_row: dict[str, list[Configuration]] = defaultdict(list)
        by_machine: dict[str, list[Configuration]] = defaultdict(list)
        for one in self.configurations:
            by_row[one.row].append(one)
            by_machine[one.machine].append(one)
        for row in report.rows:
            ran = [one for one in by_row[row] if one.kind != "nothing"]
            self.page(
                f"models/{text.slug(row)}.html",
                "model.html",
                row=row,
                ran=ran,
                fastest=_fastest(ran),
                advised=_advised(report, row, ran),
                data=_drawn(ran, drawn),
            )
        for machine in report.machines:
            self.page(
                f"machines/{text.slug(machine.id)}.html",
                "machine.html",
                machine=machine,
                kinds=_by_kind(by_machine[machine.id]),
            )
        places = {
            record.anchor: (f"{one.anchor}.html#{record.anchor}", record)
            for one in self.configurations
            for record in one.records
        }
        in_shares(
            lambda cell: self._cell(cell, drawn, places),
            sorted(report.cells, key=lambda cell: -len(cell.configurations)),
            alone=len(self.configurations) < MANY,
        )

    def _cell(
        self, cell: Cell, drawn: Mapping[str, dict[str, Any]], places: Mapping[str, Place]
    ) -> None:
        badge = badges.inline(cell)
        ran = [one for one in cell.configurations if one.kind != "nothing"]
        self.page(
            f"cells/{cell.slug}.html",
            "cell.html",
            cell=cell,
            ran=ran,
            groups=_groups(ran),
            absent=_absent(cell.configurations),
            best_of=_best_of(ran),
            data=_drawn(ran, drawn),
            badge=badge,
        )
        svg = badges.badge(cell)
        (self.folder / "badges" / f"{cell.slug}.svg").write_text(svg, encoding="utf-8")
        for one in ran:
            self._configuration(cell, one, places, badge)

    def _configuration(
        self, cell: Cell, one: Configuration, places: Mapping[str, Place], badge: Any
    ) -> None:
        self.page(
            f"configurations/{one.anchor}.html",
            "configuration.html",
            cell=cell,
            one=one,
            places=places,
            own_distinctions=self.distinctions.get(one.id, ()),
            records=records(one, self.runs, "../"),
            badge=badge,
        )
        (self.folder / "lines" / f"{one.anchor}.jsonl").write_bytes(exports.lines(one))


def _groups(
    ran: Iterable[Configuration],
) -> list[tuple[str, list[tuple[str, str, list[Configuration]]]]]:
    """Return ``(machine, [(target, variant, configurations)])``, the best first."""
    machines: dict[str, dict[tuple[str, str], list[Configuration]]] = {}
    for one in ran:
        targets = machines.setdefault(one.machine_name, {})
        targets.setdefault((one.target, one.variant), []).append(one)
    return [
        (machine, [(*key, alike) for key, alike in targets.items()])
        for machine, targets in machines.items()
    ]


def _absent(
    configurations: Iterable[Configuration],
) -> list[tuple[tuple[str, ...], list[Configuration]]]:
    """Return the configurations that were not measured, grouped by their reasons."""
    found: dict[tuple[str, ...], list[Configuration]] = {}
    for one in configurations:
        if one.kind == "nothing":
            found.setdefault(one.why, []).append(one)
    return list(found.items())


def _best_of(ran: Iterable[Configuration]) -> list[tuple[str, Configuration]]:
    """Return each distinction with its configuration, for the first model and machine of a cell."""
    ran = list(ran)
    alike = [one for one in ran if (one.variant, one.machine) == (ran[0].variant, ran[0].machine)]
    chosen = distinctions(alike)
    return [(name, one) for name in DISTINCTIONS for one in alike if name in chosen.get(one.id, ())]


def _fastest(ran: Sequence[Configuration]) -> list[Configuration]:
    """Return the fastest working configuration of each variant on each machine."""
    given = distinctions(ran)
    return [one for one in ran if "fastest" in given.get(one.id, ())]


def _advised(
    report: Report, row: str, ran: Iterable[Configuration]
) -> list[tuple[str, str, Advice]]:
    """Return ``(hardware, machine, advice)`` for the CPU and for each device that ran."""
    columns = {one.hardware for one in ran if one.kind == "accelerator"}
    found = []
    for hardware in (CPU, *(one for one in report.hardware if one in columns - {CPU})):
        advice = advise(report, row, Limits((hardware,)))
        machine = next((m.name for m in report.machines if m.id == advice.machine), "")
        if advice.best is not None:
            found.append((hardware, machine, advice))
    return found


def _by_kind(
    configurations: Iterable[Configuration],
) -> list[tuple[str, list[tuple[str, list[Configuration]]]]]:
    """Return ``(kind of evidence, [(row, configurations, the fastest first)])`` of one machine."""
    kinds: dict[str, dict[str, list[Configuration]]] = {}
    for one in configurations:
        if one.kind != "nothing":
            kinds.setdefault(one.kind, {}).setdefault(one.row, []).append(one)
    return [
        (kind, [(row, sorted(alike, key=_by_speed)) for row, alike in kinds[kind].items()])
        for kind in evidence.KINDS
        if kind in kinds
    ]


def _by_speed(one: Configuration) -> tuple[bool, bool, float, str]:
    timed = one.figures.rtfx if one.figures.latency_status == "passed" else None
    return (one.rating.ceiling == "None", timed is None, -(timed or 0.0), one.id)


def _drawn(ran: Iterable[Configuration], drawn: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    points = [drawn[text.clean(one.id)] for one in list(ran)[:MOST_DRAWN]]
    return {"points": points, "palette": charts.PALETTE}


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        """Clean every text that a template shows, unless it is this project's own markup."""
        return (
            value if isinstance(value, Markup) or not isinstance(value, str) else text.clean(value)
        )

    def script_json(value: Any) -> Markup:
        """Return JSON for a script element; no content of it can close the element."""
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
        shell=shlex.quote,
        quantity=lambda value, key, metric="", declared=text.NOTHING: text.quantity(
            key, value, metric, declared
        ),
    )
    environment.globals.update(
        text=text,
        shown=shown,
        face=face,
        kinds_of_evidence=evidence.KINDS,
        owners=OWNERS,
        distinction_symbols=DISTINCTIONS,
        flatten=flatten,
        rating=_markup(listing.rating),
        status=_markup(state_of),
        state=_markup(level),
        most_listed=MOST_LISTED,
        look=text.appearance,
        head_and_note=text.head_and_note,
        symbol=text.symbol,
        ratings=text.RATINGS,
        statuses=text.STATUSES,
        gates_asked=ASKED,
        gate_names=GATES,
        words_of_metrics=METRICS,
        words_of_marks=words.MARKS,
    )
    return environment


def _markup(function: Callable[..., str]) -> Callable[..., Any]:
    """Wrap a function that returns HTML, so that templates do not escape the HTML again."""
    from markupsafe import Markup

    return lambda value: Markup(function(value))  # noqa: S704 (it escapes all of its text)
