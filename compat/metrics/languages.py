"""Languages of transcripts: their normalisers, and whether words or characters are counted.

Whisper's English normaliser spoils other languages (Spanish "1 o 2" becomes "10 2"), and its basic
one drops the vowel signs of Hindi unless it keeps marks. In languages without spaces between words
one wrong sign would make a whole sentence wrong, so characters are counted there.
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
"""Other codes and names of the languages that are treated specially, with their usual codes."""


def code(language: str) -> str:
    """Return the code of a language without its region: ``zh`` for ``zh-CN`` and ``Chinese``."""
    plain = re.split(r"[-_ ]", language.strip().strip("<|>").lower())[0]
    return _OTHER_CODES.get(plain, plain)


def is_spaced(language: str) -> bool:
    """Return whether spaces stand between the words of a language; True for an unknown one."""
    return code(language) not in UNSPACED


def normalizer(language: str) -> Callable[[str], str]:
    """Return the normaliser of a language: Whisper's English one for English, and for ``""``.

    For every other language it is Whisper's basic one (Radford et al. 2022, appendix C): lower
    case, no punctuation, nothing in brackets. It is told to keep marks, such as vowel signs.
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
    """Return a text with spaces between its units: words, or characters in unspaced languages."""
    return text if is_spaced(language) else " ".join("".join(text.split()))
