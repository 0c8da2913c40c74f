"""Long audio: where it is cut, and how tokens of overlapping windows are joined."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compat.models.parts.long_audio import Pauses, merge

PAUSES = (
    Pauses(window=4000, reach=2600, overlap=200, frame=100, frames=5),
    Pauses(window=4000, reach=1333, overlap=320, frame=100, grid=20),
)


@pytest.mark.parametrize("pauses", PAUSES, ids=["any-sample", "grid"])
@given(st.integers(0, 30_000), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_pieces_overlap_and_leave_nothing_out(pauses: Pauses, samples: int, seed: int) -> None:
    recording = np.random.default_rng(seed).random(samples).astype(np.float32)
    pieces = pauses.pieces(recording)
    # They are views: where each begins in the recording.
    starts = [(piece.ctypes.data - recording.ctypes.data) // 4 for piece in pieces]
    assert starts[0] == 0
    assert starts[-1] + len(pieces[-1]) == samples
    for (start, piece), following in pairwise([*zip(starts, pieces, strict=True), (0, pieces[0])]):
        if following[1] is not pieces[0]:
            assert following[0] == start + len(piece) - 2 * pauses.overlap
            assert (following[0] + pauses.overlap - start) % pauses.grid == 0
        assert len(piece) <= pauses.window


@pytest.mark.parametrize("pauses", PAUSES, ids=["any-sample", "grid"])
def test_a_cut_is_in_the_middle_of_a_pause(pauses: Pauses) -> None:
    samples = np.ones(5000, np.float32)
    samples[3000:3500] = 0.0
    left, right = pauses.pieces(samples)
    cut = len(left) - pauses.overlap
    assert 3000 < cut < 3500
    assert len(right) == 5000 - cut + pauses.overlap
    assert not samples[cut - 20 : cut + 20].any()


@pytest.mark.parametrize(("last", "cut"), [(True, 3800 - 250), (False, 1400 + 250)])
def test_of_equal_pauses_one_counts(last: bool, cut: int) -> None:
    (left, _) = replace(PAUSES[0], last=last).pieces(np.zeros(5000, np.float32))
    assert len(left) - 200 == cut


def test_merge_joins_where_windows_agree() -> None:
    assert merge([1, 2, 3, 4], [3, 4, 5], 8) == [1, 2, 3, 4, 5]
    assert merge([1, 2], [3, 4], 8) == [1, 2, 3, 4]
    assert merge([], [3, 4], 8) == [3, 4]
    # The last token of the left window and the first of the right one were cut words.
    assert merge([1, 2, 3, 4, 9], [8, 3, 4, 5], 8) == [1, 2, 3, 4, 5]


def test_no_word_is_lost_for_two_common_tokens_that_happen_to_agree() -> None:
    """`… never die. But as … memory.` and `He was … of spades. …`: a stop and a word agree."""
    stop, word = 13, 286
    left = [*range(100, 120), stop, *range(120, 130), word, *range(130, 139), stop]
    right = [*range(200, 210), word, *range(210, 219), stop, 7]
    assert merge(left, right, 8) == left + right
    # Within the reach of an overlap, two of six are no agreement either.
    assert merge([1, 2, 9, 3, 4, 8], [9, 5, 6, 9, 7, 8], 8) == [1, 2, 9, 3, 4, 8, 9, 5, 6, 9, 7, 8]


@given(st.lists(st.integers(0, 10_000), min_size=6, max_size=30, unique=True), st.data())
def test_merge_restores_a_sequence_cut_with_overlap(tokens: list[int], data: st.DataObject) -> None:
    start = data.draw(st.integers(1, len(tokens) - 4))
    end = data.draw(st.integers(start + 2, len(tokens)))
    assert merge(tokens[:end], tokens[start:], 30) == tokens
