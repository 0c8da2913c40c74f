"""Sentences as tokens of one length, by a checkpoint's tokenizer or without any vocabulary."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compat.inputs.checkpoints import CheckpointError

Tokens = Callable[[Sequence[str]], tuple[NDArray[np.int32], NDArray[np.int32]]]
"""Function of sentences: ids (sentences, tokens), and a mask of ones where there is a token."""

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
"""RoBERTa's special tokens."""
SPECIAL = 4
"""Ids below are RoBERTa's special tokens: begin 0, padding 1, end 2, unknown 3."""
TOKENIZER, VOCAB, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
"""Files of a tokenizer: the first, or the other two."""


def hashed_words(length: int, padding: int, vocabulary: int) -> Tokens:
    """Return a tokenizer for generated weights, which know no vocabulary.

    A word, or a mark, has the id ``4 + CRC-32 of its lower-case UTF-8 modulo (vocabulary - 4)``,
    between RoBERTa's begin and end: the same on every machine, without any file.
    """

    def ids(sentence: str) -> list[int]:
        words = re.findall(r"\w+|[^\w\s]", sentence.lower())
        found = [SPECIAL + zlib.crc32(word.encode()) % (vocabulary - SPECIAL) for word in words]
        return [0, *found[: length - 2], 2]

    return lambda sentences: _padded([ids(one) for one in sentences], length, padding)


def read_tokenizer(folder: Path, length: int, padding: int, vocabulary: int) -> Tokens:
    """Return the tokenizer of a RoBERTa checkpoint, byte-level BPE.

    Args:
        folder: has ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``.
        length: tokens of a sentence, begin and end among them; longer ones are cut.
        padding: id of the token behind shorter ones.
        vocabulary: ids that the network has.

    Raises:
        CheckpointError: files are missing or damaged, or have ids that the network has not.
    """
    tokenizer, where = _open(folder)
    names = tokenizer.get_vocab(with_added_tokens=True)
    if missing := [name for name in (BEGIN, END, UNKNOWN) if name not in names]:
        raise CheckpointError(
            f"{where} has no token {', '.join(missing)}, so it is none of RoBERTa's. Restore the "
            "tokenizer from the checkpoint."
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


def _padded(
    rows: Sequence[Sequence[int]], length: int, padding: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    ids = np.full((len(rows), length), padding, np.int32)
    mask = np.zeros((len(rows), length), np.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask
