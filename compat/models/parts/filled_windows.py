"""Windows filled with speech: the inputs of models with generated weights, which know no words.

Timing needs windows that are full, and numerics need inputs that differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np

from compat.contract.item import Item
from compat.inputs.audio import CorpusError
from compat.inputs.corpus import TestSet

MOST = 200
"""Largest number of a test set's recordings that are read."""


def joined(test_set: TestSet, rate: int, window: int) -> Iterator[Item]:
    """Yield inputs of nearly ``window`` samples without end: whole utterances, joined.

    When the utterances are used up, the next round begins one utterance later, so that no two
    windows are alike.

    Raises:
        CorpusError: the test set has a single utterance.
    """
    items = test_set.items(rate, MOST)
    if len(items) < 2:
        raise CorpusError(
            f"{test_set.folder} has one recording: generated weights are compared on different "
            "inputs. Add recordings."
        )
    together: list[Item] = []
    for number in count():
        first, position = divmod(number, len(items))
        item = items[(first + position) % len(items)]
        if together and sum(one.audio.shape[-1] for one in (*together, item)) > window:
            yield _join(together, f"window-{number}")
            together = []
        together.append(item)


def _join(items: Sequence[Item], identifier: str) -> Item:
    facts = {"text": " ".join(item.text for item in items)}
    audio = np.concatenate([item.audio for item in items], axis=-1)
    return Item.from_audio(identifier, audio, items[0].rate, facts)


def cut(test_set: TestSet, rate: int, window: int, number: int) -> list[Item]:
    """Return ``number`` inputs of exactly ``window`` samples, cut without regard to utterances.

    If the test set is small, the inputs overlap.
    """
    speech = np.concatenate([item.audio for item in test_set.items(rate, MOST)], axis=-1)
    step = min(window, speech.shape[-1] // number)
    return [
        Item.from_audio(
            f"window-{index}",
            speech.take(range(index * step, index * step + window), axis=-1, mode="wrap"),
            rate,
        )
        for index in range(number)
    ]
