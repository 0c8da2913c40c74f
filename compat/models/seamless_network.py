"""SeamlessM4T's graphs: the speech encoder of both versions, and a step of the text decoder.

Source: Seamless Communication et al., "SeamlessM4T: Massively Multilingual & Multimodal Machine
Translation", 2023, and "Seamless: Multilingual Expressive and Streaming Speech Translation", 2023,
for version 2. The layers are those of transformers, so that checkpoints load unchanged. The code
between the layers is written anew for two reasons. The library's masks need operators that few
runtimes have. For version 2, the library looks up a vector for each pair of frames, which at 30 s
would take 0.6 GB in each of 24 layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compat.models.parts.attention import (
    SEAMLESS,
    at_position,
    cross_attention_module,
    step_module,
)

if TYPE_CHECKING:
    import torch

BLOCKED = -1e4
"""Number added to the scores of padding; infinity would become NaN in reduced precision."""


def encoder_module(network: Any) -> torch.nn.Module:
    """Return the encoder with the cross-attention keys and values of every decoder layer.

    It maps features (batch, frames, 160) and two masks of ones and zeros, for frames
    (batch, frames) and for positions (batch, positions), to hidden (batch, positions, width), its
    mean magnitude over the masked-in positions (batch,), and the tensors of
    :func:`cross_attention_module`.

    Args:
        network: a ``SeamlessM4TForSpeechToText`` of either version, with one adapter layer.
    """
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.speech = network.speech_encoder
            self.cross = cross_attention_module(
                [layer.cross_attention for layer in network.text_decoder.layers]
            )

        def forward(
            self, features: torch.Tensor, heard: torch.Tensor, kept: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            speech, frames = self.speech, heard.unsqueeze(2)
            hidden = speech.feature_projection(features) * frames
            encoder = speech.encoder
            mask = _mask(heard) + _chunks(network.config, heard.shape[1])
            table = _sinusoids(encoder, heard.shape[1])
            for layer in encoder.layers:
                hidden = _conformer_layer(layer, hidden, frames, mask, table)
            hidden = encoder.layer_norm(hidden)
            hidden = hidden + 0.5 * speech.intermediate_ffn(hidden)
            hidden = _adapted(speech.adapter.layers[0], hidden, _mask(kept))
            hidden = speech.inner_layer_norm(hidden)
            # One number per input, which is NaN or infinite if anything before it was.
            level = (hidden.abs().mean(dim=2) * kept).sum(dim=1) / kept.sum(dim=1)
            return (hidden, level, *self.cross(hidden))

    return Encoder()


def decoder_module(network: Any, past: int) -> torch.nn.Module:
    """Return one decoder step: the token at ``position`` in, the next token and logits out.

    The mask of the encoder's positions (batch, positions) is the first input, before the token.
    """
    import torch

    decoder = network.text_decoder

    class Decoder(torch.nn.Module):
        places: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.norm, self.head = (
                decoder.embed_tokens,
                decoder.layer_norm,
                network.lm_head,
            )
            # The first rows of the table are for padding.
            first = decoder.padding_idx + 1
            table = decoder.embed_positions.weights[first : first + past]
            self.register_buffer("places", table)
            self.step = step_module(decoder.layers, past, SEAMLESS)

        def forward(
            self,
            kept: torch.Tensor,
            token: torch.Tensor,
            position: torch.Tensor,
            *tensors: torch.Tensor,
        ) -> tuple[torch.Tensor, ...]:
            hidden = self.tokens(token).unsqueeze(1) + at_position(self.places, position)
            hidden, *written = self.step(hidden, position, *tensors, cross_mask=_mask(kept))
            logits = self.head(self.norm(hidden))[:, 0]
            return (logits.argmax(dim=-1).to(torch.int32), logits, *written)

    return Decoder()


def _mask(present: torch.Tensor) -> torch.Tensor:
    """Return the bias of scores (batch, heads, queries, keys) for a mask (batch, keys), 1 or 0."""
    return ((1.0 - present) * BLOCKED)[:, None, None, :]


def _conformer_layer(
    layer: Any,
    hidden: torch.Tensor,
    frames: torch.Tensor,
    mask: torch.Tensor,
    table: torch.Tensor | None,
) -> torch.Tensor:
    """Apply a conformer layer, of either version, to hidden (batch, frames, width)."""
    hidden = hidden + 0.5 * layer.ffn1(layer.ffn1_layer_norm(hidden))
    hidden = hidden + _attended(layer.self_attn, layer.self_attn_layer_norm(hidden), mask, table)
    hidden = hidden + _convolved(layer.conv_module, hidden, frames)
    hidden = hidden + 0.5 * layer.ffn2(layer.ffn2_layer_norm(hidden))
    normed: torch.Tensor = layer.final_layer_norm(hidden)
    return normed


def _attended(
    attention: Any, hidden: torch.Tensor, mask: torch.Tensor, table: torch.Tensor | None = None
) -> torch.Tensor:
    """Apply self-attention of a speech layer, with its version's kind of relative positions."""

    def split(tensor: torch.Tensor) -> torch.Tensor:
        batch, length, _ = tensor.shape
        heads = tensor.view(batch, length, attention.num_heads, attention.head_size)
        return heads.transpose(1, 2)

    query = split(attention.linear_q(hidden)) * attention.scaling
    key, value = split(attention.linear_k(hidden)), split(attention.linear_v(hidden))
    if attention.position_embeddings_type == "relative":
        scale = attention.scaling
        scores = (query + attention.pos_bias_u.unsqueeze(1) * scale) @ key.transpose(2, 3)
        assert table is not None
        by_distance = split(attention.linear_pos(table)).transpose(2, 3)
        queries = query + attention.pos_bias_v.unsqueeze(1) * scale
        scores = scores + _shifted(queries @ by_distance)
    else:
        scores = query @ key.transpose(2, 3)
        if attention.position_embeddings_type == "relative_key":
            scores = scores + _by_distance(attention, query)
    mixed = (scores + mask).softmax(dim=-1) @ value
    joined: torch.Tensor = attention.linear_out(mixed.transpose(1, 2).flatten(2))
    return joined


