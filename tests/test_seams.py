"""Seams between chunks: where they are, what is joined there, and whose errors they are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from compat.contract.item import Item
from compat.experiments.made_recordings import LongRecording, Said
from compat.experiments.seams import Cutting, findings, heard, more_errors

RATE = 16_000


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25])
def test_chunks_share_what_is_said(overlap: float) -> None:
    audio = np.arange(25 * RATE, dtype=np.float32)
    cutting = Cutting(10, overlap)
    pieces, seams = cutting.pieces(audio, RATE)
    assert np.array_equal(np.unique(np.concatenate(pieces)), audio), "nothing is lost"
    assert len(seams) == len(pieces) - 1
    for left, right, seam in zip(pieces, pieces[1:], seams, strict=False):
        shared = np.intersect1d(left, right)
        assert len(shared) == pytest.approx(10 * overlap * RATE, abs=1)
        assert seam == pytest.approx((right[0] + left[-1]) / 2 / RATE, abs=1e-3)


def test_cuts_in_pauses_lie_in_pauses() -> None:
    audio = np.full(25 * RATE, 0.5, np.float32)
    for second in (8, 15, 22):
        audio[second * RATE : (second + 1) * RATE] = 0.0
    pieces, seams = Cutting(10, None).pieces(audio, RATE)
    assert max(map(len, pieces)) <= 10 * RATE and len(seams) == len(pieces) - 1
    assert all(audio[int(seam * RATE)] == 0.0 for seam in seams), seams


def test_words_of_an_overlap_are_written_once() -> None:
    pieces = ["one two three four", "three four five", "six"]
    assert heard(pieces, 4) == "one two three four five six"
    assert heard(pieces, 0) == "one two three four three four five six"


def recording() -> LongRecording:
    said = (Said("a b", 0, 4), Said("c d e f", 5, 9), Said("g h", 10, 14))
    return LongRecording(np.zeros(15 * RATE, np.float32), RATE, said)


def test_errors_at_seams_are_those_of_utterances_that_hold_one() -> None:
    rates = np.array([[0.0, 2.0], [2.0, 4.0], [0.0, 2.0]])
    whole, there = findings(Cutting(10, 0.0), recording(), [7.0], rates)
    assert whole.value == 0.25 and there.value == 0.5
    assert "1 of 3 utterances hold one" in there.detail
    # In a pause, a seam cuts nobody short.
    (alone,) = findings(Cutting(10, None), recording(), [4.5], rates)
    assert alone.measure == "word error rate, chunks of 10 s in pauses"


def test_errors_are_paired_by_utterance() -> None:
    sound, cut = Cutting(10, None), Cutting(10, 0.0)
    rates, others = (np.array([[n, 4.0]] * 20) for n in (2.0, 1.0))
    found = more_errors(cut, sound, rates, others)
    assert found.value == 0.25 and tuple(found.interval or ()) == (0.25, 0.25)
    nothing = more_errors(cut, sound, others, others)
    assert nothing.value == 0 and tuple(nothing.interval or ()) == (0, 0)


def test_hard_cuts_cost_words_and_pauses_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recogniser that writes a word for each burst of sound that it hears whole."""
    from compat.experiments import seams

    bursts = [Said(f"w{n}", n + 0.3, n + 0.7) for n in range(60)]
    audio = np.zeros(60 * RATE, np.float32)
    for n, one in enumerate(bursts):
        # The level tells which word it is.
        audio[int(one.start * RATE) : int(one.end * RATE)] = 0.1 + n / 100
    whole = LongRecording(audio, RATE, tuple(bursts))

    class Model:
        sample_rate = RATE

        task = SimpleNamespace(open_vocabulary=True, comparable=lambda texts, _: texts)

        def run(self, session: object, items: list[Item], stopwatch: object) -> list[dict]:
            (item,) = items
            loud = np.flatnonzero(np.diff(np.pad(item.audio, 1) != 0))
            words = [
                f"w{round((item.audio[start] - 0.1) * 100)}"
                for start, end in zip(loud[::2], loud[1::2], strict=True)
                if abs(end - start - 0.4 * RATE) <= 1
            ]
            return [{"text": " ".join(words)}]

    class Session:
        def close(self) -> None:
            pass

    monkeypatch.setattr(seams, "opened", lambda case: (Model(), Session()))
    monkeypatch.setattr(seams, "recordings", lambda name, rate: [])
    monkeypatch.setattr(seams, "joined", lambda items, seconds: whole)
    # Chunks of 9.5 s end in the middle of a word now and then.
    ways = [Cutting(9.5, None), Cutting(9.5, 0.0), Cutting(9.5, 0.25)]
    found = {one.measure: one for one in seams.seams(1, lambda line: None, "toy", ways).findings}
    rates = [found[f"word error rate, {way.name}"].value for way in ways]
    assert rates[0] == rates[2] == 0 < rates[1]
    assert found[f"word error rate at seams, {ways[1].name}"].value == 1
    added = found[f"errors added by {ways[1].name}"]
    assert added.value == rates[1] and "+" in added.detail
