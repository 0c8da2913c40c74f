"""compat.metrics.diarization against errors counted by hand, pyannote's conventions, properties."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compat.metrics.diarization import (
    Errors,
    by_speaker,
    diarization_errors,
    jaccard_errors,
    speakers,
    task_diarization,
)

WHOLE = [(0.0, 30.0)]
TRUTH = [(0.0, 10.0, "ann"), (8.0, 16.0, "bob"), (20.0, 24.0, "ann")]
"""22 s of speaker time: ann speaks for 14 s, bob for 8 s, and for 2 s they speak together."""


def errors(hypothesis: list[tuple[float, float, str]], **options: Any) -> Errors:
    return diarization_errors(TRUTH, hypothesis, WHOLE, **options)


def same(found: Errors, miss: float, false_alarm: float, confusion: float, speech: float) -> None:
    assert (found.miss, found.false_alarm, found.confusion, found.speech) == pytest.approx(
        (miss, false_alarm, confusion, speech), abs=1e-9
    )


# --- counted by hand -------------------------------------------------------------------------


def test_the_truth_has_no_errors_whatever_the_speakers_are_called() -> None:
    same(errors(TRUTH), 0, 0, 0, 22)
    same(errors([(s, e, {"ann": "bob", "bob": "ann"}[who]) for s, e, who in TRUTH]), 0, 0, 0, 22)


def test_silence_misses_everything() -> None:
    same(errors([]), 22, 0, 0, 22)
    assert errors([]).rate == 1.0


def test_overlap_counts_twice() -> None:
    # One speaker all the way to 16 s: bob's 8 s are missed where ann speaks too (2 s), and
    # confused where only one is heard (6 s); ann's second turn (4 s) is missed.
    same(errors([(0.0, 16.0, "x")]), 2 + 4, 0, 6, 22)


def test_false_alarm_and_an_additional_speaker() -> None:
    # The gap from 16 to 20 s is filled (4 s), and a third voice covers 1 s of ann's last turn.
    hypothesis = [*TRUTH[:2], (16.0, 23.0, "ann"), (23.0, 24.0, "who")]
    same(errors(hypothesis), 0, 4, 1, 22)
    assert errors(hypothesis).rate == pytest.approx(5 / 22)


def test_rate_may_exceed_one_and_is_finite_in_silence() -> None:
    found = diarization_errors([(0.0, 1.0, "a")], [(0.0, 30.0, "b"), (0.0, 30.0, "c")], WHOLE)
    same(found, 0, 59, 0, 1)
    assert found.rate == 59.0
    assert diarization_errors([], [(2.0, 5.0, "b")], WHOLE).rate == 3.0
    assert diarization_errors([], [], WHOLE).rate == 0.0


def test_collar_is_on_each_side() -> None:
    # The only turn is from 10 to 20 s, found 0.2 s late and 0.3 s long: with 0.25 s left out on
    # each side of 10 and 20 s, 0.05 s of false alarm and 9.5 s of speech remain.
    truth, found = [(10.0, 20.0, "a")], [(10.2, 20.3, "x")]
    same(diarization_errors(truth, found, WHOLE), 0.2, 0.3, 0, 10)
    same(diarization_errors(truth, found, WHOLE, collar=0.25), 0, 0.05, 0, 9.5)


def test_pyannote_means_the_whole_width() -> None:
    # Pinned, because the two conventions differ by a factor of two and both are called "collar".
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    truth = Annotation()
    truth[Segment(10, 20)] = "a"
    uem = Timeline([Segment(0, 30)])
    assert DiarizationErrorRate(collar=0.5)(truth, truth, uem=uem, detailed=True)[
        "total"
    ] == pytest.approx(9.5)


def test_overlap_can_be_left_out() -> None:
    # Left: ann 0-8 s and 20-24 s, bob 10-16 s.
    same(errors([(0.0, 16.0, "x")], skip_overlap=True), 4, 0, 6, 18)


def test_only_the_scored_part_counts() -> None:
    # Of 9-21 s: ann 9-10 and 20-21 s, bob 9-16 s.
    parts = [(9.0, 15.0), (15.0, 21.0)]
    same(diarization_errors(TRUTH, [], parts), 9, 0, 0, 9)
    same(diarization_errors(TRUTH, [(16.0, 30.0, "x")], parts), 8, 4, 0, 9)
    assert speakers(TRUTH, parts) == 2
    assert speakers(TRUTH, [(17.0, 30.0)]) == 1
    assert speakers(TRUTH, [(16.0, 20.0)]) == 0


def test_jaccard() -> None:
    # ann: found 0-8 s, of 14 s: 1 - 8/14. bob: found 10-18 s instead of 8-16 s: 1 - 6/10.
    total, count = jaccard_errors(TRUTH, [(0.0, 8.0, "x"), (10.0, 18.0, "y")], WHOLE)
    assert count == 2
    assert total == pytest.approx((1 - 8 / 14) + (1 - 6 / 10))
    assert jaccard_errors(TRUTH, [], WHOLE) == (2.0, 2)
    assert jaccard_errors([], TRUTH, WHOLE) == (0.0, 0)


def test_speaker_time_is_merged() -> None:
    segments = [(5.0, 6.0, "a"), (0.0, 2.0, "a"), (1.0, 3.0, "a"), (3.0, 4.0, "a"), (7.0, 7.0, "b")]
    assert by_speaker(segments) == {"a": [(0.0, 4.0), (5.0, 6.0)]}


@pytest.mark.parametrize("bad", [(2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_malformed_segments_are_refused(bad: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="no segment"):
        errors([(*bad, "x")])


# --- the scores of a test set --------------------------------------------------------------------


def test_task() -> None:
    other = [(0.0, 10.0, "c")]
    found = task_diarization(
        [TRUTH, other],
        [[(0.0, 16.0, "x")], [(0.0, 9.0, "y"), (9.0, 10.0, "z")]],
        [TRUTH, [(0.0, 9.0, "y")]],
        [WHOLE, [(0.0, 12.0)]],
    )
    # 12 s of error in the first recording, 1 s of confusion in the second; 32 s of speaker time.
    assert found["der"] == pytest.approx(13 / 32)
    assert found["miss"] == pytest.approx(6 / 32)
    assert found["false_alarm"] == 0.0
    assert found["confusion"] == pytest.approx(7 / 32)
    assert found["speech_s"] == pytest.approx(32)
    assert found["recordings"] == 2
    assert found["reference_der"] == pytest.approx(1 / 32)
    assert found["degradation"] == pytest.approx(12 / 32)
    assert found["no_worse_share"] == 0.5
    assert found["worst_recording"] == 0
    assert found["speakers_right"] == 0.0
    # The collar takes 250 ms on each side: the first recording keeps 0.25-7.75, 8.25-9.75,
    # 10.25-15.75 and 20.25-23.75 s (19.5 s of speaker time, 1.5 s missed in the overlap, 3.5 s
    # at the end and 5.5 s confused), the second 0.25-9.75 s with 0.75 s confused.
    assert found["der_collar_250ms"] == pytest.approx((1.5 + 3.5 + 5.5 + 0.75) / (19.5 + 9.5))
    assert found["der_no_overlap"] == pytest.approx((10 + 1) / (18 + 10))
    # x is ann's: they share 10 s of 0-24 s without the gap, 20 s. bob has nobody; c's is y.
    assert found["jer"] == pytest.approx(((1 - 10 / 20) + 1 + (1 - 9 / 10)) / 3)
    low, high = found["der_interval"]
    assert low <= found["der"] <= high
    assert low == pytest.approx(1 / 10)
    low, high = found["degradation_interval"]
    assert low == pytest.approx(0)
    assert high == pytest.approx(12 / 22)
    json.dumps(found, allow_nan=False)


def test_one_frame_is_no_loss() -> None:
    moved = [(0.0, 10.017, "a"), (8.0, 16.0, "b"), (20.0, 24.0, "a")]
    found = task_diarization([TRUTH], [moved], [TRUTH], [WHOLE])
    assert 0 < found["degradation"] < 0.001
    assert found["no_worse_share"] == 1.0
    assert found["der_interval"] is None
    assert found["degradation_interval"] is None


@pytest.mark.parametrize("lengths", [(0, 0, 0, 0), (1, 1, 1, 0), (1, 2, 1, 1), (2, 1, 1, 1)])
def test_lengths_must_agree(lengths: tuple[int, int, int, int]) -> None:
    one, two, three, four = lengths
    with pytest.raises(ValueError, match="at least one"):
        task_diarization([TRUTH] * one, [TRUTH] * two, [TRUTH] * three, [WHOLE] * four)


# --- properties --------------------------------------------------------------------------------

# Times on a grid of a quarter of a second, so that sums are exact.
GRID = st.integers(0, 100).map(lambda quarters: quarters / 4)
SEGMENTS = st.lists(
    st.tuples(GRID, GRID, st.sampled_from("abc")).map(
        lambda one: (min(one[:2]), max(one[:2]), one[2])
    ),
    max_size=6,
)


def task(reference: Any, hypothesis: Any) -> dict[str, Any]:
    return task_diarization([reference], [hypothesis], [reference], [[(0.0, 26.0)]])


@given(SEGMENTS, SEGMENTS, st.permutations("abc"), st.permutations("abc"))
@settings(max_examples=40, deadline=None)
def test_names_do_not_matter(one: Any, other: Any, names: Any, others: Any) -> None:
    renamed = [(s, e, "speaker " + names["abc".index(who)]) for s, e, who in one]
    found = [(s, e, others["abc".index(who)]) for s, e, who in other]
    assert task(renamed, found) == pytest.approx(task(one, other))


@given(SEGMENTS)
@settings(max_examples=25, deadline=None)
def test_identical_is_free_of_errors(segments: Any) -> None:
    found = task(segments, list(reversed(segments)))
    names = ("der", "miss", "false_alarm", "confusion", "jer", "der_collar_250ms")
    assert [found[name] for name in (*names, "der_no_overlap")] == pytest.approx([0.0] * 7)
    assert found["speakers_right"] == 1.0


@given(SEGMENTS, SEGMENTS, st.floats(0.1, 0.9), st.booleans())
@settings(max_examples=40, deadline=None)
def test_splitting_a_segment_changes_nothing(
    one: Any, other: Any, share: float, of_the_truth: bool
) -> None:
    def split(segments: Any) -> Any:
        cuts = [(s, e, s + share * (e - s), who) for s, e, who in segments]
        return [half for s, e, m, who in cuts for half in ((s, m, who), (m, e, who))]

    divided = (split(one), other) if of_the_truth else (one, split(other))
    assert task(*divided) == pytest.approx(task(one, other), abs=1e-5)


@given(SEGMENTS, SEGMENTS)
@settings(max_examples=40, deadline=None)
def test_parts_add_up_and_are_bounded(one: Any, other: Any) -> None:
    found = diarization_errors(one, other, WHOLE)
    spoken = sum(e - s for spans in by_speaker(one).values() for s, e in spans)
    said = sum(e - s for spans in by_speaker(other).values() for s, e in spans)
    assert found.speech == pytest.approx(spoken)
    assert found.miss + found.confusion <= spoken + 1e-6
    # What is found is right, confused or false; what was said is right, confused or missed.
    assert said - found.false_alarm == pytest.approx(spoken - found.miss, abs=1e-6)
    # Missed and false speech take no mapping: exchanging the two exchanges them.
    turned = diarization_errors(other, one, WHOLE)
    assert (turned.miss, turned.false_alarm) == pytest.approx(
        (found.false_alarm, found.miss), abs=1e-6
    )
    assert turned.confusion == pytest.approx(found.confusion, abs=1e-6)


@given(SEGMENTS)
@settings(max_examples=15, deadline=None)
def test_silence_is_all_missed(segments: Any) -> None:
    found = diarization_errors(segments, [], WHOLE)
    assert (found.miss, found.false_alarm, found.confusion) == (found.speech, 0.0, 0.0)


# --- imports -----------------------------------------------------------------------------------


def test_imports_stay_lazy() -> None:
    # pyannote.metrics brings pandas, scikit-learn and SciPy: a worker must not carry them.
    code = (
        "import sys, compat.catalog, compat.metrics.diarization\n"
        "compat.catalog.load()\n"
        "heavy = {'pyannote', 'pandas', 'sklearn', 'scipy', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
