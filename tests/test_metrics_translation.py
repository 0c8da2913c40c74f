"""compat.metrics.translation against sacreBLEU's own scores, and against counting by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from compat.contract.errors import CompatError
from compat.metrics.translation import task_translation, tokenizer

TRUTHS = [
    "The cat sat on the mat.",
    "It rained for three days, and then the sun came out.",
    "Nobody knows why.",
    "She has been waiting here since the morning.",
]
WRITTEN = [
    "The cat sat on a mat.",
    "It rained three days, then the sun came out.",
    "Nobody knows why.",
    "She waits here since this morning.",
]
WORSE = ["A cat sat.", "It rained.", "Who knows?", "She waits here since this morning."]


def test_scores_are_sacrebleus_own() -> None:
    values = task_translation(TRUTHS, WORSE, WRITTEN)
    assert values["chrf"] == pytest.approx(CHRF().corpus_score(WORSE, [TRUTHS]).score / 100)
    assert values["bleu"] == pytest.approx(BLEU().corpus_score(WORSE, [TRUTHS]).score / 100)
    expected = CHRF().corpus_score(WRITTEN, [TRUTHS]).score / 100
    assert values["reference_chrf"] == pytest.approx(expected)
    assert values["degradation"] == pytest.approx(expected - values["chrf"])
    each = [
        CHRF().sentence_score(theirs, [truth]).score - CHRF().sentence_score(ours, [truth]).score
        for ours, theirs, truth in zip(WORSE, WRITTEN, TRUTHS, strict=True)
    ]
    assert values["worst_utterance"] == int(np.argmax(each))
    assert values["no_worse_share"] == np.mean(np.array(each) <= 5.0) == 0.25
    assert values["exact_share"] == 0.25
    low, high = values["degradation_interval"]
    assert 0 < low < values["degradation"] < high
    for name in ("chrf", "bleu"):
        low, high = values[f"{name}_interval"]
        assert 0 <= low < values[name] < high <= 1


def test_chrf_counted_by_hand() -> None:
    """One of three letters is wrong: 2 of 3 letters, 1 of 2 pairs and 0 of 1 triple are right."""
    values = task_translation(["abc"], ["abd"], ["abc"])
    assert values["chrf"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert values["reference_chrf"] == 1.0
    assert values["chrf_interval"] is None
    assert values["degradation"] == pytest.approx(1 - (2 / 3 + 1 / 2) / 3)


def test_bleu_counted_by_hand() -> None:
    """Of six words five are right, in 4 of 5 pairs, 3 of 4 triples and 2 of 3 groups of four."""
    values = task_translation(["a b c d e f"], ["a b c d e x"], ["a b c d e f"])
    assert values["bleu"] == pytest.approx((5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)
    # A word less: all is right, and e^(1 - 6 / 5) for the brevity.
    values = task_translation(["a b c d e f"], ["a b c d e"], ["a b c d e f"])
    assert values["bleu"] == pytest.approx(np.exp(1 - 6 / 5))


@pytest.mark.parametrize(
    ("language", "name"),
    [("", "13a"), ("de", "13a"), ("zh-CN", "zh"), ("cmn", "zh"), ("ja", "char"), ("tha", "char")],
)
def test_words_are_parted_as_the_language_wants(language: str, name: str) -> None:
    assert tokenizer(language) == name


def test_chinese_is_no_single_word() -> None:
    truth, written = "今天天气很好我们去公园", "今天天气很好我们去学校"
    assert task_translation([truth], [written], [truth])["bleu"] < 0.1
    assert task_translation([truth], [written], [truth], "zh")["bleu"] > 0.6


WORDS = st.lists(st.sampled_from("one two three four ä".split()), max_size=6).map(" ".join)  # noqa: SIM905


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=4))
def test_whatever_was_written_scores_are_shares(rows: list[tuple[str, str, str]]) -> None:
    truths, ours, theirs = map(list, zip(*rows, strict=True))
    values = task_translation(truths, ours, theirs)
    for name in ("chrf", "bleu", "reference_chrf", "no_worse_share", "exact_share"):
        assert 0 <= values[name] <= 1 + 1e-9
    for name in ("chrf", "degradation"):
        if values[f"{name}_interval"] is not None:
            low, high = values[f"{name}_interval"]
            assert low <= values[name] <= high
    assert task_translation(truths, theirs, theirs)["degradation"] == 0


@pytest.mark.parametrize("lengths", [(0, 0, 0), (2, 1, 2), (1, 1, 2)])
def test_every_utterance_needs_an_answer(lengths: tuple[int, int, int]) -> None:
    truths, ours, theirs = (["a"] * length for length in lengths)
    with pytest.raises(ValueError, match="one hypothesis of either"):
        task_translation(truths, ours, theirs)


def test_its_absence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(CompatError, match="not installed"):
        task_translation(["a"], ["a"], ["a"])
