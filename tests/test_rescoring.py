"""Judging again: scores come anew from stored predictions, faults stay what they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from compat.catalog import load
from compat.contract.case import Case
from compat.judge import packing, thresholds
from compat.judge.rescoring import Rescored, rescore
from compat.judge.results import (
    SCHEMA_VERSION,
    Header,
    Limit,
    Observation,
    Planned,
    ResultsError,
    Run,
    Started,
    Writer,
    facts_of,
    read,
    read_all,
    read_runs,
    scorer_of,
)
from compat.metrics import SCORER_VERSION

NANO = load().case("whisper-nano@trained/cpu-torch/fp32")
LIMITS = thresholds.load([thresholds.default_path()])


def row(item: str, truth: str, said: str, reference: str) -> dict[str, Any]:
    kept = {"set": "hard", "item": item, "audio_s": 1.5, "truth": {"text": truth}}
    return {**kept, "prediction": {"text": said}, "reference": {"text": reference}}


ROWS = [row("a", "red door", "red door", "red door"), row("b", "go north", "no north", "go north")]


def header(**fields: Any) -> Header:
    return Header(
        **{
            "schema": SCHEMA_VERSION,
            "run": "run",
            "worker": "main",
            "started": "2026-11-20T12:00:00.000Z",
            "profile": "core",
            "machine": "c4d1e09f77aa2b10",
            "facts": {},
            "versions": {"scorer": "0"},
            "commit": "",
            "arguments": (),
            "threads": 1,
            "parallel": False,
            **fields,
        }
    )


def observation(case: Case = NANO, **fields: Any) -> Observation:
    return Observation(
        **{
            "case": case.id,
            "check": "accuracy.task",
            "check_version": 1,
            "status": "passed",
            "level": "strict",
            "values": {"hard": {"wer": 0.0, "degradation": 0.0}},
            "predictions": ROWS,
            "time": "2026-11-20T12:00:01.000Z",
            **fields,
        }
    )


def plan(case: Case = NANO) -> Planned:
    return Planned(case=facts_of(case), checks=("accuracy.task",))


def measured(*lines: Planned | Observation, **fields: Any) -> Run:
    planned = tuple(one for one in lines if isinstance(one, Planned))
    observations = tuple(one for one in lines if isinstance(one, Observation))
    return Run(Path("old.jsonl"), header(**fields), planned, (), observations)


def rescored(tmp_path: Path, case: Case = NANO, **fields: Any) -> Observation:
    run = measured(plan(case), observation(case, **fields))
    (done,) = rescore([run], LIMITS, tmp_path / "again")
    again = read(done.path)
    assert again.header.versions["scorer"] == str(SCORER_VERSION)
    (found,) = again.observations
    return found


def test_scores_come_from_stored_predictions(tmp_path: Path) -> None:
    found = rescored(tmp_path)
    assert found.values["hard"]["wer"] == pytest.approx(1 / 4)
    assert found.values["hard"]["reference_wer"] == 0
    assert (found.status, found.level) == ("failed", "failed"), "25 points are no half point"


def test_a_prediction_equal_to_the_reference_is_stored_once(tmp_path: Path) -> None:
    rows = [{key: row[key] for key in row if key != "reference"} for row in ROWS]
    found = rescored(tmp_path, predictions=rows)
    assert found.values["hard"]["wer"] == found.values["hard"]["reference_wer"] == 1 / 4
    assert found.level == "strict", "the hardware answers for none of it"


def test_faults_are_forgiven_by_no_threshold(tmp_path: Path) -> None:
    limit = {"metric": "hard.degradation", "value": 0.0, "strict": 0.005, "relaxed": 0.02}
    met = (Limit(**limit, direction="at_most", level="strict", reason="half a point"),)
    found = rescored(
        tmp_path, status="failed", level="failed", limits=met, predictions=[], reason="NaN"
    )
    assert (found.status, found.level, found.reason) == ("failed", "failed", "NaN")


def test_a_time_on_a_busy_machine_is_an_upper_bound_for_other_limits_too(tmp_path: Path) -> None:
    values = {"rtf_upper": 2.0, "others_busy": 1.9, "processors": 2}
    timing = {"check": "latency.task", "predictions": [], "threads": 2, "values": values}
    limit = {"metric": "rtf_upper", "value": 0.4, "strict": 0.1, "relaxed": 0.2}
    missed = Limit(**limit, direction="at_most", level="failed", reason="an older limit")
    found = rescored(tmp_path, **timing)
    assert (found.status, found.level) == ("inconclusive", None)
    assert "other processes kept 1.9 of 2 processors busy" in found.reason and found.remedy
    # What was left undecided is decided by a limit that it meets, and keeps no remedy.
    undecided = {"status": "inconclusive", "level": None, "limits": (missed,), "remedy": "again"}
    timing["values"] = {**values, "rtf_upper": 0.4}
    found = rescored(tmp_path, **timing, **undecided)
    assert (found.status, found.level, found.remedy) == ("passed", "strict", "")
    # What was undecided for another reason was held against no limit, and is not now.
    found = rescored(tmp_path, **timing, **{**undecided, "limits": ()})
    assert (found.status, found.level) == ("inconclusive", None)
    # Results of before say nothing of others.
    found = rescored(tmp_path, **{**timing, "values": {"rtf_upper": 2.0}})
    assert (found.status, found.level) == ("failed", "failed")


def test_what_was_never_scored_is_left_alone(tmp_path: Path) -> None:
    found = rescored(tmp_path, status="crashed", level=None, reason="signal 11")
    assert (found.status, found.values["hard"]["wer"]) == ("crashed", 0.0)


def test_what_parallel_processes_measured_is_scored_by_anothers_plan(tmp_path: Path) -> None:
    """Only one process of a parallel run writes what was planned."""
    runs = [measured(plan(), worker="gw0"), measured(observation(), worker="gw1")]
    planned, done = rescore(runs, LIMITS, tmp_path)
    assert (done.changed, done.unplanned) == (1, 0)
    (found,) = read(done.path).observations
    assert (found.values["hard"]["wer"], found.level) == (1 / 4, "failed")
    assert read(planned.path).planned == (plan(),)


def test_a_run_is_judged_by_what_it_planned_itself(tmp_path: Path) -> None:
    """Another run may say that the case is a smaller variant, with other limits."""
    lie = msgspec.structs.replace(plan(), case=msgspec.structs.replace(plan().case, task="other"))
    stranger = measured(lie, run="stranger", started="2026-11-21T12:00:00.000Z")
    runs = [measured(plan(), observation()), stranger]
    (alone,) = rescore(runs[:1], LIMITS, tmp_path / "alone")
    (expected,) = read(alone.path).observations
    assert expected.limits
    done, _ = rescore(runs, LIMITS, tmp_path / "both")
    assert read(done.path).observations == (expected,)


def test_a_plan_of_another_machine_says_nothing(tmp_path: Path) -> None:
    runs = [measured(plan(), run="a", machine="aa11bb22"), measured(observation(), run="b")]
    *_, done = rescore(runs, LIMITS, tmp_path)
    assert done == Rescored(tmp_path / "b.main.jsonl", changed=0, unplanned=1)
    (found,) = read(done.path).observations
    assert found.values == observation().values


def test_an_untrusted_name_reaches_no_other_file(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "rescored"
    precious = tmp_path / "precious.main.jsonl"
    precious.write_text("years of work")
    run = measured(plan(), observation(), run="../../precious")
    with pytest.raises(ResultsError, match="the run is called"):
        rescore([run], LIMITS, folder)
    assert precious.read_text() == "years of work"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [precious]


def test_files_of_one_name_lose_nothing(tmp_path: Path) -> None:
    """Two machines may have given a run the same name, and a folder may hold a copy."""
    here, there = measured(plan(), observation()), measured(plan(), machine="aa11bb22")
    (done,) = rescore([here, there, here], LIMITS, tmp_path)
    runs = read_runs(done.path)
    assert [run.header.machine for run in runs] == [here.header.machine, "aa11bb22"]
    assert [len(run.observations) for run in runs] == [2, 0]


def test_an_interruption_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measured files may be rescored in their own place."""
    run = measured(plan(), observation())
    writer = Writer(tmp_path, run.header)
    for line in (*run.planned, *run.observations):
        writer.write(line)
    writer.close()
    before = writer.path.read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("compat.judge.rescoring.task_scores", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rescore(read_all([tmp_path]).runs, LIMITS, tmp_path)
    assert writer.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [writer.path.name]


def test_files_are_rescored_in_their_place_and_stay_packed(tmp_path: Path) -> None:
    run = measured(plan(), observation())
    begun = Started(case=NANO.id, check="latency.task", time="2026-11-20T12:00:02.000Z")
    writer = Writer(tmp_path / "machine", run.header)
    for line in (*run.planned, begun, *run.observations):
        writer.write(line)
    writer.close()
    packed = writer.path.with_name(f"{writer.path.name}.zst")
    packed.write_bytes(packing.pack(writer.path.read_bytes()))
    writer.path.unlink()
    (done,) = rescore(read_all([tmp_path]).runs, LIMITS, None)
    assert [done.path] == [path for path in tmp_path.rglob("*") if path.is_file()] == [packed]
    assert packing.packing(packed.read_bytes()) == "Zstandard"
    found = read(packed)
    assert found.observations[0].values["hard"]["wer"] == pytest.approx(1 / 4)
    assert found.started == (begun,), "a check that was cut off stays one"


def test_what_would_lose_lines_is_not_rescored_in_its_place(tmp_path: Path) -> None:
    for name in ("torn", "joined"):
        folder = tmp_path / name
        for run in ("one", "two"):
            writer = Writer(folder, header(run=run))
            writer.write(plan())
            writer.write(observation())
            writer.close()
        if name == "joined":
            data = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
            (folder / "one.main.jsonl").unlink()
        else:
            data = writer.path.read_bytes()[:-9]
        writer.path.write_bytes(data)
        with pytest.raises(ResultsError, match="not rescored in its place"):
            rescore(read_all([folder]).runs, LIMITS, None)
        assert writer.path.read_bytes() == data


def test_a_fault_of_the_scorer_is_no_form_of_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would keep old scores of sound predictions, and nobody would know."""

    def broken(*_: object) -> None:
        raise NameError("a misspelt name")

    monkeypatch.setattr("compat.models.tasks.base.Task.score_sets", broken)
    with pytest.raises(NameError):
        rescore([measured(plan(), observation())], LIMITS, tmp_path)


def test_what_cannot_be_scored_again_keeps_its_scorer(tmp_path: Path) -> None:
    assert rescored(tmp_path).scorer is None
    oldest = [{"item": "a", "prediction": {"text": "red door"}}]
    for rows in ([], oldest):
        found = rescored(tmp_path, predictions=rows)
        # Nor is it judged: the limits of today may ask for what was not computed then.
        assert (found.values, found.status) == (observation().values, "passed")
        assert scorer_of(header(versions={"scorer": str(SCORER_VERSION)}), found) == 0


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("known-failure", "25 points too many (known: a bug (#7) of the driver)"),
        ("unexpected-pass", "expected to fail: a bug (#7) of the driver"),
    ],
)
def test_what_was_expected_to_fail_is_judged_anew_too(
    tmp_path: Path, status: str, reason: str
) -> None:
    limit = {"metric": "hard.degradation", "value": 0.25, "strict": 0.005, "relaxed": 0.02}
    missed = (Limit(**limit, direction="at_most", level="failed", reason="half a point"),)
    about = {"status": status, "level": "failed", "reason": reason, "limits": missed}
    found = rescored(tmp_path, **about, expected="cpu.toml#1")
    assert (found.status, found.level) == ("known-failure", "failed")
    assert found.reason.startswith("pooled.no_worse_share 0.5")
    assert found.reason.endswith("(known: a bug (#7) of the driver)")
    same = [row("a", "red door", "red door", "red door")] * 2
    found = rescored(tmp_path, **about, expected="cpu.toml#1", predictions=same)
    assert (found.status, found.level) == ("unexpected-pass", "strict")
    assert found.reason == "expected to fail: a bug (#7) of the driver"


@pytest.mark.parametrize(
    "other",
    [
        {"truth": None},
        {"truth": 5, "prediction": [1]},
        {"prediction": {"text": 1e308}},
        {"set": ["hard"]},
    ],
    ids=",".join,
)
def test_predictions_of_another_form_keep_their_scores(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    """One such observation costs no other observation, and no other file, its new score."""
    odd = observation(predictions=[{**row("a", "one two", "one two", "one two"), **other}])
    done = rescore([measured(plan(), odd, observation())], LIMITS, tmp_path)
    assert [one.unreadable for one in done] == [1]
    kept, scored = read(done[0].path).observations
    assert kept.values == odd.values
    assert scored.values["hard"]["wer"] == pytest.approx(1 / 4)


def test_other_limits_leave_their_mark(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[[threshold]]\ncheck = "accuracy.task"\nmetric = "hard.cer"\n'
        'at_most = { strict = 1.0, relaxed = 1.0 }\nreason = "mine"\n'
    )
    others = thresholds.load([thresholds.default_path(), own])
    run = measured(plan(), observation(), own=("corpus",))
    (done,) = rescore([run], others, tmp_path / "others")
    assert read(done.path).header.own == ("corpus", "thresholds")
    (done,) = rescore([read(done.path)], LIMITS, tmp_path / "again")
    assert read(done.path).header.own == ("corpus",)
