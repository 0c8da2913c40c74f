"""The rows of every relation of :mod:`compat.report.relations`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from compat.judge.results import Collection, Run
from compat.report import text
from compat.report.audit import audit, instant
from compat.report.choosing import choose, own_inputs, run_key
from compat.report.findings import NUMERICS
from compat.report.measures import Measure, measures
from compat.report.model import Report
from compat.report.relations import RELATIONS

Row = dict[str, Any]
_LARGEST = 2**31 - 1


def rows(collection: Collection, report: Report) -> dict[str, Iterator[Row]]:
    """Return the rows of every relation.

    ``report`` is built from ``collection``. Lines that fail the audit are left out.
    """
    runs = audit(collection.runs).runs
    return {
        "observations": _observations(runs),
        "cases": _cases(runs),
        "cells": _cells(report),
        "runs": (_run(run) for run in runs),
        "machines": _machines(report),
    }


def _observations(runs: tuple[Run, ...]) -> Iterator[Row]:
    counting = {id(one.observation) for one in choose(runs).values()}
    for run in runs:
        header = run.header
        for one in run.observations:
            model, _, rest = one.case.partition("/")
            target, _, recipe = rest.partition("/")
            variant, _, weights = model.partition("@")
            found = {number.key: number for number in measures(one)}
            scores = [n for n in found.values() if n.check != NUMERICS and not n.relative]
            metric = next((n for n in reversed(scores) if n.key != "degradation"), None)
            yield {
                "run": run_key(run),
                "machine": header.machine,
                "case_id": one.case,
                "variant": variant,
                "weights": weights,
                "target": target,
                "recipe": recipe,
                "check_name": one.check,
                "check_version": min(one.check_version, _LARGEST),
                "status": one.status,
                "level": one.level,
                "reason": one.reason,
                "remedy": one.remedy,
                "expected": one.expected,
                "executed": one.executed,
                "measured_at": _moment(one.time or header.started),
                "check_s": one.seconds,
                "threads": one.threads,
                "batch": one.batch,
                "profile": header.profile,
                "counts": id(one) in counting,
                "rtf_upper": text.number(one.values.get("rtf_upper")),
                "median_s": text.number(one.values.get("median_s")),
                **_numbers(found),
                "metric": metric and metric.key,
                "metric_value": metric and metric.value,
                "numbers": one.values,
                "samples": one.samples,
                "limits": msgspec.to_builtins(one.limits),
            }


_NUMBERS = (
    "rtf",
    "cold_start_s",
    "peak_bytes",
    "device_peak_bytes",
    "model_bytes",
    "degradation",
    "snr_db",
)


def _numbers(found: Mapping[str, Measure]) -> Row:
    return {name: found[name].value if name in found else None for name in _NUMBERS}


def _cases(runs: tuple[Run, ...]) -> Iterator[Row]:
    seen: set[tuple[str, str]] = set()
    for run in reversed(runs):  # The newest plan describes a case.
        for plan in run.planned:
            case = plan.case
            key = run.header.machine, case.id
            if key in seen:
                continue
            seen.add(key)
            about = msgspec.to_builtins(case)
            about.update(machine=key[0], case_id=case.id, matrix_row=case.row)
            yield {name: about[name] for name in RELATIONS["cases"].columns}


def _cells(report: Report) -> Iterator[Row]:
    for cell in report.cells:
        for one in cell.configurations:
            figures = one.figures
            yield {
                "matrix_row": one.row,
                **{
                    name: getattr(one, name)
                    for name in (
                        *("hardware", "target", "recipe", "family", "variant", "machine"),
                        *("evidence", "on_host_cpu"),
                    )
                },
                "best": one is cell.best,
                "rating": one.rating.label,
                "kind": one.rating.kind,
                "why": list(one.why),
                "metric_of": figures.metric_case,
                **{
                    name: getattr(figures, name)
                    for name in (
                        *("rtf", "rtf_upper", "median_s", "peak_bytes", "model_bytes", "metric"),
                        *("metric_set", "metric_value", "degradation", "snr_db"),
                    )
                },
            }


def _run(run: Run) -> Row:
    header = run.header
    return {
        "run": run_key(run),
        "machine": header.machine,
        "started": _moment(header.started),
        "profile": header.profile,
        "git_commit": header.commit,
        "threads": header.threads,
        "parallel": header.parallel,
        "own": sorted({word for p in run.planned for word in own_inputs(header, p.case.id)}),
        "versions": header.versions,
        "hashes": header.hashes,
        "arguments": list(header.arguments),
        "observations": len(run.observations),
        "results_file": run.path.name,
    }


def _machines(report: Report) -> Iterator[Row]:
    for machine in report.machines:
        facts = machine.facts
        processor, system = (_part(facts, name) for name in ("cpu", "system"))
        able = processor.get("capabilities")
        cores = text.number(processor.get("logical_cores"))
        yield {
            "machine": machine.id,
            "processor": _word(processor.get("model")),
            "capabilities": [str(one) for one in able] if isinstance(able, list) else [],
            "cores": int(cores) if cores is not None and abs(cores) < 2**31 else None,
            "memory_bytes": text.number(facts.get("memory_bytes")),
            "os": _word(system.get("os")),
            "architecture": _word(system.get("architecture")),
            "facts": facts,
        }


def _moment(said: str) -> str | None:
    """Return a date in UTC in a form that every database reads, such as ``2026-11-28 10:00:00.0``.

    None where the text is no date, or one before the year 1000.
    """
    moment = instant(said)
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f") if moment and moment.year >= 1000 else None


def _part(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a part of a machine's facts; empty where a stranger's file has another form."""
    part = facts.get(name)
    return part if isinstance(part, Mapping) else {}


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None
