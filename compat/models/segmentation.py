"""Speaker segmentation: who of up to three local speakers speaks, in windows of ten seconds.

Architecture: PyanNet as published in pyannote.audio's segmentation-3.0 (Bredin, "pyannote.audio
2.1 speaker diarization pipeline", and Plaquet and Bredin, "Powerset multi-class cross entropy loss
for neural speaker diarization", both Interspeech 2023), with its parameter names, so that its
checkpoints load unchanged. The sinc filters are those of asteroid-filterbanks' ParamSincFB
(Pariente et al., "Filterbank design for end-to-end speech separation", 2020).
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.contract.case import Family, Variant
from compat.contract.digests import file_digest
from compat.contract.graph import Graph, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.places import FIXTURES
from compat.contract.session import Session
from compat.inputs import generator
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.weights import Rules, fill_from_files, fill_from_state, match, stored_tensors
from compat.models.base import Model
from compat.models.parts import lstm as recurrence
from compat.models.tasks.speaker_segmentation import (
    CLASSES,
    SAMPLE_RATE,
    SAMPLES,
    SpeakerSegmentation,
    encode,
)

if TYPE_CHECKING:
    import torch


FAMILY = Family(
    name="segmentation",
    task="segmentation",
    row="Speaker segmentation",
    headline="segmentation-3.0",
    variants=(
        Variant(
            "segmentation-3.0",
            ("pretrained", "trained"),
            core=True,
            parameters=1.5,
            checkpoint="pyannote/segmentation-3.0",
            trained="checkpoints/segmentation-3.0-synthetic",
        ),
    ),
)

BATCHES = (1, 4)
MODEL_TYPE = "pyannote-segmentation"

SEEDED_GAINS: Mapping[str, float | None] = {"low_hz_": None, "band_hz_": None, "weight": 2.0}


# Architecture ----------------------------------------------------------------------------------


def pyannet() -> torch.nn.Module:
    """Return the published architecture, as initialised by torch.

    Its ``forward`` maps a waveform (batch, 1, samples) to log-probabilities (batch, frames, 7).
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class ParamSincFB(nn.Module):
        """Pairs of even and odd band-pass filters with a learnt lower edge and width."""

        window_: torch.Tensor
        n_: torch.Tensor

        def __init__(self, filters: int, length: int, least_hz: float = 50.0) -> None:
            super().__init__()
            self.least_hz = least_hz
            # Bands of equal width in mel.
            mel = torch.linspace(
                _to_mel(30.0), _to_mel(SAMPLE_RATE / 2 - 2 * least_hz), filters // 2 + 1
            )
            edges = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
            self.low_hz_ = nn.Parameter(edges[:-1, None])
            self.band_hz_ = nn.Parameter(edges.diff()[:, None])
            half = length // 2
            window = torch.hamming_window(length, periodic=False, dtype=torch.float64)
            self.register_buffer("window_", window[:half].float())
            time = torch.arange(-half, 0, dtype=torch.float32)[None] / SAMPLE_RATE
            self.register_buffer("n_", 2 * torch.pi * time)

        def filters(self) -> torch.Tensor:
            """Return the kernels (filters, 1, length): all even ones, then all odd ones."""
            low = self.least_hz + self.low_hz_.abs()
            high = (low + self.least_hz + self.band_hz_.abs()).clamp(self.least_hz, SAMPLE_RATE / 2)
            band = high - low
            at_low, at_high = low @ self.n_, high @ self.n_
            even = (at_high.sin() - at_low.sin()) / (self.n_ / 2) * self.window_
            odd = (at_low.cos() - at_high.cos()) / (self.n_ / 2) * self.window_
            cosines = torch.cat((even, 2 * band, even.flip(1)), 1) / (2 * band)
            sines = torch.cat((odd, torch.zeros_like(band), -odd.flip(1)), 1) / (2 * band)
            return torch.cat((cosines, sines)).unsqueeze(1)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filterbank = ParamSincFB(80, 251)

        def forward(self, waveform: torch.Tensor) -> torch.Tensor:
            return functional.conv1d(waveform, self.filterbank.filters(), stride=10)

    class SincNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wav_norm1d = nn.InstanceNorm1d(1, affine=True)
            self.conv1d = nn.ModuleList((Encoder(), nn.Conv1d(80, 60, 5), nn.Conv1d(60, 60, 5)))
            self.pool1d = nn.ModuleList(nn.MaxPool1d(3) for _ in range(3))
            self.norm1d = nn.ModuleList(
                nn.InstanceNorm1d(width, affine=True) for width in (80, 60, 60)
            )

        def forward(self, waveform: torch.Tensor) -> torch.Tensor:
            hidden: torch.Tensor = self.wav_norm1d(waveform)
            for convolve, pool, norm in zip(self.conv1d, self.pool1d, self.norm1d, strict=True):
                hidden = convolve(hidden)
                if convolve is self.conv1d[0]:
                    hidden = hidden.abs()
                hidden = functional.leaky_relu(norm(pool(hidden)))
            return hidden

    class PyanNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sincnet = SincNet()
            self.lstm = nn.LSTM(60, 128, 4, batch_first=True, bidirectional=True)
            self.linear = nn.ModuleList((nn.Linear(256, 128), nn.Linear(128, 128)))
            self.classifier = nn.Linear(128, len(CLASSES))

        def forward(self, waveform: torch.Tensor) -> torch.Tensor:
            hidden = self.lstm(self.sincnet(waveform).transpose(1, 2))[0]
            for linear in self.linear:
                hidden = functional.leaky_relu(linear(hidden))
            scores: torch.Tensor = self.classifier(hidden).log_softmax(-1)
            return scores

    return PyanNet()


