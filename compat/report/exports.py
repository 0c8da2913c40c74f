"""Export a report as data: JSON, CSV and Parquet tables, and lines of results files."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from compat.report import shown, text
from compat.report.model import Configuration, Record, Report

_ENCODER = msgspec.json.Encoder()


def data_json(report: Report) -> bytes:
    """Return the whole report as JSON, without the raw predictions of the models.

    Predictions stay in the results files, where scores are recomputed from them. Here they would
    make the data many times larger.
    """
    return b"".join(data_chunks(report))


def data_chunks(report: Report) -> Iterator[bytes]:
    """Yield the report as JSON, one configuration a line."""
    about = {
        name: getattr(report, name)
        for name in ("rule_version", "newest", "made", "rows", "hardware", "machines", "problems")
    }
    about["coverage"] = report.coverage
    about["changes"] = _changes(report)
    yield _ENCODER.encode(about)[:-1] + b',"cells":['
    for index, cell in enumerate(report.cells):
        facts = {"row": cell.row, "hardware": cell.hardware, "slug": cell.slug}
        yield (b",\n" if index else b"\n") + _ENCODER.encode(facts)[:-1] + b',"configurations":['
        for number, one in enumerate(cell.configurations):
            yield (b",\n" if number else b"\n") + _ENCODER.encode(_configuration(one))
        yield b"]}"
    yield b"]}\n"


def _changes(report: Report) -> dict[str, Any]:
    """Return the changes of a report without the measurements behind them."""
    newest = [
        {
            "machine": one.machine,
            "started": one.started,
            "counts": one.comparison.counts,
            "changes": one.told,
        }
        for one in report.changes.newest
    ]
    events = [
        {
            **{name: getattr(one.history, name) for name in ("machine", "case", "check", "name")},
            **{name: getattr(one, name) for name in ("time", "kind", "sentence", "versions")},
        }
        for one in report.changes.events
    ]
    return {"newest": newest, "events": events}


def _configuration(one: Configuration) -> dict[str, Any]:
    tree = _fields(one)
    tree["rating"] = {**_fields(one.rating), "label": one.rating.label}
    tree["records"] = [_without_predictions(record) for record in one.records]
    return tree


def _fields(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


def _without_predictions(record: Record) -> dict[str, Any]:
    tree = _fields(record)
    seen = record.observation
    if seen is not None:
        # Every field is listed, even one equal to its default; only the predictions are absent.
        tree["observation"] = {
            name: getattr(seen, name) for name in seen.__struct_fields__ if name != "predictions"
        }
    return tree


def lines(one: Configuration) -> bytes:
    """Return a configuration's observations as lines of a results file, without predictions."""
    found = [
        msgspec.structs.replace(record.observation, predictions=[])
        for record in one.records
        if record.observation is not None and record.measured
    ]
    return b"".join(_ENCODER.encode(seen) + b"\n" for seen in found)


def summary_json(report: Report) -> bytes:
    """Return the ratings and the number of every status, for scripts and badges."""
    summary = {
        "rule_version": report.rule_version,
        "newest": report.newest,
        "statuses": counts(report),
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
                "ran_on": cell.best.kind if cell.best else "nothing",
                "measured": cell.best.measured[1] if cell.best else "",
                "why": list(cell.best.why) if cell.best else [],
                "page": f"cells/{cell.slug}.html",
                "badge": f"badges/{cell.slug}.svg",
            }
            for cell in report.cells
        ],
    }
    return msgspec.json.format(msgspec.json.encode(summary), indent=1)


def counts(report: Report) -> dict[str, int]:
    """Return the number of checks by status, in the order of :data:`text.STATUSES`."""
    seen = Counter(record.status for one in report.configurations for record in one.records)
    return {status: seen[status] for status in text.STATUSES if seen[status]}


def flat(one: Configuration) -> dict[str, str | float | int | None]:
    """Return a configuration as one row of a table.

    Numbers are plain, and the end of a name gives the unit: ``_s`` seconds, ``_db`` decibels.
    """
    f = one.figures
    low, high = f.metric_interval or (None, None)
    loss_low, loss_high = f.degradation_interval or (None, None)
    return {
        "row": one.row,
        "family": one.family,
        "variant": one.variant,
        "task": one.task,
        "hardware": one.hardware,
        "target": one.target,
        "recipe": one.recipe,
        "precision": one.precision,
        "ran_on": one.kind,
        "machine": one.machine,
        "machine_name": one.machine_name,
        "rating": one.rating.label,
        "badges": ", ".join(one.rating.badges),
        "why": "; ".join(one.why),
        "rtf": f.rtf,
        "rtf_upper": f.rtf_upper,
        "rtfx": f.rtfx,
        "median_s": f.median_s,
        "latency_status": f.latency_status,
        "speed_up": f.speed_up,
        "metric": f.metric,
        "metric_set": f.metric_set,
        "metric_case": f.metric_case,
        "metric_value": f.metric_value,
        "metric_low": low,
        "metric_high": high,
        "degradation": f.degradation,
        "degradation_low": loss_low,
        "degradation_high": loss_high,
        "snr_db": f.snr_db,
        "peak_bytes": f.peak_bytes,
        "device_peak_bytes": f.device_peak_bytes,
        "model_bytes": f.model_bytes,
        "cold_s": f.cold_s,
        "threads": f.threads,
        "batch": f.batch,
        "executed": f.executed,
        "measured_first": one.measured[0],
        "measured_last": one.measured[1],
        "page": f"configurations/{one.anchor}.html",
    }


def data_csv(report: Report) -> str:
    """Return one row for every configuration, for a spreadsheet.

    A text that begins like a formula is prefixed with ``'``, because it may come from a stranger's
    results file and a spreadsheet would run it.
    """
    stream = io.StringIO()
    rows = [flat(one) for one in report.configurations]
    if rows:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _as_text(value) for key, value in row.items()} for row in rows)
    return stream.getvalue()


def _as_text(value: str | float | int | None) -> str | float | int | None:
    if not isinstance(value, str):
        return value
    cleaned = text.one_line(value)
    return f"'{cleaned}" if cleaned.startswith(("=", "+", "-", "@")) else cleaned


def write_parquet(report: Report, path: Path) -> bool:
    """Write the rows of :func:`data_csv` as Parquet.

    Returns False, and writes nothing, where pyarrow is absent or there are no rows.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return False
    rows = [flat(one) for one in report.configurations]
    if not rows:
        return False
    words = {key for row in rows for key, value in row.items() if isinstance(value, str)}
    kinds = {"threads": pyarrow.int64(), "batch": pyarrow.int64()}
    kinds |= dict.fromkeys(words, pyarrow.string())
    schema = pyarrow.schema([(key, kinds.get(key, pyarrow.float64())) for key in rows[0]])
    plain = [
        {
            key: text.one_line(value) if isinstance(value, str) else value
            for key, value in row.items()
        }
        for row in rows
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(plain, schema=schema), path)
    return True


def table_markdown(report: Report) -> str:
    """Return the matrix alone as a Markdown table, for a README."""
    from compat.report.markdown import table

    return "\n".join((*table(report, linked=True), "")) if report.rows else ""


def counts_by_age(report: Report) -> tuple[int, int]:
    """Return the number of measured configurations, and how many of them rest on old evidence."""
    measured = [one for one in report.configurations if one.kind != "nothing"]
    return len(measured), sum(shown.is_old(one, report.made) for one in measured)
