"""Long audio in segments: joined exactly, in little memory, and faded where segments meet."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compat.models.parts.overlap_add import OverlapAdd


@given(
    st.integers(1, 400),
    st.integers(2, 64),
    st.floats(0.0, 0.95),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=25, deadline=None)
def test_what_is_answered_with_itself_comes_back_exactly(
    samples: int, length: int, overlap: float, seed: int
) -> None:
    segments = OverlapAdd.triangular(length, min(overlap, 1 - 1 / length))
    audio = np.random.default_rng(seed).standard_normal((2, samples)).astype(np.float32)
    seen: list[tuple[int, ...]] = []

    def echo(segment: np.ndarray) -> np.ndarray:
        seen.append(segment.shape)
        return np.stack((segment, -segment))

    answer = segments.run(audio, echo)
    assert answer.dtype == np.float32
    np.testing.assert_array_equal(answer, np.stack((audio, -audio)))
    assert set(seen) == {(2, length)}
    assert len(seen) == -(-samples // segments.step)


def test_neighbours_fade_into_one_another_along_a_line() -> None:
    segments = OverlapAdd.triangular(80, 0.25)
    number = iter(range(10))
    answer = segments.run(np.zeros(200), lambda segment: np.full(len(segment), next(number)))
    # 20 samples belong to both; the first of the second counts 1, the last of the first 1 too.
    rising = np.arange(1, 21) / (np.arange(1, 21) + np.arange(20, 0, -1))
    np.testing.assert_allclose(answer[:60], 0.0)
    np.testing.assert_allclose(answer[60:80], rising, rtol=1e-6)
    np.testing.assert_allclose(answer[80:120], 1.0)
    np.testing.assert_allclose(answer[120:140], 1 + rising, rtol=1e-6)


def test_the_last_segment_hears_what_came_before() -> None:
    segments = OverlapAdd.triangular(8, 0.25)
    audio = np.arange(1.0, 11.0)
    segment, part = segments.segment(audio, 6)
    np.testing.assert_array_equal(segment, [5, 6, 7, 8, 9, 10, 0, 0])
    np.testing.assert_array_equal(segment[part], [7, 8, 9, 10])


def test_memory_does_not_grow_with_the_recording() -> None:
    """But for the answer itself."""
    rate = 2000
    segments = OverlapAdd.triangular(rate, 0.25)

    def beyond(seconds: int) -> int:
        audio = np.zeros((2, seconds * rate), np.float32)
        tracemalloc.start()
        answer = segments.run(audio, lambda segment: np.stack([segment] * 4))
        peak = tracemalloc.get_traced_memory()[1] - answer.nbytes
        tracemalloc.stop()
        return peak

    peaks = [beyond(seconds) for seconds in (10, 60, 300, 1800)]
    assert max(peaks) < 1.1 * min(peaks), peaks


@pytest.mark.parametrize(
    ("step", "weights"),
    [(0, np.ones(8)), (9, np.ones(8)), (4, np.ones(7)), (4, np.array([0.0, 1, 1, 1, 1, 1, 1, 1]))],
)
def test_segments_that_leave_something_out_are_refused(step: int, weights: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"leave some out|positive weights"):
        OverlapAdd(8, step, weights)


def test_nothing_has_no_answer() -> None:
    with pytest.raises(ValueError, match="no sample"):
        OverlapAdd.triangular(8, 0.25).run(np.zeros((2, 0)), lambda segment: segment)
