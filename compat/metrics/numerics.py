"""Numerics: distances of a device's arrays from the reference's, and faults that no mean may hide.

Three executions of the same inputs are compared: the *reference* (float64 on the CPU), the
*oracle* (the recipe's precision on the CPU) and the *device*. The oracle's error is the cost of the
precision, so that the device is judged only by the error that it adds.

Arithmetic is float64 in blocks that stay in the processor's cache, whatever the outputs' type.

**Signal and noise.** A network's output has a part that is the same for every input (biases,
position embeddings). Counting it as signal flatters a device: with default-initialised weights a
Whisper encoder gives cosine 0.996 between silence and noise. Signal is therefore what varies from
input to input. At each position of the output (all axes, aligned at index 0) the reference's mean
over the inputs that reach this position is removed, and

    signal power = sum of squared deviations / sum over positions of (inputs there - 1)
    noise power  = sum of (device - reference)^2 / number of elements
    SNR          = 10 log10(signal power / noise power)

The divisor makes the signal power unbiased for any number of inputs. Outputs of differing lengths
need no special case: a position that only one input reaches says nothing about variation between
inputs and counts on neither side of the signal power; its noise counts. Where no position is
shared or a single input is given, the mean over everything but the last axis (each feature) is
removed, and where that leaves nothing, the mean of the array; ``centred_over`` says which.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SNR_LIMIT_DB = 200.0
"""Largest ratio in dB. Ratios beyond the precision of float64, as of identical arrays, get it."""
LARGEST = 1e9
"""Value of an error ratio, error or tolerance that is not finite, since JSON has no infinity."""

_BLOCK = 1 << 15
_QUIET_SHARE = 0.01
"""An utterance's own signal power counts as at least this share of the corpus's (-20 dB)."""
_ROUNDING = 1e-24
_SAME_SHARE = 0.01
"""Outputs for different inputs that differ by less than this share of the reference's
difference are the same output."""

Array = NDArray[Any]
Floats = NDArray[np.float64]
Centring = Literal["inputs", "features", "array"]


def compare(
    reference: Sequence[Array],
    oracle: Sequence[Array] | None,
    device: Sequence[Array],
    epsilon: float = 0.0,
) -> dict[str, Any]:
    """Compare one output of a graph over several inputs.

    Args:
        reference: one array per utterance, of any rank; shapes may differ between utterances.
            An infinite element marks a suppressed value (a masked logit): it is left out where the
            device has the same infinity or a magnitude of at least 1e4 of that sign.
        oracle: as ``reference``, from the recipe's oracle; None leaves out results that need it.
        device: as ``reference``, from the case under test.
        epsilon: error that the device may always have, relative to the reference's centred root
            mean square; also the stated uncertainty of a reference that is not float64.

    Returns:
        ``cosine`` and ``worst_cosine`` (mean and minimum over utterances, of the arrays as they
        are), ``snr_db``, ``worst_snr_db`` (an utterance's own signal, but at least 1 % of the
        corpus's, so that an utterance close to the mean is not held against nothing),
        ``worst_utterance`` (index of the lowest SNR), ``max_error``, ``passing_tolerance`` (the
        smallest t for which ``|device - reference| <= t + t |reference|`` everywhere, as in
        ``numpy.allclose`` with ``rtol = atol = t``), ``rms_error``, ``signal_rms``,
        ``non_finite`` (elements that are NaN or infinite, or not suppressed, on the device alone),
        ``centred_over`` and,
        with an oracle, ``error_ratio`` (rms of the device's error over rms of the oracle's error +
        ``epsilon`` x signal rms) and ``oracle_snr_db``. Every number is finite: SNR is kept within
        +-200 dB, the other measures below 1e9. One element that is not finite puts the noise, and
        everything derived from it, at its worst; where the oracle has one too, the precision and
        not the device is at fault, so a finite device then has error ratio 0 (and its SNR speaks).

    Raises:
        ValueError: no utterances, an empty array, shapes that differ between the executions (ask
            :func:`blind_faults` first) or a reference with NaN.
    """
    if epsilon < 0 or not math.isfinite(epsilon):
        raise ValueError(f"epsilon must be finite and not negative, got {epsilon}")
    _check_shapes(reference, device, "device")
    ours = [_pair(r, d) for r, d in zip(reference, device, strict=True)]
    power, own_power, centring = _signal(reference, _mean_energy(ours))
    noise = _mean_noise(ours)
    snrs = [
        _decibels(max(signal, _QUIET_SHARE * power), pair.noise / max(pair.count, 1))
        for signal, pair in zip(own_power, ours, strict=True)
    ]
    cosines = [pair.cosine for pair in ours]
    result: dict[str, Any] = {
        "cosine": float(np.mean(cosines)),
        "worst_cosine": min(cosines),
        "snr_db": _decibels(power, noise),
        "worst_snr_db": min(snrs),
        "worst_utterance": int(np.argmin(snrs)),
        "max_error": min(max(pair.max_error for pair in ours), LARGEST),
        "passing_tolerance": min(max(pair.tolerance for pair in ours), LARGEST),
        "rms_error": min(math.sqrt(noise), LARGEST),
        "signal_rms": min(math.sqrt(power), LARGEST),
        "non_finite": sum(pair.non_finite for pair in ours),
        "centred_over": centring,
    }
    if oracle is not None:
        _check_shapes(reference, oracle, "oracle")
        allowed = _mean_noise([_pair(r, o) for r, o in zip(reference, oracle, strict=True)])
        result["error_ratio"] = _ratio(
            math.sqrt(noise), math.sqrt(allowed) + epsilon * math.sqrt(power)
        )
        result["oracle_snr_db"] = _decibels(power, allowed)
    return result


def is_codes(arrays: Sequence[Array]) -> bool:
    """Return whether an output holds integers, such as codes, whose distances mean nothing."""
    return all(np.asarray(array).dtype.kind in "iub" for array in arrays)


def agreement(reference: Sequence[Array], device: Sequence[Array]) -> dict[str, float]:
    """Compare one output of integers, such as codes, over several inputs.

    Args:
        reference: one array per input, time first.
        device: the same from the execution under test, of the same shapes.

    Returns:
        ``equal`` and ``worst_equal``, the share of equal values over all inputs and in the worst of
        them. With two axes or more also ``equal_0``, ``equal_1``, …, the share at each position
        along the last axis (codebook).

    Raises:
        ValueError: as :func:`compare`.
    """
    _check_shapes(reference, device, "device")
    equal = [np.asarray(r) == np.asarray(d) for r, d in zip(reference, device, strict=True)]
    shares = [float(one.mean()) for one in equal]
    total = sum(int(one.sum()) for one in equal) / sum(one.size for one in equal)
    result = {"equal": total, "worst_equal": min(shares)}
    if equal[0].ndim > 1:
        rows = np.concatenate([one.reshape(-1, one.shape[-1]) for one in equal])
        result |= {f"equal_{index}": float(s) for index, s in enumerate(rows.mean(axis=0))}
    return result


def written_agreement(
    references: Sequence[Sequence[Any]], written: Sequence[Sequence[Any]]
) -> dict[str, float]:
    """Compare outputs that were written step by step, such as tokens, with the reference's.

    After the first difference a decoder follows its own words, so that little that comes later
    agrees. The step of that difference therefore says more than the share.

    Args:
        references: outputs of the reference, a list per input: of tokens, or of the arrays of
            codes of each step.
        written: the same from the execution under test, of any lengths.

    Returns:
        ``equal``, the share of steps at which both wrote the same (of the longer of the two), and
        ``earliest_divergence``, the earliest step at which any input differs, counted from 0, or
        the length of the longest if none does.

    Raises:
        ValueError: there is no input, or nothing was written by either.
    """
    pairs = list(zip(references, written, strict=True))
    steps = [max(len(one), len(other)) for one, other in pairs]
    if not sum(steps):
        raise ValueError("nothing was written that could be compared")
    equal = [
        [np.array_equal(a, b) for a, b in zip(one, other, strict=False)] for one, other in pairs
    ]
    firsts = [
        (same.index(False) if False in same else len(same))
        for same, count in zip(equal, steps, strict=True)
        if sum(same) < count
    ]
    return {
        "equal": sum(map(sum, equal)) / sum(steps),
        "earliest_divergence": float(min(firsts, default=max(steps))),
    }


def contrast_db(references: Sequence[Array]) -> float:
    """Return the smallest difference between the outputs for two different inputs, in dB.

    ``20 log10(rms(r_i - r_j) / rms(r))`` over all pairs, ``rms(r)`` over both arrays of the pair
    as they are, on the part that both shapes share. A model is admitted if this exceeds the strict
    tolerance (``-snr_db``) by 20 dB, since otherwise a backend that ignores its input would pass.

    Raises:
        ValueError: fewer than two arrays, or two that share no element.
    """
    if len(references) < 2:
        raise ValueError("contrast needs the outputs for at least two different inputs")
    smallest = math.inf
    for first, second in combinations(references, 2):
        one, two = _shared(first, second)
        difference = energy = 0.0
        count = 0
        for a, b in _blocks(one, two):
            usable = np.isfinite(a) & np.isfinite(b)
            if not usable.all():
                a, b = a[usable], b[usable]
            difference += _energy(a - b)
            energy += _energy(a) + _energy(b)
            count += a.size
        if count == 0:
            raise ValueError("two reference outputs have no finite element in common")
        smallest = min(smallest, _decibels(difference, energy / 2.0))
    return smallest


def blind_faults(device: Sequence[Array], reference: Sequence[Array]) -> list[str]:
    """Return faults that no mean may hide, each as one sentence; empty if there are none.

    Faults are missing, empty, truncated or wrongly shaped outputs, NaN, infinities that the
    reference does not have, outputs that are constant although the reference's is not, and outputs
    that are the same for different inputs. The same means a difference below 1 % of that of the
    reference's outputs. For integer outputs, where two inputs can rightly give one answer, all
    outputs must be the same.

    Args:
        device: one array per utterance.
        reference: the same from the reference execution.
    """
    faults: list[str] = []
    if len(device) != len(reference):
        faults.append(f"{len(device)} outputs for {len(reference)} inputs")
    whole: list[int] = []
    for index, (ours, theirs) in enumerate(zip(device, reference, strict=False)):
        fault = _shape_fault(np.shape(ours), np.shape(theirs)) or _value_fault(
            np.asarray(ours), np.asarray(theirs)
        )
        if fault:
            faults.append(f"utterance {index}: {fault}")
        else:
            whole.append(index)
    faults.extend(_same_outputs(device, reference, whole))
    return faults


class _Pair:
    """Sums over the finite elements of one reference array and the array compared with it."""

    __slots__ = ("count", "dot", "energy", "max_error", "noise", "non_finite", "other", "tolerance")

    def __init__(self) -> None:
        self.count = 0
        self.non_finite = 0
        self.noise = 0.0
        self.dot = 0.0
        self.energy = 0.0
        self.other = 0.0
        self.max_error = 0.0
        self.tolerance = 0.0

    @property
    def cosine(self) -> float:
        if self.non_finite:
            return -1.0
        if self.energy == 0.0 or self.other == 0.0:
            return 1.0 if self.energy == self.other else 0.0
        cosine = self.dot / (math.sqrt(self.energy) * math.sqrt(self.other))
        return min(1.0, max(-1.0, cosine))


def _pair(reference: Array, other: Array) -> _Pair:
    pair = _Pair()
    for r, d in _blocks(np.asarray(reference), np.asarray(other)):
        finite_r, finite_d = np.isfinite(r), np.isfinite(d)
        if not (finite_r.all() and finite_d.all()):
            if np.isnan(r).any():
                raise ValueError("the reference itself has NaN: it cannot judge anything")
            # A suppressed value may be written as -inf, the type's minimum or a large constant.
            suppressed = ~finite_r & (np.sign(r) == np.sign(d)) & (np.abs(d) >= 1e4)
            pair.non_finite += int((~suppressed & ~(finite_r & finite_d)).sum())
            usable = finite_r & finite_d
            r, d = r[usable], d[usable]
            if r.size == 0:
                continue
        error = d - r
        magnitude = np.abs(error)
        pair.count += r.size
        pair.noise += _energy(error)
        pair.dot += float(np.dot(r, d))
        pair.energy += _energy(r)
        pair.other += _energy(d)
        pair.max_error = max(pair.max_error, float(magnitude.max()))
        pair.tolerance = max(pair.tolerance, float((magnitude / (1.0 + np.abs(r))).max()))
    if pair.non_finite:
        pair.noise = pair.max_error = pair.tolerance = math.inf
    return pair


def _mean_noise(pairs: Sequence[_Pair]) -> float:
    return sum(pair.noise for pair in pairs) / max(sum(pair.count for pair in pairs), 1)


def _mean_energy(pairs: Sequence[_Pair]) -> float:
    return sum(pair.energy for pair in pairs) / max(sum(pair.count for pair in pairs), 1)


def _signal(references: Sequence[Array], mean_energy: float) -> tuple[float, list[float], Centring]:
    """Return the signal power of the corpus and of each utterance, and the kind of centring."""
    # The remainder of a constant after its mean is removed is rounding, not signal.
    nothing = _ROUNDING * mean_energy
    arrays = [np.asarray(array) for array in references]
    if len(arrays) > 1 and len({array.ndim for array in arrays}) == 1:
        power, own = _signal_over_inputs(arrays)
        if power > nothing:
            return power, own, "inputs"
    power, own = _signal_within(arrays, per_feature=True)
    if power > nothing:
        return power, own, "features"
    power, own = _signal_within(arrays, per_feature=False)
    if power > nothing:
        return power, own, "array"
    return 0.0, [0.0] * len(arrays), "array"


def _signal_over_inputs(arrays: Sequence[Array]) -> tuple[float, list[float]]:
    """Power of the deviations from the mean over inputs at each position."""
    if len({array.shape for array in arrays}) == 1:
        flat = [array.reshape(-1) for array in arrays]
        size = flat[0].size
        energies = np.zeros(len(flat))
        freedom = 0.0
        width = max(1, _BLOCK // len(flat))
        for start in range(0, size, width):
            block = np.stack([_float(array[start : start + width]) for array in flat])
            usable = np.isfinite(block).all(axis=0)
            if not usable.all():
                block = block[:, usable]
            block -= block.mean(axis=0)
            energies += np.einsum("ij,ij->i", block, block)
            freedom += block.shape[1] * (len(flat) - 1.0)
        # An utterance's share of the unbiased corpus power: n times its part of the energy.
        scale = len(flat) / max(freedom, 1.0)
        return float(energies.sum()) / max(freedom, 1.0), [scale * e for e in energies.tolist()]
    return _signal_over_ragged(arrays)


def _signal_over_ragged(arrays: Sequence[Array]) -> tuple[float, list[float]]:
    shape = tuple(max(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True))
    total, count = np.zeros(shape), np.zeros(shape)
    windows = [tuple(slice(0, size) for size in array.shape) for array in arrays]
    for array, window in zip(arrays, windows, strict=True):
        values = _float(array)
        finite = np.isfinite(values)
        total[window] += np.where(finite, values, 0.0)
        count[window] += finite
    mean = total / np.maximum(count, 1.0)
    freedom = float(np.maximum(count - 1.0, 0.0).sum())
    if freedom == 0.0:
        return 0.0, [0.0] * len(arrays)
    energies, own = 0.0, []
    for array, window in zip(arrays, windows, strict=True):
        values = _float(array)
        usable = np.isfinite(values) & (count[window] > 1.0)
        energy = _energy((values - mean[window])[usable])
        shared = count[window][usable]
        energies += energy
        own.append(energy / max(float((1.0 - 1.0 / shared).sum()), 1e-300) if shared.size else 0.0)
    return energies / freedom, own


def _signal_within(arrays: Sequence[Array], *, per_feature: bool) -> tuple[float, list[float]]:
    """Power of the deviations from the mean of each feature (last axis), or of each array."""
    energies, counts = [], []
    for array in arrays:
        values = _float(array)
        values = values.reshape(-1, values.shape[-1] if per_feature and values.ndim > 1 else 1)
        if per_feature and array.ndim < 2:
            # One value per feature: nothing would be left.
            return 0.0, [0.0] * len(arrays)
        finite = np.isfinite(values)
        mean = np.where(finite, values, 0.0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
        energies.append(_energy((values - mean)[finite]))
        counts.append(int(finite.sum()))
    own = [energy / max(count, 1) for energy, count in zip(energies, counts, strict=True)]
    return sum(energies) / max(sum(counts), 1), own


def _shape_fault(ours: tuple[int, ...], theirs: tuple[int, ...]) -> str:
    if 0 in ours and 0 not in theirs:
        return f"empty output of shape {ours}, expected {theirs}"
    if ours == theirs:
        return ""
    shorter = len(ours) == len(theirs) and all(a <= b for a, b in zip(ours, theirs, strict=True))
    return f"{'truncated' if shorter else 'wrong'} shape {ours}, expected {theirs}"


def _value_fault(ours: Array, theirs: Array) -> str:
    if ours.size == 0 or not _is_numeric(ours):
        return "" if ours.size == 0 else f"output of type {ours.dtype} instead of numbers"
    found: list[str] = []
    values, expected = _float(ours), _float(theirs)
    nan = int(np.isnan(values).sum())
    if nan:
        found.append(f"{nan} of {values.size} values are NaN")
    infinite = int((np.isinf(values) & np.isfinite(expected)).sum())
    if infinite:
        found.append(f"{infinite} of {values.size} values are infinite")
    if not found and values.min() == values.max() and expected.min() != expected.max():
        found.append(f"every value is {values.flat[0]:g}, the reference's vary")
    return ", ".join(found)


def _same_outputs(
    device: Sequence[Array], reference: Sequence[Array], whole: Sequence[int]
) -> list[str]:
    """Name the inputs whose outputs are the same although the reference's differ."""
    same: list[tuple[int, int]] = []
    different = 0
    continuous = True
    for i, j in combinations(whole, 2):
        if np.shape(reference[i]) != np.shape(reference[j]) or np.size(reference[i]) == 0:
            continue
        expected = _distance(reference[i], reference[j])
        if expected == 0.0:
            continue
        different += 1
        continuous = continuous and np.asarray(device[i]).dtype.kind not in "iub"
        if _distance(device[i], device[j]) <= _SAME_SHARE * expected:
            same.append((i, j))
    if not same or (not continuous and len(same) < different):
        return []
    first = ", ".join(f"{i} and {j}" for i, j in same[:3])
    more = f" and {len(same) - 3} more pairs" if len(same) > 3 else ""
    return [f"the same output for different inputs: utterances {first}{more}"]


def _distance(first: Array, second: Array) -> float:
    energy = 0.0
    for a, b in _blocks(np.asarray(first), np.asarray(second)):
        usable = np.isfinite(a) & np.isfinite(b)
        energy += _energy(a - b if usable.all() else a[usable] - b[usable])
    return math.sqrt(energy)


def _check_shapes(reference: Sequence[Array], other: Sequence[Array], name: str) -> None:
    if not reference or len(reference) != len(other):
        raise ValueError(
            f"needs one {name} array per reference array and at least one: "
            f"got {len(other)} for {len(reference)}"
        )
    for index, (r, o) in enumerate(zip(reference, other, strict=True)):
        if np.shape(r) != np.shape(o):
            raise ValueError(
                f"utterance {index}: the {name} has shape {np.shape(o)}, "
                f"the reference {np.shape(r)}; ask blind_faults() first"
            )
        if np.size(r) == 0:
            raise ValueError(f"utterance {index}: the reference is empty")


def _shared(first: Array, second: Array) -> tuple[Array, Array]:
    one, two = np.asarray(first), np.asarray(second)
    if one.ndim != two.ndim:
        raise ValueError(f"outputs of rank {one.ndim} and {two.ndim} cannot be compared")
    window = tuple(slice(0, min(a, b)) for a, b in zip(one.shape, two.shape, strict=True))
    return one[window], two[window]


def _blocks(first: Array, second: Array) -> Iterator[tuple[Floats, Floats]]:
    one, two = first.reshape(-1), second.reshape(-1)
    for start in range(0, one.size, _BLOCK):
        yield _float(one[start : start + _BLOCK]), _float(two[start : start + _BLOCK])


def _float(array: Array) -> Floats:
    return np.asarray(array).astype(np.float64)


def _is_numeric(array: Array) -> bool:
    # bfloat16 and the 8-bit floats of ml_dtypes have kind "V" and still convert.
    return array.dtype.kind in "fiub" or "float" in array.dtype.name


def _energy(values: Floats) -> float:
    flat = values.reshape(-1)
    return float(np.dot(flat, flat))


def _decibels(signal: float, noise: float) -> float:
    if not math.isfinite(noise):
        return -SNR_LIMIT_DB
    if noise == 0.0:
        return SNR_LIMIT_DB
    if signal == 0.0:
        return -SNR_LIMIT_DB
    decibels = 10.0 * (math.log10(signal) - math.log10(noise))
    return min(SNR_LIMIT_DB, max(-SNR_LIMIT_DB, decibels))


def _ratio(error: float, allowed: float) -> float:
    if error == 0.0:
        return 0.0
    if not math.isfinite(error) or allowed == 0.0:
        return LARGEST
    return min(error / allowed, LARGEST)
