"""Beam search: what it finds that greedy decoding does not, and that rows keep their own past."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compat.contract.graph import Stopwatch
from compat.experiments.measures import opened, recordings
from compat.models.parts.beam import beam_search

END, START, A, B, C = range(5)
CHANCES = {
    (): {A: 0.55, B: 0.45},
    # A begins better and ends worse: nothing after it is likely.
    (A,): {A: 0.3, B: 0.3, C: 0.3, END: 0.1},
    (B,): {C: 0.98, END: 0.02},
    (B, C): {A: 1.0},
    (B, C, A): {END: 1.0},
}
"""Chances of the next token after those before; all alike where nothing is said."""


class Tree:
    """A session whose decoder remembers, row by row, what it was fed."""

    def __init__(self, gathers: bool = True) -> None:
        self.graphs = {"decoder": SimpleNamespace(points={"b4": {"batch": 4}}, inputs={})}
        self.gathers = gathers
        self.past: list[tuple[int, ...]] = []

    def reset(self, graph: str, point: str) -> None:
        self.past = [()] * 4

    def gather(self, graph: str, point: str, rows: np.ndarray) -> None:
        if self.gathers:
            self.past = [self.past[row] for row in rows]

    def run(self, graph: str, feeds: Any, point: str, fetch: Any) -> dict[str, Any]:
        self.past = [(*p, int(t)) for p, t in zip(self.past, feeds["token"], strict=True)]
        logits = np.zeros((4, 5), np.float32)
        for row, past in enumerate(self.past):
            known = CHANCES.get(past[1:])
            if known is not None:
                logits[row] = -20.0
                for token, chance in known.items():
                    logits[row, token] = np.log(chance)
        return {"logits": SimpleNamespace(numpy=lambda: logits)}


def found(session: Any, beams: int, **options: Any) -> list[int]:
    return beam_search(session, {}, "b4", [START], beams, 6, END, **options)


def test_beams_find_what_greedy_decoding_misses() -> None:
    assert found(Tree(), 1)[0] == A
    assert found(Tree(), 2) == [B, C, A]


def test_a_row_without_its_own_past_is_seen() -> None:
    """The planted defect: caches that stay where they are while hypotheses change rows."""
    assert found(Tree(gathers=False), 2) != [B, C, A]


def test_one_beam_is_greedy_decoding_and_more_hear_the_same_clear_speech() -> None:
    pytest.importorskip("torch")
    model, session = opened("whisper-nano@trained/cpu-torch/fp32")
    for item in recordings("clean", model.sample_rate, 2):
        (greedy,) = model.run(session, [item], Stopwatch())
        mel = model.padded_mel([item.audio[: model.dimensions.window]], 1)
        encoded = session.run("encoder", {"mel": mel}, "b1")
        vocabulary = model.vocabulary
        for beams, point in ((1, "b1"), (4, "b4")):
            tokens = beam_search(
                session,
                encoded,
                point,
                vocabulary.prompt,
                beams,
                model.max_tokens,
                vocabulary.end,
                vocabulary.suppress,
                vocabulary.begin_suppress,
            )
            assert tokens == greedy["tokens"]
    session.close()


def test_suppressed_tokens_do_not_come() -> None:
    assert A not in found(Tree(), 2, begin_suppress=[A])
    assert C not in found(Tree(), 2, suppress=[C])


def test_a_program_needs_a_row_for_each_beam() -> None:
    with pytest.raises(ValueError, match="too few for 5 beams"):
        found(Tree(), 5)