def _sinusoids(encoder: Any, frames: int) -> torch.Tensor | None:
    """Return version 1's table of distances (1, 2 frames - 1, width), the farthest past first.

    Version 2 has none, and None is returned.
    """
    if not hasattr(encoder, "embed_positions"):
        return None
    table: torch.Tensor = encoder.embed_positions.pe
    middle = table.shape[1] // 2
    return table[:, middle - frames + 1 : middle + frames]


def _shifted(scores: torch.Tensor) -> torch.Tensor:
    """Return scores by key (…, frames, frames) from scores by distance (…, frames, 2 frames - 1).

    Row i takes the columns from frames - 1 - i on. After one column of padding, a reshaped view has
    the rows shifted like that. Source: Dai et al., "Transformer-XL", 2019, appendix B.
    """
    import torch

    batch, heads, frames, distances = scores.shape
    padded = torch.nn.functional.pad(scores, (1, 0))
    shifted = padded.view(batch, heads, distances + 1, frames)[:, :, 1:]
    return shifted.reshape(batch, heads, frames, distances)[..., :frames]


def _by_distance(attention: Any, query: torch.Tensor) -> torch.Tensor:
    """Return version 2's scores of distances (batch, heads, frames, frames) from scaled queries.

    Each query is multiplied once with the vector of each distance (73 as published). Each key then
    takes the score of its distance.
    """
    import torch

    left, right = attention.left_max_position_embeddings, attention.right_max_position_embeddings
    places = torch.arange(query.shape[2], device=query.device)
    distance = (places[None] - places[:, None]).clamp(-left, right) + left
    scores: torch.Tensor = query @ attention.distance_embedding.weight.T
    return scores.gather(3, distance.expand(*scores.shape[:2], -1, -1))


def _chunks(config: Any, frames: int) -> torch.Tensor | float:
    """Return version 2's bias for scores of keys beyond their chunk (frames, frames), or 0.

    It is 0 for published checkpoints, whose chunks are longer than any input here.
    """
    import torch

    size = getattr(config, "speech_encoder_chunk_size", None)
    if size is None or size >= frames:
        return 0.0
    chunks = torch.arange(frames) // size
    before = chunks[:, None] - chunks[None]
    most = config.speech_encoder_left_chunk_num
    allowed = (before >= 0) & ((before <= most) if most >= 0 else True)
    return torch.where(allowed, 0.0, BLOCKED)


def _convolved(module: Any, hidden: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Apply a layer's convolution: centred in version 1, causal in version 2."""
    import torch

    hidden = (module.layer_norm(hidden) * frames).transpose(1, 2)
    hidden = module.glu(module.pointwise_conv1(hidden))
    if hasattr(module, "batch_norm"):
        hidden = module.batch_norm(module.depthwise_conv(hidden))
    else:
        past = module.depthwise_conv.kernel_size[0] - 1
        hidden = module.depthwise_conv(torch.nn.functional.pad(hidden, (past, 0)))
        hidden = module.depthwise_layer_norm(hidden.transpose(1, 2)).transpose(1, 2)
    made: torch.Tensor = module.pointwise_conv2(module.activation(hidden)).transpose(1, 2)
    return made


def _adapted(layer: Any, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Apply the adapter: frames (batch, frames, width) become an eighth as many positions."""

    def pooled(norm: Any, convolution: Any) -> torch.Tensor:
        moved = norm(hidden).transpose(1, 2)
        fewer: torch.Tensor = layer.activation(convolution(moved)).transpose(1, 2)
        return fewer

    residual = pooled(layer.residual_layer_norm, layer.residual_conv)
    queries = pooled(layer.self_attn_layer_norm, layer.self_attn_conv)
    hidden = _attended(layer.self_attn, queries, mask) + residual
    made: torch.Tensor = layer.ffn(layer.ffn_layer_norm(hidden)) + hidden
    return made
