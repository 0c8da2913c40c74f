"""What the experiment ``beams`` tells of times and words, and what docs/speed.md makes of it."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np
from small_results import header

from compat.contract.item import Item
from compat.experiments.beams import BASELINE, WINDOWS, Contestant, findings
from compat.judge.experiments import Stored
from compat.models.tasks.asr import Transcription

ROOT = Path(__file__).resolve().parents[1]
PORT = "faster-whisper int8"
ROUNDS = 6


def told() -> dict[str, msgspec.Struct]:
    """Return findings of a port that is three times as fast, and mishears with five beams."""
    items = [
        Item.from_audio(f"u{n}", np.zeros(1600, np.float32), 16_000, {"text": "one two three four"})
        for n in range(WINDOWS * (ROUNDS + 1))
    ]
    settings = [(BASELINE, 1, 1), (BASELINE, 5, 1), (PORT, 1, 1), (PORT, 5, 1), (PORT, 5, WINDOWS)]
    settings += [(PORT, 1, WINDOWS)]
    contestants = [Contestant(*one, hear=lambda items: []) for one in settings]
    seconds = {
        one.name: [one.beams * (4.0 if one.library == BASELINE else 4.0 / 3) / one.batch] * ROUNDS
        for one in contestants
    }
    answers = {
        one.name: [
            {"text": "one two three for" if one.library == PORT and one.beams > 1 else item.text}
            for item in items
        ]
        for one in contestants
    }
    return {
        f.measure: f
        for f in findings(
            contestants, seconds, answers, items, Transcription(open_vocabulary=False)
        )
    }


def test_each_is_held_against_as_many_beams_and_words_against_one() -> None:
    found = told()
    speed = found[f"speed of {PORT}, 5 beams, batch 1 over {BASELINE}"]
    assert round(speed.value, 6) == 3.0 and speed.timed
    assert round(found[f"speed of {PORT}, 5 beams, batch 4 over {BASELINE}"].value, 6) == 12.0
    assert found[f"time of 5 beams over 1: {PORT}, batch 1"].value == 5.0
    assert round(found[f"speed of batch 4 over 1: {PORT}, 5 beams, batch 1"].value, 6) == 4.0
    lost = found[f"words that 5 beams cost: {PORT}, batch 1"]
    assert lost.value == 0.25 and lost.interval == (0.25, 0.25), "what breaks answers is seen"
    assert found[f"words that 5 beams cost: {BASELINE}, batch 1"].value == 0.0
    assert f"speed of {BASELINE}, 1 beam, batch 1 over {BASELINE}" not in found


def test_the_page_has_the_verdict_and_says_what_it_lacks(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "docs" / "build"))
    try:
        import table_experiments
    finally:
        sys.path.pop(0)
    assert "Not measured yet" in table_experiments.beams(tmp_path)
    stored = Stored(experiment="beams", version=1, header=header(), findings=tuple(told().values()))
    (tmp_path / "a.beams.experiment.json").write_bytes(msgspec.json.encode(stored))
    text = table_experiments.beams(tmp_path)
    assert f"| {PORT}, 5 beams, batch 1 | 1.67 s | 3 × | 25.0 % |" in text
    assert f"| twice as fast, 5 beams | reached: 3 × by {PORT}, 5 beams, batch 1; needs" in text
    assert "| 4.1 × by faster-whisper's int8, 5 beams | **not reached**: 3 × by" in text
    assert "needs published small" in text
