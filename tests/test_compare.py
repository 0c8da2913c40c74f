"""What `compat compare` calls a change: noise is none, and CI learns of one by the status."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from measured import case, run, whole, write

from compat.commands.main import main
from compat.contract.errors import CompatError
from compat.judge.results import Limit, Observation, Run
from compat.report.compare import Change, Comparison, compare
from compat.report.sides import of_collections, of_names

FP32, INT8 = case("cpu-torch", "fp32"), case("cpu-torch", "int8-dynamic")
LATER = "2026-11-21T10:00:00Z"


def one(name: str = "20261120T100000Z-aaaaaa", about=FP32, model="First", head=None, **more) -> Run:
    return run({about: whole(about, **more)}, model, name, **(head or {}))


def both(before: Run | Sequence[Run], after: Run | Sequence[Run], **options: Any) -> Comparison:
    sides = [side if isinstance(side, Sequence) else [side] for side in (before, after)]
    return compare(of_collections(("a", sides[0]), ("b", sides[1])), **options)


def changed(compared: Comparison, kind: str) -> list[Change]:
    return [change for change in compared.changes if change.kind == kind]


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ({"rtf": 0.1}, {"rtf": 0.16}, "worse"),
        ({"rtf": 0.16}, {"rtf": 0.1}, "better"),
        # As runs on shared machines differ anyway.
        ({"rtf": 0.1}, {"rtf": 0.14}, "same"),
        # Far apart, but so are the rounds of each.
        ({"rtf": 0.1, "spread": 0.6}, {"rtf": 0.2, "spread": 0.6}, "same"),
        ({"memory": 4e8}, {"memory": 4.3e8}, "same"),
        ({"memory": 4e8}, {"memory": 4.5e8}, "worse"),
        ({"loss": 0.0}, {"loss": 0.003}, "same"),
        ({"loss": 0.0}, {"loss": 0.01}, "worse"),
        ({"robust": "relaxed"}, {}, "better"),
        ({}, {"robust": "relaxed"}, "worse"),
        ({}, {"robust": "failed"}, "same"),
    ],
)
def test_a_change_is_what_noise_does_not_explain(before: dict, after: dict, kind: str) -> None:
    compared = both(one(**before), one("20261121T100000Z-bbbbbb", **after))
    assert {change.kind for change in compared.changes} == ({kind} - {"same"})
    assert compared.regressed == (kind == "worse")


def test_a_threshold_is_for_quieter_machines() -> None:
    before, after = one(rtf=0.1), one("20261121T100000Z-bbbbbb", rtf=0.12)
    assert not both(before, after).changes
    (change,) = both(before, after, threshold=0.1).changes
    assert (change.kind, change.measure, change.reason) == ("worse", "rtf", "1.2 × as long")
    # It never makes a change of what the intervals hold.
    noisy = one("20261121T100000Z-bbbbbb", rtf=0.12, spread=0.3)
    assert not both(before, noisy, threshold=0.1).changes


def failing(source: Run, check: str, status: str, reason: str, **more: Any) -> Run:
    observations = tuple(
        msgspec.structs.replace(o, status=status, level=None, reason=reason, values={}, **more)
        if o.check == check
        else o
        for o in source.observations
    )
    return Run(source.path, source.header, source.planned, (), observations)


def test_newly_failing_and_passing_with_the_number_that_matters() -> None:
    sound = one()
    limit = Limit(
        metric="logits.snr_db",
        value=3.21,
        strict=60.0,
        relaxed=40.0,
        direction="at_least",
        level="failed",
        reason="a long story of why " * 20,
    )
    broken = failing(
        one("20261121T100000Z-bbbbbb"),
        *("accuracy.numerics", "failed", "logits.snr_db 3.21 (a long story)"),
        limits=(limit,),
    )
    (change,) = both(sound, broken).changes
    assert change.kind == "newly failing"
    assert change.reason == "keeps 3.2 dB between signal and error of logits (40.0 dB at least)"
    (back,) = both(broken, sound).changes
    assert back.kind == "newly passing"


def test_what_fails_as_a_whole_is_told_once() -> None:
    after = one("20261121T100000Z-bbbbbb")
    for check in ("support.loads", "accuracy.numerics", "latency.task"):
        after = failing(after, check, "crashed", "the worker died by signal 11")
    (change,) = both(one(), after).changes
    assert change.check == "accuracy.numerics, latency.task, support.loads"


def test_what_another_version_found_is_incomparable() -> None:
    def asked(name: str, version: int) -> Run:
        own = Observation(
            case=FP32.id, check="mine.question", check_version=version, status="passed"
        )
        return run({FP32: [own]}, name=name)

    compared = both(asked("20261120T1-a", 1), asked("20261121T1-b", 2))
    assert [c.kind for c in compared.changes] == ["incomparable"]
    assert compared.changes[0].reason == "version 1 of the check, and version 2"
    after = one("20261121T100000Z-bbbbbb", wer=0.9, loss=0.9)
    scored = tuple(
        msgspec.structs.replace(o, scorer=1) if o.check == "accuracy.task" else o
        for o in one().observations
    )
    (change,) = both(Run(one().path, one().header, one().planned, (), scored), after).changes
    assert change.kind == "incomparable" and "compat rescore makes them one" in change.reason


@pytest.mark.parametrize(
    ("head", "check", "reason"),
    [
        ({"hashes": {"corpus": "another"}}, "accuracy.task", "two versions of the corpus"),
        ({"profile": "quick"}, "accuracy.numerics", "other numbers of inputs: core, and quick"),
        ({"own": ("corpus",)}, "accuracy.task", "what is shipped and own corpus"),
    ],
)
def test_other_inputs_are_incomparable(head: dict, check: str, reason: str) -> None:
    after = one("20261121T100000Z-bbbbbb", head=head, wer=0.9)
    (change,) = [c for c in both(one(), after).changes if check in c.check.split(", ")]
    assert (change.kind, change.reason) == ("incomparable", reason)


def test_threads_and_noise_are_incomparable() -> None:
    after = one("20261121T100000Z-bbbbbb", rtf=0.9)
    fewer = tuple(msgspec.structs.replace(o, threads=1) for o in after.observations)
    compared = both(one(), Run(after.path, after.header, after.planned, (), fewer))
    assert {c.reason for c in compared.changes} == {"2 threads, and 1"}
    assert {c.measure for c in compared.changes} >= {"rtf", "peak_bytes"}
    noisy = one("20261121T100000Z-bbbbbb", timing="inconclusive")
    (change,) = both(one(), noisy).changes
    assert change.kind == "incomparable" and "too noisy" in change.reason


def test_missing_and_new_say_why() -> None:
    skipped = failing(one("20261121T100000Z-bbbbbb"), "latency.task", "skipped", "cpu is absent")
    (change,) = both(one(), skipped).changes
    assert (change.kind, change.reason) == ("missing", "skipped in b: cpu is absent")
    more = run({FP32: whole(FP32), INT8: whole(INT8)}, name="20261121T100000Z-bbbbbb")
    compared = both(one(), more)
    assert {c.kind for c in compared.changes} == {"new"}
    assert compared.changes[0].reason == "not planned in a"
    assert not compared.regressed


def test_machines_runs_versions_and_recipes_of_one_collection() -> None:
    head = {"versions": {"onnxruntime": "1.30", "scorer": "2"}}
    runs = [
        one(head=head),
        one(
            "20261121T100000Z-bbbbbb",
            rtf=0.3,
            time=LATER,
            head={"started": LATER, "commit": "decade1"},
        ),
        one("20261120T120000Z-cccccc", model="Second", rtf=0.9),
        run({INT8: whole(INT8, rtf=0.02)}, name="20261120T130000Z-dddddd"),
    ]
    machines = sorted({r.header.machine for r in runs}, key=lambda m: m != runs[0].header.machine)
    for names, dimension in [
        (("20261120T100000Z", "20261121T100000Z"), "run"),
        (("20261120T100000Z-a", "decade"), None),
        (("c0ffee", "decade1"), "commit"),
        (("20261120T100000Z", "20261120T120000Z"), "run"),
    ]:
        if dimension is None:
            with pytest.raises(CompatError, match="is a run and decade is a commit"):
                of_names(runs, *names)
        else:
            assert of_names(runs, *names).dimension == dimension
    found = compare(of_names(runs, *machines))
    assert found.dimension == "machine"
    # Of one machine the slower, later run counts.
    assert [c.measure for c in found.changes if c.kind == "worse"] == ["rtf"]
    recipes = compare(of_names(runs, "fp32", "int8"))
    assert recipes.dimension == "recipe"
    (better,) = changed(recipes, "better")
    assert better.case == "whisper-tiny@pretrained/cpu-torch/*" and better.measure == "rtf"
    # Two runs of two machines: what is wrong is told, how fast they are is not compared.
    apart = compare(of_names(runs, "20261120T100000Z", "20261120T120000Z"))
    assert {c.reason for c in apart.changes} == {"measured on two machines"}
    since = compare(of_names(runs, "previous", "latest"))
    assert [c.measure for c in changed(since, "worse")] == ["rtf"]
    with pytest.raises(CompatError, match="is no file, and no run"):
        of_names(runs, "nobody", "nothing")
    with pytest.raises(CompatError, match="is the only run of machine"):
        of_names(runs[:1], "previous", "latest")


def test_the_command_escapes_and_ends_with_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    evil = case("cpu-torch", "fp32-\x1b[2J|<b>")
    before, after = (
        write(tmp_path / side, run({evil: whole(evil, rtf=rtf)}, name=name))
        for side, rtf, name in (("a", 0.1, "20261120T1-a"), ("b", 0.2, "20261121T1-b"))
    )
    assert main(["compare", str(before), str(after)]) == 1
    shown = capsys.readouterr().out
    assert "1 worse" in shown and "2 × as long" in shown and "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert main(["compare", str(before), str(after), "--markdown"]) == 1
    table = capsys.readouterr().out
    assert "&lt;b&gt;" in table and "<b>" not in table and "\\|" in table and "\x1b" not in table
    assert main(["compare", str(before), str(before), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changes"] == []
    assert main(["compare", str(before), str(after), "--threshold", "200"]) == 0
    assert main(["compare", "nobody", "nothing", str(before)]) == 3
