"""The page of claims: a row for each claim, with its evidence and the command that repeats it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from compat.judge.claims import Found, Outcome, Part
from compat.report.model import Report

SYMBOLS = {"confirmed": "✓", "refuted": "✕", "inconclusive": "≈", "needs": "○"}
"""Symbol of each verdict: a colour never carries meaning alone."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the page: a claim, and the part of it that decides its verdict."""

    outcome: Outcome
    part: Part
    symbol: str
    measured: str
    where: str
    """Machines and dates of the findings."""
    links: Mapping[str, str]
    """Maps the anchor of each piece of evidence to its address in the site."""
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rated:
    """A cell of the published matrix: the guide's rating, and this suite's."""

    id: str
    symbol: str
    claimed: str
    ours: str


@dataclass(frozen=True, slots=True)
class PublishedMatrix:
    """The matrix that the guide prints beside this suite's ratings, in the guide's order."""

    hardware: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Rated]]
    """Cells by row, then by hardware."""


def published_matrix(outcomes: Iterable[Outcome]) -> PublishedMatrix:
    """Arrange the claims about the rating of one cell as a matrix."""
    rows: dict[str, dict[str, Rated]] = {}
    for one in outcomes:
        part = one.parts[0]
        if part.cell is None:
            continue
        row, hardware = part.cell
        ours = "; ".join(dict.fromkeys(found.measured for found in part.found))
        rows.setdefault(row, {})[hardware] = Rated(
            one.id, SYMBOLS[one.verdict], part.claimed, ours or "Not measured"
        )
    return PublishedMatrix(tuple(dict.fromkeys(h for cells in rows.values() for h in cells)), rows)


def deciding(outcome: Outcome) -> Part:
    """Return the first part of a claim that has the claim's verdict."""
    return next((p for p in outcome.parts if p.verdict == outcome.verdict), outcome.parts[0])


def write(report: Report, page: Callable[..., None]) -> None:
    """Write ``claims.html`` into a site.

    Args:
        report: holds the claims, and the records that their evidence links to.
        page: renders a template, given the page's name, the template's, and its values.
    """
    page("claims.html", "claims.html", **values(report))


def values(report: Report) -> dict[str, Any]:
    """Return the values of the template ``claims.html``, which also gets the report."""
    shown = {
        record.anchor: f"configurations/{one.anchor}.html#{record.anchor}"
        for one in report.configurations
        for record in one.records
    }
    short = {machine.id: machine.short for machine in report.machines}
    counts = Counter(str(one.verdict) for one in report.claims)
    return {
        "rows": [_row(one, shown, short) for one in report.claims],
        "verdicts": {verdict: counts[verdict] for verdict in SYMBOLS},
        "symbols": SYMBOLS,
        "published": published_matrix(report.claims),
    }


def _row(outcome: Outcome, shown: Mapping[str, str], short: Mapping[str, str]) -> Row:
    part = deciding(outcome)
    found = [one for p in outcome.parts for one in p.found]
    links = {anchor: shown[anchor] for one in found for anchor in one.anchors if anchor in shown}
    commands = dict.fromkeys(p.command.replace("ID", outcome.id) for p in outcome.parts)
    return Row(
        outcome,
        part,
        SYMBOLS[outcome.verdict],
        "; ".join(one.measured for one in part.found),
        "; ".join(dict.fromkeys(filter(None, (_where(one, short) for one in part.found)))),
        links,
        tuple(commands),
    )


def _where(found: Found, short: Mapping[str, str]) -> str:
    machine = short.get(found.machine, found.machine)
    return " ".join(filter(None, (machine, found.date)))
