"""Names of machines that a person can tell apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from compat.report import text

_TELLING = ("amx", "avx512", "avx2", "sve2", "sve", "dotprod", "i8mm", "neon", "vnni", "bf16")
"""Instruction sets by which processors of one name differ, the most telling first."""
_FILLER = re.compile(r"\((?:r|tm|c)\)|\bprocessor\b|\bcpu\b|\b\d+-core\b|@.*$", re.IGNORECASE)
MOST_SETS = 3


def name(facts: Mapping[str, Any], short: str) -> str:
    """Return a machine's name: processor, telling instruction sets, graphics, and short id.

    For example ``AMD EPYC, avx512 vnni bf16, 2 cores (4811)``.
    """
    parts = [_processor(facts)]
    gpus = facts.get("gpus")
    if isinstance(gpus, list):
        boards = [g.get("name") for g in gpus if isinstance(g, Mapping)]
        parts += dict.fromkeys(text.one_line(b, 40) for b in boards[:2] if isinstance(b, str))
    return f"{', '.join(parts)} ({text.one_line(short, 20)})"


def processor(facts: Mapping[str, Any]) -> str:
    """Return the processor's name alone."""
    cpu = facts.get("cpu")
    model = cpu.get("model") if isinstance(cpu, Mapping) else cpu
    if not isinstance(model, str) or not model.strip():
        return "unnamed processor"
    return text.one_line(_FILLER.sub(" ", model), 40) or text.one_line(model, 40)


def _processor(facts: Mapping[str, Any]) -> str:
    cpu = facts.get("cpu")
    parts = [processor(facts)]
    if isinstance(cpu, Mapping):
        known = cpu.get("capabilities")
        if isinstance(known, list):
            telling = [one for one in _TELLING if one in known]
            if {"avx512", "avx2"} <= set(telling):
                telling.remove("avx2")
            parts += [" ".join(telling[:MOST_SETS])] if telling else []
        cores = cpu.get("logical_cores")
        if isinstance(cores, int) and not isinstance(cores, bool) and 0 < cores < 100_000:
            parts.append(f"{cores} core{'s' if cores > 1 else ''}")
    return ", ".join(parts)
