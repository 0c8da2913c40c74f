"""Write the generated tables of the documents, and the picture of the matrix.

python docs/build/tables.py
python docs/build/tables.py --check
python docs/build/tables.py --print accuracy reports/local/results

Documents mark the places of tables (``compat.report.documents``). Tables of measurements come from
``reports/results``, so that ``compat publish`` runs this script in a checkout; the others come from
the code. ``tests/test_documents.py`` fails if a committed table differs from this script's. Tables
of :data:`MEASURED` are results of one measurement each, whose own script writes them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

import table_experiments
import table_reference
import table_results
from example_lines import example_lines
from matrix_picture import picture

from compat.judge.results import Run, read_all
from compat.report import Report, build
from compat.report.documents import filled
from compat.report.matrix import summary

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "reports" / "results"
PICTURE = ROOT / "reports" / "matrix.svg"

OF_RESULTS: Mapping[str, Callable[[tuple[Run, ...]], str]] = {
    "accuracy": table_results.accuracy,
    "browsers-recipes": table_results.browsers_recipes,
    "browsers-seconds": table_results.browsers_seconds,
    "example-lines": example_lines,
    "costs": table_results.costs,
    "coreml": partial(table_results.without_device, target="coreml-conversion"),
    "noise": table_results.noise,
    "qualcomm": partial(table_results.without_device, target="qualcomm-emulator"),
}
OF_CODE: Mapping[str, Callable[[], str]] = {
    "commands": table_reference.commands,
    "corpus-forms": table_reference.corpus_forms,
    "gates": table_reference.gates,
    "marks": table_reference.marks,
    "metrics": table_reference.metrics,
    "numbers": table_reference.numbers,
    "options": table_reference.options,
    "people": table_reference.people,
    "query-tables": table_reference.query_tables,
    "rating-counts": table_reference.rating_counts,
    "ratings": table_reference.ratings,
    "stages": table_reference.stages,
    "statuses": table_reference.statuses,
}
OF_ANSWERS: Mapping[str, Callable[[Path], str]] = {"speed-beams": table_experiments.beams}
"""Tables of the stored answers of experiments. Their functions take the folder of all results."""
WHAT_RAN = "what-ran"
"""Name of README's list of the evidence behind the columns of the matrix."""
MEASURED = {
    "benchmarks": "tests/benchmarks/bench.py",
    "libraries": "fixtures/build/libraries.py",
    "libraries-noise": "fixtures/build/libraries.py",
    "limits": "fixtures/build/limits.py",
    "speed-whisper-small": "tests/benchmarks/speed.py",
    "speed-whisper-tiny": "tests/benchmarks/speed.py",
}
"""Tables that a measurement writes, by name, each with its script."""


@cache
def published() -> tuple[Run, ...]:
    """Return the published results."""
    return tuple(read_all([RESULTS]).runs)


@cache
def published_report() -> Report:
    """Return the report of the published results."""
    return build(read_all([RESULTS]))


def what_ran() -> str:
    """Return a list with a line for each kind of evidence, as above the matrix."""
    return "\n".join(f"- {line}" for _, line in summary(published_report()))


@cache
def made(name: str) -> str | None:
    """Return the up-to-date text of a table, or None if a measurement writes it.

    Raises:
        KeyError: no table has that name.
    """
    if name in MEASURED:
        return None
    if name == WHAT_RAN:
        return what_ran()
    if name in OF_ANSWERS:
        return OF_ANSWERS[name](RESULTS)
    return OF_RESULTS[name](published()) if name in OF_RESULTS else OF_CODE[name]()


@cache
def drawn() -> str:
    """Return the picture of the matrix as SVG text."""
    return picture(published_report())


def wanted() -> dict[Path, str]:
    """Return the up-to-date text of every file with generated parts, by path."""
    found = {
        path: filled(path.read_text(encoding="utf-8"), made)
        for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    }
    found[PICTURE] = drawn()
    return found


def stale() -> dict[Path, str]:
    """Return the up-to-date text of every file whose present text differs, by path."""
    return {
        path: text
        for path, text in wanted().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }


def main() -> int:
    """Write, check or print tables, as the command line asks; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where one is stale")
    parser.add_argument("--print", choices=OF_RESULTS, metavar="NAME", help="print one table")
    parser.add_argument("results", type=Path, nargs="*", help="folders to make that table from")
    given = parser.parse_args()
    if given.print:
        runs = tuple(read_all(given.results).runs) if given.results else published()
        sys.stdout.write(OF_RESULTS[given.print](runs) + "\n")
        return 0
    found = stale()
    for path, text in found.items():
        sys.stdout.write(f"{'stale' if given.check else 'written'}: {path.relative_to(ROOT)}\n")
        if not given.check:
            path.write_text(text, encoding="utf-8")
    return int(given.check and bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
