"""EnCodec's network as graphs want it: the modules of transformers, made to export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from compat.inputs import generator
from compat.models.parts.group_norm import sum_in_blocks
from compat.models.parts.lstm import exportable

if TYPE_CHECKING:
    import torch


def settle(network: Any) -> None:
    """Make a network of transformers one that exports, in place.

    Weight normalisation is folded into kernels. Paddings are computed from shapes: the library
    keeps their parts in tensors, whose values an exporter cannot know. Each layer of an LSTM is one
    node. None of these changes a bit of the values; normalisations over time, which sum in blocks,
    do in the last.
    """
    import torch
    from torch.nn.utils import parametrize

    with torch.enable_grad():  # Without, kernels would come back as buffers.
        for module in list(network.modules()):
            if parametrize.is_parametrized(module):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    for module in list(network.modules()):
        if type(module).__name__ == "EncodecConv1d":
            sizes = {n: int(getattr(module, n)) for n in ("kernel_size", "stride", "padding_total")}
            for name, size in sizes.items():
                del module._buffers[name]
                setattr(module, name, size)
            module._get_extra_padding_for_conv1d = _padding(**sizes)
        for name, child in list(module.named_children()):
            if type(child).__name__ == "EncodecLSTM":
                setattr(module, name, _recurrence(child.lstm))
        for name in ("inited", "cluster_size", "embed_avg"):  # Training alone needs them.
            module._buffers.pop(name, None)
    sum_in_blocks(network)


def _padding(kernel_size: int, stride: int, padding_total: int) -> Any:
    def extra(hidden: torch.Tensor) -> int:
        """Return how many samples are missing for the last frame of a convolution to be full."""
        length = hidden.shape[-1]
        frames = -(-(length - kernel_size + padding_total) // stride)
        return frames * stride + kernel_size - padding_total - length

    return extra


def _recurrence(lstm: torch.nn.LSTM) -> torch.nn.Module:
    """Return an LSTM beside which its input goes by, of (batch, channels, time)."""
    import torch

    class Recurrence(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            lstm.batch_first = True
            self.lstm = lstm

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            frames = hidden.transpose(1, 2)
            # Packed here: its weights may have changed since it was made.
            (found,) = exportable(self.lstm)(frames)
            result: torch.Tensor = (found + frames).transpose(1, 2)
            return result

    return Recurrence()


def fill_codebooks(network: Any, decline: float) -> None:
    """Fill the codebooks, which are buffers, with generated values, in place.

    The first has a standard deviation of 1, and each ``decline`` times that of the one before.
    """
    import torch

    for index, layer in enumerate(network.quantizer.layers):
        embed = layer.codebook.embed
        values = generator.uniform(f"codebook.{index}", embed.numel())
        values *= np.float32(3**0.5 * decline**index)
        embed.copy_(torch.from_numpy(values).reshape(embed.shape))


def encoder_module(network: Any) -> torch.nn.Module:
    """Return the encoder and the search in all codebooks as one graph.

    Maps audio (batch, channels, samples) to what is quantised (batch, width, frames) and its codes
    (batch, codebooks, frames) int32. Each codebook encodes what the ones before left over: the
    codes of a lower bitrate are the first of these.
    """
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = network.encoder
            self.quantizer = network.quantizer

        def forward(self, audio: torch.Tensor) -> tuple[torch.Tensor, ...]:
            z = self.encoder(audio)
            codes = self.quantizer.encode(z)
            return z, codes.transpose(0, 1).to(torch.int32)

    return Encoder()


def decoder_module(network: Any) -> torch.nn.Module:
    """Return codebooks and decoder as one graph for every bitrate.

    Maps codes (batch, codebooks, frames) int32 and which codebooks count (batch, codebooks), ones
    and zeros, to audio (batch, channels, samples).
    """
    import torch

    class Decoder(torch.nn.Module):
        first: torch.Tensor
        vectors: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            codebooks = [layer.codebook.embed for layer in network.quantizer.layers]
            first = torch.arange(len(codebooks), dtype=torch.int32) * len(codebooks[0])
            self.register_buffer("first", first[:, None])
            self.register_buffer("vectors", torch.cat(codebooks))
            self.decoder = network.decoder

        def forward(self, codes: torch.Tensor, used: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found = torch.nn.functional.embedding(codes + self.first, self.vectors)
            z = (found * used[:, :, None, None]).sum(1)
            return (self.decoder(z.transpose(1, 2)),)

    return Decoder()
