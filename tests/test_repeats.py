"""Repeated experiments, and planted false effects: what does nothing, and what breaks answers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_results import header

from compat.commands import experiment as command
from compat.commands.main import main
from compat.experiments import identities, measures, pruning, segmenting
from compat.experiments.measures import Measured, in_turns, quotient
from compat.judge import claims, repeats
from compat.judge.claims import Claimed
from compat.judge.experiments import VERSIONS, Answers, Finding, Stored

LEDGER = claims.load(claims.default_folder())


def stored(name: str, *findings: Finding, busy: float = 0.0) -> Stored:
    return Stored(
        experiment=name,
        version=VERSIONS[name],
        header=header(),
        findings=findings,
        others={"others_busy": busy, "processors": 2.0},
    )


def gain(low: float, high: float) -> Finding:
    return Finding(
        measure="speed-up of optimisation", value=(low + high) / 2, interval=(low, high), timed=True
    )


def verdicts(claim: str, findings: Iterable[Finding]) -> dict[str, str]:
    """Return the verdict of each check of a claim that an experiment found something for."""
    found = {one.measure: one for one in findings}
    (chosen,) = (one for one in LEDGER if one.id == claim)
    return {
        check.what: repeats.judged(check, found[check["measure"]])
        for check in chosen.checks
        if check.kind == "experiment" and check["measure"] in found
    }


# Repetitions ---------------------------------------------------------------------------------


def test_repetitions_agree_where_every_verdict_is_the_same() -> None:
    good = [stored("fusion", gain(1.3, 1.4)), stored("fusion", gain(1.25, 1.5))]
    (one,) = (r for r in repeats.repeated("fusion", good, LEDGER) if "speed-up" in r.measure)
    assert one.agrees and one.verdicts == ("confirmed", "confirmed")
    bad = [*good, stored("fusion", gain(1.1, 1.15))]
    (one,) = (r for r in repeats.repeated("fusion", bad, LEDGER) if "speed-up" in r.measure)
    assert not one.agrees and one.verdicts[-1] == "refuted"
    busy = [*good, stored("fusion", gain(1.3, 1.4), busy=1.5)]
    (one,) = (r for r in repeats.repeated("fusion", busy, LEDGER) if "speed-up" in r.measure)
    assert one.verdicts[-1] == "inconclusive", "a busy machine decides nothing that is timed"


def test_an_answer_without_the_measure_does_not_agree() -> None:
    answers = [stored("fusion", gain(1.3, 1.4)), stored("fusion")]
    assert not all(one.agrees for one in repeats.repeated("fusion", answers, LEDGER)[:1])


@pytest.mark.parametrize(
    ("claimed", "interval", "margin"),
    [
        (Claimed(at_least=2.0), (1.0, 1.5), 0.25),
        (Claimed(at_least=2.0), (2.2, 3.0), 0.1),
        (Claimed(at_least=2.0), (1.9, 2.1), 0.0),
        (Claimed(at_least=1.0, at_most=2.0), (1.5, 1.9), 0.05),
        (Claimed(at_most=0.0), (0.01, 0.02), 0.01),
    ],
)
def test_a_verdict_is_close_where_its_interval_ends_near_what_is_claimed(
    claimed: Claimed, interval: tuple[float, float], margin: float
) -> None:
    assert repeats.margin(claimed, *interval) == pytest.approx(margin)


def test_the_closest_come_first_one_an_experiment() -> None:
    answers = Answers(
        (
            stored("fusion", gain(1.0, 1.19)),
            stored(
                "threads",
                Finding(measure="all cores over one thread", value=1.9, interval=(1.8, 2.0)),
            ),
            stored("identities", Finding(measure="2-D convolutions in Whisper's encoder", value=0)),
        )
    )
    found = repeats.closest(answers, LEDGER, 6)
    assert [one.experiment for one in found] == ["fusion", "threads"], "exact findings do not vary"
    assert found[0].margin == pytest.approx(0.01 / 1.2) and found[0].claim == "4.06"
    assert len(repeats.closest(answers, LEDGER, 1)) == 1


def test_the_command_repeats_keeps_and_fails_where_verdicts_differ(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    """One repetition in three gives another verdict."""
    answers = iter([gain(1.3, 1.4), gain(1.3, 1.4), gain(1.0, 1.1)])
    fake = SimpleNamespace(run=lambda *_: Measured((next(answers),)))
    seen = {
        "started": datetime.now(UTC),
        "seconds": 1.0,
        "others": {},
    }
    monkeypatch.setattr(command, "watched", lambda run: (run(), seen))
    arguments = SimpleNamespace(
        experiment=fake, experiment_name="fusion", repeat=3, json=False, save=tmp_path
    )
    assert command.experiment(arguments) == 1  # type: ignore[arg-type]
    said = capsys.readouterr().out
    assert "4.06 speed-up of optimisation: DIFFERENT (confirmed, confirmed, refuted)" in said
    assert len(list(tmp_path.glob("*.fusion.experiment.json"))) == 3
    with pytest.raises(SystemExit):
        main(["experiment", "fusion", "--repeat", "0"])


# Planted false effects -----------------------------------------------------------------------


class Clock:
    """Seconds that work says it takes, with noise, so that no busy machine decides."""

    def __init__(self) -> None:
        self.now, self.noise = 0.0, np.random.default_rng(0)

    def perf_counter(self) -> float:
        return self.now

    def work(self, seconds: float) -> Any:
        def once(number: int) -> None:
            self.now += seconds * (1 + 0.05 * self.noise.standard_normal())

        return once


@pytest.mark.parametrize(("faster", "verdict"), [(1.0, "refuted"), (1.5, "confirmed")])
def test_a_technique_that_does_nothing_is_refuted(
    faster: float, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claim 4.06: 1.2 times as fast. The same work twice is not, and real work saved is."""
    clock = Clock()
    monkeypatch.setattr(measures, "time", clock)
    contenders = {"none": clock.work(1.0), "all": clock.work(1.0 / faster)}
    seconds = in_turns(contenders, 20, lambda text: None)
    found = quotient("speed-up of optimisation", seconds["none"], seconds["all"])
    assert verdicts("4.06", [found]) == {"speed": verdict}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three conversations, in place of twelve."""
    monkeypatch.setattr(segmenting, "RECORDINGS", 3)


@pytest.mark.usefixtures("few")
def test_pruning_of_nothing_gains_nothing_and_pruning_of_nearly_all_breaks_answers() -> None:
    """The experiment itself, on the trained network: only the share that is pruned is planted."""
    nothing = pruning.pruning(2, lambda text: None, share=0.0).findings
    assert verdicts("4.08", nothing)["size"] == "refuted"
    assert verdicts("4.08", nothing)["DER"] == "confirmed"
    broken = pruning.pruning(2, lambda text: None, share=0.95).findings
    assert verdicts("4.08", broken)["DER"] == "refuted"


def test_a_cache_that_rounds_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim 4.11: caching is lossless, bit for bit."""
    pytest.importorskip("torch")
    assert verdicts("4.11", identities._cached()) == {"": "confirmed"}
    savez = np.savez
    monkeypatch.setattr(
        np, "savez", lambda file, *arrays: savez(file, *(a.astype(np.float16) for a in arrays))
    )
    assert verdicts("4.11", identities._cached()) == {"": "refuted"}
