"""Writer of whisper.cpp's file format, as its own converter and quantiser write it.

The file is little-endian. It has an int32 magic number, eleven int32 of dimensions and file type,
the mel filters, and the text tokens, each as int32 length and bytes. Then comes each tensor: int32
rank, length of the name, type, dimensions from the fastest one on, OpenAI's name, and the values.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from compat import catalog
from compat.contract.session import Unsupported
from compat.inputs.features import N_FFT, mel_filterbank
from compat.inputs.weights import read_json
from compat.models.whisper_vocabulary import byte_letters, open_tokenizer
from compat.runtimes.whisper.checkpoint import openai_name

if TYPE_CHECKING:
    import torch

    from compat.models.whisper import WhisperModel

MODEL = "ggml-model.bin"
MAGIC = 0x67676D6C
BLOCK = 32
"""Number of successive values of a row that share a scale."""
QUANTISED_VERSION = 2000
"""Added to the file type of quantised files: version 2 of the blocks' layout, times 1,000."""
FLOAT32, FLOAT16 = 0, 1


@dataclass(frozen=True)
class Kind:
    """A form in which matrices are stored."""

    name: str
    """Name in the library ``gguf`` and in whisper.cpp, such as ``Q5_1``."""
    file_type: int
    """ggml's number for the file (``ggml_ftype``), which a loaded model also reports."""
    tensor_type: int
    """ggml's number for the matrices (``ggml_type``)."""


KINDS = {
    "fp16": Kind("F16", 1, FLOAT16),
    "int8-q8_0": Kind("Q8_0", 7, 8),
    "int8-q5_1": Kind("Q5_1", 9, 7),
    "int8-q5_0": Kind("Q5_0", 8, 6),
    "int4-q4_0": Kind("Q4_0", 2, 2),
}
"""Forms by scheme. Schemes that store 5 bits count as int8, since their products are computed in 8
bits."""


def convert(folder: Path, reference: Mapping[str, str], graph: str, scheme: str) -> None:
    """Job: write a model for whisper.cpp as ``ggml-model.bin``."""
    from compat.contract.model_reference import ModelReference

    host: Any = catalog.open_model(ModelReference(**reference))
    kind = KINDS[scheme]
    with (folder / MODEL).open("wb") as file:
        _write_header(file, host, kind)
        for name, values in host.network.state_dict().items():
            if not name.startswith("proj_out"):  # It is tied to the embedding of tokens.
                _write_tensor(file, openai_name(name), values.numpy(), kind)


def refuse(host: WhisperModel, scheme: str) -> None:
    """Check that whisper.cpp's architecture and a scheme suit a model.

    Raises:
        Unsupported: the output projection is not tied, the width is no multiple of :data:`BLOCK`,
            or the feed-forward layers are not four times as wide.
    """
    if not host.tied:
        raise Unsupported(
            "whisper.cpp projects onto the embedding of tokens, and this checkpoint has a "
            "projection of its own (tie_word_embeddings is false)"
        )
    if scheme != "fp16" and host.dimensions.width % BLOCK:
        raise Unsupported(
            f"whisper.cpp quantises blocks of {BLOCK} values, which do not make up a row of "
            f"{host.dimensions.width}"
        )
    inner = 4 * host.dimensions.width
    config = read_json(host.folder / "config.json") if host.folder else {}
    for name in ("encoder_ffn_dim", "decoder_ffn_dim"):
        if config.get(name, inner) != inner:
            raise Unsupported(
                f"whisper.cpp's layers are four times as wide inside as outside, {inner}, and this "
                f"checkpoint has {name} = {config[name]}"
            )


