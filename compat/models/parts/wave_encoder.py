"""The body of Wav2Vec2 and HuBERT: convolutions over a waveform, and a transformer behind them.

The modules are those of transformers. The masking of padded audio around them is written out here,
because the library's own code exports as operators of unknown shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


def frame_count(config: Mapping[str, Any], samples: int) -> int:
    """Return the number of frames that the convolutions make of ``samples`` samples, at least 1."""
    for kernel, stride in zip(config["conv_kernel"], config["conv_stride"], strict=True):
        samples = (samples - kernel) // stride + 1
    return max(samples, 1)


def normalised(samples: np.ndarray) -> np.ndarray:
    """Return audio with zero mean and unit variance, as ``Wav2Vec2FeatureExtractor`` does."""
    variance = samples.var(dtype=np.float64)
    normal = (samples - samples.mean(dtype=np.float64)) / np.sqrt(variance + 1e-7)
    return np.asarray(normal, np.float32)


def fold_positions(body: Any) -> None:
    """Replace the kernel of positions, stored as length and direction, by an ordinary kernel.

    Training needs the two parts. Runtimes get the kernel, and the generator of weights fills it
    like any other.
    """
    from torch.nn.utils.parametrize import remove_parametrizations

    remove_parametrizations(body.encoder.pos_conv_embed.conv, "weight")


def wave_encoder_module(body: Any) -> torch.nn.Module:
    """Return a ``Wav2Vec2Model`` or a ``HubertModel`` as a module that can be exported.

    It maps samples (batch, samples) to the projected features (batch, frames, width) and to hidden
    states of that shape: the first layer's input, then each layer's output, the last one
    normalised. Checkpoints that were trained with a mask also take it: (batch, frames), 1 where
    there is audio.
    """
    import torch

    class WaveEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.extractor = body.feature_extractor
            self.projection = body.feature_projection
            self.encoder = body.encoder
            self.stable = body.config.do_stable_layer_norm

        def forward(
            self, samples: torch.Tensor, mask: torch.Tensor | None = None
        ) -> tuple[torch.Tensor, ...]:
            projected = self.projection(self.extractor(samples).transpose(1, 2))
            # Wav2Vec2's projection returns a pair, the features and its input.
            features = projected[0] if isinstance(projected, tuple) else projected
            hidden, bias = features, None
            if mask is not None:
                hidden = hidden * mask.unsqueeze(-1)
                # Finite, as infinities become NaN in reduced precision on some targets.
                bias = ((mask - 1.0) * 1e4)[:, None, None, :]
            hidden = hidden + self.encoder.pos_conv_embed(hidden)
            if not self.stable:
                hidden = self.encoder.layer_norm(hidden)
            states = [hidden]
            for layer in self.encoder.layers:
                states.append(layer(states[-1], attention_mask=bias))
            if self.stable:
                states[-1] = self.encoder.layer_norm(states[-1])
            return (features, *states)

    return WaveEncoder()
