"""CLAP's two encoders as graphs: one for spectra, one for sentences.

The layers are those of transformers, so that its checkpoints load unchanged. Operators that
runtimes lack are replaced: resampling is a product with a constant matrix, positions need no
running sum, and the mask consists of finite scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

TOKENS = 77
"""Length of a sentence in tokens, as CLAP was trained."""
MASKED = -100.0
"""Score of a padded token. Its weight vanishes in any precision, and the range of the scores stays
narrow enough for integer quantisation."""


def bicubic(size: int, wanted: int) -> NDArray[np.float64]:
    """Return the matrix (wanted, size) that stretches ``size`` values to ``wanted``.

    The matrix does what ``torch.nn.functional.interpolate`` does with ``mode="bicubic"`` and
    ``align_corners=True``.
    Source: Keys, "Cubic convolution interpolation for digital image processing", 1981, a = -0.75.
    """
    a = -0.75
    matrix = np.zeros((wanted, size))
    places = np.arange(wanted) * (size - 1) / (wanted - 1)
    first = np.floor(places).astype(int)
    for tap in (-1, 0, 1, 2):
        far = np.abs(places - (first + tap))
        inner = ((a + 2) * far - (a + 3)) * far**2 + 1
        outer = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
        weights = np.where(far <= 1, inner, outer)
        np.add.at(matrix, (np.arange(wanted), np.clip(first + tap, 0, size - 1)), weights)
    return matrix


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Return vectors (batch, n) scaled to length one, by elementary operators only."""
    return vectors / vectors.square().sum(dim=-1, keepdim=True).sqrt()


def audio_module(network: Any, frames: int) -> torch.nn.Module:
    """Return the encoder of audio: features (batch, 1, frames, mels) to unit vectors (batch, n).

    The bicubic stretch of the spectrum is a product with a constant matrix, because few runtimes
    have bicubic resampling. The library's pooling amounts to the mean over all patches.
    """
    import torch

    class AudioEncoder(torch.nn.Module):
        stretch: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.encoder = network.audio_model.audio_encoder
            self.projection = network.audio_projection
            self.ratio = self.encoder.freq_ratio
            width = self.encoder.spec_size * self.ratio
            matrix = torch.from_numpy(bicubic(frames, width)).float()
            self.register_buffer("stretch", matrix)

        def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
            encoder = self.encoder
            normed = encoder.batch_norm(features.transpose(1, 3)).transpose(1, 3)
            hidden = encoder.patch_embed(self.image(normed))
            for stage, size in zip(encoder.layers, encoder.input_resolutions, strict=True):
                hidden = stage(hidden, size)[0]
            pooled = encoder.norm(hidden).mean(dim=1)
            return (_unit(self.projection(pooled)),)

        def image(self, spectrum: torch.Tensor) -> torch.Tensor:
            """Cut (batch, 1, frames, mels) into parts in time, stacked along the axis of mels."""
            stretched = self.stretch @ spectrum
            batch, _, width, mels = stretched.shape
            parts = stretched.reshape(batch, self.ratio, width // self.ratio, mels)
            return parts.transpose(2, 3).reshape(batch, 1, mels * self.ratio, width // self.ratio)

    return AudioEncoder()


def text_module(network: Any) -> torch.nn.Module:
    """Return the encoder of sentences: ids and mask (batch, tokens) to unit vectors (batch, n).

    The mask is 1 for tokens and 0 for the padding behind them. All padding has the same position.
    """
    import torch

    class TextEncoder(torch.nn.Module):
        steps: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.embeddings = network.text_model.embeddings
            self.encoder = network.text_model.encoder
            self.pooler = network.text_model.pooler
            self.projection = network.text_projection
            self.register_buffer("steps", torch.arange(1, TOKENS + 1, dtype=torch.int32))

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
            parts = self.embeddings
            hidden = parts.word_embeddings(ids)
            hidden = hidden + parts.position_embeddings(mask * self.steps + parts.padding_idx)
            hidden = parts.LayerNorm(hidden + parts.token_type_embeddings.weight[0])
            scores = (1 - mask).to(hidden.dtype) * MASKED
            hidden = self.encoder(hidden, scores[:, None, None, :]).last_hidden_state
            return (_unit(self.projection(self.pooler(hidden))),)

    return TextEncoder()
