"""Read Whisper in CTranslate2's format: ``model.bin``, as faster-whisper's folders have it.

Some weights are published in this form only. The layout is that of CTranslate2's ``model.cc``,
little-endian: uint32 version, string name of the specification, uint32 revision, uint32 count; for
each variable a string, uint8 rank, uint32 dimensions, uint8 type, uint32 bytes, and the bytes; then
uint32 count of aliases, each two strings. A string is uint16 length and bytes, the last one zero.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING

from compat.inputs.checkpoints import CheckpointError

if TYPE_CHECKING:
    import torch

MODEL = "model.bin"
SPECIFICATION = "WhisperSpec"
VERSION, REVISION = 6, 3
"""Version of the format, and revision of Whisper's variables, since CTranslate2 3.0."""
TYPES = (
    ("float32", 4),
    ("int8", 1),
    ("int16", 2),
    ("int32", 4),
    ("float16", 2),
    ("bfloat16", 2),
)
"""Name and bytes of each type, at the index that is its number in the file."""
MOST_VARIABLES = 10_000
"""Most variables that a file may have; Whisper large has 1,300 with all scales."""
LONGEST_NAME = 256
DEEPEST = 4

AGAIN = (
    "Copy the folder from its source again, or convert the checkpoint with "
    "ct2-transformers-converter."
)


@dataclass(frozen=True)
class Variable:
    """Place and form of one variable in a file."""

    shape: tuple[int, ...]
    dtype: str
    offset: int
    """Bytes from the beginning of the file."""
    bytes: int


def is_whisper(path: Path) -> bool:
    """Whether a file begins as CTranslate2's files of Whisper do; the rest is not read."""
    try:
        with path.open("rb") as file:
            return specification_in(file.read(64)) == SPECIFICATION
    except OSError:
        return False


def specification_in(start: bytes) -> str:
    """Return the name of the specification at the beginning of a file; empty if it has none."""
    found = re.match(rb".{4}[\x01-\x40]\x00(\w+Spec)\x00", start, re.DOTALL)
    return found[1].decode() if found else ""


# File --------------------------------------------------------------------------------------------


class _Reader:
    """Reads numbers and strings in order, and raises an error where one would pass the end."""

    def __init__(self, path: Path, data: mmap) -> None:
        self.path = path
        self.data = data
        self.position = 0

    def skip(self, count: int, what: str) -> int:
        """Return the position of the next ``count`` bytes, and move past them."""
        start = self.position
        if count > len(self.data) - start:
            raise self.error(f"ends within {what}: it has {len(self.data)} bytes")
        self.position += count
        return start

    def number(self, kind: str, what: str) -> int:
        start = self.skip(struct.calcsize(f"<{kind}"), what)
        value: int = struct.unpack_from(f"<{kind}", self.data, start)[0]
        return value

    def string(self, what: str) -> str:
        length = self.number("H", what)
        if not 1 < length <= LONGEST_NAME:
            raise self.error(f"has a name of {length} bytes ({what})")
        start = self.skip(length, what)
        name = self.data[start : start + length - 1]
        if not re.fullmatch(rb"[\w/.]+", name):
            raise self.error(f"has no name where one belongs ({what})")
        return name.decode("ascii", "replace")

    def error(self, said: str) -> CheckpointError:
        return CheckpointError(f"{self.path} is damaged: it {said}.", AGAIN)


def read_variables(path: Path) -> dict[str, Variable]:
    """Return the variables of a Whisper model by name, with aliases; values are not read.

    Raises:
        CheckpointError: the file is no such file, has another version or model, or is damaged.
    """
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            return _variables(_Reader(path, data))
    except (OSError, ValueError) as error:  # An empty file cannot be mapped.
        raise CheckpointError(f"cannot read {path}: {error}", AGAIN) from error


def _variables(reader: _Reader) -> dict[str, Variable]:
    version = reader.number("I", "its version")
    start = reader.data[:64]
    if not specification_in(start):
        raise CheckpointError(
            f"{reader.path} is no model that CTranslate2 converted: it begins with {start[:4]!r}.",
            "Name the folder of a converted Whisper checkpoint.",
        )
    name = reader.string("the name of its specification")
    revision = reader.number("I", "its revision")
    if name != SPECIFICATION:
        raise CheckpointError(
            f"{reader.path} holds a {name}, and of CTranslate2's models only a {SPECIFICATION} is "
            "read here.",
            "Name the Hugging Face checkpoint that it was made from.",
        )
    if (version, revision) != (VERSION, REVISION):
        raise CheckpointError(
            f"{reader.path} has version {version} of CTranslate2's format and revision {revision} "
            f"of {name}, and {VERSION} and {REVISION} are read here.",
            "Convert the checkpoint again with ct2-transformers-converter of CTranslate2 4.",
        )
    variables: dict[str, Variable] = {}
    for _ in range(_count(reader, "variables")):
        name = reader.string("the name of a variable")
        variables[name] = _variable(reader, name)
    for _ in range(_count(reader, "aliases")):
        alias, name = reader.string("an alias"), reader.string("the name behind an alias")
        if name not in variables:
            raise reader.error(f"calls {alias} what it has not, {name}")
        variables[alias] = variables[name]
        if scale := variables.get(f"{name}_scale"):  # Scalars, such as scales, have no aliases.
            variables.setdefault(f"{alias}_scale", scale)
    if reader.position != len(reader.data):
        raise reader.error(f"has {len(reader.data) - reader.position} bytes behind its end")
    return variables


