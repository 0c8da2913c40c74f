"""Judging again: scores come anew from stored predictions, faults stay what they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compat import thresholds
from compat.case import Case
from compat.catalog import load
from compat.measurement import facts_of
from compat.rescoring import rescore
from compat.results import Header, Limit, Observation, Planned, Run, read

NANO = load().case("whisper-nano@trained/cpu-torch/fp32")
LIMITS = thresholds.load([thresholds.default_path()])


def row(item: str, truth: str, said: str, reference: str) -> dict[str, Any]:
    kept = {"set": "hard", "item": item, "audio_s": 1.5, "truth": {"text": truth}}
    return {**kept, "prediction": {"text": said}, "reference": {"text": reference}}


ROWS = [row("a", "red door", "red door", "red door"), row("b", "go north", "no north", "go north")]


def rescored(tmp_path: Path, case: Case = NANO, **fields: Any) -> Observation:
    header = Header(
        schema=1,
        run="run",
        worker="main",
        started="2026-11-20T12:00:00.000Z",
        profile="core",
        machine="c4d1e09f77aa2b10",
        facts={},
        versions={"scorer": "0"},
        commit="",
        arguments=(),
        threads=1,
        parallel=False,
    )
    one = Observation(
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
    planned = Planned(case=facts_of(case), checks=(one.check,))
    run = Run(tmp_path / "old.jsonl", header, (planned,), (), (one,))
    path, _ = rescore(run, LIMITS, tmp_path / "again")
    again = read(path)
    assert again.header.versions["scorer"] != "0"
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


def test_what_was_never_scored_is_left_alone(tmp_path: Path) -> None:
    found = rescored(tmp_path, status="crashed", level=None, reason="signal 11")
    assert (found.status, found.values["hard"]["wer"]) == ("crashed", 0.0)
