"""The task of generating audio: scores worked out by hand, and defects that each finding shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from compat.contract.item import Item
from compat.contract.profile import CORE, FULL, QUICK
from compat.inputs import corpus
from compat.metrics.generation import (
    FINDINGS,
    equal_steps,
    findings,
    first_divergence,
    fitted,
    is_repeating,
    live_channels,
    same_outputs,
)
from compat.models.parts.noise import gumbel, normal
from compat.models.tasks.generation import HARD, AudioGeneration, CodeGeneration, seed_of

RATE = 16_000
TASK, CODES = AudioGeneration(), CodeGeneration()


def sound(seed: int, channels: int = 2, seconds: float = 0.5) -> np.ndarray:
    """Return tones that come and go over noise, (channels, samples)."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    tones = [
        sum(
            0.1 * np.sin(2 * np.pi * (hertz * time + 40 * random.uniform(-5, 5) * time**2))
            for hertz in random.uniform(100, 7000, 5)
        )
        for _ in range(channels)
    ]
    noise = 0.02 * random.standard_normal((channels, len(time)))
    return (np.stack(tones) + noise).astype(np.float32)


ITEMS = TASK.prompts(RATE, QUICK, 2)
SOUNDS = [sound(seed) for seed in range(2)]
REFERENCES: list[dict[str, Any]] = [{"audio": one} for one in SOUNDS]
TOKENS = np.arange(40, dtype=np.int32).reshape(10, 4)


# Inputs ------------------------------------------------------------------------------------------


def test_prompts_need_no_corpus_and_have_seeds_of_their_own() -> None:
    shipped = corpus.load()
    for profile, count, seconds in ((QUICK, 2, 1.0), (CORE, 4, 1.0), (FULL, 8, 10.0)):
        chosen = TASK.items(shipped, RATE, profile)
        items = chosen.task["prompts"]
        assert len(items) == len({one.facts["prompt"] for one in items}) == count
        assert {(one.seconds, one.rate) for one in items} == {(seconds, RATE)}
        assert [seed_of(one) for one in items] == list(range(count))
        assert not TASK.unscored_items(RATE, profile).task
        # Of generated weights: two, that a first look and the usual run ask alike.
        asked = TASK.unscored_items(RATE, profile).numerics
        assert list(asked) == items[: 8 if profile.whole else 2]
    item = ITEMS[0]
    fresh = [TASK.fresh(item, number) for number in (1, 2)]
    seeds = {seed_of(one) for one in (item, *fresh)}
    assert len(seeds) == 3 and all(one.inputs == item.inputs for one in fresh)
    hard = TASK.hard([], ITEMS, RATE)
    assert [one.id for one in hard] == [f"hard-{name}" for name in HARD]
    assert hard[0].inputs["prompt"] == "" and {one.seconds for one in hard} == {item.seconds}
    assert TASK.truth(item) == {"prompt": item.inputs["prompt"], "seed": 0}
    brief = TASK.items(shipped, RATE, QUICK).brief(TASK.brief_seconds, 1)
    assert len(brief.task["prompts"]) == 1


def test_noise_is_what_it_was() -> None:
    """Bytes of other values would be another input: published results would not be comparable."""
    values = normal(7, (200, 500))
    assert values.shape == (200, 500) and values.dtype == np.float32
    assert values.mean() == pytest.approx(0, abs=0.01) and values.std() == pytest.approx(
        1, abs=0.01
    )
    np.testing.assert_allclose(values[0, :3], EXPECTED_NORMAL, rtol=1e-6)
    assert not np.array_equal(values, normal(8, (200, 500)))
    assert not np.array_equal(values, normal(7, (200, 500), "step"))
    drawn = gumbel(7, (4, 25_000))
    # Euler's constant, and pi squared over six.
    assert drawn.mean() == pytest.approx(0.5772, abs=0.02)
    assert drawn.var() == pytest.approx(1.645, abs=0.03)
    # Of logits with such noise the largest is each as often as the softmax says.
    logits = np.log(np.array([0.5, 0.3, 0.2]))
    best = (gumbel(1, (30_000, 3)) + logits).argmax(axis=1)
    assert np.bincount(best) / len(best) == pytest.approx([0.5, 0.3, 0.2], abs=0.01)
    assert np.isfinite(drawn).all() and np.isfinite(values).all()


EXPECTED_NORMAL = [1.0445810556411743, -0.13855600357055664, 1.2646130323410034]


