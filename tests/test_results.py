"""The results file: what is written can be read, whatever became of the writer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_results import CASE, facts, header, observation

from compat.judge.results import (
    SCHEMA_VERSION,
    Limit,
    Line,
    MetricFacts,
    Observation,
    Planned,
    ResultsError,
    Run,
    Started,
    Writer,
    file_name,
    read,
    read_all,
    read_runs,
    schema,
)
from compat.report import build


def write(folder: Path, *lines: Line, **changes: Any) -> Path:
    writer = Writer(folder, header(**changes))
    for line in lines:
        writer.write(line)
    writer.close()
    return writer.path


# What comes back -------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | NUMBER | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)
LIMITS = st.builds(Limit, metric=TEXT, value=st.none() | NUMBER, strict=NUMBER, relaxed=NUMBER)
OBSERVATIONS = st.builds(
    Observation,
    case=TEXT,
    check=TEXT,
    check_version=st.integers(1, 9),
    reason=TEXT,
    values=VALUES,
    limits=st.lists(LIMITS, max_size=2).map(tuple),
    samples=st.dictionaries(TEXT, st.lists(NUMBER, max_size=4), max_size=2),
    predictions=st.lists(VALUES, max_size=2),
    seconds=NUMBER,
)


@given(lines=st.lists(OBSERVATIONS | st.builds(Started, case=TEXT, check=TEXT), max_size=4))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, lines: Any) -> None:
    run = read(write(tmp_path_factory.mktemp("results"), *lines))
    assert run.problems == ()
    assert run.header == header()
    assert list(run.observations) == [one for one in lines if isinstance(one, Observation)]
    assert list(run.started) == [one for one in lines if isinstance(one, Started)]


@given(cut=st.integers(1, 400))
def test_any_truncation_keeps_the_lines_before_it(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    """A killed process or a full disk can end the file at any byte."""
    folder = tmp_path_factory.mktemp("results")
    path = write(folder, *(observation(check=f"check.{n}") for n in range(5)))
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    cut = min(cut, len(whole) - len(lines[0]))
    path.write_bytes(whole[:-cut])
    run = read(path)
    intact = len(whole[:-cut].splitlines()) - 1
    assert len(run.observations) + len(run.problems) == intact
    assert len(run.problems) <= 1
    assert [one.check for one in run.observations] == [
        f"check.{n}" for n in range(len(run.observations))
    ]


def test_a_truncated_last_line_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, observation(), observation(check="memory.peak"))
    path.write_bytes(path.read_bytes()[:-20])
    run = read(path)
    assert [one.check for one in run.observations] == ["support.loads"]
    (problem,) = run.problems
    assert problem.startswith(f"{path.name}:3:")


def test_writing_goes_on_after_a_truncated_line(tmp_path: Path) -> None:
    """A run that is taken up again must not glue its first line to a torn one."""
    path = write(tmp_path, observation())
    path.write_bytes(path.read_bytes()[:-20])
    write(tmp_path, observation(check="memory.peak"))
    run = read(path)
    assert [one.check for one in run.observations] == ["memory.peak"]
    assert len(run.problems) == 1


# Joined files ----------------------------------------------------------------------------------

OTHER = {"run": "20261121T120000Z-fedcba", "machine": "aa11bb22cc33dd44"}


def joined(folder: Path, torn: int = 0, **other: Any) -> Path:
    """Write ``cat a b > both``, the last line of a having lost its last ``torn`` bytes."""
    parts = folder / "parts"
    first = write(parts / "a", observation(check="a.a"))
    second = write(parts / "b", observation(check="b.b"), **{**OTHER, **other})
    data = first.read_bytes()
    both = folder / "both.jsonl"
    both.write_bytes(data[: len(data) - torn] + second.read_bytes())
    shutil.rmtree(parts)
    return both


@pytest.mark.parametrize("torn", [0, 1, 20])
def test_joined_files_are_attributed_to_their_own_machines(tmp_path: Path, torn: int) -> None:
    """A torn last line swallows the header after it, which must be found all the same."""
    runs = read_runs(joined(tmp_path, torn))
    found = {run.header.machine: [one.check for one in run.observations] for run in runs}
    assert found == {header().machine: ["a.a"] if torn == 0 else [], OTHER["machine"]: ["b.b"]}
    assert sum(len(run.problems) for run in runs) == (torn > 0)
    assert {run.header.machine for run in read_all([tmp_path]).runs} == set(found)


@pytest.mark.parametrize(
    "other", [{"own": ("corpus",)}, {"profile": "full"}, {"versions": {"scorer": "0"}}]
)
def test_a_header_that_says_otherwise_begins_another_run(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    runs = read_runs(joined(tmp_path, run=header().run, machine=header().machine, **other))
    assert [[one.check for one in run.observations] for run in runs] == [["a.a"], ["b.b"]]


def test_a_run_taken_up_again_stays_one_run(tmp_path: Path) -> None:
    path = write(tmp_path, observation(check="a.a"))
    write(tmp_path, observation(check="b.b"), started="2026-11-20T13:00:00.000Z")
    assert [one.check for one in read(path).observations] == ["a.a", "b.b"]


def test_what_follows_a_broken_header_is_nobodys(tmp_path: Path) -> None:
    path = joined(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join((*lines[:2], lines[2][:40] + b"\n", *lines[3:])))
    (run,) = read_runs(path)
    assert [one.check for one in run.observations] == ["a.a"]
    assert any("both.jsonl:3:" in problem for problem in run.problems)
    assert any("1 lines follow no usable run header" in problem for problem in run.problems)


def test_lines_before_the_header_are_nobodys(tmp_path: Path) -> None:
    path = joined(tmp_path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    (run,) = read_runs(path)
    assert [one.check for one in run.observations] == ["b.b"]
    assert "left out" in run.problems[0]


def test_a_joined_file_is_no_single_run(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="holds 2 runs") as caught:
        read(joined(tmp_path))
    assert OTHER["run"] in str(caught.value)


# Names that lead elsewhere ---------------------------------------------------------------------

ELSEWHERE = ["../../escape", "/etc/passwd", "a/b", "..", ".hidden", "", "a\x00b", "ü", "x" * 200]


@pytest.mark.parametrize("field", ["run", "worker", "machine"])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_name_that_leads_elsewhere_is_refused_as_it_is_read(
    tmp_path: Path, field: str, name: str
) -> None:
    path = tmp_path / "untrusted.jsonl"
    lines = (header(**{field: name}), observation())
    path.write_bytes(b"\n".join(msgspec.json.encode(line) for line in lines))
    with pytest.raises(ResultsError, match=f"the {field} is called"):
        read(path)
    collection = read_all([tmp_path])
    assert collection.runs == ()
    assert "untrusted.jsonl" in collection.problems[0]


@pytest.mark.parametrize("field", ["run", "worker"])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_name_that_leads_elsewhere_is_never_written_to(
    tmp_path: Path, field: str, name: str
) -> None:
    folder = tmp_path / "in" / "results"
    with pytest.raises(ResultsError, match="no results file can be named"):
        Writer(folder, header(**{field: name}))
    assert list(tmp_path.rglob("*")) == []


def test_what_names_a_file_is_what_was_always_written(tmp_path: Path) -> None:
    for worker in ("main", "gw0", "gw11"):
        assert file_name(header(worker=worker)) == f"20261120T120000Z-abcdef.{worker}.jsonl"


def test_separators_of_other_alphabets_break_no_line(tmp_path: Path) -> None:
    reason = "one\u2028two\u0085three\x0bfour\rfive\nsix"
    (one,) = read(write(tmp_path, observation(reason=reason))).observations
    assert one.reason == reason


def test_unknown_fields_and_kinds_are_tolerated(tmp_path: Path) -> None:
    """A newer minor version may add fields, and lines that this one has no name for."""
    path = write(tmp_path, observation())
    head, line = path.read_text().splitlines()
    newer = {**json.loads(line), "mood": "sunny", "values": {"new": {"nested": [1]}}}
    other = {"kind": "weather", "sun": True}
    path.write_text("\n".join((head, json.dumps(newer), json.dumps(other))) + "\n")
    run = read(path)
    assert run.observations[0].values == {"new": {"nested": [1]}}
    assert len(run.problems) == 1
    assert "weather" in run.problems[0]


def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, observation(), schema=SCHEMA_VERSION + 1)
    with pytest.raises(ResultsError, match="Update compat to read it") as caught:
        read(path)
    assert str(path) in str(caught.value)
    collection = read_all([tmp_path])
    assert collection.runs == ()
    assert str(path) in collection.problems[0]


def test_no_header_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, observation())
    path.write_text(path.read_text().splitlines()[1] + "\n")
    with pytest.raises(ResultsError, match="no readable run header") as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe", b"[" * 5000, b"{}\n", b"null\n"])
def test_what_is_no_results_file_spoils_no_other(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, observation())
    (tmp_path / "other.jsonl").write_bytes(content)
    collection = read_all([tmp_path])
    assert len(collection.runs) == 1
    assert len(collection.problems) == 1
    assert "other.jsonl" in collection.problems[0]


def test_a_file_is_read_once_however_it_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "results", observation())
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "results")
    collection = read_all([tmp_path / "results", path, link, tmp_path])
    assert len(collection.runs) == 1


def test_files_merge_in_any_order(tmp_path: Path) -> None:
    write(tmp_path / "b", observation(), started="2026-11-20T12:00:01.000Z", run="later")
    write(tmp_path / "a", observation(), started="2026-11-20T12:00:00.000Z", run="sooner")
    for folders in (["a", "b"], ["b", "a"]):
        runs = read_all([tmp_path / name for name in folders]).runs
        assert [run.header.run for run in runs] == ["sooner", "later"]


def test_what_repeats_is_one_object_where_predictions_are_passed_over(tmp_path: Path) -> None:
    """A million observations have a few hundred reasons; nothing else differs from reading whole.

    What is equal and of another kind, as no checks and no metrics are, stays apart.
    """
    limit = Limit(
        metric="wer", value=0.1, strict=0.2, relaxed=0.3, direction="at_most", level="strict",
        reason="a reason that is told again",
    )  # fmt: skip
    for name in ("first", "second"):
        write(
            tmp_path / name,
            Planned(case=facts(), checks=()),
            observation(
                reason="again", limits=(limit,), metrics={"wer": MetricFacts(unit="share")}
            ),
            observation(check="accuracy.task"),
        )
    whole, lean = (read_all([tmp_path], predictions=wanted).runs for wanted in (True, False))
    for one, other in zip(whole, lean, strict=True):
        assert list(map(msgspec.to_builtins, one.observations)) == list(
            map(msgspec.to_builtins, other.observations)
        )
        assert one.planned == other.planned
    first, second = (run.observations[0] for run in lean)
    assert first.reason is second.reason and first.metrics is second.metrics
    assert first.limits[0].reason is second.limits[0].reason


def test_started_without_an_observation_is_cut_off(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        Planned(case=facts(), checks=("support.loads", "accuracy.numerics", "memory.peak")),
        Started(case=CASE, check="support.loads", time="2026-11-20T12:00:01.000Z"),
        observation(time="2026-11-20T12:00:02.000Z"),
        Started(case=CASE, check="accuracy.numerics", time="2026-11-20T12:00:03.000Z"),
    )
    run: Run = read(path)
    assert len(run.started) == 2
    (one,) = build(read_all([tmp_path])).configurations
    states = {record.check: record.status for record in one.records}
    assert states == {
        "support.loads": "passed",
        "accuracy.numerics": "cut-off",
        "memory.peak": "not-run",
    }
    assert one.rating.label.startswith("Incomplete")


def test_the_writer_names_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="--results DIR"):
        Writer(tmp_path / "file", header())


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    (tmp_path / f"{header().run}.main.jsonl").symlink_to(full)
    with pytest.raises(ResultsError, match="No space left on device"):
        Writer(tmp_path, header())


# The schema ------------------------------------------------------------------------------------


def test_the_schema_describes_every_line_of_a_real_file(suites: Any, tmp_path: Path) -> None:
    options = ("--weights=seeded", "--targets=sound-torch-1,sound-nothing,cuda-torch")
    run = suites.run(tmp_path, *options, "--recipes=fp32", "-k", "loads or peak or numerics")
    validator = jsonschema.Draft202012Validator(json.loads(schema()))
    kinds: dict[str, int] = {}
    for path in tmp_path.glob("*.jsonl"):
        for text in path.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            validator.validate(line)
            kinds[line["kind"]] = kinds.get(line["kind"], 0) + 1
    assert set(kinds) == {"run", "planned", "started", "observation"}, run.text
    assert kinds["started"] == kinds["observation"]


@pytest.mark.parametrize(
    "spoil",
    [
        {"status": "fine"},
        {"check_version": "1"},
        {"samples": {"seconds": ["fast"]}},
        {"kind": "weather"},
    ],
)
def test_the_schema_refuses_what_is_no_line(spoil: dict[str, Any]) -> None:
    line = {**json.loads(msgspec.json.encode(observation())), **spoil}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(line, json.loads(schema()))


def test_a_header_says_nothing_of_who_or_where(suites: Any, tmp_path: Path) -> None:
    """No host name, no user, no absolute path: results are published."""
    import getpass
    import socket

    run = suites.run(
        tmp_path, "--weights=seeded", "--targets=sound-nothing,cpu-torch", "-k", "loads"
    )
    text = "".join(path.read_text() for path in tmp_path.glob("*.jsonl"))
    assert run.observations
    for secret in (socket.gethostname(), str(Path.home()) + "/", str(tmp_path), str(Path.cwd())):
        assert secret not in text
    user = getpass.getuser()
    assert f'"{user}"' not in text


def test_batches_are_measured_where_they_are_asked_for(suites: Any, tmp_path: Path) -> None:
    """A first look leaves them out; the full profile times every size."""
    options = ("--weights=pretrained", "--targets=sound-torch-1", "--recipes=fp32")
    chosen = ("-k", "throughput or stress", *options)
    quick = suites.run(tmp_path / "quick", *chosen)
    assert [one.check for one in quick.observations] == ["robustness.stress"]
    assert "changed_in_batch" not in quick.observations[0].values
    full = suites.run(tmp_path / "full", "--full", *chosen)
    found = {one.check: one for one in full.observations}
    assert {one.status for one in found.values()} == {"passed"}, full.text
    assert found["robustness.stress"].values["changed_in_batch"] == 0.0
    batches = found["latency.throughput"].values["batches"]
    assert list(batches) == ["1", "2"]
    assert all(batch["items_per_s"] > 0 for batch in batches.values())
