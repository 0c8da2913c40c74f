"""Speaker segmentation: which of up to three local speakers speak, in windows of ten seconds.

The architecture is PyanNet as published in pyannote.audio's segmentation-3.0 (Bredin,
"pyannote.audio 2.1 speaker diarization pipeline", and Plaquet and Bredin, "Powerset multi-class
cross entropy loss for neural speaker diarization", both Interspeech 2023), with its parameter
names, so that its checkpoints load unchanged. The sinc filters are those of asteroid-filterbanks'
ParamSincFB (Pariente et al., "Filterbank design for end-to-end speech separation", 2020).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.contract.case import Family, Variant
from compat.contract.graph import Graph, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.places import FIXTURES
from compat.contract.session import Session
from compat.inputs.weights import Rules
from compat.models.base import Model
from compat.models.parts import lstm as recurrence
from compat.models.parts.batches import in_batches
from compat.models.parts.pyannote import Published
from compat.models.parts.windows import Windows, window_at
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
WINDOWS = Windows(SAMPLES, SAMPLES)

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
        """Pairs of even and odd band-pass filters with learnt lower edges and widths."""

        window_: torch.Tensor
        n_: torch.Tensor

        def __init__(self, filters: int, length: int, least_hz: float = 50.0) -> None:
            super().__init__()
            self.least_hz = least_hz
            # Bands start with equal widths on the mel scale.
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
    """Return a copy of the network whose sinc layer is replaced by an equal convolution.

    A graph then holds the kernels as constants. Otherwise it would compute them at every call, and
    half precision cannot hold the phases from which they are computed.
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
    """Return :func:`pyannet`'s network in the form for graphs, with constant filters.

    It maps a waveform (batch, 1, 160000) to log-probabilities (batch, 589, 7) and their mean
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
            # One number per window, which is NaN or infinite if anything before it was.
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


PUBLISHED = Published(
    hub="pyannote/segmentation-3.0",
    rules=Rules(
        remedy="Only segmentation-3.0 (three speakers, four bidirectional LSTM layers of 128) "
        "fits: name a checkpoint of that model."
    ),
    build=pyannet,
    gains=SEEDED_GAINS,
    architecture="PyanNet",
    model_type="pyannote-segmentation",
)


def load(variant: str, weights: str, checkpoint: str) -> SegmentationModel:
    """Load the host side of a variant.

    Args:
        variant: a variant of :data:`FAMILY`; there is one.
        weights: ``trained`` or ``pretrained``.
        checkpoint: folder of the checkpoint, absolute or below ``fixtures/``.

    Raises:
        CheckpointError: the folder is no checkpoint of this architecture.
    """
    folder = FIXTURES / checkpoint  # An absolute path stays as it is.
    PUBLISHED.file(folder)
    return SegmentationModel(folder)


# Driver ----------------------------------------------------------------------------------------


class SegmentationModel(Model):
    """Windows of ten seconds side by side, each with its own local speakers."""

    task = SpeakerSegmentation()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def content(self) -> Any:
        return PUBLISHED.digest(self.folder)

    def graphs(self) -> tuple[Graph, ...]:
        return (segmentation_graph(lambda: self.network),)

    @cached_property
    def network(self) -> torch.nn.Module:
        """The torch module with its weights, float32."""
        return PUBLISHED.load(self.folder)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        with stopwatch("features"):
            windows = [WINDOWS.cut(item.audio) for item in items]
        with stopwatch("segmentation"):
            outputs = in_batches(
                session, "segmentation", {"waveform": np.concatenate(windows)[:, None]}
            )
        ends = np.cumsum([len(of_item) for of_item in windows])[:-1]
        with stopwatch("runs"):
            classes = np.split(outputs["log_probabilities"].argmax(axis=-1), ends)
            levels = np.split(outputs["level"].astype(np.float64), ends)
            return [
                {**encode(list(of_item)), "level": float(np.mean(level))}
                for of_item, level in zip(classes, levels, strict=True)
            ]

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        waveform = window_at(item.audio, 0, SAMPLES)[None, None]
        # Log-probabilities are judged as they are. They equal logits except for a constant per
        # frame, so errors of the network stay visible. Probabilities would hide errors wherever the
        # network is sure.
        found = in_batches(session, "segmentation", {"waveform": waveform}, ["log_probabilities"])
        return {"log_probabilities": found["log_probabilities"][0]}
