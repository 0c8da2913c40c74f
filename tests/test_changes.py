"""The page of changes: what the newest run of each machine moved, and nothing across machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from measured import case, run, whole

from compat.judge.results import Collection, Run
from compat.report import build, changes, with_changes, write_site
from compat.report.changes import MOST_COMPARED

FP32 = case("cpu-torch", "fp32")
NAMES = [f"202611{day}T100000Z-aaaaa{day % 10}" for day in range(20, 30)]


def one(name: str, model: str = "First", **more: Any) -> Run:
    return run({FP32: whole(FP32, **more)}, model, name)


def test_the_newest_run_of_each_machine_is_compared_with_its_own_past() -> None:
    runs = (
        one(NAMES[0], rtf=0.1),
        one(NAMES[1], rtf=0.2),
        one(NAMES[2], "Second", rtf=0.9),
        one(NAMES[3], "Second", rtf=0.9),
        one(NAMES[4], "Third", rtf=5.0),
    )
    found = changes.changes(Collection(runs))
    told = {newest.machine: [c.kind for c in newest.told] for newest in found.newest}
    first, second, third = (runs[index].header.machine for index in (0, 2, 4))
    assert told[first] == ["worse"] and told[second] == []
    assert third not in told, "one run has no past"


def test_a_step_is_told_and_stands_in_the_data_and_in_the_feed(tmp_path: Path) -> None:
    runs = tuple(one(name, rtf=0.1 if n < 5 else 0.3) for n, name in enumerate(NAMES))
    collection = Collection(runs)
    site = write_site(with_changes(build(collection), collection), tmp_path / "site").parent
    page = (site / "changes.html").read_text(encoding="utf-8")
    assert "3 × as long, mean of 5 and of 5 runs" in page
    data = json.loads((site / "data.json").read_text(encoding="utf-8"))["changes"]
    assert [event["kind"] for event in data["events"]] == ["worse"]
    assert "worse: " in (site / "feed.xml").read_text(encoding="utf-8")
    steady = tuple(one(name, rtf=0.1) for name in NAMES)
    assert not changes.changes(Collection(steady)).events


def test_too_many_observations_are_not_compared_and_that_is_said(
    tmp_path: Path, monkeypatch: Any
) -> None:
    collection = Collection((one(NAMES[0]), one(NAMES[1], rtf=9.0)))
    monkeypatch.setattr(changes, "MOST_COMPARED", 1)
    report = with_changes(build(collection), collection)
    assert report.changes.left_out == sum(len(run.observations) for run in collection.runs)
    site = write_site(report, tmp_path / "site").parent
    assert "too many to be compared" in (site / "changes.html").read_text(encoding="utf-8")
    assert MOST_COMPARED > 100_000


def test_what_came_from_a_file_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    before, after = one(NAMES[0]), one(NAMES[1], rtf=9.0, robust="failed")
    collection = Collection((before, after))
    report = with_changes(build(collection), collection)
    (newest,) = report.changes.newest
    object.__setattr__(newest.comparison.changes[0], "reason", evil)
    site = write_site(report, tmp_path / "site").parent
    page = (site / "changes.html").read_text(encoding="utf-8")
    assert evil not in page and "&lt;script&gt;" in page
