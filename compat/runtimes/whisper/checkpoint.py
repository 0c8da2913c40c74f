"""Whisper checkpoints in the layouts that ports of Whisper read: Hugging Face's and OpenAI's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compat import catalog
from compat.contract.session import Unsupported
from compat.models.whisper_vocabulary import END, special_names

if TYPE_CHECKING:
    from compat.contract.source import Source
    from compat.models.whisper import WhisperModel

WEIGHTS, DIMENSIONS = "model.safetensors", "dimensions.json"
NAMES = (
    (r"^model\.", ""),
    (r"\blayers\.", "blocks."),
    (r"\b(encoder_attn|self_attn)_layer_norm\b", r"\1_ln"),
    (r"\bself_attn", "attn"),
    (r"\bencoder_attn", "cross_attn"),
    (r"\bq_proj\b", "query"),
    (r"\bk_proj\b", "key"),
    (r"\bv_proj\b", "value"),
    (r"\bout_proj\b", "out"),
    (r"\bfc1\b", "mlp.0"),
    (r"\bfc2\b", "mlp.2"),
    (r"\bfinal_layer_norm\b", "mlp_ln"),
    (r"^encoder\.layer_norm\b", "encoder.ln_post"),
    (r"^decoder\.layer_norm\b", "decoder.ln"),
    (r"\bembed_tokens\b", "token_embedding"),
    (r"\bembed_positions\.weight$", "positional_embedding"),
)
"""Patterns in the names of Hugging Face's parameters, each with its replacement in OpenAI's names,
applied one after the other."""


def hugging_face_folder(host: WhisperModel, folder: Path) -> Path:
    """Return a folder with configuration and tokenizer in Hugging Face's layout.

    A checkpoint's own folder is returned. For generated weights the files are written into
    ``folder``, with a vocabulary of numbered words. No weights are written: a converter takes those
    of ``host.network``, as a library that read weights again would generate missing ones.
    """
    if host.folder:
        return host.folder
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

    size = host.dimensions
    names = special_names(host.vocabulary)
    words = {names.get(token, f"<word-{token}>"): token for token in range(size.vocabulary)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token=END)),
        bos_token=END,
        eos_token=END,
        unk_token=END,
        additional_special_tokens=list(names.values()),
    )
    host.network.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(size.mels).save_pretrained(folder)
    return folder


def export(folder: Path, reference: Mapping[str, str], graph: str) -> None:
    """Job: write the weights and the dimensions of a model under OpenAI's names.

    The files are ``model.safetensors`` and ``dimensions.json``.
    """
    from safetensors.torch import save_file

    from compat.contract.model_reference import ModelReference

    host: Any = catalog.open_model(ModelReference(**reference))
    state = host.network.state_dict()
    # proj_out is left out: it is tied to the embedding of tokens.
    tensors = {
        openai_name(name): tensor.contiguous()
        for name, tensor in state.items()
        if not name.startswith("proj_out")
    }
    save_file(tensors, str(folder / WEIGHTS))
    size = host.dimensions
    dimensions = {
        "n_mels": size.mels,
        "n_audio_ctx": size.source_positions,
        "n_audio_state": size.width,
        "n_audio_head": size.heads,
        "n_audio_layer": size.encoder_layers,
        "n_vocab": size.vocabulary,
        "n_text_ctx": size.target_positions,
        "n_text_state": size.width,
        "n_text_head": size.heads,
        "n_text_layer": size.decoder_layers,
    }
    (folder / DIMENSIONS).write_text(json.dumps(dimensions), encoding="utf-8")


def openai_name(name: str) -> str:
    """Return OpenAI's name of a parameter of Hugging Face's Whisper."""
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def exported(source: Source, host: WhisperModel) -> tuple[Path, dict[str, int]]:
    """Return the folder of :func:`export`, and the dimensions in it.

    Raises:
        Unsupported: OpenAI's architecture has no place for one of the weights.
    """
    if not host.tied:
        raise Unsupported(
            "its model projects onto the embedding of tokens, and this checkpoint has a projection "
            "of its own (tie_word_embeddings is false)"
        )
    folder = source.derive(export, {}, ("torch", "transformers")).fetch()
    dimensions: dict[str, int] = json.loads((folder / DIMENSIONS).read_text(encoding="utf-8"))
    return folder, dimensions