def _to_mel(hertz: float) -> float:
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


def with_fixed_filters(network: torch.nn.Module) -> torch.nn.Module:
    """Return a copy whose sinc layer is the convolution that it amounts to.

    A graph then holds the kernels as constants. Computed inside it, they would be made anew at
    every call, and in half precision of phases that it cannot hold.
    """
    import torch

    network = copy.deepcopy(network)
    sincnet: Any = network.sincnet
    with torch.no_grad():
        kernels = sincnet.conv1d[0].filterbank.filters()
        fixed = torch.nn.Conv1d(1, len(kernels), kernels.shape[-1], stride=10, bias=False)
        fixed.weight.copy_(kernels)
    sincnet.conv1d[0] = fixed
    return network


def exportable(network: torch.nn.Module) -> torch.nn.Module:
    """Return the network as a graph wants it: :func:`pyannet`'s function, made of constants.

    Maps a waveform (batch, 1, 160000) to log-probabilities (batch, 589, 7) and their mean
    magnitude (batch,).
    """
    import torch

    class Segmentation(torch.nn.Module):
        def __init__(self, fixed: Any) -> None:
            super().__init__()
            fixed.lstm = recurrence.exportable(fixed.lstm)
            self.network = fixed

        def forward(self, waveform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            scores: torch.Tensor = self.network(waveform)
            # One number per window that is NaN or infinite if anything before it was.
            return scores, scores.abs().mean(dim=(1, 2))

    return Segmentation(with_fixed_filters(network))


def segmentation_graph(
    network: Callable[[], torch.nn.Module], batches: Sequence[int] = BATCHES
) -> Graph:
    """Return the graph ``segmentation``, with a point ``b1``, ``b4`` … for each batch size.

    It maps ``waveform`` (batch, 1, 160000) to ``log_probabilities`` (batch, 589, 7) and ``level``
    (batch,), the mean magnitude of the former.
    """
    return Graph(
        "segmentation",
        {"waveform": Tensor(("batch", 1, SAMPLES))},
        ("log_probabilities", "level"),
        {f"b{batch}": {"batch": batch} for batch in batches},
        lambda: exportable(network()),
        scalar="level",
        windowed=True,
    )


# Checkpoints -----------------------------------------------------------------------------------


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "sincnet.wav_norm1d.weight": (1,),
        "sincnet.wav_norm1d.bias": (1,),
        "sincnet.conv1d.0.filterbank.low_hz_": (40, 1),
        "sincnet.conv1d.0.filterbank.band_hz_": (40, 1),
        "sincnet.conv1d.0.filterbank.window_": (125,),
        "sincnet.conv1d.0.filterbank.n_": (1, 125),
        "sincnet.conv1d.1.weight": (60, 80, 5),
        "sincnet.conv1d.1.bias": (60,),
        "sincnet.conv1d.2.weight": (60, 60, 5),
        "sincnet.conv1d.2.bias": (60,),
    }
    for index, width in enumerate((80, 60, 60)):
        shapes[f"sincnet.norm1d.{index}.weight"] = (width,)
        shapes[f"sincnet.norm1d.{index}.bias"] = (width,)
    for layer in range(4):
        for end in ("", "_reverse"):
            shapes[f"lstm.weight_ih_l{layer}{end}"] = (512, 256 if layer else 60)
            shapes[f"lstm.weight_hh_l{layer}{end}"] = (512, 128)
            shapes[f"lstm.bias_ih_l{layer}{end}"] = (512,)
            shapes[f"lstm.bias_hh_l{layer}{end}"] = (512,)
    for name, (out, width) in {
        "linear.0": (128, 256),
        "linear.1": (128, 128),
        "classifier": (len(CLASSES), 128),
    }.items():
        shapes[f"{name}.weight"] = (out, width)
        shapes[f"{name}.bias"] = (out,)
    return shapes


