"""compat.metrics.timing against tables of order statistics and simulated timings."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.metrics.timing import (
    cached_result,
    crowding,
    median_interval,
    others_busy,
    summarise,
    undisturbed,
    unsynchronised,
    upper_rank,
)


@pytest.mark.parametrize(
    ("count", "low", "high", "coverage"),
    [
        # Ranks and exact coverage of the 95 % sign-test interval, as tabulated in textbooks.
        (1, 1, 1, 0.0),
        (2, 1, 2, 0.5),
        (5, 1, 5, 0.9375),
        (6, 1, 6, 0.96875),
        (9, 2, 8, 0.9609375),
        (10, 2, 9, 0.978515625),
        (15, 4, 12, 0.96484375),
        (20, 6, 15, 0.958610534667969),
    ],
)
def test_median_interval_ranks(count: int, low: int, high: int, coverage: float) -> None:
    values = [float(rank) for rank in range(1, count + 1)]
    found = median_interval(values)
    assert (found.low, found.high) == (low, high)
    assert found.value == pytest.approx((count + 1) / 2)
    assert found.coverage == pytest.approx(coverage)


def test_median_interval_covers_the_truth() -> None:
    generator = np.random.default_rng(2)
    hits = 0
    for _ in range(500):
        found = median_interval(generator.lognormal(size=11).tolist())
        hits += found.low <= 1.0 <= found.high
    assert 0.93 <= hits / 500 <= 0.995


def test_many_rounds_do_not_underflow() -> None:
    found = median_interval([float(value) for value in range(1, 5001)])
    # Normal approximation: half width 1.96 sqrt(n) / 2 = 69 ranks.
    assert 2500.5 - found.low == pytest.approx(69.3, abs=1.5)
    assert 0.95 <= found.coverage < 0.953


@given(st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=60))
def test_interval_contains_the_median(seconds: list[float]) -> None:
    found = summarise(seconds, 10.0)
    low, high = found["interval_s"]
    assert found["minimum_s"] <= low <= found["median_s"] <= high <= found["maximum_s"]
    assert found["rtf_lower"] <= found["rtf"] <= found["rtf_upper"]
    assert found["rtf"] * found["rtfx"] == pytest.approx(1.0)
    assert found["interval_coverage"] >= 0.95 or len(seconds) < 6
    json.dumps(found, allow_nan=False)


def test_summary() -> None:
    found = summarise([3.0, 1.0, 2.0, 4.0, 5.0, 6.0, 7.0], audio_s=8.0)
    assert found["count"] == 7 and found["median_s"] == 4.0
    assert found["interval_s"] == [1.0, 7.0]
    assert found["rtf"] == 0.5 and found["rtfx"] == 2.0
    assert found["rtf_lower"] == 0.125 and found["rtf_upper"] == 0.875
    assert found["relative_spread"] == pytest.approx((5.5 - 2.5) / 4.0)
    assert not any(key.startswith("p9") for key in found)
    assert "rtf" not in summarise([1.0])


@pytest.mark.parametrize(
    ("count", "keys"),
    [
        (43, []),
        (44, ["p90_s", "p90_upper_s"]),
        (89, ["p90_s", "p90_upper_s"]),
        (90, ["p90_s", "p90_upper_s", "p95_s", "p95_upper_s"]),
        (458, ["p90_s", "p90_upper_s", "p95_s", "p95_upper_s"]),
        (459, ["p90_s", "p90_upper_s", "p95_s", "p95_upper_s", "p99_s", "p99_upper_s"]),
    ],
)
def test_percentiles_only_where_bounded(count: int, keys: list[str]) -> None:
    found = summarise([float(value) for value in range(1, count + 1)])
    assert [key for key in found if key.startswith("p9")] == keys
    for key in keys:
        if key.endswith("_upper_s"):
            assert found[key] >= found[key.replace("_upper", "")]
    if count == 44:
        assert found["p90_upper_s"] == 44.0, "with the fewest samples it is the largest of them"


def test_upper_rank_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for count in (44, 60, 100, 500, 2000):
        rank = upper_rank(count, 0.9)
        assert rank is not None
        assert stats.binom.sf(rank - 1, count, 0.9) <= 0.01
        assert stats.binom.sf(rank - 2, count, 0.9) > 0.01
    assert upper_rank(43, 0.9) is None and upper_rank(0, 0.9) is None


@pytest.mark.parametrize("seconds", [[], [0.0], [-1.0], [float("nan")], [float("inf")]])
def test_rejects_impossible_times(seconds: list[float]) -> None:
    with pytest.raises(ValueError, match=r"rounds|positive"):
        summarise(seconds)


def test_a_long_round_is_no_slow_one() -> None:
    found = summarise([0.1, 3.0, 0.1, 3.0, 0.1, 3.0], audio_s=[1, 30, 1, 30, 1, 30])
    assert found["rtf"] == found["rtf_upper"] == pytest.approx(0.1)
    assert found["rtfx"] == pytest.approx(10.0)


@pytest.mark.parametrize("audio_s", [0.0, -1.0, float("nan")])
def test_rejects_impossible_audio(audio_s: float) -> None:
    with pytest.raises(ValueError, match="audio"):
        summarise([1.0], audio_s)


def _rounds(centre: float, count: int, seed: int, spread: float = 0.05) -> list[float]:
    generator = np.random.default_rng(seed)
    return [centre * float(factor) for factor in generator.lognormal(0.0, spread, count)]


def test_cached_result() -> None:
    fresh = _rounds(0.2, 8, 0)
    assert cached_result(_rounds(0.002, 8, 1), fresh).flagged
    assert cached_result(_rounds(0.08, 8, 1), fresh).flagged
    assert not cached_result(_rounds(0.2, 8, 1), fresh).flagged
    # Warm caches make repeats somewhat faster; that is no cached result.
    warm = cached_result(_rounds(0.13, 8, 1), fresh)
    assert not warm.flagged and warm.value == pytest.approx(1.54, abs=0.15)
    assert not cached_result(fresh, _rounds(0.002, 8, 1)).flagged


def test_cached_result_within_noise() -> None:
    # Medians differ by more than 2, but every kind of round is seen in both samples.
    repeats = [0.1, 0.1, 0.1, 0.9, 0.9]
    fresh = [0.1, 0.1, 0.9, 0.9, 0.9]
    found = cached_result(repeats, fresh)
    assert found.value == pytest.approx(9.0)
    assert not found.flagged and "noise" in found.detail


def test_cached_result_of_few_rounds() -> None:
    assert cached_result([0.01, 0.02, 0.011], [0.2, 0.21, 0.19]).flagged
    # Half as long on the median only: three rounds cannot tell that from noise.
    assert not cached_result([0.1, 0.15, 0.08], [0.21, 0.25, 0.2]).flagged


def test_undisturbed_rounds() -> None:
    assert undisturbed([1.0, 1.04, 1.06, 2.0], 0.05) == [True, True, False, False]
    # A machine that becomes calm only later shows that it was busy before.
    assert undisturbed([2.0, 2.0, 2.0, 1.0], 0.25) == [False, False, False, True]
    assert undisturbed([1.0, 1.5], 0.5) == [True, True]
    with pytest.raises(ValueError, match="tolerance"):
        undisturbed([1.0], 0.0)
    with pytest.raises(ValueError, match="no rounds"):
        undisturbed([], 0.25)


def reading(wall: float, used: float, own: float, *processes: int) -> dict[str, Any]:
    return {
        "wall_s": wall,
        "used_s": used,
        "own_s": own,
        "processors": 4,
        "processes": list(processes),
    }


def test_what_other_processes_kept_busy() -> None:
    before = reading(100.0, 50.0, 30.0, 1, 2)
    after = reading(110.0, 85.0, 50.0, 1, 2, 3)
    assert others_busy(before, after) == {"others_busy": 1.5, "processors": 4}
    # Two clocks that are rounded apart may say less than nothing.
    assert others_busy(before, reading(110.0, 50.0, 30.1, 1, 2))["others_busy"] == 0.0
    # A process that ended took its account along, to nobody knows whom.
    assert others_busy(before, reading(110.0, 85.0, 50.0, 1, 3)) == {}
    # Clocks that go by 10 ms say little of a tenth of a second.
    assert others_busy(before, reading(100.1, 50.1, 30.0, 1, 2)) == {}
    assert others_busy({}, after) == others_busy(before, {}) == {}


def test_processors_that_nobody_needs_may_be_busy() -> None:
    values = {"others_busy": 2.2, "processors": 4}
    assert crowding(values, 1) == crowding(values, 2) == ""
    assert crowding(values, 3) == "other processes kept 2.2 of 4 processors busy"
    # What a system does of itself crowds nobody out; another process that computes does.
    assert crowding({**values, "others_busy": 0.2}, 4) == ""
    assert crowding({**values, "others_busy": 0.5}, 4)
    # Results of before, and what a file claims that nobody measured.
    for found in ({}, {"others_busy": 3.0}, {"others_busy": "many", "processors": None}):
        assert crowding(found, 4) == ""


def test_unsynchronised() -> None:
    queued = unsynchronised([0.001] * 8, _rounds(0.3, 8, 0))
    assert queued.flagged and queued.value > 0.98 and "before the work was done" in queued.detail
    assert not unsynchronised(_rounds(0.3, 8, 0), [0.0] * 8).flagged
    assert not unsynchronised(_rounds(0.3, 8, 0), _rounds(0.01, 8, 1)).flagged
    # A large share of very little time is the cost of the call itself.
    assert not unsynchronised([1e-5] * 8, [5e-4] * 8).flagged
    # One slow fetch among fast ones is noise.
    assert not unsynchronised([0.002] * 8, [1e-4] * 7 + [1.0]).flagged
    assert not unsynchronised([0.0], [0.0]).flagged
    with pytest.raises(ValueError, match="one fetch time per run"):
        unsynchronised([1.0], [])
    with pytest.raises(ValueError, match="not negative"):
        unsynchronised([1.0], [-1.0])


def test_small_numbers() -> None:
    assert summarise([0.1], audio_s=0.5)["rtf"] == pytest.approx(0.2)
    assert summarise([float(rank) for rank in range(1, 45)])["p90_s"] == pytest.approx(39.7)
    assert unsynchronised([0.0], [0.0]).value == 0.0
    # Three rounds each: the slowest repeat decides, against the fastest fresh input.
    assert not cached_result([0.01, 0.01, 0.11], [0.2, 0.24, 0.25]).flagged
    assert not cached_result([0.09, 0.1, 0.11], [0.2, 0.24, 0.25]).flagged
    for values in ([], [float("nan")]):
        with pytest.raises(ValueError, match="finite"):
            median_interval(values)
