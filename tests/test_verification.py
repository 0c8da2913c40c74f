"""Equal error rate, detection cost and their intervals, against hand-computed cases."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from compat.metrics.verification import (
    Trial,
    cosine,
    equal_error_rate,
    equal_error_threshold,
    minimum_detection_cost,
    task_verification,
)

# Whole numbers, so that transforming them cannot make two scores equal.
SCORES = st.integers(-50, 50)
TRIALS = st.lists(st.tuples(SCORES, st.booleans()), min_size=2, max_size=40).filter(
    lambda trials: 0 < sum(same for _, same in trials) < len(trials)
)


def _columns(trials: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([s for s, _ in trials], float), np.array([same for _, same in trials])


# Error rates ---------------------------------------------------------------------------------


def test_rates_by_hand() -> None:
    # Thresholds between neighbours: (miss, false alarm) = (0, 1) (0, 3/4) (1/4, 3/4) (1/4, 1/2)
    # (1/4, 1/4): they meet there, with the non-target at 6 above the target at 2.
    scores = [1, 3, 4, 6, 2, 5, 7, 8]
    same = [False] * 4 + [True] * 4
    assert equal_error_rate(scores, same) == pytest.approx(0.25)
    assert 4 < equal_error_threshold(scores, same) <= 5
    # P = 0.5: the smallest sum of miss and false alarm is 1/4 + 1/4, half of it 1/4, over 1/2.
    assert minimum_detection_cost(scores, same, 0.5) == pytest.approx(0.5)
    # P = 0.01: false alarms are dear; above 6 none is left, and half of the targets are missed.
    assert minimum_detection_cost(scores, same, 0.01) == pytest.approx(0.5)


def test_equal_error_rate_lies_between_operating_points() -> None:
    # (miss, false alarm) goes from (0, 1/2) to (1/3, 1/2) to (1/3, 0): on the last stretch, which
    # has one false-alarm rate after the other, miss stays at 1/3.
    assert equal_error_rate([0, 2, 1, 3, 4], [False, False, True, True, True]) == pytest.approx(
        1 / 3
    )
    # Two trials of either kind share a score: from (0, 1) straight to (1/2, 0), which cross
    # where x / 2 = 1 - x.
    tied = equal_error_rate([5, 5, 5, 9], [False, False, True, True])
    assert tied == pytest.approx(1 / 3)


def test_perfect_and_reversed_separation() -> None:
    scores, same = [0.1, 0.2, 0.8, 0.9], [False, False, True, True]
    assert equal_error_rate(scores, same) == 0.0
    assert 0.2 < equal_error_threshold(scores, same) <= 0.8
    assert minimum_detection_cost(scores, same, 0.05) == 0.0
    reverse = [not one for one in same]
    assert equal_error_rate(scores, reverse) == 1.0
    # Whoever always says no errs in no false alarm: that is the worst cost there is.
    assert minimum_detection_cost(scores, reverse, 0.05) == pytest.approx(1.0)


@given(st.integers(1, 20), st.integers(1, 20))
def test_identical_scores_are_chance(targets: int, others: int) -> None:
    scores = np.full(targets + others, 0.3)
    same = np.arange(targets + others) < targets
    assert equal_error_rate(scores, same) == pytest.approx(0.5)
    assert minimum_detection_cost(scores, same, 0.01) == pytest.approx(1.0)


@given(st.data(), TRIALS)
def test_order_of_trials_is_irrelevant(data: st.DataObject, trials: list[tuple[int, bool]]) -> None:
    one, other = _columns(trials), _columns(data.draw(st.permutations(trials)))
    assert equal_error_rate(*one) == equal_error_rate(*other)
    for prior in (0.01, 0.05):
        assert minimum_detection_cost(*one, prior) == minimum_detection_cost(*other, prior)


@given(TRIALS)
def test_increasing_transforms_change_nothing(trials: list[tuple[int, bool]]) -> None:
    scores, same = _columns(trials)
    for transformed in (3 * scores - 7, scores**3, np.exp(scores / 10)):
        assert equal_error_rate(transformed, same) == equal_error_rate(scores, same)
        assert minimum_detection_cost(transformed, same, 0.01) == minimum_detection_cost(
            scores, same, 0.01
        )


@given(TRIALS)
def test_reversing_scores_and_truth_keeps_the_rate(trials: list[tuple[int, bool]]) -> None:
    scores, same = _columns(trials)
    assert equal_error_rate(-scores, ~same) == pytest.approx(equal_error_rate(scores, same))


@given(TRIALS)
def test_rate_agrees_with_a_count_at_every_threshold(trials: list[tuple[int, bool]]) -> None:
    """The curve drawn by brute force, and searched for where it crosses the diagonal."""
    scores, same = _columns(trials)
    points = [
        (float(np.mean(scores[same] < t)), float(np.mean(scores[~same] >= t)))
        for t in (*sorted(set(scores)), np.inf)
    ]
    crossed = [(a, b) for a, b in pairwise(points) if a[0] < a[1] and b[0] >= b[1]]
    assert len(crossed) == 1
    (miss, alarm), (later_miss, later_alarm) = crossed[0]
    share = (alarm - miss) / ((alarm - miss) + (later_miss - later_alarm))
    expected = miss + share * (later_miss - miss)
    assert equal_error_rate(scores, same) == pytest.approx(expected)
    cost = min(0.05 * m + 0.95 * a for m, a in points) / 0.05
    assert minimum_detection_cost(scores, same, 0.05) == pytest.approx(cost)


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="one target and one non-target"):
        equal_error_rate([1, 2], [True, True])
    with pytest.raises(ValueError, match="not a number"):
        equal_error_rate([1, float("nan")], [True, False])
    with pytest.raises(ValueError, match="one score and one truth"):
        equal_error_rate([1, 2, 3], [True, False])
    with pytest.raises(ValueError, match="prior"):
        minimum_detection_cost([1, 2], [True, False], 1.0)


# Cosine ----------------------------------------------------------------------------------------


def test_cosine() -> None:
    assert cosine([3, 4], [6, 8]) == pytest.approx(1.0)
    assert cosine([1, 0], [0, 2]) == 0.0
    assert cosine([1, 0], [-3, 0]) == pytest.approx(-1.0)
    assert cosine([1, 1], [1, 0]) == pytest.approx(0.5**0.5)
    assert cosine([0, 0], [1, 0]) == 0.0
    assert cosine([1e200, 1e200], [1e-200, 1e-200]) == pytest.approx(1.0)
    assert np.isnan(cosine([float("nan"), 1], [1, 1]))


# The task's scores -----------------------------------------------------------------------------


def _corpus(
    speakers: int, each: int, noise: float, seed: int = 0
) -> tuple[list[Trial], np.ndarray, list[str]]:
    """All pairs of utterances whose embeddings scatter around one direction per speaker."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((speakers, 16))
    names = [f"s{s}" for s in range(speakers) for _ in range(each)]
    embeddings = np.repeat(centres, each, axis=0)
    embeddings = embeddings + noise * generator.standard_normal(embeddings.shape)
    count = speakers * each
    trials = [Trial(i, j, names[i] == names[j]) for i in range(count) for j in range(i + 1, count)]
    return trials, embeddings, names


