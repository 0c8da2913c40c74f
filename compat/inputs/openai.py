"""Read Whisper in OpenAI's form: a ``.pt`` file of dimensions and weights for openai-whisper.

The file is a pickle, and is read with ``weights_only``, so that no code in it runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from compat.inputs.checkpoints import CheckpointError

if TYPE_CHECKING:
    import torch

SUFFIXES = (".pt", ".pth")
WEIGHTS = "model_state_dict"
AGAIN = "Copy the file from its source again; openai-whisper writes it when it downloads a model."
NEEDLESS = ("alignment_heads", "decoder.mask")
"""Entries that are no weights: the heads for word timestamps, and the causal mask of old files."""
NAMES = (
    (r"^", "model."),
    (r"\bblocks\.(\d+)", r"layers.\1"),
    (r"\bcross_attn_ln\b", "encoder_attn_layer_norm"),
    (r"\battn_ln\b", "self_attn_layer_norm"),
    (r"\bcross_attn\b", "encoder_attn"),
    (r"\battn\b", "self_attn"),
    (r"\bquery\b", "q_proj"),
    (r"\bkey\b", "k_proj"),
    (r"\bvalue\b", "v_proj"),
    (r"\bout\b", "out_proj"),
    (r"\bmlp\.0\b", "fc1"),
    (r"\bmlp\.2\b", "fc2"),
    (r"\bmlp_ln\b", "final_layer_norm"),
    (r"\bencoder\.ln_post\b", "encoder.layer_norm"),
    (r"\bdecoder\.ln\b", "decoder.layer_norm"),
    (r"\btoken_embedding\b", "embed_tokens"),
    (r"\bpositional_embedding$", "embed_positions.weight"),
)
"""Patterns of names in OpenAI's checkpoints with their names in transformers, applied in order."""
DIMENSIONS = {
    "n_mels": "num_mel_bins",
    "n_vocab": "vocab_size",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_layer": "encoder_layers",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_layer": "decoder_layers",
}
"""Maps a dimension in OpenAI's file to its name in transformers' configuration.

The shapes of the weights show these dimensions as well.
"""


def read(path: Path) -> tuple[Mapping[str, int], Mapping[str, torch.Tensor]]:
    """Return the dimensions, and the weights under OpenAI's names; their values stay in the file.

    Raises:
        CheckpointError: the file is no such checkpoint, is damaged, or would run code.
    """
    import torch

    try:
        whole = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # pickle, zipfile and torch raise errors of many classes.
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"cannot read {path} as a file of weights and nothing else: {type(error).__name__}: "
            f"{reason}.",
            AGAIN,
        ) from error
    if not isinstance(whole, dict) or not isinstance(whole.get("dims"), dict):
        raise CheckpointError(
            f'{path} is no checkpoint of openai-whisper: it has no "dims" beside its weights.',
            "Name a Hugging Face folder if it is another library's checkpoint: "
            "model.save_pretrained(folder).",
        )
    dimensions, state = whole["dims"], whole.get(WEIGHTS)
    wrong = [
        name
        for name in (*DIMENSIONS, "n_audio_head", "n_text_head")
        if not isinstance(dimensions.get(name), int) or dimensions[name] < 1
    ]
    if wrong:
        raise CheckpointError(f"{path} gives no number for {', '.join(wrong)}.", AGAIN)
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state.items()
    ):
        raise CheckpointError(f'{path} has no weights by name in "{WEIGHTS}".', AGAIN)
    return dimensions, state


def named(state: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield weights under their names in transformers, without the entries that are no weights."""
    for name, tensor in state.items():
        if name not in NEEDLESS:
            yield transformers_name(name), tensor


def transformers_name(name: str) -> str:
    """Translate the name of a parameter of OpenAI's Whisper into that of transformers."""
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name
