"""Invented speech: text that repeats itself, or that a recording is too short to hold.

Autoregressive recognisers fail in this way although the numbers of their graphs look right, and a
mean over a test set hides it: one loop among sixty utterances is only one bad utterance.
"""

from __future__ import annotations

import zlib

LOOP = 2.4
"""Compression ratio above which Whisper's authors take a text for a loop and decode it again
(``compression_ratio_threshold`` of openai-whisper)."""
SHORTEST_LOOP = 40
"""Bytes of text below which no loop is looked for: a spoken "no, no, no" would be one."""
CHARACTERS_PER_SECOND = 45.0
"""Most characters of a second of speech: twice a fast reader's 250 words a minute, at five letters
and a space each, rounded."""
FREE_CHARACTERS = 30
"""Characters that a recording of any length may have, because a cut-off word is guessed."""


def compression_ratio(text: str) -> float:
    """Return how many times shorter zlib makes a text: bytes before over bytes after.

    Ordinary sentences have 0.9 to 1.7, a phrase that is repeated ten times has 5 and more.
    """
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))


def loops(text: str) -> bool:
    """Return whether a text repeats itself."""
    return len(text.encode()) >= SHORTEST_LOOP and compression_ratio(text) > LOOP


def too_long(text: str, seconds: float) -> bool:
    """Return whether a text is longer than speech of ``seconds`` can be."""
    return len(text.strip()) > FREE_CHARACTERS + CHARACTERS_PER_SECOND * seconds


def inventions(text: str, reference: str, seconds: float, *, wordless: bool = False) -> list[str]:
    """Return a phrase for each kind of invention that a transcript has and the reference's has not.

    A phrase that the reference invents as well is the model's fault and not the hardware's.

    Args:
        text: the transcript.
        reference: transcript of the same recording by the float reference.
        seconds: length of the recording in seconds.
        wordless: whether nobody speaks in it, so that any text is invented.
    """
    found = []
    if loops(text) and not loops(reference):
        found.append(f"repeats itself (compression ratio {compression_ratio(text):.1f})")
    if too_long(text, seconds) and not too_long(reference, seconds):
        found.append(f"{len(text.strip())} characters for {seconds:.1f} s of audio")
    if wordless and text.strip() and not reference.strip():
        found.append("text where nobody speaks")
    return found