def test_scores_against_truth_and_reference() -> None:
    trials, embeddings, names = _corpus(8, 4, 0.9)
    found = task_verification(trials, embeddings, embeddings, names)
    assert found["trials"] == len(trials) == 496
    assert found["targets"] == 8 * 6
    assert found["utterances"] == 32
    assert 0.02 < found["eer"] < 0.4
    assert found["eer"] == found["reference_eer"]
    assert found["degradation"] == 0.0
    assert found["degradation_interval"] == [0.0, 0.0]
    assert found["no_worse_share"] == 1.0
    assert found["worst_cosine"] == pytest.approx(1.0)
    low, high = found["eer_interval"]
    assert low < found["eer"] < high


def test_a_worse_case_shows_in_every_number() -> None:
    trials, embeddings, names = _corpus(8, 4, 0.6)
    worse = embeddings + np.random.default_rng(1).standard_normal(embeddings.shape)
    worse[5] = -embeddings[5]
    found = task_verification(trials, worse, embeddings, names)
    assert found["degradation"] == pytest.approx(found["eer"] - found["reference_eer"])
    assert found["degradation"] > 0.05
    assert found["degradation_interval"][0] > 0
    assert found["no_worse_share"] < 0.99
    assert (
        found["min_dcf_05"] > task_verification(trials, embeddings, embeddings, names)["min_dcf_05"]
    )
    assert found["worst_utterance"] == 5
    assert found["worst_cosine"] == pytest.approx(-1.0)
    assert found["mean_cosine"] < 0.95


def test_a_shift_of_all_scores_leaves_the_rate_and_costs_decisions() -> None:
    """A deployed threshold stays where it was: what was calibrated on float32 no longer fits."""
    trials, embeddings, names = _corpus(8, 4, 0.6)
    shifted = embeddings + 5.0  # A common direction: all cosines rise.
    found = task_verification(trials, shifted, embeddings, names)
    assert found["no_worse_share"] < 0.5
    assert found["eer"] < 0.35


def test_what_is_not_finite_is_wrong_at_every_threshold() -> None:
    trials, embeddings, names = _corpus(6, 3, 0.1)
    assert task_verification(trials, embeddings, embeddings, names)["eer"] == 0.0
    broken = embeddings.copy()
    broken[4, 3] = np.nan
    found = task_verification(trials, broken, embeddings, names)
    assert found["eer"] > 0.05
    assert found["worst_utterance"] == 4
    assert found["worst_cosine"] == -1.0
    everything = task_verification(trials, np.full_like(embeddings, np.inf), embeddings, names)
    assert everything["eer"] == 1.0


def test_the_interval_is_over_speakers_and_not_over_trials() -> None:
    """More utterances of the same speakers make more trials, and hardly more knowledge."""
    widths = []
    for each in (4, 16):
        trials, embeddings, names = _corpus(6, each, 0.9, seed=3)
        low, high = task_verification(trials, embeddings, embeddings, names)["eer_interval"]
        widths.append(high - low)
    # Over sixteen times as many independent trials it would be a quarter as wide.
    assert widths[1] > 0.5 * widths[0]


def test_one_speaker_has_no_interval() -> None:
    trials, embeddings, _ = _corpus(2, 2, 0.1)
    found = task_verification(trials, embeddings, embeddings, ["one"] * 4)
    assert found["eer_interval"] is None
    assert found["degradation_interval"] is None


def test_lengths_must_agree() -> None:
    trials, embeddings, names = _corpus(2, 2, 0.1)
    with pytest.raises(ValueError, match="one embedding"):
        task_verification(trials, embeddings[:3], embeddings, names)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 2.0))
def test_the_interval_contains_the_estimate(seed: int, noise: float) -> None:
    trials, embeddings, names = _corpus(4, 3, noise, seed)
    other = embeddings + 0.1 * np.random.default_rng(seed + 1).standard_normal(embeddings.shape)
    found = task_verification(trials, other, embeddings, names)
    assume(found["eer_interval"] is not None)
    assert found["eer_interval"][0] <= found["eer"] <= found["eer_interval"][1]
    low, high = found["degradation_interval"]
    assert low <= found["degradation"] <= high