PUBLISHED_SHAPES: Mapping[str, tuple[int, ...]] = _shapes()
"""Names and shapes of everything that a checkpoint of segmentation-3.0 holds."""

RULES = Rules(
    remedy="Only segmentation-3.0 (three speakers, four bidirectional LSTM layers of 128) fits: "
    "name a checkpoint of that model."
)

CONVERT = (
    'convert it where pyannote.audio is installed, if you trust its origin: python -c "import '
    "torch, safetensors.torch as s; s.save_file({k: v.contiguous() for k, v in torch.load("
    "'pytorch_model.bin', weights_only=False)['state_dict'].items()}, 'model.safetensors')\""
)


def check_checkpoint(folder: Path) -> Path:
    """Return the file with a checkpoint's weights; look at names and shapes where that is cheap.

    The folder holds ``model.safetensors`` or pyannote's ``pytorch_model.bin``, beside this
    project's ``config.json`` or pyannote's ``config.yaml``.

    Raises:
        CheckpointError: something is missing, or it is no checkpoint of this architecture.
    """
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint folder {folder}: check the path.")
    _check_config(folder)
    file = folder / "model.safetensors"
    if not file.is_file():
        file = folder / "pytorch_model.bin"
        if not file.is_file():
            raise CheckpointError(
                f"{folder} has neither model.safetensors nor pytorch_model.bin: copy the weights "
                "of pyannote/segmentation-3.0 there."
            )
        return file
    shapes = {name: stored.shape for name, stored in stored_tensors([file]).items()}
    match(file, PUBLISHED_SHAPES, shapes, RULES)
    return file


def _check_config(folder: Path) -> None:
    own, published = folder / "config.json", folder / "config.yaml"
    try:
        if own.is_file():
            found = json.loads(own.read_text(encoding="utf-8")).get("model_type")
            wrong = None if found == MODEL_TYPE else f"{own} describes a {found!r} model"
        elif published.is_file():
            found = "PyanNet" in published.read_text(encoding="utf-8")
            wrong = None if found else f"{published} describes no PyanNet"
        else:
            wrong = f"{folder} has neither config.json nor config.yaml"
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"cannot read the configuration in {folder}: {error}. Restore it from the checkpoint."
        ) from error
    if wrong:
        raise CheckpointError(f"{wrong}: name the folder of a copy of pyannote/segmentation-3.0.")