def _write_header(file: BinaryIO, host: WhisperModel, kind: Kind) -> None:
    size = host.dimensions
    numbers = (
        *(size.vocabulary, size.source_positions, size.width, size.heads, size.encoder_layers),
        *(size.target_positions, size.width, size.heads, size.decoder_layers, size.mels),
        kind.file_type + (QUANTISED_VERSION if kind.tensor_type > FLOAT16 else 0),
    )
    file.write(struct.pack("<12i", MAGIC, *numbers))
    filters = np.ascontiguousarray(mel_filterbank(size.mels).T, np.float32)
    file.write(struct.pack("<2i", size.mels, N_FFT // 2 + 1) + filters.tobytes())
    words = list(_words(host))
    file.write(struct.pack("<i", len(words)))
    for word in words:
        file.write(struct.pack("<i", len(word)) + word)


def _words(host: WhisperModel) -> Iterator[bytes]:
    """Yield the bytes of each text token: the tokens before the one that ends a transcript."""
    if host.folder is None:
        yield from (f" word{token}".encode() for token in range(host.vocabulary.end))
        return
    tokenizer = open_tokenizer(host.folder)
    bytes_of = {letter: byte for byte, letter in byte_letters().items()}
    for token in range(host.vocabulary.end):
        name = tokenizer.id_to_token(token) or ""
        known = all(letter in bytes_of for letter in name)
        yield bytes(bytes_of[letter] for letter in name) if known else name.encode()


def _write_tensor(file: BinaryIO, name: str, values: np.ndarray, kind: Kind) -> None:
    plain = values.ndim < 2 or name.endswith("positional_embedding")
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        values = values[:, None]
    if plain:
        number, data = FLOAT32, np.ascontiguousarray(values, np.float32)
    elif values.ndim == 3 or kind.tensor_type == FLOAT16:
        number, data = FLOAT16, values.astype(np.float16)
    else:
        number, data = kind.tensor_type, _quantised(values, kind)
    written = name.encode()
    dimensions = values.shape[::-1]
    file.write(
        struct.pack(f"<{3 + len(dimensions)}i", values.ndim, len(written), number, *dimensions)
    )
    file.write(written + data.tobytes())


def _quantised(values: np.ndarray, kind: Kind) -> np.ndarray:
    import gguf

    number = gguf.GGMLQuantizationType[kind.name]
    assert number == kind.tensor_type
    blocks: np.ndarray = gguf.quants.quantize(np.ascontiguousarray(values, np.float32), number)
    return blocks


# Oracles -----------------------------------------------------------------------------------------


def oracle(scheme: str) -> Callable[[torch.nn.Module], torch.nn.Module]:
    """Return a function that makes a module simulate a scheme of whisper.cpp.

    Weights are rounded in the scheme's blocks, and inputs of products in 8-bit blocks. Tables of
    positions and convolutions stay as they are, since whisper.cpp quantises matrices only.
    """

    def simulate(module: torch.nn.Module) -> torch.nn.Module:
        import torch

        def round_input(_: torch.nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            return (round_blocks(arguments[0], "int8-q8_0"),)

        for name, child in module.named_modules():
            if isinstance(child, torch.nn.Linear | torch.nn.Embedding) and "positions" not in name:
                rounded = round_blocks(child.weight, scheme)
                child.weight = torch.nn.Parameter(rounded, requires_grad=False)
            if isinstance(child, torch.nn.Linear):
                child.register_forward_pre_hook(round_input)
        return module

    return simulate


def round_blocks(values: torch.Tensor, scheme: str) -> torch.Tensor:
    """Round float32 values (…, n), n a multiple of 32, to the values of a scheme's blocks."""
    import torch

    def half(scale: torch.Tensor) -> torch.Tensor:
        return scale.to(torch.float16).to(torch.float32)

    def divided(by: torch.Tensor) -> torch.Tensor:
        return torch.where(by == 0, 0.0, blocks / torch.where(by == 0, 1.0, by))

    blocks = values.reshape(*values.shape[:-1], -1, BLOCK)
    if scheme == "int8-q8_0":
        scale = blocks.abs().amax(-1, keepdim=True) / 127
        rounded = divided(scale).round() * half(scale)
    elif scheme == "int8-q5_1":
        low = blocks.amin(-1, keepdim=True)
        scale = (blocks.amax(-1, keepdim=True) - low) / 31
        blocks = blocks - low
        rounded = divided(scale).round() * half(scale) + half(low)
    else:  # The value of largest magnitude in a block becomes the lowest code, whatever its sign.
        steps = {"int8-q5_0": 16, "int4-q4_0": 8}[scheme]
        largest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
        scale = largest / -steps
        codes = (divided(scale) + (steps + 0.5)).floor().clamp(0, 2 * steps - 1) - steps
        rounded = codes * half(scale)
    return rounded.reshape(values.shape)
