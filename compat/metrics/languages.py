"""Languages of transcripts: how a text is made comparable, and what is counted in it.

Whisper's English normaliser spoils other languages (Spanish "1 o 2" becomes "10 2"), and its basic
one drops the vowel signs of Hindi unless it keeps marks. Where no spaces stand between words, one
wrong sign would make a whole sentence wrong: characters are counted there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

UNSPACED = frozenset({"zh", "yue", "nan", "wuu", "ja", "th", "lo", "my", "km", "bo"})
"""Languages without spaces between words: Chinese, Japanese, Thai, Lao, Burmese, Khmer, Tibetan."""
_OTHER_CODES = {
    "cmn": "zh",
    "jpn": "ja",
    "tha": "th",
    "mya": "my",
    "khm": "km",
    "eng": "en",
    "lao": "lo",
    "chinese": "zh",
    "mandarin": "zh",
    "cantonese": "yue",
    "japanese": "ja",
    "thai": "th",
    "burmese": "my",
    "myanmar": "my",
    "khmer": "km",
    "tibetan": "bo",
    "english": "en",
}
"""Codes of three letters and names, of the languages that are treated in a way of their own."""


def code(language: str) -> str:
    """Return the code of a language without its region: ``zh`` for ``zh-CN`` and ``Chinese``."""
    plain = re.split(r"[-_ ]", language.strip().strip("<|>").lower())[0]
    return _OTHER_CODES.get(plain, plain)


def is_spaced(language: str) -> bool:
    """Return whether spaces stand between the words of a language; of an unknown one they do."""
    return code(language) not in UNSPACED


def normalizer(language: str) -> Callable[[str], str]:
    """Return the normaliser of a language: Whisper's English one, also where none is said.

    Of every other language it is Whisper's basic one (Radford et al. 2022, appendix C), which keeps
    marks: lower case, no punctuation, nothing in brackets.
    """
    from compat.metrics.wer import EnglishNormalizer

    return EnglishNormalizer() if code(language) in ("", "en") else _basic()


@cache
def _basic() -> Callable[[str], str]:
    # Imported by name at run time: the package has no type information.
    from importlib import import_module

    normalize: Callable[[str], str] = import_module("whisper_normalizer.basic").BasicTextNormalizer(
        preserve_marks=True
    )
    return normalize


def units(text: str, language: str) -> str:
    """Return a text with spaces between what is counted: words, or characters where none stand."""
    return text if is_spaced(language) else " ".join("".join(text.split()))
