"""Times that Whisper writes between its words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compat.contract.item import Item
from compat.experiments.times import findings, ruled, seconds, written
from compat.models.whisper_vocabulary import Vocabulary

START, NO_TIMES, BEGIN, END = 41, 43, 44, 40
"""Of a vocabulary of 40 words, and times from 0.00 to 1.20 s and further."""
SIZE = 144
WRITTEN = (
    [],
    [BEGIN],
    [BEGIN + 3, 5],
    [BEGIN + 3, 5, 6, BEGIN + 20],
    [BEGIN + 3, 5, BEGIN + 20, BEGIN + 20],
    [BEGIN + 3, 5, BEGIN + 20, BEGIN + 25, 7],
)


@pytest.mark.parametrize("before", WRITTEN, ids=str)
def test_rules_are_those_of_generate(before: list[int]) -> None:
    import torch
    from transformers import GenerationConfig
    from transformers.generation import WhisperTimeStampLogitsProcessor

    config = GenerationConfig(no_timestamps_token_id=NO_TIMES, eos_token_id=END, bos_token_id=END)
    config.max_initial_timestamp_index = 50
    process = WhisperTimeStampLogitsProcessor(config, begin_index=1)
    random = np.random.default_rng(len(before))
    finite = set()
    for scale in (0.1, 1.0, 5.0):
        logits = random.normal(0, scale, SIZE)
        expected = process(torch.tensor([[START, *before]]), torch.tensor(logits)[None])[0].numpy()
        found = ruled(logits, before, BEGIN, END)
        assert np.array_equal(np.isfinite(found), np.isfinite(expected))
        finite.add(int(np.isfinite(found).sum()))
    assert max(finite) < SIZE, "some rule holds"


class Scripted:
    """A session whose decoder wants the same tokens whatever came before: times rule them."""

    def __init__(self, wanted: list[int]) -> None:
        self.wanted, self.fed = wanted, list[int]()

    def reset(self, graph: str, point: str) -> None:
        self.fed = []

    def run(self, graph: str, feeds: dict[str, np.ndarray], point: str) -> dict[str, Any]:
        if graph == "encoder":
            return {}
        assert feeds["position"].tolist() == [len(self.fed)]
        self.fed.append(int(feeds["token"][0]))
        logits = np.zeros((1, SIZE), np.float32)
        logits[0, self.wanted[len(self.fed) - 1]] = 20.0
        return {"logits": Answer(logits)}


class Answer:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def numpy(self) -> np.ndarray:
        return self.array


class Ears:
    vocabulary = Vocabulary((START, NO_TIMES), END, suppress=(9,))
    max_tokens = 20

    def padded_mel(self, audio: list[np.ndarray], batch: int) -> np.ndarray:
        return np.zeros((batch, 1, 2), np.float32)


def test_words_are_written_between_times() -> None:
    said = [BEGIN + 10, 5, 6, BEGIN + 60, END]
    session = Scripted(said)
    item = Item.from_audio("a", np.zeros(16_000, np.float32))
    assert written(Ears(), session, item) == said  # type: ignore[arg-type]
    assert session.fed == [START, *said[:-1]], "the prompt has no word for no times"
    assert seconds(said, BEGIN) == pytest.approx([0.2, 1.2])


def test_errors_are_those_of_the_ends_of_speech() -> None:
    facts = {"segments": [[0.5, 1.0, "a"], [1.4, 2.0, "a"]]}
    items = [Item.from_audio(str(n), np.zeros(16_000, np.float32), facts=facts) for n in range(2)]
    found, first = [[0.4, 2.0], [0.6, 2.3]], [[0.4, 2.0], [0.6, 2.2]]
    begins, ends, moved = findings("a@b/c/d", items, found, first)
    assert begins.value == pytest.approx(0.1) and "c/d" in begins.measure
    assert ends.value == pytest.approx(0.15) and "at most 0.30 s" in ends.detail
    assert moved.value == 1
