"""Recordings of an hour, and speech that is followed as it is said: what the experiments tell."""

from __future__ import annotations

import numpy as np
import pytest

from compat.contract.item import Item
from compat.experiments.live import CHUNK, SILENCE, findings, follow
from compat.experiments.long import Memory, section_errors
from compat.experiments.made_recordings import LongRecording, Said, joined

RATE = 16_000


def utterance(name: str, text: str, seconds: float) -> Item:
    return Item.from_audio(
        name, np.full(int(seconds * RATE), 0.5, np.float32), RATE, {"text": text}
    )


def test_everybody_speaks_before_anybody_speaks_again() -> None:
    items = [utterance(f"u{n}", f"word{n}", 1.0) for n in range(4)]
    recording = joined(items, 12.0)
    texts = [one.text for one in recording.said]
    assert recording.seconds >= 12.0 and sorted(texts[:4]) == [f"word{n}" for n in range(4)]
    for before, after in zip(recording.said, recording.said[1:], strict=False):
        assert 0.3 <= after.start - before.end <= 2.0
    one = recording.said[-1]
    speech = recording.audio[int(one.start * RATE) : int(one.end * RATE)]
    pause = recording.audio[: int(recording.said[0].start * RATE)]
    assert abs(speech).mean() > 0.4
    assert 0.1 > abs(pause).mean() > 0, "noise lies below speech"
    again = joined(items, 12.0)
    assert again.said == recording.said and np.array_equal(again.audio, recording.audio)
    assert joined(items, 12.0, seed=1).said != recording.said


def test_an_error_counts_in_the_utterance_in_which_it_was_made() -> None:
    said = (Said("a b c", 0, 1), Said("d e", 1, 2), Said("f g", 2, 3))
    recording = LongRecording(np.zeros(1, np.float32), RATE, said)
    assert section_errors(recording, "a b c d e f g", str).tolist() == [[0, 3], [0, 2], [0, 2]]
    # One word changed in the first, one lost in the second, two invented at the end.
    found = section_errors(recording, "a x c d f g h i", str)
    assert found.tolist() == [[1, 3], [1, 2], [2, 2]]


class Clock:
    """Tells what it was told that work takes."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def followed(recognition_s: float, words: dict[int, str] | None = None, every: float = 1.0):
    """Follow three seconds of speech after one of silence, heard without an error.

    Recognition writes a word for each whole second that it is given.
    """
    audio = np.zeros(6 * RATE, np.float32)
    audio[RATE : 4 * RATE] = 1.0
    recording = LongRecording(audio, RATE, (Said("one two three", 1.0, 4.0),))
    clock = Clock()

    def hear(part: np.ndarray) -> np.ndarray:
        frames = part[: len(part) // 512 * 512].reshape(-1, 512)
        return frames.max(axis=1) > 0.5

    def write(part: np.ndarray) -> str:
        clock.now += recognition_s
        seconds = int((part > 0.5).sum() / RATE + 0.01)
        return (words or {}).get(seconds, " ".join(["one", "two", "three"][:seconds]))

    return follow(recording, hear, write, clock, every)


def test_words_appear_a_second_after_they_are_said_where_work_costs_nothing() -> None:
    (one,) = followed(0.0)
    assert one.shown == ["one", "two", "three"] and one.revised == 0 and one.told == 3
    assert one.end == pytest.approx(4.0, abs=0.04)
    assert one.first is not None and 2.0 <= one.first <= 2.0 + 2 * CHUNK
    assert SILENCE <= one.final - one.end <= SILENCE + 2 * CHUNK


def test_work_that_is_slower_than_speech_delays_what_comes_behind_it() -> None:
    (quick,), (slow,) = followed(0.1), followed(2.0)
    assert quick.final - quick.end < 1.0
    assert slow.final - slow.end > 2.5, "it waited for the transcripts before"


def test_words_that_were_shown_and_changed_are_counted() -> None:
    (one,) = followed(0.0, {1: "won", 2: "one too", 3: "one two three"})
    # `won` became `one`, `too` became `two`.
    assert one.revised == 2 and one.told == 5
    first, last, revised = findings([one], "name", 1.0)
    assert revised.value == pytest.approx(0.4) and "2 of 5" in revised.detail
    assert first.timed and last.timed and not revised.timed


def test_growth_is_that_of_the_last_third() -> None:
    memory = Memory()
    memory.seen = [50, 100, 100, 100, 130, 130]
    assert memory.growth == 30.0
    memory.seen = [50, 90, 100, 100, 100, 100]
    assert memory.growth == 0.0