def _count(reader: _Reader, what: str) -> int:
    count = reader.number("I", f"the number of {what}")
    if count > MOST_VARIABLES:
        raise reader.error(f"says that it has {count} {what}")
    return count


def _variable(reader: _Reader, name: str) -> Variable:
    rank = reader.number("B", name)
    if rank > DEEPEST:
        raise reader.error(f"says that {name} has {rank} dimensions")
    shape = tuple(reader.number("I", name) for _ in range(rank))
    number = reader.number("B", name)
    if number >= len(TYPES):
        raise reader.error(f"says that {name} is of type {number}")
    dtype, width = TYPES[number]
    count = reader.number("I", name)
    expected = width
    for size in shape:  # Python's integers do not overflow.
        expected *= size
    if count != expected:
        raise reader.error(f"has {count} bytes of {name}, which is {dtype} {list(shape)}")
    return Variable(shape, dtype, reader.skip(count, name), count)


# Whisper -----------------------------------------------------------------------------------------

LEAVES = {"gamma": "weight", "beta": "bias", "encodings": "weight"}
PARTS = {
    "self_attention/linear_0": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
    "self_attention/linear_1": "self_attn.out_proj",
    "self_attention/layer_norm": "self_attn_layer_norm",
    "attention/linear_0": "encoder_attn.q_proj",
    "attention/linear_1": "encoder_attn.k_proj encoder_attn.v_proj",
    "attention/linear_2": "encoder_attn.out_proj",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
    "ffn/layer_norm": "final_layer_norm",
}
"""Maps a part of a layer to its name in transformers; several names are stacked in this order."""
WHOLE = {
    "encoder/conv1": "model.encoder.conv1",
    "encoder/conv2": "model.encoder.conv2",
    "encoder/position_encodings": "model.encoder.embed_positions",
    "encoder/layer_norm": "model.encoder.layer_norm",
    "decoder/embeddings": "model.decoder.embed_tokens",
    "decoder/position_encodings": "model.decoder.embed_positions",
    "decoder/layer_norm": "model.decoder.layer_norm",
    "decoder/projection": "proj_out",
}


def read_state(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights of a Whisper model with their names in transformers, one by one.

    Floats keep their type. Integers are divided by their scales and become float32.

    Raises:
        CheckpointError: as :func:`read_variables`, or a variable is none of Whisper's.
    """
    variables = read_variables(path)
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        for name, variable in variables.items():
            leaf = name.rpartition("/")[2]
            setting = not variable.shape and leaf not in (*LEAVES, *LEAVES.values())
            if setting or leaf.endswith("_scale"):
                continue
            values = _values(path, data, variables, name, variable)
            yield from _named(path, name, values)


def _values(
    path: Path, data: mmap, variables: Mapping[str, Variable], name: str, variable: Variable
) -> torch.Tensor:
    """Return a copy of a variable's values as floats; integers are divided by their scales."""
    import torch

    values = _stored(data, variable)
    if values.is_floating_point():
        return values
    scale = variables.get(f"{name}_scale")
    if scale is None or scale.shape not in ((), variable.shape[:1]) or "int" in scale.dtype:
        raise CheckpointError(
            f"{path}: {name} is {variable.dtype} and has no scale for each of its rows.", AGAIN
        )
    scales = _stored(data, scale).to(torch.float32)
    return values.to(torch.float32) / scales.reshape(-1, *[1] * (values.dim() - 1))


def _stored(data: mmap, variable: Variable) -> torch.Tensor:
    import torch

    dtype = getattr(torch, variable.dtype)
    if not variable.bytes:
        return torch.empty(variable.shape, dtype=dtype)
    buffer = bytearray(data[variable.offset : variable.offset + variable.bytes])
    return torch.frombuffer(buffer, dtype=dtype).reshape(variable.shape)


def _named(path: Path, name: str, values: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a variable with its names in transformers; stacked matrices are split."""
    where, _, leaf = name.rpartition("/")
    leaf = LEAVES.get(leaf, leaf)
    if where in WHOLE:
        yield f"{WHOLE[where]}.{leaf}", values
        return
    found = re.fullmatch(r"(encoder|decoder)/layer_(\d{1,3})/(.+)", where)
    if not found or found[3] not in PARTS or leaf not in ("weight", "bias"):
        raise CheckpointError(
            f"{path} has {name}, which is no weight of Whisper as it was published.",
            "Name the Hugging Face checkpoint that it was made from.",
        )
    parts = PARTS[found[3]].split()
    if not values.dim() or len(values) % len(parts):
        raise CheckpointError(
            f"{path}: {name} has shape {list(values.shape)}, which {len(parts)} matrices do not "
            "make up.",
            AGAIN,
        )
    for part, one in zip(parts, values.chunk(len(parts)), strict=True):
        if part.endswith("k_proj") and leaf == "bias":
            if one.any():
                raise CheckpointError(
                    f"{path}: {name} has a bias of keys, which Whisper has not.", AGAIN
                )
            continue  # Keys have no bias; the file stacks zeros beside those of queries and values.
        yield f"model.{found[1]}.layers.{found[2]}.{part}.{leaf}", one


def read_heads(path: Path, variables: Mapping[str, Variable]) -> tuple[int, int]:
    """Return the numbers of attention heads of encoder and decoder."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        numbers = []
        for side in ("encoder", "decoder"):
            variable = variables.get(f"{side}/num_heads")
            heads = int(_stored(data, variable).reshape(-1)[0]) if variable else 0
            if heads < 1:
                raise CheckpointError(f"{path} does not say how many heads its {side} has.", AGAIN)
            numbers.append(heads)
    return numbers[0], numbers[1]
