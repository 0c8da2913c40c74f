"""Reading for reports: what is shared and left out changes nothing that anybody is told."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_results import CASE, facts, header, observation

from compat.judge.results import Collection, Line, Planned, Started, Writer, read_all
from compat.judge.sharing import Shared
from compat.report import build
from compat.report.audit import audit
from compat.report.choosing import choose

# Few values, many of them equal to one another and written otherwise.
SCALARS = st.sampled_from([0, 0.0, -0.0, False, None, 1, 1.0, True, "1", ""])
NAMES = st.sampled_from("abc")
TREES = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
        max_leaves=6,
    ),
)


@given(trees=st.lists(TREES, max_size=6))
def test_a_shared_tree_is_written_as_it_was(trees: list[dict[str, Any]]) -> None:
    """Types, signs of zero and the order of names stay, also in the trees shared before."""
    written = [msgspec.json.encode(tree) for tree in trees]
    shared = Shared()
    found = [shared.like("place", copy.deepcopy(tree)) for tree in trees]
    assert [msgspec.json.encode(tree) for tree in found] == written


def test_equal_parts_of_a_tree_are_one_object() -> None:
    shared = Shared()
    first = shared.like("a", {"same": {"detail": "x" * 20}, "other": {"wer": 0.1, "words": 9_999}})
    second = shared.like("a", {"same": {"detail": "x" * 20}, "other": {"wer": 0.2, "words": 9_999}})
    assert second == {"same": {"detail": "x" * 20}, "other": {"wer": 0.2, "words": 9_999}}
    assert second["same"] is first["same"]
    assert second["other"]["words"] is first["other"]["words"]
    assert shared.like("a", copy.deepcopy(second)) is second
    assert shared.like("b", copy.deepcopy(second)) is not second


def test_files_share_what_their_machine_and_cases_repeat(tmp_path: Path) -> None:
    for run in ("first", "second"):
        one = observation(values={"inputs": {"stress": [1, "ok"]}}, samples={"seconds": [0.5]})
        written(tmp_path, one, observation(check="memory.peak"), run=run)
    (one, other) = read_all([tmp_path], predictions=False).runs
    assert one.header.facts is other.header.facts
    assert one.observations == other.observations
    assert one.observations[0].values is other.observations[0].values
    assert one.observations[1].values is other.observations[1].samples == {}


# Starts ----------------------------------------------------------------------------------------

CHECKS = ("support.loads", "memory.peak")
TIMES = st.sampled_from(
    [
        "2026-11-20T11:50:00.000000+00:00",
        "2026-11-20T12:00:00.000000+00:00",
        "2026-11-20T12:10:00.000000+00:00",
        "2026-11-20T14:00:00.000000+05:00",
        "no date",
    ]
)
ENDS = st.builds(lambda time: observation(time=time), TIMES)
STARTS = st.builds(Started, case=st.just(CASE), check=st.just(CHECKS[0]), time=TIMES)
FILES = st.tuples(TIMES, st.lists(STARTS | ENDS, min_size=2, max_size=4))


def written(folder: Path, *lines: Line, **changes: Any) -> None:
    writer = Writer(folder, header(**changes))
    for line in lines:
        writer.write(line)
    writer.close()


@settings(max_examples=300, deadline=None)
@given(files=st.lists(FILES, min_size=1, max_size=2))
def test_starts_that_are_left_out_change_no_report(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, list[Line]]]
) -> None:
    """What is cut off, and what ended before it began, is told as of files that are read whole."""
    folder = tmp_path_factory.mktemp("results")
    plan = Planned(case=facts(), checks=CHECKS)
    for number, (started, lines) in enumerate(files):
        written(folder, plan, *lines, run=f"run-{number}", started=started)
    whole, lean = (read_all([folder], predictions=wanted) for wanted in (True, False))
    assert told(whole) == told(lean)


def told(collection: Collection) -> list[bytes]:
    audited = audit(collection.runs)
    problems = [one.text for one in audited.problems]
    counting = {"/".join(key): one.observation for key, one in choose(audited.runs).items()}
    return [msgspec.json.encode(one) for one in (problems, counting, build(collection))]


def test_the_start_of_a_check_that_ended_is_not_kept(tmp_path: Path) -> None:
    time = "2026-11-20T12:00:0{}.000000+00:00"
    written(
        tmp_path,
        Started(case=CASE, check=CHECKS[0], time=time.format(1)),
        observation(check=CHECKS[0], time=time.format(2)),
        Started(case=CASE, check=CHECKS[1], time=time.format(3)),
        started=time.format(0),
    )
    (run,) = read_all([tmp_path], predictions=False).runs
    assert [one.check for one in run.started] == [CHECKS[1]]
