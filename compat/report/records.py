"""Write the observations of a configuration as HTML: the values of each check, and its limits.

Pages hold tens of thousands of numbers, and a template engine takes ten times as long to write
them. Every text passes :func:`esc`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from markupsafe import Markup, escape

from compat.judge.results import MetricFacts, Observation
from compat.report import tables, text
from compat.report.model import Configuration, Record, RunFacts

MOST_ROWS = 1_000
"""Most samples of a list, and rows of a table, that a page shows; ``data.json`` has all of them."""

FOLDED = ("skipped", "not-run", "cut-off")
"""Statuses of checks that did not run; those of one case and reason share one line."""


def esc(value: object) -> str:
    """Escape text for HTML, and remove its control characters."""
    return _escaped(value if isinstance(value, str) else str(value))


@lru_cache(maxsize=1 << 16)
def _escaped(value: str) -> str:
    # Cached, because names, units and reasons repeat on every page.
    return str(escape(text.clean(value)))


def records(one: Configuration, runs: Mapping[str, RunFacts], root: str) -> Markup:
    """Return all records of a configuration as HTML, case by case.

    ``runs`` are all runs by key, and ``root`` leads from the page to the site's root, as ``../``.
    """
    cases: dict[str, list[Record]] = {}
    for record in one.records:
        cases.setdefault(record.case.id, []).append(record)
    parts = [_case(name, found, runs, root) for name, found in cases.items()]
    return Markup("".join(parts))  # noqa: S704 (all text went through esc)


def _case(name: str, found: Sequence[Record], runs: Mapping[str, RunFacts], root: str) -> str:
    about = found[0].case
    anchor = f"case-{text.slug(name)}"
    tags = '<span class="tag">headline</span>' if about.headline else ""
    tags += ' <span class="tag">stand-in</span>' if about.stand_in else ""
    size = f" <small>{esc(about.parameters)} M parameters</small>" if about.parameters else ""
    shown = [_record(record, runs, root) for record in found if record.status not in FOLDED]
    folded: dict[tuple[str, str, str], list[Record]] = {}
    for record in found:
        if record.status in FOLDED:
            remedy = record.observation.remedy if record.observation is not None else ""
            folded.setdefault((record.status, record.reason, remedy), []).append(record)
    shown += [_folded(*key, alike) for key, alike in folded.items()]
    return (
        f'<section class="case" id="{anchor}"><h3><a class="anchor" href="#{anchor}">{esc(name)}'
        f'</a> {tags}{size}</h3><p class="again"><span class="muted">Measure it:</span> '
        f"<code>{esc(text.reproduction(about))}</code></p>{''.join(shown)}</section>"
    )


def _folded(status: str, reason: str, remedy: str, alike: Sequence[Record]) -> str:
    """Return one line for all checks of a case that did not run for one reason."""
    checks = "".join(f'<li id="{r.anchor}">{esc(r.check)}</li>' for r in alike)
    count = f"{len(alike)} check{'s' if len(alike) > 1 else ''}"
    said = f"<p><strong>Remedy:</strong> {esc(remedy)}</p>" if remedy else ""
    return (
        f'<details class="record folded"><summary>{state_of(status)} <strong>{count}</strong> '
        f'<span class="reason">{esc(text.one_line(reason, 220))}</span></summary>'
        f'<div class="body">{said}<ul>{checks}</ul></div></details>'
    )


def state_of(status: str) -> str:
    """Return a status as HTML: symbol and word."""
    mark = text.STATUSES[status][0] if status in text.STATUSES else "?"
    return (
        f'<span class="status status-{text.slug(status)}"><span aria-hidden="true">{mark}</span> '
        f"{esc(status)}</span>"
    )


def level(name: str) -> str:
    """Return the state of a gate or of a limit as HTML."""
    return (
        f'<span class="state state-{name}"><span aria-hidden="true">'
        f"{text.STATE_SYMBOLS[name]}</span> {name.replace('-', ' ')}</span>"
    )


def _record(record: Record, runs: Mapping[str, RunFacts], root: str) -> str:
    seen = record.observation
    head = f"{state_of(record.status)} <strong>{esc(record.check)}</strong>"
    if seen is not None and seen.level is not None:
        head += f" {level(seen.level)}"
    head += "".join(f' <span class="tag">{esc(word)}</span>' for word in record.own)
    if record.reason:
        head += f' <span class="reason">{esc(text.one_line(record.reason, 220))}</span>'
    body = f"<p>{esc(record.reason)}</p>" if len(record.reason) > 220 else ""
    body += _seen(record, seen, runs, root) if seen is not None else "<p>Nothing was observed.</p>"
    return (
        f'<details class="record" id="{record.anchor}"><summary>{head}</summary>'
        f'<div class="body">{body}</div></details>'
    )


def _seen(record: Record, seen: Observation, runs: Mapping[str, RunFacts], root: str) -> str:
    said = ""
    if seen.remedy:
        said += f"<p><strong>Remedy:</strong> {esc(seen.remedy)}</p>"
    if seen.expected:
        said += f"<p><strong>Expectation:</strong> {esc(seen.expected)}</p>"
    facts = [f"version {seen.check_version}", f"{esc(record.case.evidence)} evidence"]
    if seen.executed:
        facts.append(f"executed {esc(seen.executed)}")
    if seen.threads:
        facts.append(f"{seen.threads} threads")
    facts.append(f"batch {seen.batch}")
    if seen.time:
        facts.append(esc(seen.time))
    if seen.seconds:
        facts.append(f"took {esc(text.quantity('seconds', seen.seconds))}")
    if record.run in runs:
        run = runs[record.run]
        facts.append(
            f'run <a href="{root}machines/{text.slug(run.machine)}.html#{text.slug(run.key)}">'
            f"{esc(run.run)}</a> ({esc(run.profile)})"
        )
    said += f'<p class="muted">{" · ".join(facts)}</p>'
    said += _limits(record.check, seen) if seen.limits else ""
    said += _values(record.check, seen.values, seen.metrics) if seen.values else ""
    said += "".join(_samples(name, samples) for name, samples in seen.samples.items())
    return said


def scroll(label: str, inside: str) -> str:
    """Return a table in a frame that scrolls by keyboard too."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(label)}">{inside}</div>'
    )


