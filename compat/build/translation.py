"""Whisper checkpoints of other libraries, translated into Hugging Face's layout.

faster-whisper's folders and OpenAI's files hold the same weights under other names, and keep
configuration and tokenizer in other places. The translated copy lies in the cache, so that readers
of checkpoints and runtimes need to know one layout only.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compat.build import artifacts
from compat.contract.digests import file_digest
from compat.inputs import ctranslate2, openai
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.weights import WEIGHTS, read_json
from compat.models import whisper_vocabulary as names

if TYPE_CHECKING:
    import torch

BESIDE = ("preprocessor_config.json", names.GENERATION, "tokenizer.json")
"""Files of transformers that people keep beside weights in another layout. They are copied."""
VOCABULARIES = ("vocabulary.json", "vocabulary.txt")
"""Files of CTranslate2 that list every token; a folder has one of them."""
BROKEN = "Name the checkpoint that it was made from, in Hugging Face's layout."
TIKTOKEN = {
    "openai-whisper": "whisper/assets/{}.tiktoken",
    "mlx-whisper": "mlx_whisper/assets/{}.tiktoken",
}
"""Packages that contain Whisper's vocabularies, which OpenAI's files of weights lack, with the
path of a vocabulary in each."""
MULTILINGUAL = names.ENGLISH_ONLY + 1
"""Size of the smallest published multilingual vocabulary. large-v3 has one language more."""


def translated(checkpoint: str) -> str:
    """Return a checkpoint's folder in Hugging Face's layout: the given one, or a translated copy.

    Args:
        checkpoint: a folder or a file that a person named, or an empty text. It is returned as it
            is unless it is a folder of CTranslate2 or a file of OpenAI's.

    Raises:
        CheckpointError: the checkpoint has one of these two forms, and is damaged.
    """
    path = Path(checkpoint)
    model = path / ctranslate2.MODEL
    if path.suffix in openai.SUFFIXES and path.is_file():
        dimensions, _ = openai.read(path)
        files = [path, *_tokenizer_files(path.parent, dimensions["n_vocab"])]
    elif ctranslate2.is_whisper(model) and not (path / WEIGHTS).is_file():
        ctranslate2.read_variables(model)
        files = [model, *sorted(path.glob("*.json")), *sorted(path.glob("vocabulary.txt"))]
    else:
        return checkpoint
    digests = {file.name: file_digest(file) for file in files}
    packages = ("torch", "transformers", "tokenizers", "safetensors", *TIKTOKEN)
    return str(artifacts.Artifact(translate, {"checkpoint": checkpoint}, packages, digests).fetch())


def translate(folder: Path, checkpoint: str) -> None:
    """Job: write a checkpoint's weights, configuration, prompt settings and tokenizer to a folder.

    Raises:
        CheckpointError: a part of the checkpoint is missing, or its parts contradict each other.
    """
    from safetensors.torch import save_file

    path = Path(checkpoint)
    if path.is_file():
        dimensions, weights = openai.read(path)
        state = dict(openai.named(weights))
        heads = dimensions["n_audio_head"], dimensions["n_text_head"]
        config = architecture(path, state, heads)
        for name, ours in openai.DIMENSIONS.items():
            if dimensions[name] != config[ours]:
                said = f"{path} says {name} = {dimensions[name]}, and its weights {config[ours]}."
                raise CheckpointError(said, openai.AGAIN)
        beside, settings = path.parent, {}
    else:
        model = path / ctranslate2.MODEL
        state = dict(ctranslate2.read_state(model))
        heads = ctranslate2.read_heads(model, ctranslate2.read_variables(model))
        config = architecture(model, state, heads)
        beside, settings = path, read_json(path / "config.json")
    if config["tie_word_embeddings"]:
        state.pop("proj_out.weight", None)
    save_file({name: one.contiguous() for name, one in state.items()}, folder / WEIGHTS)
    for name in BESIDE:
        if (beside / name).is_file() and (name == "tokenizer.json" or path.is_dir()):
            (folder / name).write_bytes((beside / name).read_bytes())
    if not (folder / "tokenizer.json").is_file():
        tokens = _tokens(path, config["vocab_size"])
        tokenizer_of(tokens).save(str(folder / "tokenizer.json"))
    _describe(folder, path, config, settings)


# Configuration -----------------------------------------------------------------------------------


def architecture(
    where: Path, state: Mapping[str, torch.Tensor], heads: tuple[int, int]
) -> dict[str, Any]:
    """Return the sizes in a Whisper's configuration, which follow from the shapes of its weights.

    Args:
        where: the checkpoint, for messages.
        state: weights by Hugging Face's names.
        heads: attention heads of encoder and decoder, which no shape shows.

    Raises:
        CheckpointError: a weight that shows a size is missing, or the sizes contradict each other.
    """

    def shape(name: str, rank: int = 2) -> Sequence[int]:
        tensor = state.get(f"model.{name}")
        if tensor is None or tensor.dim() != rank:
            found = "no such weight" if tensor is None else f"shape {list(tensor.shape)}"
            raise CheckpointError(f"{where}: model.{name} is needed, and there is {found}.", BROKEN)
        return tuple(tensor.shape)

    def layers(side: str) -> int:
        numbers = {int(n.split(".")[3]) for n in state if n.startswith(f"model.{side}.layers.")}
        if numbers != set(range(len(numbers))) or not numbers:
            raise CheckpointError(f"{where} lacks layers of its {side}.", BROKEN)
        return len(numbers)

    width, mels, _ = shape("encoder.conv1.weight", 3)
    for count in heads:
        if not 0 < count <= width or width % count:
            raise CheckpointError(
                f"{where}: {count} heads do not share a width of {width}.", BROKEN
            )
    return {
        "d_model": width,
        "num_mel_bins": mels,
        "vocab_size": shape("decoder.embed_tokens.weight")[0],
        "max_source_positions": shape("encoder.embed_positions.weight")[0],
        "max_target_positions": shape("decoder.embed_positions.weight")[0],
        "encoder_layers": layers("encoder"),
        "decoder_layers": layers("decoder"),
        "encoder_attention_heads": heads[0],
        "decoder_attention_heads": heads[1],
        "encoder_ffn_dim": shape("encoder.layers.0.fc1.weight")[0],
        "decoder_ffn_dim": shape("decoder.layers.0.fc1.weight")[0],
        # CTranslate2 stores an output projection only if it differs from the embedding.
        "tie_word_embeddings": "proj_out.weight" not in state
        or bool(state["proj_out.weight"].equal(state["model.decoder.embed_tokens.weight"])),
    }


def _describe(
    folder: Path, path: Path, config: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Write the configuration files of the model, the prompt and the features."""
    from transformers import WhisperConfig, WhisperFeatureExtractor

    tokenizer = names.open_tokenizer(folder)
    end = tokenizer.token_to_id(names.END)
    ids = {"eos_token_id": end, "bos_token_id": end, "pad_token_id": end}
    ids["decoder_start_token_id"] = tokenizer.token_to_id(names.START)
    ids = {name: token for name, token in ids.items() if token is not None}
    WhisperConfig(
        **config, **ids, suppress_tokens=None, begin_suppress_tokens=None
    ).save_pretrained(folder)
    generation = folder / names.GENERATION
    if not generation.is_file():
        suppress, begin = settings.get("suppress_ids"), settings.get("suppress_ids_begin")
        if path.is_file():  # OpenAI's files have no such lists: its library computes them.
            suppress = [*not_spoken(tokenizer), *_never(tokenizer)]
            begin = [token for token in (tokenizer.token_to_id("Ġ"), end) if token is not None]
        found = {**ids, **_languages(tokenizer, config["vocab_size"], settings)}
        found |= {"suppress_tokens": suppress, "begin_suppress_tokens": begin}
        generation.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if not (folder / "preprocessor_config.json").is_file():
        seconds = max(1, config["max_source_positions"] // 50)
        WhisperFeatureExtractor(config["num_mel_bins"], chunk_length=seconds).save_pretrained(
            folder
        )


TASK = {"is_multilingual": True, "task": "transcribe"}
"""Settings that make ``generate`` of transformers put a task into the prompt, as the libraries do
whose checkpoints these are."""


def _languages(tokenizer: Any, size: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the prompt: languages, task, and the token for no timestamps.

    They follow from the size of a published vocabulary. For other sizes the tokenizer and the
    checkpoint's ``settings`` tell which of these tokens exist.
    """
    tokens = {
        name: tokenizer.token_to_id(f"<|{name}|>")
        for name in ("transcribe", "translate", "notimestamps")
    }
    if None in tokens.values():
        return {}
    found: dict[str, Any] = {"no_timestamps_token_id": tokens.pop("notimestamps")}
    if size == names.ENGLISH_ONLY:
        return {**found, "is_multilingual": False}
    if size > names.ENGLISH_ONLY:
        # English-only tokenizers list languages too, so that the size decides, and not lang_ids.
        codes = {
            name: token
            for name, token in tokenizer.get_vocab().items()
            if re.fullmatch(r"<\|[a-z]{2,3}\|>", name)
        }
        return {**found, **TASK, "lang_to_id": codes, "task_to_id": tokens}
    known = sorted(settings.get("lang_ids") or ())
    codes = {tokenizer.id_to_token(token): token for token in known}
    if not codes or None in codes:
        return {}
    return {**found, **TASK, "lang_to_id": codes, "task_to_id": tokens}


# Tokens ------------------------------------------------------------------------------------------

SYMBOLS = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))"),
    *("[[", "]]", "{{", "}}", "♪♪", "♪♪♪"),
)
NOTES = "♩♪♫♬♭♮♯"


def not_spoken(tokenizer: Any) -> list[int]:
    """Return the ids of tokens for symbols that nobody says, sorted.

    openai-whisper suppresses them by default (``Tokenizer.non_speech_tokens``): each symbol that is
    one token, with a blank before it or without. The signs of music are several tokens each, of
    which the first is suppressed.
    """
    vocabulary = tokenizer.get_vocab()
    letters = names.byte_letters()
    found = {vocabulary.get("Ġ-"), vocabulary.get("Ġ'")}
    for symbol in (*SYMBOLS, *NOTES):
        for text in (symbol, f" {symbol}"):
            token = "".join(letters[byte] for byte in text.encode())
            lengths = range(len(token), 0 if symbol in NOTES else len(token) - 1, -1)
            first = next((token[:n] for n in lengths if token[:n] in vocabulary), None)
            found.add(vocabulary.get(first))
    return sorted(found - {None})


def _never(tokenizer: Any) -> list[int]:
    """Return the ids of the special tokens that belong to prompts only, sorted."""
    never = ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev")
    ids = [tokenizer.token_to_id(f"<|{name}|>") for name in (*never, "nospeech", "nocaptions")]
    return sorted(token for token in ids if token is not None)


def tokenizer_of(tokens: Sequence[str]) -> Any:
    """Return a tokenizer that turns ids into text, from the list of tokens in order of their ids.

    It cannot turn text into ids as the original does, since a list of tokens has no merge rules.
    Answers do not need that.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models

    ids = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(ids, []))
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token in tokens if re.fullmatch(r"<\|.*\|>", token)]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return tokenizer


