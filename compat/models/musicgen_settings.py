"""The published settings of MusicGen, and those of a size for browsers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compat.models import encodec
from compat.models.parts import t5

# Settings of Hugging Face's MusicgenConfig. Others have its defaults.
_TEXT = {"model_type": "t5", **t5.BASE}
_CODEC = {"model_type": "encodec", **encodec.PUBLISHED["encodec-32khz"]}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "musicgen-small": {
        "text_encoder": _TEXT,
        "audio_encoder": _CODEC,
        "decoder": {"model_type": "musicgen_decoder"},
    },
    "musicgen-medium": {
        "text_encoder": _TEXT,
        "audio_encoder": _CODEC,
        "decoder": {
            "model_type": "musicgen_decoder",
            "num_hidden_layers": 48,
            "hidden_size": 1536,
            "num_attention_heads": 24,
            "ffn_dim": 6144,
        },
    },
    # This size is not a published one. It has all operators of the others, and is small enough for
    # every browser.
    "musicgen-nano": {
        "text_encoder": {
            **_TEXT,
            "vocab_size": 1024,
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 256,
            "num_layers": 2,
            "num_heads": 4,
        },
        "audio_encoder": {**_CODEC, "num_filters": 4},
        "decoder": {
            "model_type": "musicgen_decoder",
            "num_hidden_layers": 4,
            "hidden_size": 64,
            "num_attention_heads": 4,
            "ffn_dim": 256,
        },
    },
}
DECODER: Mapping[str, Any] = {
    "vocab_size": 2048,
    "num_hidden_layers": 24,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_codebooks": 4,
    "audio_channels": 1,
    "pad_token_id": 2048,
}
"""Defaults of MusicgenDecoderConfig."""

PROMPT_TOKENS = 64
"""Tokens of a prompt; longer ones are cut."""
POSITIONS = 512
"""Positions of the caches: ten seconds are 503 steps. Shorter requests use the same caches, because
a decoder of another shape would hold the weights once more (two decoders of the small size take
3.4 GB)."""

# Without these factors, codes would hardly change the sum of embedding and position, attention
# would be nearly uniform, and every prompt would get the same answer.
SEEDED_GAINS: Mapping[str, float | None] = {
    **t5.GAINS,
    "relative_attention_bias": 1.0,
    "encoder_attn.q_proj": 3.0,
    "encoder_attn.k_proj": 3.0,
    "encoder_attn.out_proj": 4.0,
    "encoder_attn.v_proj": 2.0,
    "decoder.embed_tokens": 8.0,
    "bias": encodec.SEEDED_GAINS["bias"],
}
