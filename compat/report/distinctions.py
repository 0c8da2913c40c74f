"""Distinctions of configurations: best rated, fastest, smallest, most accurate.

Configurations are compared only within one variant, with the same weights, on one machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from compat.report.model import Configuration

DISTINCTIONS = {
    "best rated": "★",
    "fastest": "»",
    "smallest": "▾",
    "most accurate": "◎",
}
"""Maps each distinction to its symbol, in the order in which they are shown."""


def works(one: Configuration) -> bool:
    """Whether a configuration is known to load and to be accurate."""
    return one.rating.kind not in ("not-measured", "stale") and one.rating.floor != "None"


def group(one: Configuration) -> tuple[str, str, str]:
    """Return the row, variant and machine: configurations that share them are compared."""
    return one.row, one.variant, one.machine


def distinctions(configurations: Iterable[Configuration]) -> dict[str, tuple[str, ...]]:
    """Return the distinctions of each configuration by its id; the input comes best first."""
    groups: dict[tuple[str, str, str], list[Configuration]] = defaultdict(list)
    for one in configurations:
        if works(one):
            groups[group(one)].append(one)
    found: dict[str, list[str]] = defaultdict(list)
    for alike in groups.values():
        found[alike[0].id].append("best rated")
        for name, key in (("fastest", _time), ("smallest", _size), ("most accurate", _loss)):
            best = _best(alike, key)
            if best is not None:
                found[best.id].append(name)
    return {identity: tuple(names) for identity, names in found.items()}


def _best(
    alike: Sequence[Configuration], key: Callable[[Configuration], tuple[float, ...] | None]
) -> Configuration | None:
    """Return the configuration with the smallest key; None where fewer than two have a key."""
    known = [(value, one.id, one) for one in alike if (value := key(one)) is not None]
    return min(known, key=lambda entry: entry[:2])[2] if len(known) > 1 else None


def _time(one: Configuration) -> tuple[float, ...] | None:
    if one.figures.median_s is None or one.figures.latency_status != "passed":
        return None
    if one.evidence != "device":
        return None
    return (one.figures.median_s,)


def _size(one: Configuration) -> tuple[float, ...] | None:
    return None if one.figures.peak_bytes is None else (one.figures.peak_bytes,)


def _loss(one: Configuration) -> tuple[float, ...] | None:
    loss, snr = one.figures.degradation, one.figures.snr_db
    if loss is None and snr is None:
        return None
    return (loss if loss is not None else 0.0, -(snr if snr is not None else 0.0))