def _tokenizer_files(folder: Path, size: int) -> list[Path]:
    """Return the file that lists the tokens of OpenAI's weights, as a list of one path.

    It is ``tokenizer.json`` beside the weights, or a vocabulary in one of the :data:`TIKTOKEN`
    packages.

    Raises:
        CheckpointError: there is neither.
    """
    if (folder / "tokenizer.json").is_file():
        return [folder / "tokenizer.json"]
    kind = "gpt2" if size == names.ENGLISH_ONLY else "multilingual"
    for distribution, place in TIKTOKEN.items():
        try:
            path = Path(str(metadata.distribution(distribution).locate_file(place.format(kind))))
        except metadata.PackageNotFoundError:
            continue
        if path.is_file() and size >= names.ENGLISH_ONLY:
            return [path]
    raise CheckpointError(
        f"OpenAI's files of weights hold no tokenizer, and {folder} has no tokenizer.json.",
        "Copy it there from the Hugging Face checkpoint of the same size, or for published sizes "
        "`pip install openai-whisper==20250625`, which carries the vocabularies.",
    )


def _tokens(path: Path, size: int) -> list[str]:
    """Return the tokens of a checkpoint without tokenizer.json, in the order of their ids.

    Raises:
        CheckpointError: no file lists them, or the list does not fit a vocabulary of ``size``.
    """
    if path.is_file():
        (file,) = _tokenizer_files(path.parent, size)
        tokens = _published_tokens(file, size)
    else:
        files = [path / name for name in VOCABULARIES if (path / name).is_file()]
        if not files:
            raise CheckpointError(
                f"{path} has neither tokenizer.json nor {' nor '.join(VOCABULARIES)}.",
                "Copy tokenizer.json from the checkpoint that it was made from.",
            )
        (file, *_) = files
        try:
            text = file.read_text(encoding="utf-8")
            tokens = json.loads(text) if file.suffix == ".json" else text.split("\n")[:-1]
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"cannot read {file}: {error}.", ctranslate2.AGAIN) from error
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise CheckpointError(f"{file} is no list of tokens.", ctranslate2.AGAIN)
    if len(tokens) != size or len(set(tokens)) != size:
        raise CheckpointError(
            f"{file} has {len(set(tokens))} tokens, and the weights are for {size}.",
            "Copy tokenizer.json from the checkpoint that it was made from.",
        )
    return tokens


def _published_tokens(file: Path, size: int) -> list[str]:
    """Return the tokens of a published vocabulary: those of a tiktoken file, then the special ones.

    ``size`` is the size of the vocabulary, which tells how many languages it has.
    """
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    letters = names.byte_letters()
    pieces = [base64.b64decode(line.split()[0]) for line in file.read_bytes().splitlines() if line]
    tokens = ["".join(letters[byte] for byte in piece) for piece in pieces]
    timestamps = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]
    after = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    count = max(0, size - len(tokens) - 2 - len(after) - len(timestamps))
    specials = [*list(LANGUAGES)[:count], *after]
    return [
        *tokens,
        names.END,
        names.START,
        *(f"<|{name}|>" for name in specials),
        *timestamps,
    ]
