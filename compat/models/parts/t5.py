"""T5's text encoder as a graph, which reads the prompts of MusicGen and Stable Audio.

Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", 2020. The layers are those of transformers, so that its checkpoints load unchanged.
Distances of tokens, which have one length here, are a table; the mask is one of finite scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from compat.contract.graph import Graph, Point, Tensor

if TYPE_CHECKING:
    import torch

MASKED = -1000.0
"""Score of a padded token: scores are not divided by the width of a head, and reach hundreds."""
GAINS: Mapping[str, float] = MappingProxyType({"SelfAttention.q.": 1 / 8})
"""Of generated weights: T5 keeps the division by the root of the width in its queries. Without it
attention saturates, and float32 keeps 91 dB where it could have 123, int8 11 in place of 35."""
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
        encoder: function that gives the module of :func:`text_module`.
        tokens: length of a prompt.
        points: the batches.
        name: of the graph.
    """
    prompt = Tensor(("batch", tokens), "int32")
    return Graph(name, {"ids": prompt, "mask": prompt}, ("memory",), points, encoder)


def text_module(encoder: Any, tokens: int) -> torch.nn.Module:
    """Return an encoder of prompts: ids and mask (batch, tokens) int32 to (batch, tokens, width).

    The mask is one for tokens and zero for the padding behind them. What stands at padded tokens is
    finite and means nothing: the next stage masks it too.

    Args:
        encoder: ``T5EncoderModel(…).encoder`` of transformers, a ``T5Stack``.
        tokens: length of a prompt, to which the distances are fixed.
    """
    import torch

    class TextEncoder(torch.nn.Module):
        distances: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            first = encoder.block[0].layer[0].SelfAttention
            with torch.no_grad():
                # (1, heads, tokens, tokens): the first layer's, which all layers share.
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
    """Return what a ``T5LayerNorm`` gives, its squares as products.

    The library's are powers, which Qualcomm's compiler refuses: the graph cannot be finalised,
    ``QNN_COMMON_ERROR_MEM_ALLOC`` (onnxruntime-qnn 2.7). The values are the same bits.
    """
    import torch

    variance = (hidden * hidden).mean(dim=-1, keepdim=True)
    scaled: torch.Tensor = hidden * torch.rsqrt(variance + norm.variance_epsilon) * norm.weight
    return scaled


def _attended(attention: Any, hidden: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return what attention gives, to whose scores (…, tokens, tokens) others are added."""
    batch, tokens, _ = hidden.shape
    shape = (batch, tokens, attention.n_heads, attention.key_value_proj_dim)
    query, key, value = (
        project(hidden).view(shape).transpose(1, 2)
        for project in (attention.q, attention.k, attention.v)
    )
    mixed = (query @ key.transpose(2, 3) + scores).softmax(dim=-1) @ value
    joined: torch.Tensor = attention.o(mixed.transpose(1, 2).reshape(batch, tokens, -1))
    return joined
