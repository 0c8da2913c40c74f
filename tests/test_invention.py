"""Findings of their own: loops, answers to silence, and text that the audio cannot hold."""

from typing import Any

import pytest

from compat.contract.item import Item
from compat.metrics.invention import compression_ratio, inventions, loops, too_long
from compat.metrics.wer import task_wer
from compat.models.tasks.asr import Transcription

PROSE = (
    "it was the best of times it was the worst of times it was the age of wisdom it was the age of "
    "foolishness it was the epoch of belief it was the epoch of incredulity"
)
LOOP = "I am going to the house. " * 12


def test_compression_is_zlibs() -> None:
    assert compression_ratio("") == 0.0
    # 300 bytes of one letter: zlib's header and checksum and a few codes.
    assert compression_ratio("a" * 300) > 20
    # Even the most repetitive sentence of English literature is none.
    assert 1.0 < compression_ratio(PROSE) < 2.4


@pytest.mark.parametrize(
    ("text", "expected"),
    [(LOOP, True), (PROSE, False), ("no no no no", False), ("", False), ("你好" * 60, True)],
)
def test_a_loop_is_one_and_a_sentence_is_none(text: str, expected: bool) -> None:
    assert loops(text) is expected


def test_text_longer_than_its_audio() -> None:
    assert too_long("x" * 200, 2.0)
    # 250 words a minute, the fastest that people read aloud, for ten seconds.
    assert not too_long("words " * 42, 10.0)
    assert not too_long("a word that was cut off", 0.01)


def test_only_what_the_reference_lacks_is_found() -> None:
    found = inventions(LOOP, "I am going to the house.", 4.0)
    ratio = compression_ratio(LOOP)
    assert found == [
        f"repeats itself (compression ratio {ratio:.1f})",
        "299 characters for 4.0 s of audio",
    ]
    assert inventions(LOOP, LOOP, 4.0) == []
    assert inventions("Thank you.", "", 2.0, wordless=True) == ["text where nobody speaks"]
    assert inventions("Thank you.", "Thanks.", 2.0, wordless=True) == []
    assert inventions("Thank you.", "", 2.0) == []


def test_the_task_knows_a_recording_without_words() -> None:
    import numpy as np

    task = Transcription(open_vocabulary=True)
    audio = np.zeros(32_000, np.float32)
    silence = Item.from_audio("silence", audio, 16_000, {"text": ""})
    untold = Item.from_audio("untold", audio, 16_000, {})
    said, nothing = {"text": "Thank you."}, {"text": ""}
    assert task.inventions(silence, said, nothing) == ["text where nobody speaks"]
    assert task.inventions(silence, nothing, nothing) == []
    assert task.inventions(untold, said, nothing) == []


def test_a_loop_costs_one_utterance_and_no_more() -> None:
    truths = ["one two three four", "five six seven eight", "nine ten one two"]
    loop = "one two three four " + "four " * 100
    scores = task_wer(truths, [loop, *truths[1:]], truths)
    assert scores["wer"] == pytest.approx(100 / 12)
    assert scores["capped_wer"] == pytest.approx(4 / 12)
    assert scores["degradation"] == pytest.approx(4 / 12)
    assert scores["degradation_interval"][1] <= 1.0
    # What the reference errs as well is not capped: only errors beyond it are.
    same = task_wer(truths, [loop, *truths[1:]], [loop, *truths[1:]])
    assert same["capped_wer"] == same["wer"]
    assert same["degradation"] == 0.0


def test_all_sets_together_say_how_far_a_case_fell_behind() -> None:
    task = Transcription(open_vocabulary=False)

    def columns(texts: list[str], answers: list[str]) -> tuple[list[Item], list[Any], list[Any]]:
        items = [Item(f"{i}", {}, 1.0, facts={"text": text}) for i, text in enumerate(texts)]
        return items, [{"text": a} for a in answers], [{"text": text} for text in texts]

    sets = {
        "clean": columns(["one two", "three four"], ["one two", "three four"]),
        "hard": columns(["five six", "seven eight"], ["five", "seven eight"]),
    }
    scores = task.score_sets(sets)
    assert scores["hard"]["degradation"] == 1 / 4
    assert scores["pooled"]["degradation"] == 1 / 8
    low, high = scores["pooled"]["degradation_interval"]
    assert low == 0.0
    assert 1 / 8 < high < 1 / 2
    assert scores["pooled"]["no_worse_share"] == 3 / 4
    assert scores["pooled"].keys() == {"degradation", "degradation_interval", "no_worse_share"}
