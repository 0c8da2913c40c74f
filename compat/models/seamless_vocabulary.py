"""SeamlessM4T's vocabulary: the prompt of each language, and the text that tokens stand for."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from compat.inputs.checkpoints import CheckpointError
from compat.inputs.protobuf import fields
from compat.inputs.weights import read_json

GENERATION = "generation_config.json"
LANGUAGES = "text_decoder_lang_to_code_id"
TOKENIZER, PIECES = "tokenizer.json", "sentencepiece.bpe.model"
BLANK = "▁"
"""SentencePiece's mark of the beginning of a word."""
SPECIAL = 4
"""Number of special ids: padding 0, unknown 1, begin 2 and end 3. Ids of pieces are one higher than
in SentencePiece's file, which has no padding. Ids of languages follow the pieces."""

TWO_LETTERS = """
af:afr am:amh ar:arb as:asm az:azj be:bel bn:ben bs:bos bg:bul ca:cat cs:ces zh:cmn cy:cym da:dan
de:deu el:ell en:eng et:est eu:eus fi:fin fr:fra ga:gle gl:glg gu:guj he:heb hi:hin hr:hrv hu:hun
hy:hye ig:ibo id:ind is:isl it:ita jv:jav ja:jpn kn:kan ka:kat kk:kaz mn:khk km:khm ky:kir ko:kor
lo:lao lv:lvs lt:lit lb:ltz lg:lug ml:mal mr:mar mk:mkd mt:mlt my:mya nl:nld nn:nno no:nob nb:nob
ne:npi ny:nya or:ory pa:pan ps:pbt fa:pes pl:pol pt:por ro:ron ru:rus sk:slk sl:slv sn:sna sd:snd
so:som es:spa sr:srp sv:swe sw:swh ta:tam te:tel tg:tgk tl:tgl fil:tgl th:tha tr:tur uk:ukr ur:urd
uz:uzn vi:vie yo:yor ms:zlm zu:zul
"""
"""Corpora's codes of languages (ISO 639-1) to the model's (ISO 639-3, one language of a group)."""
_THREE = dict(pair.split(":") for pair in TWO_LETTERS.split())
_GROUPS = {"zho": "cmn", "ara": "arb", "aze": "azj", "mon": "khk", "lav": "lvs", "nor": "nob"} | {
    "nep": "npi",
    "ori": "ory",
    "pus": "pbt",
    "fas": "pes",
    "swa": "swh",
    "uzb": "uzn",
    "msa": "zlm",
}
"""Codes of groups of languages, with the language of each that the model has."""


def model_code(language: str) -> str:
    """Return the model's code of a language: ``deu`` for ``de``, ``de-AT``, ``German``, ``deu``.

    An unknown code is returned in lower case and without its region.
    """
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    plain = language.strip().strip("_<|>").lower()
    short = TO_LANGUAGE_CODE.get(plain, plain).replace("_", "-").split("-")[0]
    return _THREE.get(short) or _GROUPS.get(short, short)


@dataclass(frozen=True)
class Vocabulary:
    """Token ids that steer decoding."""

    start: int
    """Token that begins every prompt."""
    end: int
    languages: Mapping[str, int]
    """Tokens of languages by the model's codes; one follows the start of every prompt."""

    def prompt(self, language: str) -> tuple[int, int] | None:
        """Return the prompt that asks for text in a language; None for an unknown language.

        Args:
            language: the model's code, or any name that :func:`model_code` takes.
        """
        names = (language.strip().strip("_"), model_code(language))
        token = next((self.languages[name] for name in names if name in self.languages), None)
        return None if token is None else (self.start, token)


def seeded(size: int) -> Vocabulary:
    """Return the vocabulary of generated weights: a few languages, whose ids are near ``size``."""
    names = ("eng", "deu", "fra", "spa", "cmn", "hin")
    return Vocabulary(3, 3, {name: size - 100 + number for number, name in enumerate(names)})


def read_vocabulary(folder: Path, config: Mapping[str, Any]) -> Vocabulary:
    """Read the vocabulary from a checkpoint's generation configuration.

    Raises:
        CheckpointError: the configuration is missing, names no languages, or has tokens that the
            network lacks.
    """
    path = folder / GENERATION
    settings = read_json(path)
    languages = settings.get(LANGUAGES)
    if not isinstance(languages, dict) or not languages:
        raise CheckpointError(
            f"{path} has no {LANGUAGES}, so that nobody knows which token asks for which language. "
            "Restore the file from the checkpoint."
        )
    start = settings.get("decoder_start_token_id", config.get("decoder_start_token_id"))
    end = settings.get("eos_token_id", config.get("eos_token_id"))
    size = config["vocab_size"]
    named = {"decoder_start_token_id": start, "eos_token_id": end, **languages}
    wrong = [
        f"{name} {token!r}"
        for name, token in named.items()
        if type(token) is not int or not 0 <= token < size
    ]
    if wrong:
        raise CheckpointError(
            f"{path}: {', '.join(wrong[:3])} {'is' if len(wrong) == 1 else 'are'} none of the "
            f"{size} tokens of the model. Restore {path.name} and config.json from one and the "
            "same checkpoint."
        )
    assert isinstance(start, int) and isinstance(end, int)
    return Vocabulary(start, end, languages)


# Text --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Writer:
    """Turns tokens into text, by the kind of tokenizer that a checkpoint has."""

    folder: Path
    languages: Mapping[str, int]

    def __call__(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without special tokens and languages."""
        silent = set(self.languages.values())
        return self._decode([token for token in tokens if token >= SPECIAL and token not in silent])

    @cached_property
    def _decode(self) -> Callable[[list[int]], str]:
        path = self.folder / TOKENIZER
        if not path.is_file():
            return _by_pieces(self.folder / PIECES)
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # The library's error has no class of its own.
            raise CheckpointError(
                f"cannot read {path}: {error}. Restore the file from the checkpoint."
            ) from error
        return lambda tokens: str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def _by_pieces(path: Path) -> Callable[[list[int]], str]:
    """Return a decoder of tokens that uses a SentencePiece model."""
    if not path.is_file():
        raise CheckpointError(
            f"{path.parent} has neither {TOKENIZER} nor {PIECES}, so that tokens are no text. Copy "
            "one of them from the checkpoint."
        )
    try:
        pieces = list(_pieces(path.read_bytes()))
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise CheckpointError(
            f"cannot read {path}: {error}. Restore the file from the checkpoint."
        ) from error

    def decode(tokens: list[int]) -> str:
        known = [pieces[token - 1] for token in tokens if token <= len(pieces)]
        return "".join(known).replace(BLANK, " ").strip()

    return decode


def _pieces(content: bytes) -> Iterator[str]:
    """Yield the pieces of a SentencePiece model in order: field 1 of field 1 of its protobuf.

    Source: ``sentencepiece_model.proto``. The package itself is a compiled extension of 1 MB, which
    nothing else here needs.
    """
    for field, value in fields(content):
        if field == 1:
            yield next((text.decode() for inner, text in fields(value) if inner == 1), "")
