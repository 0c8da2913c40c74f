"""Scores of translations against one true translation each: chrF and BLEU, by sacreBLEU.

chrF decides, since it needs no words and so is one metric for all languages, and since it also
works for a single sentence. BLEU stands beside it, because papers report it.

Both are shares here, 0 to 1, where sacreBLEU has 0 to 100. Sources: Papineni et al., "BLEU: a
Method for Automatic Evaluation of Machine Translation", 2002; Popović, "chrF: character n-gram
F-score for automatic MT evaluation", 2015; Post, "A Call for Clarity in Reporting BLEU Scores",
2018, whose package this is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compat.contract.errors import CompatError
from compat.metrics.bootstrap import CONFIDENCE, resample_indices
from compat.metrics.languages import code, is_spaced

RESAMPLES = 1_000
"""Draws of utterances for each interval, as in sacreBLEU's own significance tests."""
NO_WORSE = 0.05
"""chrF of an utterance by which an answer may be below the reference's and still be no worse. In a
sentence of eight words, that is about one word with another ending."""


def task_translation(
    references: Sequence[str],
    hypotheses: Sequence[str],
    reference_hypotheses: Sequence[str],
    language: str = "",
) -> dict[str, Any]:
    """Score the translations of one case against the truth and against the reference execution.

    Args:
        references: true translations, one per utterance.
        hypotheses: translations by the case.
        reference_hypotheses: translations of the same inputs by the float reference.
        language: code of the language of the translations, by which BLEU separates words.

    Returns:
        ``chrf`` (chrF2: character n-grams up to 6, β = 2), ``bleu`` (n-grams up to 4, exponential
        smoothing, tokens by :func:`tokenizer`), both of the whole set and with intervals (95 %,
        over utterances), ``reference_chrf``, ``reference_bleu``, ``degradation``
        (``reference_chrf`` minus ``chrf``) and its paired interval, ``no_worse_share`` (utterances
        whose chrF is within :data:`NO_WORSE` of the reference's), ``exact_share`` (utterances
        written exactly as by the reference), ``utterances`` and ``worst_utterance`` (index).
        Intervals are None for fewer than two utterances.

    Raises:
        ValueError: there are no utterances or the three lengths differ.
        CompatError: sacreBLEU is not installed.
    """
    if not references or not len(references) == len(hypotheses) == len(reference_hypotheses):
        raise ValueError("needs one hypothesis of either per reference, and at least one")
    metrics = _sacrebleu()
    chrf, bleu = metrics.CHRF(), metrics.BLEU(tokenize=tokenizer(language))
    ours, theirs = (_Counts(chrf, one, references) for one in (hypotheses, reference_hypotheses))
    words, their_words = (
        _Counts(bleu, one, references) for one in (hypotheses, reference_hypotheses)
    )
    losses = np.subtract(theirs.each, ours.each)
    draws = np.concatenate(list(resample_indices(len(references), RESAMPLES)))
    drawn = ours.drawn(draws)
    return {
        "chrf": ours.whole,
        "chrf_interval": _interval(drawn, ours.whole, len(losses)),
        "bleu": words.whole,
        "bleu_interval": _interval(words.drawn(draws), words.whole, len(losses)),
        "reference_chrf": theirs.whole,
        "reference_bleu": their_words.whole,
        "degradation": theirs.whole - ours.whole,
        "degradation_interval": _interval(
            theirs.drawn(draws) - drawn, theirs.whole - ours.whole, len(losses)
        ),
        "no_worse_share": float((losses <= NO_WORSE).mean()),
        "exact_share": float(np.mean(np.equal(hypotheses, reference_hypotheses))),
        "utterances": len(references),
        "worst_utterance": int(np.argmax(losses)),
    }


def tokenizer(language: str) -> str:
    """Return the name of the sacreBLEU tokenizer by which BLEU separates a language into words.

    It is ``zh`` for Chinese (characters, but whole words of other scripts, as in WMT), ``char`` for
    other languages without spaces between words, and else ``13a``, also as in WMT.
    """
    plain = code(language)
    if plain == "zh":
        return "zh"
    return "13a" if is_spaced(plain) else "char"


class _Counts:
    """Counts of matching n-grams of each utterance, from which scores of any draw are computed.

    The public methods of sacreBLEU would count all n-grams again for each draw. Its own
    significance tests use the two private methods that are used here.
    """

    def __init__(self, metric: Any, hypotheses: Sequence[str], references: Sequence[str]) -> None:
        counts = metric._extract_corpus_statistics(list(hypotheses), [list(references)])
        self.metric = metric
        self.counts = np.array(counts, np.int64)

    @property
    def whole(self) -> float:
        """The score of all utterances together."""
        return self._score(self.counts.sum(axis=0))

    @property
    def each(self) -> list[float]:
        """The scores of single utterances."""
        return [self._score(row) for row in self.counts]

    def drawn(self, draws: np.ndarray) -> np.ndarray:
        """Return the score of each draw, a row of indices of utterances."""
        return np.array([self._score(self.counts[row].sum(axis=0)) for row in draws])

    def _score(self, counts: np.ndarray) -> float:
        score: float = self.metric._compute_score_from_stats(counts.tolist()).score
        return score / 100


def _interval(drawn: np.ndarray, whole: float, utterances: int) -> list[float] | None:
    """Return the percentiles of drawn scores, widened to contain the score itself."""
    if utterances < 2:
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return [min(float(low), whole), max(float(high), whole)]


def _sacrebleu() -> Any:
    try:
        import sacrebleu.metrics
    except ImportError as error:
        raise CompatError(
            "translations are scored by sacreBLEU, which is not installed",
            "pip install 'audio-compat[translation]'",
        ) from error
    return sacrebleu.metrics
