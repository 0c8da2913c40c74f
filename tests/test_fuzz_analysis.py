"""Mutated results in every analysis: no traceback, no control character, and an end."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from xml.etree import ElementTree

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_fuzz_results import TREES, Tree, mutated, originals

from compat.commands.compare import markdown
from compat.contract.untrusted import clean
from compat.judge.results import read_all
from compat.report import build
from compat.report.advice import advise
from compat.report.candidates import Limits
from compat.report.compare import compare
from compat.report.feed import atom, events
from compat.report.history import histories
from compat.report.junit import junit
from compat.report.querying import ask, database
from compat.report.relation_rows import rows
from compat.report.relations import RELATIONS
from compat.report.sides import of_collections
from compat.report.summary import step_summary

GROUPS, GROUP = 3, 60


def test_no_result_breaks_an_analysis(tmp_path_factory) -> None:
    copies = originals()
    read = 0

    @settings(
        max_examples=GROUPS,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(trees=st.lists(TREES, min_size=25, max_size=25), seed=st.integers(0, 2**32))
    def group(trees: list[Tree], seed: int) -> None:
        nonlocal read
        random = Random(seed)  # noqa: S311 (not for secrets)
        folders: list[Path] = [tmp_path_factory.mktemp(side) for side in ("a", "b")]
        for number in range(GROUP):
            data = mutated(random.choice(copies), random, trees)
            (folders[number % 2] / f"{number}.jsonl").write_bytes(data)
        sides = [read_all([folder]) for folder in folders]
        both = read_all(folders)
        report = build(both)
        read += len(both.runs)
        for limits in (Limits(), Limits(("cpu",), 1e9, 1.0, True)):
            for row in report.rows:
                advice = advise(report, row, limits)
                said = [*advice.notes, *(reason for _, reason in advice.lost)]
                assert all(clean(line) == line for line in said)
        compared = compare(of_collections(("a", sides[0].runs), ("b", sides[1].runs)), 0.1)
        assert clean(markdown(compared)) == markdown(compared)
        feed = atom(events(histories(both.runs)), "x")
        for document in (feed, junit(report)):
            ElementTree.fromstring(document.encode())  # noqa: S314 (written here)
        assert clean(step_summary(report)) == step_summary(report)
        connection = database(rows(both, report))
        for name in RELATIONS:
            ask(connection, f"select * from {name}")  # noqa: S608
        _, _, found = ask(connection, "select numbers from observations")
        assert len(found) >= sum(len(run.observations) for run in both.runs) // 2
        for (numbers,) in found:
            json.loads(numbers)

    group()
    assert read > GROUPS * GROUP // 4
