"""T5's text encoder as a graph, which reads the prompts of MusicGen and Stable Audio.

Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", 2020. The layers are those of transformers, so that its checkpoints load unchanged.
Prompts have one length here, so the biases for the distances of tokens are a constant table. The
mask consists of finite scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from compat.contract.graph import Graph, Point, Tensor

if TYPE_CHECKING:
    import torch

MASKED = -1000.0
"""Score of a padded token. T5 does not scale its scores by the width of a head, so that they reach
hundreds, and the mask must be far below."""
GAINS: Mapping[str, float] = MappingProxyType({"SelfAttention.q.": 1 / 8})
"""Factors of generated weights. T5's trained queries contain the division by the square root of the
head's width. Without that division attention saturates: the SNR of float32 is 91 dB instead of 123,
that of int8 11 dB instead of 35."""
BASE: Mapping[str, Any] = MappingProxyType(
    {
        "vocab_size": 32_128,
        "d_model": 768,
        "d_kv": 64,
        "d_ff": 3072,
        "num_layers": 12,
        "num_heads": 12,
        "relative_attention_num_buckets": 32,
        "dense_act_fn": "relu",
        "feed_forward_proj": "relu",
        "pad_token_id": 0,
        "eos_token_id": 1,
    }
)
"""Settings of ``t5-base`` under the names of transformers' T5Config: 109.6 million parameters."""


def text_graph(encoder: Any, tokens: int, points: Mapping[str, Point], name: str = "text") -> Graph:
    """Return the graph of a text encoder: ``ids`` and ``mask`` to ``memory``.

    Args:
        encoder: function that returns the module of :func:`text_module`.
        tokens: length of a prompt in tokens.
        points: the graph's points, one for each batch size.
        name: name of the graph.
    """
    prompt = Tensor(("batch", tokens), "int32")
    return Graph(name, {"ids": prompt, "mask": prompt}, ("memory",), points, encoder)


def text_module(encoder: Any, tokens: int) -> torch.nn.Module:
    """Return an encoder of prompts: ids and mask (batch, tokens) int32 to (batch, tokens, width).

    The mask is 1 for tokens and 0 for the padding behind them. The output at padded tokens is
    finite and has no meaning: the next stage must mask it too.

    Args:
        encoder: ``T5EncoderModel(…).encoder`` of transformers, a ``T5Stack``.
        tokens: length of a prompt in tokens; the module takes no other length.
    """
    import torch

    class TextEncoder(torch.nn.Module):
        distances: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            first = encoder.block[0].layer[0].SelfAttention
            with torch.no_grad():
                # (1, heads, tokens, tokens): the first layer's biases, which all layers share.
                self.register_buffer("distances", first.compute_bias(tokens, tokens))

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
            hidden = self.encoder.embed_tokens(ids)
            padded = (1 - mask).to(hidden.dtype) * MASKED
            scores = self.distances + padded[:, None, None, :]
            for block in self.encoder.block:
                attention, feed = block.layer[0], block.layer[-1]
                normed = _normed(attention.layer_norm, hidden)
                hidden = hidden + _attended(attention.SelfAttention, normed, scores)
                hidden = hidden + feed.DenseReluDense(_normed(feed.layer_norm, hidden))
            return (_normed(self.encoder.final_layer_norm, hidden),)

    return TextEncoder()


def _normed(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Apply a ``T5LayerNorm``, with squares computed as products.

    The library's code exports them as powers, with which Qualcomm's compiler cannot finalise the
    graph: ``QNN_COMMON_ERROR_MEM_ALLOC`` (onnxruntime-qnn 2.7). The results are identical to the
    bit.
    """
    import torch

    variance = (hidden * hidden).mean(dim=-1, keepdim=True)
    scaled: torch.Tensor = hidden * torch.rsqrt(variance + norm.variance_epsilon) * norm.weight
    return scaled


def _attended(attention: Any, hidden: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Apply self-attention, with ``scores`` (…, tokens, tokens) added to its own."""
    batch, tokens, _ = hidden.shape
    shape = (batch, tokens, attention.n_heads, attention.key_value_proj_dim)
    query, key, value = (
        project(hidden).view(shape).transpose(1, 2)
        for project in (attention.q, attention.k, attention.v)
    )
    mixed = (query @ key.transpose(2, 3) + scores).softmax(dim=-1) @ value
    joined: torch.Tensor = attention.o(mixed.transpose(1, 2).reshape(batch, tokens, -1))
    return joined
