"""CTC: the vocabulary of a recogniser's outputs, and greedy decoding of its frames to text.

Source: Graves et al., "Connectionist Temporal Classification", 2006. The vocabulary files are those
of transformers' ``Wav2Vec2CTCTokenizer``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from compat.inputs.checkpoints import CheckpointError
from compat.inputs.weights import read_json

SPECIAL = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "unk": "<unk>", "word_delimiter": "|"}
"""Default names of the tokens that are no letters, used if ``tokenizer_config.json`` has none."""


@dataclass(frozen=True)
class Vocabulary:
    """The symbols of the network's outputs."""

    symbols: tuple[str, ...]
    """Text of each output: a letter, a space for the word delimiter, empty for the rest."""
    blank: int
    """The output that stands for no letter; between two equal letters it keeps them apart."""

    def decode(self, frames: Sequence[int]) -> tuple[list[int], str]:
        """Return the outputs and the text of a greedy decoding of the best output of each frame.

        Repetitions count as one letter, unless a blank lies between them.
        """
        collapsed = [int(output) for output, _ in groupby(frames)]
        letters = [output for output in collapsed if output != self.blank]
        return letters, " ".join("".join(self.symbols[output] for output in letters).split())


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """Read the vocabulary of a checkpoint whose network has ``size`` outputs.

    Raises:
        CheckpointError: the checkpoint has no vocabulary, or one that does not fit the network.
    """
    path = folder / "vocab.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no vocab.json: it is not fine-tuned for recognition, or its tokenizer "
            "was left behind. Name a checkpoint such as facebook/wav2vec2-base-960h."
        )
    settings = read_json(folder / "tokenizer_config.json")
    ids = _of_language(path, read_json(path), settings.get("target_lang"))
    special = {
        name: _text(settings.get(f"{name}_token")) or default for name, default in SPECIAL.items()
    }
    symbols = [""] * size
    for token, index in ids.items():
        if not isinstance(index, int) or not 0 <= index < size:
            raise CheckpointError(
                f"{path}: {token!r} has no place among the {size} outputs of the network. Restore "
                "the file from the checkpoint."
            )
        symbols[index] = "" if token in special.values() else token
    for name in ("pad", "word_delimiter"):
        if special[name] not in ids:
            raise CheckpointError(
                f"{path} has no {special[name]!r}, which the tokenizer names as its {name}_token. "
                "Restore the tokenizer of the checkpoint."
            )
    symbols[ids[special["word_delimiter"]]] = " "
    return Vocabulary(tuple(symbols), ids[special["pad"]])


def _of_language(path: Path, ids: dict[str, Any], language: str | None) -> dict[str, Any]:
    """Return one language's vocabulary; checkpoints such as MMS have one for each language."""
    if not ids or not all(isinstance(of_language, dict) for of_language in ids.values()):
        return ids
    if language is None and len(ids) == 1:
        return dict(*ids.values())
    if language not in ids:
        asked = "no language is asked for" if language is None else f"{language!r} is asked for"
        raise CheckpointError(
            f"{path} has a vocabulary for each of {len(ids)} languages, and {asked}. Set "
            f'"target_lang" in {path.with_name("tokenizer_config.json")} to one of '
            f"{', '.join(sorted(ids))}, and name a checkpoint whose weights are of it."
        )
    return dict(ids[language])


def _text(token: Any) -> str:
    """Return the text of a token, which the file may write as an object; empty if it is absent."""
    return str((token.get("content") if isinstance(token, dict) else token) or "")
