"""What `compat recommend` answers: the fastest that keeps what was asked, or why there is none."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured import SI_SDR, case, report, run, whole, write

from compat.commands.main import main
from compat.contract.errors import CompatError
from compat.report.advice import Advice, advise, front
from compat.report.candidates import Limits

FP32, INT8 = case("cpu-torch", "fp32"), case("openvino-cpu", "int8-dynamic")
SMALL = case("cpu-ctranslate2", "int8-dynamic")


def ask(*runs, wanted: str = "whisper", **limits) -> Advice:
    return advise(report(*runs), wanted, Limits(**limits))


def three(**changes) -> object:
    """fp32 is slow; int8 is fast, loses a little and only just; the small one needs no memory."""
    return run(
        {
            FP32: whole(FP32, rtf=0.3, memory=9e8),
            INT8: whole(
                INT8, **{"rtf": 0.1, "memory": 4e8, "loss": 0.008, "accurate": "relaxed", **changes}
            ),
            SMALL: whole(SMALL, rtf=0.4, memory=2e8),
        }
    )


def why(advice: Advice) -> dict[str, str]:
    return {one.name: reason for one, reason in advice.lost}


def test_the_fastest_whose_accuracy_is_strict_unless_a_loss_is_allowed() -> None:
    strict = ask(three())
    assert strict.best.name == "cpu-torch fp32"
    assert (
        "3 × as fast, but meets the relaxed limits of accuracy only: +0.8"
        in why(strict)["openvino-cpu int8-dynamic"]
    )
    allowed = ask(three(), loss=1.0)
    assert allowed.best.name == "openvino-cpu int8-dynamic"
    assert why(allowed)["cpu-torch fp32"] == "takes 3 × the time, but loses less (0 pp)"
    assert [one.name for one in allowed.front] == [
        "openvino-cpu int8-dynamic",
        "cpu-torch fp32",
        "cpu-ctranslate2 int8-dynamic",
    ]


@pytest.mark.parametrize(
    ("limits", "best", "loser", "reason"),
    [
        ({"loss": 0.5}, "cpu-torch fp32", "openvino-cpu int8-dynamic", "it loses WER +0.8"),
        (
            {"memory": 3e8},
            "cpu-ctranslate2 int8-dynamic",
            "cpu-torch fp32",
            "it takes 900 MB of memory, over 300 MB",
        ),
        (
            {"hardware": ("openvino",)},
            "openvino-cpu int8-dynamic",
            "",
            "",
        ),
    ],
)
def test_every_limit_is_kept(limits: dict, best: str, loser: str, reason: str) -> None:
    advice = ask(three(), **limits)
    assert advice.best.name == best
    assert reason in why(advice).get(loser, "")


def test_real_time_is_the_upper_end_of_the_factor() -> None:
    slow = run({FP32: whole(FP32, rtf=0.9, spread=0.2), SMALL: whole(SMALL, rtf=0.95)})
    advice = ask(slow, real_time=True)
    assert advice.best.name == "cpu-ctranslate2 int8-dynamic"
    assert why(advice)["cpu-torch fp32"] == "it is not real time: RTF up to 1.08"


def test_the_processor_is_every_column_that_runs_on_it() -> None:
    elsewhere = case("cuda-torch", "fp32", on_host_cpu=False)
    both = run({INT8: whole(INT8, rtf=0.2), elsewhere: whole(elsewhere, rtf=0.01)})
    assert ask(both, hardware=("cpu",)).best.name == "openvino-cpu int8-dynamic"


def test_what_fails_on_hard_inputs_is_no_answer_where_there_is_another() -> None:
    fragile = run({FP32: whole(FP32, rtf=0.1, robust="failed"), SMALL: whole(SMALL, rtf=0.4)})
    advice = ask(fragile)
    assert advice.best.name == "cpu-ctranslate2 int8-dynamic"
    assert why(advice)["cpu-torch fp32"] == "4 × as fast, but fails on hard inputs (robust failed)"


def test_of_two_as_fast_the_one_that_needs_less() -> None:
    tie = run({FP32: whole(FP32, rtf=0.1, spread=0.1), SMALL: whole(SMALL, rtf=0.103, memory=1e8)})
    assert ask(tie).best.name == "cpu-ctranslate2 int8-dynamic"
    # Without an overlap of their intervals the difference is one.
    apart = run({FP32: whole(FP32, rtf=0.1), SMALL: whole(SMALL, rtf=0.103, memory=1e8)})
    assert ask(apart).best.name == "cpu-torch fp32"


def test_times_of_two_machines_or_two_weights_are_not_compared() -> None:
    first = run({FP32: whole(FP32, rtf=0.3), SMALL: whole(SMALL, rtf=0.4)})
    other = run({INT8: whole(INT8, rtf=0.01)}, "Second", "20261120T100000Z-bbbbbb")
    advice = ask(first, other)
    assert {one.configuration.machine for one in advice.usable} == {advice.machine}
    assert advice.best.name == "cpu-torch fp32" and len(advice.elsewhere) == 1
    here = advise(report(first, other), "whisper", Limits(), other.header.machine)
    assert here.best.name == "openvino-cpu int8-dynamic"


@pytest.mark.parametrize(
    ("runs", "note"),
    [
        (
            {case("webgpu-x", "fp32", evidence="emulator"): {"rtf": 0.1}},
            "The evidence cannot answer: it is 1 of emulators",
        ),
        ({FP32: {"rtf": None}}, "none of it was ever timed"),
        ({FP32: {"timing": "inconclusive"}}, "No configuration keeps what was asked for"),
    ],
)
def test_it_says_what_the_evidence_cannot_answer(runs: dict, note: str) -> None:
    advice = ask(run({about: whole(about, **numbers) for about, numbers in runs.items()}))
    assert advice.best is None
    assert note in " ".join(advice.notes)


def test_a_stand_in_is_told() -> None:
    seeded, nano = case("cpu-torch", "fp32", "seeded"), case("cpu-torch", "fp32", "trained")
    advice = ask(run({seeded: whole(seeded, rtf=0.1), nano: whole(nano, loss=0.004)}), loss=1.0)
    assert advice.best.subject == "whisper-tiny@seeded" and advice.best.loss.value == 0.004
    said = " ".join(advice.notes)
    assert "measured on the stand-in whisper-nano@trained" in said
    assert "generated weights (whisper-tiny@seeded)" in said
    # Of published weights neither is said.
    assert ask(run({FP32: whole(FP32)})).notes == ()


def test_a_loss_is_in_the_metrics_own_unit() -> None:
    """Points for a share, decibels for a ratio of levels."""
    lossy = run({FP32: whole(FP32, loss=0.8, metrics=SI_SDR, wer=12.0)})
    assert ask(lossy, loss=1.0).best is not None
    refused = ask(lossy, loss=0.5)
    assert refused.best is None and "SI-SDR 0.8 dB" in refused.lost[0][1]


def test_a_loss_that_may_be_larger_is_told() -> None:
    few = run({FP32: whole(FP32, loss=0.004, loss_spread=0.02)})
    assert any("may be up to +2.40 pp" in note for note in ask(few, loss=1.0).notes)


def test_names_that_nobody_has() -> None:
    with pytest.raises(CompatError, match="called wisper") as error:
        ask(three(), wanted="wisper")
    assert "whisper" in error.value.remedy
    with pytest.raises(CompatError, match="no results of machine zz"):
        ask(three(), machine="zz")
    assert "Its targets are cpu-ctranslate2" in ask(three(), hardware=("cuda",)).notes[0]


@given(
    st.lists(
        st.tuples(*(st.sampled_from([1.0, 2.0, 3.0]) for _ in range(3))), min_size=1, max_size=8
    )
)
def test_the_front_is_what_nothing_beats(numbers: list[tuple[float, float, float]]) -> None:
    """Against the definition: nobody outside is better than everything inside, and none inside."""

    class Point:
        def __init__(self, coordinates: tuple[float, float, float]) -> None:
            self.coordinates = coordinates

    points = [Point(one) for one in numbers]
    inside = front(points)  # type: ignore[type-var]
    assert inside

    def beats(one: Point, other: Point) -> bool:
        pairs = list(zip(one.coordinates, other.coordinates, strict=True))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    for one in points:
        assert (one in inside) == (not any(beats(other, one) for other in points))


def test_the_command_answers_escapes_and_says_by_its_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    evil = case("cpu-\x1b[31mevil", "fp32")
    lines = run({FP32: whole(FP32, rtf=0.3), evil: whole(evil, rtf=0.4, memory=1e7)})
    write(tmp_path, lines)
    # Options before the results, which argparse alone does not take.
    asked = ["recommend", "whisper", "--hardware", "cpu", "--max-wer-loss", "1", str(tmp_path)]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("cpu-torch fp32: RTF 0.3 (0.297 to 0.303), WER lost 0 pp")
    assert "\x1b" not in shown and "�[31mevil" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert main([*asked, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["best"]["target"] == "cpu-torch" and math.isclose(
        answer["best"]["loss"]["value"], 0
    )
    assert main(["recommend", "whisper", "--max-memory", "1M", str(tmp_path)]) == 1
    assert "over 1 MB" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["recommend", "whisper", "--max-memory", "much", str(tmp_path)])
    assert "much is no size: write 500M" in capsys.readouterr().err