def heads(names: Iterable[str]) -> str:
    """Return the cells of a table's head as HTML."""
    return "".join(f'<th scope="col">{esc(name)}</th>' for name in names)


def _limits(check: str, seen: Observation) -> str:
    names = ("Threshold on", "Measured", "Strict", "Relaxed", "Level", "Because")
    rows = []
    for limit in seen.limits:
        found, strict, relaxed = text.limit(limit, seen.values, seen.metrics)
        numbers = "".join(f'<td class="num">{esc(part)}</td>' for part in (found, strict, relaxed))
        rows.append(
            f'<tr><th scope="row">{esc(limit.metric)}</th>{numbers}<td>{level(limit.level)}</td>'
            f"<td>{esc(limit.reason) or text.DASH}</td></tr>"
        )
    table = (
        f'<table class="limits"><thead><tr>{heads(names)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    return scroll(f"Thresholds of {check}", table)


def _values(check: str, values: Mapping[str, object], declared: Mapping[str, MetricFacts]) -> str:
    caption = f"Values of {check}"
    parts = []
    for columns, rows in tables.tables(values, declared):
        lines = [
            f'<tr><th scope="row">{esc(name)}</th>'
            f"{''.join(f'<td>{esc(cell)}</td>' for cell in cells)}</tr>"
            for name, cells in rows[:MOST_ROWS]
        ]
        if len(rows) > MOST_ROWS:
            more = f"and {len(rows) - MOST_ROWS} more, in data.json"
            lines.append(f'<tr><th scope="row">…</th><td colspan="{len(columns)}">{more}</td></tr>')
        table = (
            f'<table class="values"><caption class="hidden">{esc(caption)}</caption><thead><tr>'
            f"{heads(['metric', *columns])}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
        )
        parts.append(scroll(caption, table))
    return "".join(parts)


def _samples(name: str, samples: Sequence[float]) -> str:
    unit = "seconds" if "seconds" in name else name
    items = "".join(f"<li>{esc(text.quantity(unit, s))}</li>" for s in samples[:MOST_ROWS])
    more = (
        f'<p class="muted">and {len(samples) - MOST_ROWS} more, in data.json</p>'
        if len(samples) > MOST_ROWS
        else ""
    )
    return (
        f'<details class="samples"><summary>{len(samples)} raw samples: {esc(name)}</summary>'
        f'<ol class="raw">{items}</ol>{more}</details>'
    )
