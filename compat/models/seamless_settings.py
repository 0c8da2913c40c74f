"""The published settings of SeamlessM4T, and those of a size for browsers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

POOLED = 8
"""Frames that the adapter turns into one position. It pads their beginning by half as many."""

MEDIUM: Mapping[str, Any] = {
    "vocab_size": 256_206,
    "hidden_size": 1024,
    "speech_encoder_layers": 12,
    "speech_encoder_attention_heads": 16,
    "speech_encoder_intermediate_size": 4096,
    "encoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "decoder_layers": 12,
    "decoder_ffn_dim": 4096,
    "decoder_attention_heads": 16,
    "position_embeddings_type": "relative",
    "add_adapter": True,
    "num_adapter_layers": 1,
    "adaptor_kernel_size": POOLED,
    "adaptor_stride": POOLED,
    "feature_projection_input_dim": 160,
    "decoder_start_token_id": 3,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
"""Settings of the parts that are run, under the names of transformers."""
LARGE: Mapping[str, Any] = {
    **MEDIUM,
    "vocab_size": 256_102,
    "speech_encoder_layers": 24,
    "encoder_layers": 24,
    "encoder_ffn_dim": 8192,
    "decoder_layers": 24,
    "decoder_ffn_dim": 8192,
    "position_embeddings_type": "relative_key",
}
# This size is not a published one. It has all operators of the first version, and is for pages and
# emulators, which take seconds for the work that a processor does in milliseconds.
NANO: Mapping[str, Any] = {
    **MEDIUM,
    "vocab_size": 1000,
    "hidden_size": 64,
    "speech_encoder_layers": 2,
    "speech_encoder_attention_heads": 4,
    "speech_encoder_intermediate_size": 128,
    "encoder_layers": 1,
    "encoder_ffn_dim": 64,
    "decoder_layers": 2,
    "decoder_ffn_dim": 128,
    "decoder_attention_heads": 4,
}
NEEDED = ("vocab_size", "hidden_size", "decoder_layers", "decoder_attention_heads")
"""Settings that a checkpoint must name."""
FIXED = (
    *("add_adapter", "num_adapter_layers", "adaptor_kernel_size", "adaptor_stride"),
    *("feature_projection_input_dim", "position_embeddings_type"),
)
"""Settings that a checkpoint may only have with the published values."""

# With nearly uniform attention, different sounds and prompts would give the same answer. With sharp
# attention (a factor of 3 instead of 1.5), rounding errors grow from layer to layer until, after
# twelve layers, nothing is left of half precision. The last factor keeps the feed-forward part as
# strong as attention.
SEEDED_GAINS: Mapping[str, float | None] = {
    "linear_q": 1.5,
    "linear_k": 1.5,
    "attn.q_proj": 1.5,
    "attn.k_proj": 1.5,
    "cross_attention.q_proj": 1.5,
    "cross_attention.k_proj": 1.5,
    "ffn.fc2": 2.0,
}
