"""EnCodec's network for graphs: the modules of transformers, changed so that they export."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.inputs import generator
from compat.models.parts.lstm import exportable

if TYPE_CHECKING:
    import torch

DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "num_filters": 32,
        "hidden_size": 128,
        "kernel_size": 7,
        "last_kernel_size": 7,
        "residual_kernel_size": 3,
        "num_residual_layers": 1,
        "dilation_growth_rate": 2,
        "num_lstm_layers": 2,
    }
)
"""EncodecConfig's defaults of the settings that decide a decoder's widths and reaches."""


def settle(network: Any) -> None:
    """Change a network of transformers, in place, so that it can be exported.

    Weight normalisation is folded into kernels. Paddings are computed from shapes, because the
    library computes them from tensors whose values an exporter cannot know. Each layer of an LSTM
    becomes one node. These changes leave all values identical to the bit. Normalisations over time
    sum in blocks, which changes the last bits.
    """
    import torch
    from torch.nn.utils import parametrize

    from compat.models.parts.long_norm import sum_in_blocks

    with torch.enable_grad():  # Without gradients, the folded kernels would become buffers.
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
        for name in ("inited", "cluster_size", "embed_avg"):  # Only training needs them.
            module._buffers.pop(name, None)
    sum_in_blocks(network)


def _padding(kernel_size: int, stride: int, padding_total: int) -> Any:
    def extra(hidden: torch.Tensor) -> int:
        """Return the number of samples that a convolution's last frame lacks."""
        length = hidden.shape[-1]
        frames = -(-(length - kernel_size + padding_total) // stride)
        return frames * stride + kernel_size - padding_total - length

    return extra


def _recurrence(lstm: torch.nn.LSTM) -> torch.nn.Module:
    """Return a module that adds an LSTM's output to its input, (batch, channels, time)."""
    import torch

    class Recurrence(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            lstm.batch_first = True
            self.lstm = lstm

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            frames = hidden.transpose(1, 2)
            # The LSTM is packed here, because its weights may have changed since ``__init__``.
            (found,) = exportable(self.lstm)(frames)
            result: torch.Tensor = (found + frames).transpose(1, 2)
            return result

    return Recurrence()


def fill_codebooks(network: Any, decline: float) -> None:
    """Fill the codebooks, which are buffers, with generated values, in place.

    The first codebook has a standard deviation of 1, each further one ``decline`` times that of the
    one before.
    """
    import torch

    for index, layer in enumerate(network.quantizer.layers):
        embed = layer.codebook.embed
        values = generator.uniform(f"codebook.{index}", embed.numel())
        values *= np.float32(3**0.5 * decline**index)
        embed.copy_(torch.from_numpy(values).reshape(embed.shape))


def encoder_module(network: Any) -> torch.nn.Module:
    """Return the encoder and the search in all codebooks as one graph.

    It maps audio (batch, channels, samples) to the vectors before quantisation
    (batch, width, frames) and their codes (batch, codebooks, frames) int32. Each codebook encodes
    the residual of the ones before, so the codes of a lower bitrate are the first of these.
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

    It maps codes (batch, codebooks, frames) int32 and a mask of codebooks (batch, codebooks), 1 for
    those that are decoded, to audio (batch, channels, samples).
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


# Streams -----------------------------------------------------------------------------------------


def contexts(config: Mapping[str, Any]) -> dict[str, tuple[int | str, ...]]:
    """Return the shapes of a causal decoder's contexts, by name.

    A context is what a layer remembers from one chunk to the next: a convolution the samples that
    its kernel reaches back to, a transposed convolution the last sample, the LSTM its outputs and
    cells. ``config`` holds settings of transformers.
    """
    settings = {**DEFAULTS, **config}
    ratios = settings["upsampling_ratios"]
    width = settings["num_filters"] * 2 ** len(ratios)
    shapes: dict[str, tuple[int | str, ...]] = {
        "before_0": ("batch", settings["hidden_size"], settings["kernel_size"] - 1)
    }
    for part in ("output", "cell"):
        shapes[f"before_1_{part}"] = (settings["num_lstm_layers"], "batch", width)
    layer = 3
    for _ in ratios:
        shapes[f"before_{layer}"] = ("batch", width, 1)
        width //= 2
        for residual in range(settings["num_residual_layers"]):
            layer += 1
            reach = settings["dilation_growth_rate"] ** residual
            reach *= settings["residual_kernel_size"] - 1
            shapes[f"before_{layer}_block_1"] = ("batch", width, reach)
        layer += 2
    shapes[f"before_{layer}"] = ("batch", width, settings["last_kernel_size"] - 1)
    return shapes


def remembering(decoder: Any) -> list[tuple[str, Any]]:
    """Return a decoder's modules that have contexts, with the names of :func:`contexts`."""
    found = []
    for name, module in decoder.layers.named_modules():
        kind = type(module).__name__
        looks_back = kind == "EncodecConv1d" and module.padding_total > 0
        if looks_back or kind in ("EncodecConvTranspose1d", "Recurrence"):
            found.append((f"before_{name.replace('.', '_')}", module))
    return found


def stream_module(network: Any) -> torch.nn.Module:
    """Return codebooks and a causal decoder as one graph that decodes a chunk at a time.

    It maps codes (batch, codebooks, frames) int32, a mask of codebooks (batch, codebooks), whether
    the chunk is the first one ((1,), 1 or 0) and the contexts of :func:`contexts`, in order, to
    audio (batch, channels, samples) and the next chunk's contexts. Before the first chunk the
    library mirrors the samples that follow, so a chunk needs at least as many frames as a kernel
    reaches back to.
    """
    import torch

    names = list(contexts(network.config.to_dict()))

    class Stream(torch.nn.Module):
        first: torch.Tensor
        vectors: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            whole: Any = decoder_module(network)
            self.register_buffer("first", whole.first)
            self.register_buffer("vectors", whole.vectors)
            self.decoder = network.decoder

        def forward(
            self,
            codes: torch.Tensor,
            used: torch.Tensor,
            begins: torch.Tensor,
            *before: torch.Tensor,
        ) -> tuple[torch.Tensor, ...]:
            found = torch.nn.functional.embedding(codes + self.first, self.vectors)
            hidden = (found * used[:, :, None, None]).sum(1).transpose(1, 2)
            known = dict(zip(names, before, strict=True))
            after: dict[str, torch.Tensor] = {}
            places = {id(module): name for name, module in remembering(self.decoder)}

            def through(module: Any, values: torch.Tensor) -> torch.Tensor:
                name = places.get(id(module), "")
                match type(module).__name__:
                    case "EncodecConv1d" if name:
                        reach = module.padding_total
                        mirrored = values[..., 1 : reach + 1].flip(-1)
                        context = begins * mirrored + (1 - begins) * known[name]
                        values = torch.cat((context, values), dim=2)
                        after[name] = values[..., -reach:]
                        return torch.as_tensor(module.conv(values))
                    case "EncodecConv1d":
                        return torch.as_tensor(module.conv(values))
                    case "ELU" | "Identity":
                        return torch.as_tensor(module(values))
                    case "EncodecConvTranspose1d":
                        step = module.conv.stride[0]
                        wide = module.conv(torch.cat((known[name], values), dim=2))
                        after[name] = values[..., -1:]
                        return torch.as_tensor(wide[..., step:-step])
                    case "Recurrence":
                        frames = values.transpose(1, 2)
                        state = known[f"{name}_output"], known[f"{name}_cell"]
                        made, (output, cell) = module.lstm(frames, state)
                        after[f"{name}_output"], after[f"{name}_cell"] = output, cell
                        return torch.as_tensor((made + frames).transpose(1, 2))
                    case _:  # A residual block.
                        inner = values
                        for layer in module.block:
                            inner = through(layer, inner)
                        return through(module.shortcut, values) + inner

            for layer in self.decoder.layers:
                hidden = through(layer, hidden)
            return (hidden, *(after[name] for name in names))

    return Stream()
