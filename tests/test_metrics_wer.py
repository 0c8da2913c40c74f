"""compat.metrics.wer and compat.metrics.bootstrap against hand-counted errors and properties."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compat.metrics.bootstrap import (
    no_worse_share,
    paired_interval,
    ratio_interval,
    resample_indices,
)
from compat.metrics.wer import (
    Counts,
    EnglishNormalizer,
    character_errors,
    corpus_errors,
    task_wer,
    total,
    word_errors,
)

WORDS = st.lists(st.sampled_from(["a", "b", "c", "seven", "left"]), max_size=8).map(" ".join)
PAIRS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("the cat sat", "the cat sat", Counts(0, 0, 0, 3)),
        ("the cat sat", "the dog sat", Counts(1, 0, 0, 3)),
        ("the cat sat", "the cat sat down", Counts(0, 1, 0, 3)),
        ("the cat sat", "the sat", Counts(0, 0, 1, 3)),
        ("a b c", "a x c d", Counts(1, 1, 0, 3)),
        ("", "", Counts(0, 0, 0, 0)),
        ("", "thank you", Counts(0, 2, 0, 0)),
        ("thank you", "", Counts(0, 0, 2, 2)),
        ("  two   spaces ", "two spaces", Counts(0, 0, 0, 2)),
    ],
)
def test_word_errors(reference: str, hypothesis: str, expected: Counts) -> None:
    assert word_errors(reference, hypothesis) == expected


def test_character_errors() -> None:
    # kitten -> sitting: two substitutions and one insertion (the textbook Levenshtein example).
    assert character_errors("kitten", "sitting") == Counts(2, 1, 0, 6)
    assert character_errors("ab", "") == Counts(0, 0, 2, 2)
    assert character_errors("", "ab") == Counts(0, 2, 0, 0)
    assert character_errors("a   b", "a b").errors == 0


def test_corpus_rate_is_not_the_mean_of_rates() -> None:
    # 1 error in 1 word and 0 in 9: 0.1 over the corpus, 0.5 as a mean of utterances.
    counts = corpus_errors(["x", "a b c d e f g h i"], ["y", "a b c d e f g h i"])
    assert total(counts) == Counts(1, 0, 0, 10)
    assert total(counts).rate == 0.1


def test_rate_without_reference_words_grows_with_insertions() -> None:
    assert Counts(0, 0, 0, 0).rate == 0.0
    assert Counts(0, 3, 0, 0).rate == 3.0


@given(PAIRS)
def test_error_bounds(pairs: list[tuple[str, str]]) -> None:
    for reference, hypothesis in pairs:
        counts = word_errors(reference, hypothesis)
        ours, theirs = len(reference.split()), len(hypothesis.split())
        assert counts.words == ours
        assert counts.substitutions + counts.deletions <= ours
        assert counts.insertions - counts.deletions == theirs - ours
        assert abs(theirs - ours) <= counts.errors <= max(ours, theirs)
        assert word_errors(reference, reference).errors == 0
        assert word_errors(hypothesis, reference).errors == counts.errors


@given(PAIRS, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_order_of_utterances_does_not_matter(
    pairs: list[tuple[str, str]], generator: random.Random
) -> None:
    shuffled = generator.sample(pairs, len(pairs))
    first, second = (
        task_wer([r for r, _ in order], [h for _, h in order], [r for r, _ in order])
        for order in (pairs, shuffled)
    )
    for key in ("wer", "cer", "substitutions", "insertions", "deletions", "no_worse_share"):
        assert first[key] == second[key]


def test_english_normalizer_has_the_spelling_table() -> None:
    normalize = EnglishNormalizer()
    assert normalize("Mr. Colour's twenty-one!") == "mister color is 21"
    assert normalize("analyse, organise; harbour") == "analyze organize harbor"
    assert normalize("one two") == "12"


def test_task_wer() -> None:
    references = ["the cat sat on the mat", "go left", "stop now please", ""]
    reference_hypotheses = ["the cat sat on the mat", "go right", "stop now please", ""]
    hypotheses = ["the cat sat on a mat", "go left", "now please", "you"]
    score = task_wer(references, hypotheses, reference_hypotheses)
    assert score["words"] == 11 and score["utterances"] == 4
    assert (score["substitutions"], score["insertions"], score["deletions"]) == (1, 1, 1)
    assert score["wer"] == pytest.approx(3 / 11)
    assert score["reference_wer"] == pytest.approx(1 / 11)
    assert score["degradation"] == pytest.approx(2 / 11)
    assert score["no_worse_share"] == 0.25
    # Utterances 0, 2 and 3 each have one error more than the reference's: the first is named.
    assert score["worst_utterance"] == 0
    # Characters: "the"->"a" is 3 edits of 22, "stop " 5 of 15, "you" 3 of 0, "go left" 0 of 7.
    assert score["cer"] == pytest.approx(11 / 44)
    low, high = score["wer_interval"]
    assert low <= score["wer"] <= high
    low, high = score["degradation_interval"]
    assert low <= score["degradation"] <= high
    assert low < 0 < high, "one utterance improved and three got worse: both signs are possible"
    json.dumps(score, allow_nan=False)


def test_task_wer_names_the_worst_by_what_the_hardware_added() -> None:
    # Utterance 0 has more errors, but the reference made them as well.
    score = task_wer(["a b c", "d e"], ["x y z", "d x"], ["x y z", "d e"])
    assert score["worst_utterance"] == 1
    assert score["no_worse_share"] == 0.5


def test_task_wer_normalizes_all_three() -> None:
    score = task_wer(["Colour!"], ["color"], ["COLOUR"], normalize=EnglishNormalizer())
    assert score["wer"] == score["reference_wer"] == 0.0
    assert task_wer(["Colour!"], ["color"], ["COLOUR"])["wer"] == 1.0


def test_single_utterance_has_no_interval() -> None:
    score = task_wer(["a b"], ["a c"], ["a b"])
    assert score["wer_interval"] is None and score["degradation_interval"] is None


@pytest.mark.parametrize(("references", "hypotheses"), [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_lengths_must_agree(references: list[str], hypotheses: list[str]) -> None:
    with pytest.raises(ValueError, match="one hypothesis per reference"):
        task_wer(references, hypotheses, references)


COLUMNS = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 30)), min_size=2, max_size=30
)


@given(COLUMNS)
@settings(max_examples=40, deadline=None)
def test_interval_contains_the_estimate(rows: list[tuple[int, int, int]]) -> None:
    ours, theirs, words = (np.array(column, float) for column in zip(*rows, strict=True))
    count = words.sum() or 1.0
    interval = ratio_interval(ours, words, resamples=200)
    assert interval is not None and interval.low <= ours.sum() / count <= interval.high
    interval = paired_interval(ours, theirs, words, resamples=200)
    assert interval is not None
    assert interval.low <= (ours.sum() - theirs.sum()) / count <= interval.high


def test_interval_has_the_width_of_the_normal_approximation() -> None:
    # 400 utterances of 10 words, errors with known variance: width 2 x 1.96 x sd / sqrt(n).
    errors = np.random.default_rng(3).integers(0, 5, 400).astype(float)
    words = np.full(400, 10.0)
    interval = ratio_interval(errors, words)
    assert interval is not None
    expected = 2 * 1.96 * errors.std() / 10 / np.sqrt(400)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.08)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        errors = generator.binomial(10, 0.3, size=60).astype(float)
        interval = ratio_interval(errors, np.full(60, 10.0), resamples=300)
        assert interval is not None
        hits += interval.low <= 0.3 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


def test_pairing_cancels_the_difficulty_of_utterances() -> None:
    generator = np.random.default_rng(11)
    theirs = generator.integers(0, 10, 200).astype(float)
    ours = theirs + (np.arange(200) % 20 == 0)
    words = np.full(200, 10.0)
    paired = paired_interval(ours, theirs, words)
    single = ratio_interval(ours, words)
    assert paired is not None and single is not None
    assert paired.low > 0, "ten added errors and none removed are a degradation"
    assert (paired.high - paired.low) < (single.high - single.low) / 5


def test_identical_systems_have_no_degradation() -> None:
    errors = [1.0, 0.0, 4.0]
    assert paired_interval(errors, errors, [5.0, 5.0, 5.0]) == (0.0, 0.0)
    assert no_worse_share(errors, errors) == 1.0


def test_draws_are_reproducible_and_complete() -> None:
    first = np.concatenate(list(resample_indices(5000, 1000)))
    second = np.concatenate(list(resample_indices(5000, 1000)))
    assert first.shape == (1000, 5000)
    assert (first == second).all()
    assert first.min() == 0 and first.max() == 4999
    other = np.concatenate(list(resample_indices(5000, 1000, seed=1)))
    assert (first != other).any()


@pytest.mark.parametrize(
    ("numerators", "denominators"),
    [([1.0], [1.0, 2.0]), ([float("nan"), 1.0], [1.0, 1.0]), ([1.0, 1.0], [1.0, -1.0])],
)
def test_interval_rejects(numerators: list[float], denominators: list[float]) -> None:
    with pytest.raises(ValueError, match=r"per utterance|finite"):
        ratio_interval(numerators, denominators)


def test_silence_only_has_a_finite_interval() -> None:
    # No reference words at all: the rate is the number of inserted words, in every resample too.
    interval = ratio_interval([0.0, 0.0, 4.0, 4.0], [0.0] * 4)
    assert interval is not None and interval.low == 0.0 and interval.high == 16.0


def test_bootstrap_rejects_nonsense() -> None:
    for utterances, resamples in ((0, 10), (10, 0)):
        with pytest.raises(ValueError, match="at least one utterance"):
            next(resample_indices(utterances, resamples))
    assert next(resample_indices(1, 1)).tolist() == [[0]]
    for confidence in (0.0, 1.0):
        with pytest.raises(ValueError, match="confidence"):
            ratio_interval([1.0, 2.0], [1.0, 1.0], confidence=confidence)
    for ours, theirs in (([], []), ([1.0], [1.0, 2.0])):
        with pytest.raises(ValueError, match="both systems"):
            no_worse_share(ours, theirs)
