"""Sentences as tokens of one length, by a checkpoint's tokenizer or without any vocabulary."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compat.inputs.checkpoints import CheckpointError
from compat.inputs.protobuf import fields

Tokens = Callable[[Sequence[str]], tuple[NDArray[np.int32], NDArray[np.int32]]]
"""Tokenizer: maps sentences to ids (sentences, tokens) and a mask of that shape, 1 for tokens and 0
for padding."""

BEGIN, END, UNKNOWN, PADDING = "<s>", "</s>", "<unk>", "<pad>"
TOKENIZER, VOCAB, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
"""Files of a tokenizer: a checkpoint has the first, or the other two."""
PIECES = "spiece.model"
"""SentencePiece's file, which T5 has instead of ``vocab.json`` and ``merges.txt``."""


@dataclass(frozen=True)
class Marks:
    """The special tokens of a kind of text encoder."""

    title: str
    """Name of the text encoder in messages."""
    names: tuple[str, ...]
    """Special tokens that its tokenizer must have."""
    begin: tuple[int, ...]
    """Ids before a sentence: none or one."""
    end: int
    """Id behind a sentence."""
    words: int
    """Lowest id of a word."""


ROBERTA = Marks("RoBERTa", (BEGIN, END, UNKNOWN), (0,), 2, 4)
"""RoBERTa's special tokens: begin 0, padding 1, end 2, unknown 3."""
T5 = Marks("T5", (PADDING, END, UNKNOWN), (), 1, 3)
"""T5's special tokens: padding 0, end 1, unknown 2."""


def hashed_words(length: int, padding: int, vocabulary: int, marks: Marks = ROBERTA) -> Tokens:
    """Return a tokenizer for generated weights, which know no vocabulary.

    A word or a punctuation mark has the id ``n + crc % (vocabulary - n)``, where ``n`` is
    ``marks.words`` and ``crc`` the CRC-32 of its lower-case UTF-8. So ids are the same on every
    machine, without any file. The ids of a sentence stand between begin and end.
    """

    def ids(sentence: str) -> list[int]:
        words = re.findall(r"\w+|[^\w\s]", sentence.lower())
        first, room = marks.words, length - len(marks.begin) - 1
        found = [first + zlib.crc32(word.encode()) % (vocabulary - first) for word in words]
        return [*marks.begin, *found[:room], marks.end]

    return lambda sentences: _padded([ids(one) for one in sentences], length, padding)


def read_tokenizer(
    folder: Path, length: int, padding: int, vocabulary: int, marks: Marks = ROBERTA
) -> Tokens:
    """Return the tokenizer of a checkpoint.

    Args:
        folder: has ``tokenizer.json``; or ``vocab.json`` and ``merges.txt`` (RoBERTa's byte-level
            BPE); or ``spiece.model`` (T5's SentencePiece unigrams).
        length: tokens of a sentence, including begin and end; longer sentences are cut.
        padding: id of the tokens behind shorter sentences.
        vocabulary: number of ids that the network has.
        marks: the special tokens of the kind of text encoder.

    Raises:
        CheckpointError: files are missing or damaged, or have ids that the network lacks.
    """
    tokenizer, where = _open_t5(folder) if marks is T5 else _open(folder)
    names = tokenizer.get_vocab(with_added_tokens=True)
    if missing := [name for name in marks.names if name not in names]:
        raise CheckpointError(
            f"{where} has no token {', '.join(missing)}, so it is none of {marks.title}'s. Restore "
            "the tokenizer from the checkpoint."
        )
    if max(names.values()) >= vocabulary:
        raise CheckpointError(
            f"{where} has ids up to {max(names.values())}, and the network {vocabulary} tokens. "
            "Restore tokenizer and config.json of one and the same checkpoint."
        )
    tokenizer.enable_truncation(length)
    tokenizer.no_padding()

    def tokens(sentences: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        encoded = tokenizer.encode_batch(list(sentences))
        return _padded([one.ids for one in encoded], length, padding)

    return tokens


def _open(folder: Path) -> tuple[Any, Path]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    whole, vocab, merges = (folder / name for name in (TOKENIZER, VOCAB, MERGES))
    where = whole if whole.is_file() else vocab
    if not whole.is_file() and not (vocab.is_file() and merges.is_file()):
        raise CheckpointError(
            f"{folder} has no tokenizer: neither {TOKENIZER} nor {VOCAB} and {MERGES}. Copy it "
            "from the checkpoint."
        )
    try:
        if whole.is_file():
            return Tokenizer.from_file(str(whole)), where
        tokenizer = Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
        names: Mapping[str, int] = tokenizer.get_vocab()
        last, first = ((name, names.get(name, 0)) for name in (END, BEGIN))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.RobertaProcessing(last, first, add_prefix_space=False)
    except Exception as error:  # The library raises nothing more particular.
        raise CheckpointError(
            f"cannot read {where}: {error}. Restore the tokenizer from the checkpoint."
        ) from error
    return tokenizer, where


def _open_t5(folder: Path) -> tuple[Any, Path]:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    whole, pieces = folder / TOKENIZER, folder / PIECES
    if not whole.is_file() and not pieces.is_file():
        raise CheckpointError(
            f"{folder} has no tokenizer: neither {TOKENIZER} nor {PIECES}. Copy it from the "
            "checkpoint."
        )
    where = whole if whole.is_file() else pieces
    try:
        if whole.is_file():
            return Tokenizer.from_file(str(whole)), where
        vocabulary, unknown, rules = read_pieces(pieces.read_bytes())
        tokenizer = Tokenizer(models.Unigram(vocabulary, unknown, byte_fallback=False))
        if rules:
            tokenizer.normalizer = normalizers.Precompiled(rules)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        )
        end = (END, dict(tokenizer.get_vocab())[END])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=["$A", END], special_tokens=[end]
        )
    except Exception as error:  # The library raises nothing more particular.
        raise CheckpointError(
            f"cannot read {where}: {error!r}. Restore the tokenizer from the checkpoint."
        ) from error
    return tokenizer, where


def read_pieces(data: bytes) -> tuple[list[tuple[str, float]], int, bytes]:
    """Return the vocabulary in the bytes of a SentencePiece file.

    The result is: the pieces with their scores, in order; the position of the unknown piece; and
    the compiled rules that normalise text, empty if there are none.

    Source: ``sentencepiece_model.proto``. The numbers of its fields are: pieces 1, with text 1,
    score 2 and type 3 (value 2: unknown); normaliser 3, with rules 2.

    Raises:
        ValueError: the bytes are no such message, or lack the unknown piece or the normaliser.
    """
    pieces: list[tuple[str, float]] = []
    unknown, rules = -1, None
    for field, value in fields(data):
        if field == 1 and isinstance(value, bytes):
            piece = dict(fields(value))
            if piece.get(3) == 2:
                unknown = len(pieces)
            pieces.append(
                (bytes(piece[1]).decode(), struct.unpack("<f", piece.get(2, b"\0" * 4))[0])
            )
        elif field == 3 and isinstance(value, bytes):
            rules = dict(fields(value)).get(2, b"")
    if unknown < 0 or rules is None:
        raise ValueError("it has no unknown piece, or no normaliser")
    return pieces, unknown, rules


def _padded(
    rows: Sequence[Sequence[int]], length: int, padding: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    ids = np.full((len(rows), length), padding, np.int32)
    mask = np.zeros((len(rows), length), np.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask
