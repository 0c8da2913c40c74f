"""Word and character error rate.

``WER = (S + I + D) / N`` over the whole corpus: substitutions, insertions and deletions of an
alignment of minimum edit distance, divided by the number of reference words. It is not a mean of
utterance rates, and it can exceed 1. The alignment is jiwer's (RapidFuzz, Levenshtein).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from compat.metrics.bootstrap import no_worse_share, paired_interval, ratio, ratio_interval


@dataclass(frozen=True, slots=True)
class Counts:
    """Edit operations that turn a reference into a hypothesis, and the reference's length."""

    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0
    words: int = 0
    """Words (or characters) of the reference."""

    @property
    def errors(self) -> int:
        """Substitutions + insertions + deletions."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """Errors per reference word; the number of errors where the reference has no words."""
        return ratio(self.errors, self.words)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.words + other.words,
        )


class EnglishNormalizer:
    """Whisper's English text normalisation, with its complete spelling table.

    Lower case, no punctuation, digits for number words, American spelling, expanded contractions
    (Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", appendix C). The
    table of 1,739 spellings comes with whisper-normalizer; transformers ships the class without it.

    Number words merge (``one two`` becomes ``12``, one word), so do not use it to score a closed
    vocabulary of number words.
    """

    def __call__(self, text: str) -> str:
        return str(_english()(text))


@cache
def _english() -> Callable[[str], str]:
    # Imported by name at run time: the package has no type information.
    from importlib import import_module

    normalizer: Callable[[str], str] = import_module(
        "whisper_normalizer.english"
    ).EnglishTextNormalizer()
    return normalizer


def word_errors(reference: str, hypothesis: str) -> Counts:
    """Count the word errors of one utterance, whose words are separated by white space.

    An empty reference counts every word of the hypothesis as an insertion.
    """
    import jiwer

    result = jiwer.process_words(reference, hypothesis)
    return _counts(result)


def character_errors(reference: str, hypothesis: str) -> Counts:
    """Count the character errors of one utterance, spaces between words included.

    Runs of white space count as one space, so that layout is not an error.
    """
    import jiwer

    result = jiwer.process_characters(" ".join(reference.split()), " ".join(hypothesis.split()))
    return _counts(result)


def _counts(result: Any) -> Counts:
    return Counts(
        result.substitutions,
        result.insertions,
        result.deletions,
        result.hits + result.substitutions + result.deletions,
    )


def corpus_errors(
    references: Sequence[str],
    hypotheses: Sequence[str],
    count: Callable[[str, str], Counts] = word_errors,
) -> tuple[Counts, ...]:
    """Count the errors of every utterance; :func:`total` adds them up.

    Raises:
        ValueError: there are no utterances, or not one hypothesis per reference.
    """
    if not references or len(references) != len(hypotheses):
        raise ValueError(
            f"needs one hypothesis per reference and at least one: got {len(references)} "
            f"references and {len(hypotheses)} hypotheses"
        )
    return tuple(count(r, h) for r, h in zip(references, hypotheses, strict=True))


def total(counts: Iterable[Counts]) -> Counts:
    """Add up the counts of utterances into those of a corpus."""
    return sum(counts, Counts())


def by_characters(values: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of :func:`task_wer` on texts whose words are single characters.

    Such scores are character error rates, so ``wer`` becomes ``cer`` and ``words`` ``characters``.
    """
    names = {
        "wer": "cer",
        "wer_interval": "cer_interval",
        "reference_wer": "reference_cer",
        "words": "characters",
    }
    return {names.get(name, name): value for name, value in values.items() if name != "cer"}


def task_wer(
    references: Sequence[str],
    hypotheses: Sequence[str],
    reference_hypotheses: Sequence[str],
    *,
    normalize: Callable[[str], str] | None = None,
) -> dict[str, Any]:
    """Score the transcripts of one case against the truth and against the reference execution.

    Args:
        references: true transcripts, one per utterance.
        hypotheses: transcripts by the case.
        reference_hypotheses: transcripts of the same inputs by the float reference; the hardware is
            judged by the difference to these.
        normalize: function applied to all three, for instance :class:`EnglishNormalizer`; None
            scores the texts as they are.

    Returns:
        ``wer``, ``wer_interval`` (95 %, over utterances), ``substitutions``, ``insertions``,
        ``deletions``, ``words``, ``utterances``, ``capped_wer``, ``reference_wer``,
        ``degradation`` (``capped_wer`` minus ``reference_wer``), ``degradation_interval`` (95 %,
        paired), ``no_worse_share``, ``cer`` and ``worst_utterance`` (index of the utterance with
        the most errors beyond the reference's). In ``capped_wer`` an utterance has no more errors
        beyond the reference's than it has words (one, if it has none): a loop of a thousand words
        is one lost utterance, and must not outweigh all others. Rates are fractions, not
        percentages. Intervals are None for fewer than two utterances.

    Raises:
        ValueError: there are no utterances or the three lengths differ.
    """
    if normalize is not None:
        references = [normalize(text) for text in references]
        hypotheses = [normalize(text) for text in hypotheses]
        reference_hypotheses = [normalize(text) for text in reference_hypotheses]
    ours = corpus_errors(references, hypotheses)
    theirs = corpus_errors(references, reference_hypotheses)
    errors = [float(counts.errors) for counts in ours]
    baseline = [float(counts.errors) for counts in theirs]
    words = [float(counts.words) for counts in ours]
    capped = [
        min(own, other + max(count, 1.0))
        for own, other, count in zip(errors, baseline, words, strict=True)
    ]
    whole, reference = total(ours), total(theirs)
    capped_wer = ratio(sum(capped), whole.words)
    wer_interval = ratio_interval(errors, words)
    degradation_interval = paired_interval(capped, baseline, words)
    return {
        "wer": whole.rate,
        "wer_interval": None if wer_interval is None else list(wer_interval),
        "substitutions": whole.substitutions,
        "insertions": whole.insertions,
        "deletions": whole.deletions,
        "words": whole.words,
        "utterances": len(ours),
        "capped_wer": capped_wer,
        "reference_wer": reference.rate,
        "degradation": capped_wer - reference.rate,
        "degradation_interval": (
            None if degradation_interval is None else list(degradation_interval)
        ),
        "no_worse_share": no_worse_share(errors, baseline),
        "cer": total(corpus_errors(references, hypotheses, character_errors)).rate,
        "worst_utterance": max(
            range(len(ours)), key=lambda index: (errors[index] - baseline[index], errors[index])
        ),
    }
