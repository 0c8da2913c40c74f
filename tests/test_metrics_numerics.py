"""compat.metrics.numerics against hand-computed values, known noise and planted defects."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from compat.metrics.numerics import (
    LARGEST,
    SNR_LIMIT_DB,
    agreement,
    blind_faults,
    compare,
    contrast_db,
    is_codes,
)

Array = NDArray[Any]


def _outputs(count: int = 6, shape: tuple[int, ...] = (50, 16), seed: int = 0) -> list[Array]:
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape) for _ in range(count)]


def _noisy(arrays: list[Array], scale: float, seed: int = 1) -> list[Array]:
    generator = np.random.default_rng(seed)
    return [array + scale * generator.standard_normal(array.shape) for array in arrays]


def test_hand_computed() -> None:
    # Two inputs, three positions. Means over inputs: 2, 2, 3; deviations +-1, 0, +-1:
    # squared 4 over (2 - 1) x 3 degrees of freedom. Noise: one element off by 0.5 of six.
    reference = [np.array([1.0, 2.0, 2.0]), np.array([3.0, 2.0, 4.0])]
    device = [np.array([1.0, 2.0, 2.0]), np.array([3.0, 2.5, 4.0])]
    oracle = [np.array([1.0, 2.0, 2.0]), np.array([3.0, 2.25, 4.0])]
    found = compare(reference, oracle, device)
    signal, noise = 4 / 3, 0.25 / 6
    assert found["signal_rms"] == pytest.approx(math.sqrt(signal))
    assert found["rms_error"] == pytest.approx(math.sqrt(noise))
    assert found["snr_db"] == pytest.approx(10 * math.log10(signal / noise))
    # Utterance 1 alone: own signal 2 / (3 x 1/2), own noise 0.25 / 3.
    assert found["worst_snr_db"] == pytest.approx(10 * math.log10((4 / 3) / (0.25 / 3)))
    assert found["worst_utterance"] == 1
    assert found["max_error"] == 0.5
    assert found["passing_tolerance"] == pytest.approx(0.5 / (1 + 2))
    assert found["error_ratio"] == pytest.approx(2.0)
    assert found["oracle_snr_db"] == pytest.approx(found["snr_db"] + 20 * math.log10(2))
    cosine = (9 + 5 + 16) / math.sqrt((9 + 4 + 16) * (9 + 6.25 + 16))
    assert found["worst_cosine"] == pytest.approx(cosine)
    assert found["cosine"] == pytest.approx((1 + cosine) / 2)
    assert found["centred_over"] == "inputs"


def test_identical_is_perfect() -> None:
    reference = _outputs()
    found = compare(reference, reference, reference)
    assert found["snr_db"] == found["worst_snr_db"] == SNR_LIMIT_DB
    assert found["cosine"] == pytest.approx(1.0)
    assert found["max_error"] == found["passing_tolerance"] == found["error_ratio"] == 0.0
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("decade", [1, 2, 3, 4, 5])
def test_snr_follows_noise_by_20_db_a_decade(decade: int) -> None:
    reference = _outputs()
    found = compare(reference, None, _noisy(reference, 10.0**-decade))
    assert found["snr_db"] == pytest.approx(20.0 * decade, abs=0.3)
    assert "error_ratio" not in found and "oracle_snr_db" not in found


def test_what_is_common_to_all_inputs_is_no_signal() -> None:
    reference = _outputs()
    device = _noisy(reference, 0.01)
    constant = 1000.0 * np.random.default_rng(9).standard_normal(reference[0].shape)
    plain = compare(reference, None, device)
    shifted = compare([r + constant for r in reference], None, [d + constant for d in device])
    assert shifted["snr_db"] == pytest.approx(plain["snr_db"], abs=1e-6)
    assert shifted["cosine"] > 0.9999999 > plain["cosine"]


@pytest.mark.parametrize("count", [2, 3, 8])
def test_signal_power_does_not_depend_on_the_number_of_inputs(count: int) -> None:
    found = compare(_outputs(count, (4000, 3)), None, _outputs(count, (4000, 3)))
    assert found["signal_rms"] == pytest.approx(1.0, abs=0.02)


def test_differing_lengths() -> None:
    reference = _outputs()
    device = _noisy(reference, 0.01)
    lengths = [50, 40, 30, 30, 20, 10]
    bias = 30.0 * np.random.default_rng(4).standard_normal(reference[0].shape)
    found = compare(
        [(r + bias)[:n] for r, n in zip(reference, lengths, strict=True)],
        None,
        [(d + bias)[:n] for d, n in zip(device, lengths, strict=True)],
    )
    # The part at each position that all inputs share is removed though the lengths differ.
    assert found["centred_over"] == "inputs"
    assert found["snr_db"] == pytest.approx(40.0, abs=0.5)
    assert found["signal_rms"] == pytest.approx(1.0, abs=0.1)


def test_equal_lengths_agree_with_the_general_formula() -> None:
    # One more row at the end of one array, which nothing shares, must not change the signal.
    reference = _outputs()
    longer = [np.vstack([reference[0], np.full((1, 16), 99.0)]), *reference[1:]]
    one = compare(reference, None, reference)
    two = compare(longer, None, longer)
    assert two["signal_rms"] == pytest.approx(one["signal_rms"])


def test_single_input_is_centred_over_features() -> None:
    reference = [np.random.default_rng(0).standard_normal((200, 8)) + 100.0 * np.arange(8)]
    found = compare(reference, None, _noisy(reference, 0.01))
    assert found["centred_over"] == "features"
    assert found["snr_db"] == pytest.approx(40.0, abs=0.6)


def test_single_vector_is_centred_over_itself() -> None:
    reference = [np.random.default_rng(0).standard_normal(4000) + 100.0]
    found = compare(reference, None, _noisy(reference, 0.1))
    assert found["centred_over"] == "array"
    assert found["snr_db"] == pytest.approx(20.0, abs=0.4)


def test_reference_that_ignores_its_input_is_not_centred_over_inputs() -> None:
    one = _outputs(1)[0]
    found = compare([one, one.copy(), one.copy()], None, [one, one, one])
    assert found["centred_over"] == "features"


def test_worst_utterance_and_quiet_utterance() -> None:
    reference = _outputs(8)
    device = _noisy(reference, 1e-4)
    device[5] = reference[5] + 0.1
    found = compare(reference, None, device)
    assert found["worst_utterance"] == 5
    assert found["worst_snr_db"] == pytest.approx(20.0, abs=0.5)
    assert found["snr_db"] > 25
    # An utterance that is the mean itself has no signal of its own: it counts 1 % of the corpus's.
    quiet = [*reference[:7], np.mean(reference[:7], axis=0)]
    found = compare(quiet, None, _noisy(quiet, 1e-4))
    assert found["worst_utterance"] == 7
    assert found["worst_snr_db"] == pytest.approx(60.0, abs=1.0)


def test_error_ratio_separates_precision_from_backend() -> None:
    reference = _outputs()
    oracle = _noisy(reference, 1e-3, seed=2)
    assert compare(reference, oracle, _noisy(reference, 1e-3))["error_ratio"] == pytest.approx(
        1.0, abs=0.05
    )
    assert compare(reference, oracle, _noisy(reference, 1e-2))["error_ratio"] == pytest.approx(
        10.0, rel=0.05
    )
    # An oracle without error leaves only epsilon, relative to the signal.
    ratio = compare(reference, reference, _noisy(reference, 1e-3), epsilon=1e-3)["error_ratio"]
    assert ratio == pytest.approx(1.0, abs=0.05)
    assert compare(reference, reference, _noisy(reference, 1e-3))["error_ratio"] == LARGEST


ELEMENTS = st.floats(-1e6, 1e6, allow_nan=False)


@given(
    st.lists(st.tuples(ELEMENTS, ELEMENTS), min_size=1, max_size=20).filter(
        lambda rows: any(r != d for r, d in rows)
    )
)
def test_passing_tolerance_is_minimal(rows: list[tuple[float, float]]) -> None:
    reference, device = (np.array(column) for column in zip(*rows, strict=True))
    tolerance = compare([reference], None, [device])["passing_tolerance"]

    def passes(t: float) -> bool:
        return bool(np.all(np.abs(device - reference) <= t + t * np.abs(reference)))

    assert passes(tolerance * (1 + 1e-9))
    assert not passes(tolerance * (1 - 1e-9))


@given(st.integers(0, 1000), st.floats(0.01, 100.0))
@settings(max_examples=25, deadline=None)
def test_scale_of_the_outputs_does_not_matter(seed: int, scale: float) -> None:
    reference = _outputs(3, (7, 5), seed)
    device = _noisy(reference, 0.05, seed + 1)
    plain = compare(reference, device, device)
    scaled = compare([scale * r for r in reference], None, [scale * d for d in device])
    for key in ("snr_db", "worst_snr_db", "cosine"):
        assert scaled[key] == pytest.approx(plain[key], rel=1e-9)
    assert plain["error_ratio"] == pytest.approx(1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_bad_element_is_the_worst(value: float) -> None:
    reference = _outputs()
    device = [array.copy() for array in reference]
    device[2][3, 4] = value
    found = compare(reference, reference, device)
    assert found["non_finite"] == 1
    assert found["snr_db"] == found["worst_snr_db"] == -SNR_LIMIT_DB
    assert found["worst_cosine"] == -1.0 and found["worst_utterance"] == 2
    assert found["max_error"] == found["passing_tolerance"] == found["error_ratio"] == LARGEST
    json.dumps(found, allow_nan=False)


def test_suppressed_elements_are_left_out() -> None:
    reference = _outputs()
    device = _noisy(reference, 0.01)
    for array in reference:
        array[:, 3] = -np.inf
    for array in device:
        array[:, 3] = -65504.0
    found = compare(reference, None, device)
    assert found["non_finite"] == 0
    assert found["snr_db"] == pytest.approx(40.0, abs=0.3)
    device[1][7, 3] = 2.0
    found = compare(reference, None, device)
    assert found["non_finite"] == 1 and found["snr_db"] == -SNR_LIMIT_DB


def test_oracle_that_overflows_blames_the_precision() -> None:
    reference = _outputs()
    oracle = [array.copy() for array in reference]
    oracle[0][0, 0] = np.inf
    found = compare(reference, oracle, _noisy(reference, 0.01))
    assert found["error_ratio"] == 0.0 and found["oracle_snr_db"] == -SNR_LIMIT_DB
    assert compare(reference, oracle, oracle)["error_ratio"] == LARGEST


def test_half_precision_inputs() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    reference = _outputs()
    half = compare(reference, None, [array.astype(np.float16) for array in reference])
    brain = compare(reference, None, [array.astype(ml_dtypes.bfloat16) for array in reference])
    # Rounding to p bits: uniform relative error, near 6 p + 7 dB for 11 and 8 bits.
    assert half["snr_db"] - brain["snr_db"] == pytest.approx(18.06, abs=0.5)
    assert 70 < half["snr_db"] < 78
    assert blind_faults([a.astype(ml_dtypes.bfloat16) for a in reference], reference) == []


def test_compare_rejects() -> None:
    reference = _outputs(2)
    with pytest.raises(ValueError, match="one device array per reference"):
        compare(reference, None, reference[:1])
    with pytest.raises(ValueError, match="utterance 1: the device has shape"):
        compare(reference, None, [reference[0], reference[1][:-1]])
    with pytest.raises(ValueError, match="reference itself has NaN"):
        compare([np.array([np.nan])], None, [np.array([1.0])])
    with pytest.raises(ValueError, match="epsilon"):
        compare(reference, None, reference, epsilon=-1.0)
    with pytest.raises(ValueError, match="empty"):
        compare([np.zeros((0, 3))], None, [np.zeros((0, 3))])


def test_contrast() -> None:
    base = np.full((4, 5), 2.0)
    # Differences 0.2 and 0.4 and 0.2 on values near 2: the smallest is near -20 dB.
    found = contrast_db([base, base + 0.2, base + 0.4])
    assert found == pytest.approx(20 * math.log10(0.2 / math.sqrt((2.2**2 + 2.4**2) / 2)))
    # Cosine 0.996, as between silence and noise in an untrained encoder, is about -21 dB.
    one, other = _outputs(2, (200, 50))
    other -= one * float((one * other).sum() / (one * one).sum())
    other *= float(np.linalg.norm(one) / np.linalg.norm(other))
    angle = math.acos(0.996)
    close = one * math.cos(angle) + other * math.sin(angle)
    assert contrast_db([one, close]) == pytest.approx(-21.0, abs=0.1)
    assert contrast_db([one, one]) == -SNR_LIMIT_DB
    # Of outputs of differing length, the part that both have.
    assert contrast_db([one, np.vstack([one, other])]) == -SNR_LIMIT_DB
    with pytest.raises(ValueError, match="at least two"):
        contrast_db([one])


def test_no_fault_in_sound_outputs() -> None:
    reference = _outputs()
    assert blind_faults(_noisy(reference, 0.1), reference) == []
    tokens = [np.array([1, 2, 3]), np.array([1, 2, 4]), np.array([5, 6, 7])]
    same_answer = [np.array([1, 2, 3]), np.array([1, 2, 3]), np.array([5, 6, 7])]
    assert blind_faults(same_answer, tokens) == []


def test_planted_faults() -> None:
    reference = _outputs()

    def planted(index: int, array: Array) -> list[str]:
        device = _noisy(reference, 1e-3)
        device[index] = array
        return blind_faults(device, reference)

    bad = reference[1].copy()
    bad[0, :3] = np.nan
    assert planted(1, bad) == ["utterance 1: 3 of 800 values are NaN"]
    bad = reference[1].copy()
    bad[5, 5] = np.inf
    assert planted(1, bad) == ["utterance 1: 1 of 800 values are infinite"]
    assert planted(2, np.zeros((0, 16))) == [
        "utterance 2: empty output of shape (0, 16), expected (50, 16)"
    ]
    assert planted(0, reference[0][:30]) == [
        "utterance 0: truncated shape (30, 16), expected (50, 16)"
    ]
    assert planted(0, reference[0].T) == ["utterance 0: wrong shape (16, 50), expected (50, 16)"]
    assert planted(4, np.zeros((50, 16))) == ["utterance 4: every value is 0, the reference's vary"]
    assert planted(3, reference[0]) == ["the same output for different inputs: utterances 0 and 3"]
    assert planted(3, np.array([["x"] * 16] * 50))[0].startswith("utterance 3: output of type")
    assert blind_faults(reference[:4], reference) == ["4 outputs for 6 inputs"]


def test_backend_that_ignores_its_input() -> None:
    reference = _outputs(3)
    stuck = _noisy([reference[0]] * 3, 1e-6)
    assert blind_faults(stuck, reference) == [
        "the same output for different inputs: utterances 0 and 1, 0 and 2, 1 and 2"
    ]
    tokens = [np.array([1, 2, 3]), np.array([1, 2, 4]), np.array([5, 6, 7])]
    assert blind_faults([tokens[0]] * 3, tokens) != []
    # Where the reference gives one output for two inputs, so may the device.
    assert blind_faults([reference[0]] * 2, [reference[0]] * 2) == []
    constant = [np.zeros(4), np.zeros(4)]
    assert blind_faults(constant, constant) == []


def test_own_signal_of_differing_lengths() -> None:
    reference = _outputs()
    longer = [np.vstack([reference[0], np.full((1, 16), 99.0)]), *reference[1:]]

    def worst(arrays: list[Array]) -> float:
        device = [array.copy() for array in arrays]
        device[3] += 0.01
        found = compare(arrays, None, device)
        assert found["worst_utterance"] == 3
        return float(found["worst_snr_db"])

    assert worst(longer) == pytest.approx(worst(reference))


def test_reference_without_any_variation_gives_no_credit() -> None:
    constant = [np.full(7, 3.3), np.full(7, 3.3)]
    found = compare(constant, None, [array + 0.1 for array in constant])
    assert found["snr_db"] == found["worst_snr_db"] == -SNR_LIMIT_DB


def test_integers_are_compared_by_the_share_that_is_equal() -> None:
    reference = [np.array([[1, 2], [3, 4]], np.int32), np.array([[5, 6]], np.int32)]
    device = [np.array([[1, 2], [3, 9]], np.int64), np.array([[8, 6]], np.int64)]
    assert set(agreement(reference, reference).values()) == {1.0}
    found = agreement(reference, device)
    assert found == pytest.approx(
        {"equal": 4 / 6, "worst_equal": 0.5, "equal_0": 2 / 3, "equal_1": 2 / 3}
    )
    assert set(agreement([np.arange(3)], [np.arange(3)])) == {"equal", "worst_equal"}
    assert is_codes(reference) and not is_codes([np.zeros(3, np.float32)])
    with pytest.raises(ValueError, match="one device array per reference array"):
        agreement(reference, device[:1])