# Scores ------------------------------------------------------------------------------------------


def test_the_reference_scores_as_itself() -> None:
    scores = TASK.score(ITEMS, REFERENCES, REFERENCES)
    assert scores["mel_distance"] == scores["worst_mel_distance"] == 0.0
    assert scores["waveform_snr"] == 200.0 and scores["recordings"] == 2
    assert not any(scores[name] for name in (*FINDINGS, "same_output"))
    declared = {metric.name for metric in TASK.metrics}
    assert {name for name in scores if not name.endswith("_interval")} == declared
    assert [metric.name for metric in TASK.metrics if metric.primary] == ["mel_distance"]
    assert "mel_distance_interval" in scores


def test_half_the_amplitude_is_six_decibels() -> None:
    quieter = [{"audio": one / 2} for one in SOUNDS]
    scores = TASK.score(ITEMS, quieter, REFERENCES)
    assert scores["waveform_snr"] == pytest.approx(20 * np.log10(2), abs=1e-3)
    # A few bands lie at the floor of both.
    assert scores["mel_distance"] == pytest.approx(6.02, abs=0.3)
    assert TASK.errors(ITEMS[0], quieter[0], REFERENCES[0]) == {"errors": 1.0, "reference": 0.0}
    same = {"audio": SOUNDS[0] * np.float32(0.98)}
    assert TASK.errors(ITEMS[0], same, REFERENCES[0])["errors"] == 0.0
    assert TASK.same(same, REFERENCES[0]) and not TASK.same(quieter[0], REFERENCES[0])
    assert not TASK.same({"audio": SOUNDS[0][:, :-1]}, REFERENCES[0])