def load_network(folder: Path | None) -> torch.nn.Module:
    """Return the network with the weights of a folder, or with generated ones for None.

    Raises:
        CheckpointError: as :func:`check_checkpoint`, or a pickle that holds more than tensors.
    """
    import torch

    network = pyannet()
    if folder is None:
        generator.seed(network, generator.gains(SEEDED_GAINS))
        return network.eval()
    file = check_checkpoint(folder)
    if file.suffix == ".safetensors":
        fill_from_files(network, file, [file], RULES)
        return network.eval()
    try:
        read = torch.load(file, map_location="cpu", weights_only=True)
        state: dict[str, torch.Tensor] = read.get("state_dict", read)
        if not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
            raise TypeError("it holds other things than tensors")
    except Exception as error:
        # Pickles fail in many ways; a published one also holds objects of pyannote.audio.
        raise CheckpointError(
            f"{file} is a pickle that holds more than tensors, which could run code when it is "
            f"read ({type(error).__name__}): {CONVERT}"
        ) from error
    fill_from_state(network, file, state, RULES)
    return network.eval()


def load(variant: str, weights: str, checkpoint: str) -> SegmentationModel:
    """Load the host side of a variant.

    Args:
        variant: a variant of :data:`FAMILY`; there is one.
        weights: ``trained`` or ``pretrained``.
        checkpoint: folder of the checkpoint, absolute or below ``fixtures/``.

    Raises:
        CheckpointError: as :func:`check_checkpoint`.
    """
    folder = FIXTURES / checkpoint  # An absolute path stays as it is.
    check_checkpoint(folder)
    return SegmentationModel(folder)


# Driver ----------------------------------------------------------------------------------------


def weights_digest(folder: Path | None) -> str:
    """Return 16 hex digits that identify the weights in a folder, or the generated ones."""
    if folder is None:
        return generator.generated_digest(SEEDED_GAINS)
    return file_digest(check_checkpoint(folder))


class SegmentationModel(Model):
    """Windows of ten seconds side by side, each with its own local speakers."""

    task = SpeakerSegmentation()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def content(self) -> Any:
        return weights_digest(self.folder)

    def graphs(self) -> tuple[Graph, ...]:
        return (segmentation_graph(lambda: self.network),)

    @cached_property
    def network(self) -> torch.nn.Module:
        """The torch module with its weights, float32."""
        return load_network(self.folder)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        with stopwatch("features"):
            windows = [(i, w) for i, item in enumerate(items) for w in _windows(item.audio)]
        batch = next((size for size in BATCHES if size >= len(windows)), BATCHES[-1])
        classes: list[list[np.ndarray]] = [[] for _ in items]
        levels: list[list[float]] = [[] for _ in items]
        for start in range(0, len(windows), batch):
            part = windows[start : start + batch]
            with stopwatch("segmentation"):
                waveform = np.zeros((batch, 1, SAMPLES), np.float32)
                for row, (_, samples) in enumerate(part):
                    waveform[row, 0, : len(samples)] = samples
                found = session.run("segmentation", {"waveform": waveform}, f"b{batch}")
                scores, level = found["log_probabilities"].numpy(), found["level"].numpy()
            for row, (index, _) in enumerate(part):
                classes[index].append(scores[row].argmax(axis=-1))
                levels[index].append(float(level[row]))
        with stopwatch("runs"):
            return [
                {**encode(found), "level": float(np.mean(level))}
                for found, level in zip(classes, levels, strict=True)
            ]

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        waveform = np.zeros((1, 1, SAMPLES), np.float32)
        first = _windows(item.audio)[0]
        waveform[0, 0, : len(first)] = first
        found = session.run("segmentation", {"waveform": waveform}, "b1", ("log_probabilities",))
        # Log-probabilities as they are: logits but for a constant per frame, in which an error of
        # the network stays what it is. Probabilities would hide it wherever the network is sure.
        return {"log_probabilities": found["log_probabilities"].numpy()[0].copy()}


def _windows(samples: np.ndarray) -> list[np.ndarray]:
    return [samples[start : start + SAMPLES] for start in range(0, max(len(samples), 1), SAMPLES)]
