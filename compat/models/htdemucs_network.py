"""The network of HTDemucs in plain PyTorch, without the parts for training or other variants.

Source: Rouard, Massa and Défossez, "Hybrid Transformers for Music Source Separation", ICASSP 2023.
Parameters have the names of the package ``demucs``, so that published weights load unchanged. The
package itself is not used, because it requires audio encoders and has methods that cannot be
exported. Tests compare every sample with the package's answers.

The network has two branches: one takes the spectrum of a segment, one its waveform. Both are
U-Nets. Between their encoders and decoders, a transformer lets each branch attend to the other.
Spectra are real tensors, with real and imaginary parts as separate channels.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from compat.models.htdemucs_settings import CHANNELS, Settings
from compat.models.htdemucs_transformer import Attention, CrossTransformer, LayerScale
from compat.models.parts.long_norm import GroupNorm
from compat.models.tasks.separation import STEMS

# Encoders and decoders ---------------------------------------------------------------------------


class Residual(nn.Module):
    """Dilated convolutions over time beside the identity, (batch, channels, time)."""

    def __init__(self, channels: int, settings: Settings) -> None:
        super().__init__()
        hidden = channels // settings.dconv_comp
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(channels, hidden, 3, dilation=2**index, padding=2**index),
                GroupNorm(hidden),
                nn.GELU(),
                nn.Conv1d(hidden, 2 * channels, 1),
                GroupNorm(2 * channels),
                nn.GLU(1),
                LayerScale(channels),
            )
            for index in range(settings.dconv_depth)
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        # Every bin of a spectrum (batch, channels, bins, time) becomes a row of the batch.
        shape = values.shape
        if len(shape) == 4:
            values = values.transpose(1, 2).reshape(-1, shape[1], shape[3])
        for layer in self.layers:
            values = values + layer(values)
        if len(shape) == 4:
            values = values.reshape(shape[0], shape[2], shape[1], shape[3]).transpose(1, 2)
        return values


class Encoder(nn.Module):
    """A layer that divides frequencies, or time, by the stride."""

    def __init__(self, inputs: int, outputs: int, settings: Settings, *, spectral: bool) -> None:
        super().__init__()
        self.spectral = spectral
        self.stride = settings.stride
        kernel, stride = settings.kernel_size, settings.stride
        self.conv: nn.Module
        self.rewrite: nn.Module
        if spectral:
            sizes = (kernel, 1), (stride, 1), (kernel // 4, 0)
            self.conv = nn.Conv2d(inputs, outputs, *sizes)
            self.rewrite = nn.Conv2d(outputs, 2 * outputs, 1)
        else:
            self.conv = nn.Conv1d(inputs, outputs, kernel, stride, kernel // 4)
            self.rewrite = nn.Conv1d(outputs, 2 * outputs, 1)
        self.dconv = Residual(outputs, settings)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if not self.spectral and values.shape[-1] % self.stride:
            values = functional.pad(values, (0, -values.shape[-1] % self.stride))
        hidden = self.dconv(functional.gelu(self.conv(values)))
        return functional.glu(self.rewrite(hidden), dim=1)


class Decoder(nn.Module):
    """A layer that multiplies frequencies, or time, by the stride."""

    def __init__(
        self, inputs: int, outputs: int, settings: Settings, *, spectral: bool, last: bool
    ) -> None:
        super().__init__()
        self.spectral, self.last = spectral, last
        self.padding = settings.kernel_size // 4
        kernel, stride, context = settings.kernel_size, settings.stride, settings.context
        self.conv_tr: nn.Module
        self.rewrite: nn.Module
        if spectral:
            self.conv_tr = nn.ConvTranspose2d(inputs, outputs, (kernel, 1), (stride, 1))
            self.rewrite = nn.Conv2d(inputs, 2 * inputs, 1 + 2 * context, padding=context)
        else:
            self.conv_tr = nn.ConvTranspose1d(inputs, outputs, kernel, stride)
            self.rewrite = nn.Conv1d(inputs, 2 * inputs, 1 + 2 * context, padding=context)
        self.dconv = Residual(inputs, settings)

    def forward(self, values: torch.Tensor, skipped: torch.Tensor, length: int) -> torch.Tensor:
        """Return the decoded layer, cut to ``length`` frequencies or samples."""
        hidden = functional.glu(self.rewrite(values + skipped), dim=1)
        decoded = self.conv_tr(self.dconv(hidden))
        decoded = decoded.narrow(2, self.padding, length)
        return decoded if self.last else functional.gelu(decoded)


# The whole ---------------------------------------------------------------------------------------


class FrequencyEmbedding(nn.Module):
    """Embedding that is added to each frequency after the first layer."""

    def __init__(self, bins: int, channels: int, scale: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(bins, channels)
        self.scale = scale

    def forward(self) -> torch.Tensor:
        """Return (1, channels, bins, 1)."""
        return (self.embedding.weight * self.scale).t()[None, :, :, None]


class HTDemucs(nn.Module):
    """Maps spectrum and waveform of a mixture to those of its sources, all standardised.

    ``forward`` maps mix (batch, channels, samples) and spectrum (batch, 2 x channels, bins, frames)
    to waves (batch, sources, channels, samples) and spectra
    (batch, sources, 2 x channels, bins, frames). A source is the sum of its wave and of the inverse
    transform of its spectrum.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        inputs, width = CHANNELS, settings.channels
        outputs = inputs * len(STEMS)
        self.encoder, self.tencoder = nn.ModuleList(), nn.ModuleList()
        decoders: list[tuple[Decoder, Decoder]] = []
        for index in range(settings.depth):
            # A spectrum has two channels for each channel of audio: real and imaginary parts.
            factor = 2 if index == 0 else 1
            self.encoder.append(Encoder(factor * inputs, width, settings, spectral=True))
            self.tencoder.append(Encoder(inputs, width, settings, spectral=False))
            both = (True, factor * outputs), (False, outputs)
            first, second = (
                Decoder(width, number, settings, spectral=spectral, last=index == 0)
                for spectral, number in both
            )
            decoders.append((first, second))
            inputs, outputs, width = width, width, width * settings.growth
        self.decoder = nn.ModuleList(one for one, _ in reversed(decoders))
        self.tdecoder = nn.ModuleList(one for _, one in reversed(decoders))
        stride = settings.stride
        self.freq_emb = FrequencyEmbedding(
            settings.bins // stride, settings.channels, settings.emb_scale
        )
        bottom = settings.bottom_channels
        self.channel_upsampler = nn.Conv1d(inputs, bottom, 1)
        self.channel_downsampler = nn.Conv1d(bottom, inputs, 1)
        self.channel_upsampler_t = nn.Conv1d(inputs, bottom, 1)
        self.channel_downsampler_t = nn.Conv1d(bottom, inputs, 1)
        bins, samples = settings.bins, settings.samples
        for _ in range(settings.depth):
            bins, samples = bins // stride, -(-samples // stride)
        self.crosstransformer = CrossTransformer(settings, bins, samples)

    def unpack(self) -> HTDemucs:
        """Split the packed projections of attention, after the weights were loaded."""
        for part in list(self.modules()):
            if isinstance(part, Attention):
                part.unpack()
        return self

    def forward(
        self, mix: torch.Tensor, spectrum: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        wave, bins = mix, spectrum
        skipped: list[tuple[torch.Tensor, torch.Tensor]] = []
        lengths: list[tuple[int, int]] = []
        for index, (encoder, tencoder) in enumerate(zip(self.encoder, self.tencoder, strict=True)):
            lengths.append((bins.shape[2], wave.shape[2]))
            wave, bins = tencoder(wave), encoder(bins)
            if index == 0:
                bins = bins + self.settings.freq_emb * self.freq_emb()
            skipped.append((bins, wave))
        shape = bins.shape
        flat = self.channel_upsampler(bins.flatten(2))
        bins, wave = self.crosstransformer(
            flat.reshape(shape[0], -1, *shape[2:]), self.channel_upsampler_t(wave)
        )
        bins = self.channel_downsampler(bins.flatten(2)).reshape(shape)
        wave = self.channel_downsampler_t(wave)
        for decoder, tdecoder in zip(self.decoder, self.tdecoder, strict=True):
            (skip, skip_t), (height, length) = skipped.pop(), lengths.pop()
            bins, wave = decoder(bins, skip, height), tdecoder(wave, skip_t, length)
        batch, sources = mix.shape[0], len(STEMS)
        return (
            wave.reshape(batch, sources, -1, wave.shape[2]),
            bins.reshape(batch, sources, -1, *bins.shape[2:]),
        )