def test_time_is_divided_by_what_was_generated() -> None:
    item = Item("a", {}, 10.0, RATE)
    assert TASK.seconds(item, {"audio": np.zeros((2, RATE // 4))}) == 0.25
    assert TASK.seconds(item, {"audio": np.zeros(0)}) > 0


def test_tokens_by_hand() -> None:
    later = TOKENS.copy()
    later[6:, 1] += 1  # Four of forty tokens, from the seventh of ten steps on.
    ours = [{**REFERENCES[0], "tokens": later}, {**REFERENCES[1], "tokens": TOKENS}]
    theirs = [{**one, "tokens": TOKENS} for one in REFERENCES]
    scores = CODES.score(ITEMS, ours, theirs)
    assert scores["token_agreement"] == pytest.approx((36 / 40 + 1) / 2)
    assert scores["first_divergence"] == pytest.approx((0.6 + 1) / 2)
    assert scores["earliest_divergence"] == 6 and scores["equal_answers"] == 0.5
    declared = {metric.name for metric in CODES.metrics}
    assert {name for name in scores if not name.endswith("_interval")} == declared
    assert CODES.same(theirs[0], theirs[0]) and not CODES.same(ours[0], theirs[0])
    shorter = equal_steps(TOKENS[:7], TOKENS)
    assert shorter.mean() == 0.7 and first_divergence(shorter) == 7
    assert first_divergence(equal_steps(np.vstack((TOKENS, TOKENS)), TOKENS)) == 10
    assert first_divergence(equal_steps(TOKENS + 1, TOKENS)) == 0


def test_audio_is_fitted_to_the_reference() -> None:
    assert fitted(SOUNDS[0][:1, :-5], SOUNDS[0]).shape == SOUNDS[0].shape
    assert not fitted(SOUNDS[0][:1], SOUNDS[0])[1].any()
    assert fitted(SOUNDS[0], SOUNDS[0][0]).shape == SOUNDS[0][0].shape
    scores = TASK.score(ITEMS, [{"audio": one[:, :-800]} for one in SOUNDS], REFERENCES)
    assert 1 < scores["mel_distance"] < 20 and scores["truncated"] == 2


# Findings ----------------------------------------------------------------------------------------


def half_rate(audio: np.ndarray) -> np.ndarray:
    """Return audio of which nothing is above a quarter of the sampling rate."""
    spectrum = np.fft.rfft(audio)
    spectrum[..., spectrum.shape[-1] // 2 :] = 0
    return np.fft.irfft(spectrum, audio.shape[-1]).astype(np.float32)


def looped(audio: np.ndarray) -> np.ndarray:
    """Return the first tenth of a second again and again."""
    return np.tile(audio[..., : RATE // 10], 5)


def spoilt(audio: np.ndarray) -> np.ndarray:
    broken = audio.copy()
    broken[0, 100] = np.inf
    return broken


DEFECTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "not_finite": spoilt,
    "truncated": lambda audio: audio[..., :-320],
    "missing_channels": lambda audio: audio * np.array([[1.0], [0.0]], np.float32),
    "silent": lambda audio: audio * np.float32(1e-5),
    "constant": lambda audio: np.full_like(audio, 0.25) + np.array([[0.0], [0.3]], np.float32),
    "clipped": lambda audio: np.clip(audio, -0.1, 0.1),
    "repeating": looped,
    "band_limited": half_rate,
}


@pytest.mark.parametrize("name", FINDINGS)
def test_each_finding_is_seen_and_no_other(name: str) -> None:
    ours = [DEFECTS[name](one) for one in SOUNDS]
    for audio, reference in zip(ours, SOUNDS, strict=True):
        assert findings(audio, reference) == [name]
        assert findings(audio, audio) == [], "what the reference does too is none"
    predictions = [{"audio": one} for one in ours]
    scores = TASK.score(ITEMS, predictions, REFERENCES)
    assert {one for one in FINDINGS if scores[one]} == {name} and scores[name] == 2
    said = TASK.faults(predictions, REFERENCES)
    assert any(f"2 of 2 outputs: {name.replace('_', ' ')}" in fault for fault in said)
    assert TASK.errors(ITEMS[0], predictions[0], REFERENCES[0])["errors"] == 1.0


def test_sounds_without_defect_have_no_finding() -> None:
    assert not any(findings(one, one) for one in SOUNDS)
    # Another honest sound, louder and of another length, has none either.
    assert findings(sound(5, seconds=0.6) * np.float32(1.5), SOUNDS[0]) == []
    assert TASK.faults(REFERENCES, REFERENCES) == []
    mono = sound(3, channels=1)[0]
    assert findings(mono * np.float32(0.5), mono) == []


def test_a_copied_channel_is_a_missing_one() -> None:
    both = np.stack((SOUNDS[0][0], SOUNDS[0][0] * np.float32(0.999)))
    assert live_channels(both) == 1 and live_channels(SOUNDS[0]) == 2
    assert findings(both, SOUNDS[0]) == ["missing_channels"]
    assert findings(SOUNDS[0][:1], SOUNDS[0]) == ["missing_channels"]
    assert findings(SOUNDS[0], both) == []


def test_loops_are_told_from_what_comes_again() -> None:
    assert is_repeating(looped(SOUNDS[0])[0])
    noisy = looped(SOUNDS[0]) + 0.003 * np.random.default_rng(0).standard_normal((2, RATE // 2))
    assert is_repeating(noisy), "an error 30 dB below it hides no loop"
    tune = looped(SOUNDS[0]) * np.linspace(0.2, 1.0, RATE // 2)
    assert not is_repeating(tune), "a figure that is played louder and louder"
    assert not is_repeating(SOUNDS[0]) and not is_repeating(np.zeros(RATE))
    assert not is_repeating(np.ones(100))


def test_one_sound_for_two_prompts_is_found() -> None:
    three = [sound(seed) for seed in range(3)]
    blind = [three[0], three[1], three[0] * np.float32(1.001)]
    assert same_outputs(three, three) == 0 and same_outputs(blind, three) == 2
    assert same_outputs(blind, blind) == 0
    items = TASK.prompts(RATE, CORE, 3)
    predictions, references = ([{"audio": one} for one in found] for found in (blind, three))
    assert TASK.score(items, predictions, references)["same_output"] == 2
    said = TASK.faults(predictions, references)
    assert "2 of 3 outputs are another prompt's too" in said
    assert "the same output for all 3 inputs" in TASK.faults([references[0]] * 3, references)
    assert "1 of 3 outputs hold NaN values" in TASK.faults(
        [*references[:2], {"audio": three[2] * np.float32(np.nan)}]
    )


def test_results_keep_no_audio() -> None:
    row = TASK.row("prompts", ITEMS[0], REFERENCES[0], REFERENCES[1])
    assert row["truth"]["seed"] == 0 and row["prediction"]["audio"]["shape"] == [2, RATE // 2]
    assert 0 < row["prediction"]["rms"] < row["prediction"]["peak"] < 1
    assert not TASK.rescorable
