"""The table of docs/accuracy.md, from results files: what each checkpoint scored, how fast.

python tests/benchmarks/accuracy.py reports/results --write docs/accuracy.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compat.judge.results import read_all
from compat.report import text
from compat.report.choosing import choose

START, END = "<!-- accuracy: start -->", "<!-- accuracy: end -->"
HEAD = (
    "checkpoint",
    "target, recipe",
    "test set",
    "metric (95 %)",
    "float64",
    "degradation (95 %)",
    "other metrics",
    "RTFx",
    "peak memory",
    "model",
    "machine",
)
OTHERS = (
    "miss",
    "false_alarm",
    "confusion",
    "der_collar_250ms",
    "der_no_overlap",
    "jer",
    "speakers_right",
    "cer",
)
"""Metrics that are shown beside the one with the interval."""


def rows(folders: Sequence[Path]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each machine, case and test set with a task metric, ordered by case."""
    chosen = choose(read_all(list(folders)).runs)
    found = {key: one.observation.values for key, one in sorted(chosen.items()) if one}
    for (machine, case, check), sets in found.items():
        if check != "accuracy.task":
            continue
        checkpoint, target, recipe = case.split("/")
        timed = found.get((machine, case, "latency.task"), {})
        memory = found.get((machine, case, "memory.peak"), {})
        for name, values in sets.items():
            metric = text.primary_metric(values)
            yield (
                checkpoint,
                f"{target} {recipe}",
                name,
                f"{text.metric_name(metric)} {_spanned(values, metric, metric)}",
                text.quantity(metric, values.get(f"reference_{metric}"), metric),
                _spanned(values, "degradation", metric),
                ", ".join(
                    f"{text.metric_name(key)} {text.percent(values[key])}"
                    for key in OTHERS
                    if key in values
                ),
                text.quantity("rtfx", timed.get("rtfx")),
                text.quantity("bytes", memory.get("peak_bytes")),
                text.quantity("bytes", memory.get("model_bytes")),
                machine[:4],
            )


def _spanned(values: Mapping[str, Any], key: str, metric: str) -> str:
    shown = text.quantity(key, values.get(key), metric)
    pair = text.interval(values.get(f"{key}_interval"))
    if pair is None:
        return shown
    low, high = (text.quantity(key, end, metric) for end in pair)
    return f"{shown} ({low} to {high})"


def table(found: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table; columns that are empty throughout are left out."""
    kept = [i for i in range(len(HEAD)) if any(row[i] not in ("", text.DASH) for row in found)]
    lines = [
        [HEAD[i] for i in kept],
        ["---"] * len(kept),
        *([row[i] for i in kept] for row in found),
    ]
    return "\n".join(f"| {' | '.join(cell or text.DASH for cell in line)} |" for line in lines)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="folders or files with results")
    parser.add_argument("--write", type=Path, help="file whose table is replaced")
    given = parser.parse_args(arguments)
    made = table(list(rows(given.results)))
    if given.write is None:
        print(made)
        return
    before, _, rest = given.write.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    given.write.write_text(f"{before}{START}\n{made}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
