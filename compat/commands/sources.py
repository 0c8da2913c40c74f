"""Results that commands read, and the site that they write."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from compat import catalog
from compat.commands.printing import say
from compat.judge import claims, experiments, results
from compat.judge.problems import Problems
from compat.judge.remote import Remote, fetch, is_remote
from compat.judge.results import Collection, ResultsError, facts_of
from compat.report import Report, build, with_changes, with_claims, write_site

Source = Path | Remote
"""A place of results: a path, or an address of an object store."""

LOCAL = Path("reports/local")
"""Folder of this machine's results, and of the sites and reports made of them."""
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""Environment variable that names a file which GitHub shows on the page of a step."""
PUBLISHED = Path("reports")
"""Folder of results that are kept as evidence."""


def source(word: str) -> Source:
    """Return the source that a word of a command line names: a path, or an address of a store."""
    return Remote(word) if is_remote(word) else Path(word)


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments ``sources``: any number of results files and folders."""
    parser.add_argument(
        "sources",
        nargs="*",
        type=source,
        metavar="RESULTS",
        help=f"results files or folders, or addresses as s3://bucket/results (default: "
        f"{LOCAL / 'results'})",
    )


@contextmanager
def local(sources: Sequence[Source], problems: Problems) -> Iterator[list[Path]]:
    """Yield the paths of results; those at addresses are fetched, and deleted again afterwards.

    Raises:
        ResultsError: a source does not exist.
    """
    folders = list(sources) or [LOCAL / "results"]
    for folder in folders:
        if isinstance(folder, Path) and not os.path.lexists(folder):
            raise ResultsError(
                f"no results in {folder}",
                "run `compat matrix` or `pytest` first, or name a folder.",
            )
    with tempfile.TemporaryDirectory(prefix="compat-results-") as fetched:
        yield [
            fetch(one, Path(fetched), problems) if isinstance(one, Remote) else one
            for one in folders
        ]


def collect(sources: Sequence[Source], predictions: bool = False) -> Collection:
    """Read results, with predictions if asked for; the caller prints the collection's problems.

    Raises:
        ResultsError: a source does not exist.
    """
    problems = Problems()
    with local(sources, problems) as folders:
        found = results.read_all(folders, predictions)
    return replace(found, problems=(*found.problems, *problems.lines()))


def known_sources() -> list[Path]:
    """Return the default folders of results that exist: this machine's and the published ones."""
    return [path for path in (LOCAL / "results", PUBLISHED / "results") if path.exists()]


def collect_known(sources: Sequence[Source]) -> Collection:
    """Read results; if none are named, read this machine's and the published ones.

    Raises:
        ResultsError: a source does not exist, or none is named and there are none.
    """
    return collect([*sources] or [*known_sources()])


def rated(sources: Sequence[Source], collection: Collection) -> Report:
    """Return the report of a collection, with its changes and with the claims that it decides.

    Args:
        sources: sources of the collection; answers of experiments are read from its folders.
        collection: the results.
    """
    answers = experiments.read_all([one for one in sources if isinstance(one, Path)])
    ledger = claims.load(claims.default_folder())
    known = [facts_of(case) for case in catalog.load().cases()]
    report = with_changes(build(collection, known=known), collection)
    return with_claims(ledger, report, collection, answers)


def write_report(report: Report, folder: Path) -> None:
    """Write the site of a report, and print where it is."""
    index = write_site(report, folder)
    say(f"site: {os.path.relpath(index)}")


def write_step_summary(report: Report) -> None:
    """Append a report to GitHub's page of a step; does nothing outside GitHub Actions."""
    path = os.environ.get(STEP_SUMMARY)
    if path:
        from compat.report.summary import step_summary

        with Path(path).open("a", encoding="utf-8") as file:
            file.write(step_summary(report))
