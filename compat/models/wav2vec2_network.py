"""Wav2Vec2's network with its projection onto letters, as one graph."""

from __future__ import annotations

from typing import Any

import torch

from compat.models.parts.wave_encoder import wave_encoder_module


class Recogniser(torch.nn.Module):
    """The body of transformers' ``Wav2Vec2ForCTC``, and its head.

    It maps samples (batch, samples) to the best output of each frame (batch, frames) int32, the
    encoder's mean magnitude (batch,), the projected features (batch, frames, width) and the logits
    (batch, frames, vocabulary). Checkpoints that were trained with a mask also take it:
    (batch, frames), 1 where there is audio.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.encoder = wave_encoder_module(network.wav2vec2)
        self.head = network.lm_head

    def forward(
        self, samples: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        features, *_, hidden = self.encoder(samples, mask)
        logits = self.head(hidden)
        # One number per input, which is NaN or infinite if anything before it was.
        level = hidden.abs().mean(dim=(1, 2))
        return logits.argmax(dim=-1).to(torch.int32), level, features, logits
