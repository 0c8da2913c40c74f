"""Whisper's network in the form for graphs: modules around those of transformers.

Like other ``…_network`` modules it imports PyTorch at its top, so only workers and builders import
it. The family's module, which every process imports, does so inside functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from compat.models.parts.attention import at_position, cross_attention_module, step_module

if TYPE_CHECKING:
    from compat.models.whisper_vocabulary import Vocabulary


class Encoder(torch.nn.Module):
    """The encoder with the cross-attention keys and values of every decoder layer.

    It maps mel (batch, mels, frames) to hidden (batch, positions, width), its mean magnitude
    (batch,), and the keys and values of :func:`cross_attention_module`. The mean magnitude is NaN
    if anything before it was. Fetching the hidden states to see this would copy megabytes inside
    the timed part.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.encoder = network.model.encoder
        self.cross = cross_attention_module(
            [layer.encoder_attn for layer in network.model.decoder.layers]
        )

    def forward(self, mel: torch.Tensor) -> tuple[torch.Tensor, ...]:
        hidden = self.encoder(mel).last_hidden_state
        across = self.cross(hidden)
        level = hidden.abs().mean(dim=(1, 2))
        return (hidden, level, *across)


class Decoder(torch.nn.Module):
    """One decoder step: the token at ``position`` in, the next token and logits out."""

    suppress: torch.Tensor
    begin_suppress: torch.Tensor

    def __init__(self, network: Any, vocabulary: Vocabulary) -> None:
        super().__init__()
        decoder, config = network.model.decoder, network.config
        self.tokens, self.places = decoder.embed_tokens, decoder.embed_positions
        self.step = step_module(decoder.layers, config.max_target_positions)
        self.norm, self.head = decoder.layer_norm, network.proj_out
        always, begin = torch.zeros(2, config.vocab_size).unbind()
        # The numbers are finite, because infinities become NaN in reduced precision on some
        # targets.
        always[list(vocabulary.suppress)] = -1e4
        begin[list(vocabulary.begin_suppress)] = -1e4
        self.register_buffer("suppress", always)
        self.register_buffer("begin_suppress", begin)
        self.begin, self.last = len(vocabulary.prompt) - 1, vocabulary.prompt[-1]
        self.uneven = vocabulary.is_uneven

    def forward(
        self, token: torch.Tensor, position: torch.Tensor, *tensors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        embedded = self.tokens(token).unsqueeze(1) + at_position(self.places.weight, position)
        hidden, *written = self.step(embedded, position, *tensors)
        logits = self.head(self.norm(hidden))[:, 0]
        # Comparing the position gives a simpler graph, but works only if all prompts have one
        # length.
        begins = (token == self.last).unsqueeze(1) if self.uneven else position == self.begin
        at_begin = torch.where(begins, self.begin_suppress, 0.0)
        chosen = (logits + self.suppress + at_begin.to(logits.dtype)).argmax(dim=-1)
        return (chosen.to(torch.int32), logits, *written)
