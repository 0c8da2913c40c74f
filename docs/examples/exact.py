"""Exact matches: the share of utterances without any error."""

from __future__ import annotations

from collections.abc import Sequence


def exact_match(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return the share (0 to 1) of hypotheses that equal their reference.

    Raises:
        ValueError: the numbers of references and hypotheses differ, or both are 0.
    """
    if not references or len(references) != len(hypotheses):
        raise ValueError("needs one hypothesis per reference, and at least one")
    pairs = zip(references, hypotheses, strict=True)
    return sum(one == other for one, other in pairs) / len(references)
