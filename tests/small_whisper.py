"""A Whisper of two layers and 48 tokens, for tests that need a checkpoint of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration

from compat.inputs import generator

END, START, EN, HI, FR, TRANSLATE, TRANSCRIBE, PREVIOUS, NO_TIMESTAMPS = (
    *(30, 31, 32, 33, 34, 35, 36),
    *(38, 40),
)
VOCABULARY = 48
"""What follows the last special token are timestamps."""
NAMES = {
    END: "<|endoftext|>",
    START: "<|startoftranscript|>",
    EN: "<|en|>",
    HI: "<|hi|>",
    FR: "<|fr|>",
    TRANSLATE: "<|translate|>",
    TRANSCRIBE: "<|transcribe|>",
    37: "<|startoflm|>",
    PREVIOUS: "<|startofprev|>",
    39: "<|nospeech|>",
    NO_TIMESTAMPS: "<|notimestamps|>",
}
MELS, POSITIONS, TARGETS = 80, 100, 64


def build(**changes: Any) -> WhisperForConditionalGeneration:
    """Return the network with generated weights, in evaluation mode."""
    settings = {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_source_positions": POSITIONS,
        "max_target_positions": TARGETS,
        "decoder_start_token_id": START,
        "bos_token_id": END,
        "eos_token_id": END,
        "pad_token_id": END,
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
    }
    network = WhisperForConditionalGeneration(WhisperConfig(**{**settings, **changes}))
    # With the default initialisation every audio gives the same tokens.
    generator.seed(network, generator.gains({"encoder.embed_positions": None, "attn": 3.0}))
    network.tie_weights()
    return network.eval()


def save(
    folder: Path,
    generation: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    names: Mapping[int, str] = NAMES,
    **changes: Any,
) -> Path:
    """Write a checkpoint.

    Args:
        folder: where to.
        generation: ``generation_config.json``, written as it is; None: there is none.
        config: added to ``config.json``.
        dtype: type of the stored weights.
        names: the special tokens.
        changes: of the architecture.
    """
    build(**changes).to(dtype).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    known = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**known, **(config or {})}), encoding="utf-8")
    size, end = changes.get("vocab_size", VOCABULARY), NAMES[END]
    words = {names.get(token, f"word{token}"): token for token in range(size)}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token=end)),
        bos_token=end,
        eos_token=end,
        unk_token=end,
        additional_special_tokens=[name for name in names.values() if name],
    ).save_pretrained(folder)
    return folder
