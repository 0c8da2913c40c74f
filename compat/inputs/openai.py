"""Whisper in OpenAI's own form: a ``.pt`` file of dimensions and weights, as openai-whisper loads.

It is a pickle, and is read without running what it may contain (``weights_only``).
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
"""What timestamps of words look at, and the causal mask of old files: neither is a weight."""
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
"""What a part is called in OpenAI's checkpoints, and in transformers, in this order."""
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
"""Dimensions that the weights show as well, and what transformers' configuration calls them."""


def read(path: Path) -> tuple[Mapping[str, int], Mapping[str, torch.Tensor]]:
    """Return the dimensions, and the weights under OpenAI's names, which stay in the file.

    Raises:
        CheckpointError: it is no such file, or damaged, or would run code.
    """
    import torch

    try:
        whole = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # Of pickle, zipfile and torch alike.
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
    """Yield weights under the names of transformers; a name that it does not know stays odd."""
    for name, tensor in state.items():
        if name not in NEEDLESS:
            yield transformers_name(name), tensor


def transformers_name(name: str) -> str:
    """Translate the name of a parameter of OpenAI's Whisper into that of transformers."""
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name
