"""Arrange nested values as tables: which groups become columns, and which values share a cell."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

from compat.report import text

_UNITS_OF_GROUP = {"devices": "share", "stages": "seconds"}
"""Maps a group whose keys are plain names to a key that implies the unit of its values."""


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str, Any]]:
    """Return ``(path, key that implies the unit, value)`` of every leaf of a nested mapping."""
    leaves: list[tuple[str, str, Any]] = []
    for key, value in values.items():
        path = f"{prefix} · {key}" if prefix else str(key)
        if isinstance(value, Mapping) and value:
            leaves.extend(flatten(value, path))
        else:
            leaves.append((path, _UNITS_OF_GROUP.get(prefix, str(key)), value))
    return leaves


def tables(
    values: Mapping[str, Any], declared: text.Declared = text.NOTHING
) -> list[tuple[list[str], list[tuple[str, list[str]]]]]:
    """Return ``(column names, [(row name, cells)])`` for each table of the values.

    Groups with common keys (test sets, outputs) become columns of the first table, with the task
    metric as the first row. All other values become rows of a second table. A value and its
    ``…_interval`` share a cell. The batches of a throughput sweep have a table of their own, in
    which the recommended ones are marked.
    """
    batches = values.get("batches")
    if isinstance(batches, Mapping) and all(isinstance(one, Mapping) for one in batches.values()):
        rest = {key: value for key, value in values.items() if key != "batches"}
        return [*_sweep(batches, values.get("recommended")), *tables(rest, declared)]
    flat = {
        str(name): group
        for name, group in values.items()
        if isinstance(group, Mapping) and not any(isinstance(v, Mapping) for v in group.values())
    }
    first = set(next(iter(flat.values()), ()))
    groups = {name: group for name, group in flat.items() if first & set(group)}
    if len(groups) < 2 and len(groups) != len(values):
        groups = {}
    found: list[tuple[list[str], list[tuple[str, list[str]]]]] = []
    if groups:
        keys = list(dict.fromkeys(str(key) for group in groups.values() for key in group))
        headline = text.primary_metric(next(iter(groups.values())), declared)
        keys.sort(key=lambda key: key != headline)
        names = frozenset(keys)
        metrics = [(group, text.primary_metric(group, declared)) for group in groups.values()]
        rows = [
            (key, [_with_interval(key, group, metric, declared) for group, metric in metrics])
            for key in keys
            if not _belongs_to_another(key, names)
        ]
        found.append((list(groups), rows))
    rows = []
    metric = text.primary_metric(values, declared)
    for key, value in values.items():
        if str(key) in groups or _belongs_to_another(str(key), values):
            continue
        if isinstance(value, Mapping) and value:
            rows += [
                (path, [text.quantity(k, leaf, declared=declared)])
                for path, k, leaf in flatten(value, str(key))
            ]
        else:
            rows.append((str(key), [_with_interval(str(key), values, metric, declared)]))
    return [*found, (["value"], rows)] if rows else found


def _sweep(
    batches: Mapping[str, Any], recommended: Any
) -> list[tuple[list[str], list[tuple[str, list[str]]]]]:
    """Return the table of a throughput sweep, with a column for each batch size.

    Sizes for which memory ran out have a column too.
    """
    ends = recommended if isinstance(recommended, Mapping) else {}
    lowest, highest = text.number(ends.get("lowest_batch")), text.number(ends.get("batch"))

    def column(size: str) -> str:
        if lowest is None or highest is None or not re.fullmatch("[0-9]{1,6}", size):
            return f"batch {size}"
        return f"batch {size}{', recommended' if lowest <= int(size) <= highest else ''}"

    keys = dict.fromkeys(str(key) for group in batches.values() for key in group)
    rows = [
        (
            key,
            [
                text.quantity(key, group[key]) if key in group else text.DASH
                for group in batches.values()
            ],
        )
        for key in keys
    ]
    return [([column(str(size)) for size in batches], rows)] if rows else []


def _belongs_to_another(key: str, keys: Container[Any]) -> bool:
    if key == "interval_s":
        return "median_s" in keys
    return key.endswith("_interval") and key.removesuffix("_interval") in keys


def _with_interval(key: str, group: Mapping[str, Any], metric: str, declared: text.Declared) -> str:
    if key not in group:
        return text.DASH
    shown = text.quantity(key, group[key], metric, declared)
    beside = "interval_s" if key == "median_s" else f"{key}_interval"
    pair = text.interval(group.get(beside))
    if pair is None:
        return shown
    return f"{shown} ({text.quantity(f'{key}_interval', list(pair), metric, declared)})"
