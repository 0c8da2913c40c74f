"""Resemblyzer: speaker embeddings by a three-layer LSTM over windows of 1.6 seconds.

Source: Wan et al., "Generalized End-to-End Loss for Speaker Verification", 2018, in the form of
the package Resemblyzer 0.1.4, whose published weights are used; its code is never imported.
Features and windows are the package's, with one difference: the package also cuts long silences
with WebRTC's voice activity detector, and this suite does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compat.contract.case import Family, Variant
from compat.contract.graph import Graph, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.session import Session
from compat.inputs.checkpoints import verified
from compat.inputs.features import HOP_LENGTH, N_FFT, mel_filterbank, power_spectrogram
from compat.inputs.weights import Rules, fill_from_state
from compat.models.base import Model
from compat.models.parts.batches import in_batches
from compat.models.tasks.speaker_embedding import SpeakerEmbedding, prediction

if TYPE_CHECKING:
    import torch

FAMILY = Family(
    name="resemblyzer",
    task="speaker-embedding",
    row="Speaker embedding",
    headline="resemblyzer",
    variants=(
        Variant(
            "resemblyzer",
            ("pretrained",),
            core=True,
            parameters=1.4,
            checkpoint="package:Resemblyzer/resemblyzer",
        ),
    ),
)

FILE = "pretrained.pt"
SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"

MELS = 40
WIDTH = 256
PARTIAL_FRAMES = 160
"""Frames of 10 ms in a window."""
PARTIAL_STEP = 77
"""Frames from one window to the next: 1.3 windows a second."""
COVERAGE = 0.75
"""Share of the last window that must hold audio, unless it is the only one."""
LEVEL_DBFS = -30.0
"""Level in dBFS to which quieter recordings are raised; louder ones stay as they are."""

BATCHES = (1, 4)


def load(variant: str, weights: str, checkpoint: str) -> ResemblyzerModel:
    """Load the host side; ``checkpoint`` is the package's folder, which holds ``pretrained.pt``.

    Raises:
        CheckpointError: the file is missing, or not the published one.
    """
    folder = Path(checkpoint)
    verified(folder / FILE, SHA256)
    return ResemblyzerModel(folder)


def normalised(samples: np.ndarray) -> np.ndarray:
    """Raise a quiet recording (samples,) to -30 dBFS; silence stays silent."""
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    gain = 10.0 ** (LEVEL_DBFS / 20.0) / level if level else 1.0
    return samples * np.float32(gain) if gain > 1.0 else samples


def mel_spectrogram(samples: np.ndarray) -> NDArray[np.float32]:
    """Return mel power, without logarithm, (1 + samples // 160, 40), of audio (samples,) at 16 kHz.

    It is that of librosa's ``melspectrogram`` since 0.9: periodic Hann window of 400 samples
    centred on multiples of 160, zeros beyond the ends, filters with Slaney's scale and area.
    """
    power = power_spectrogram(np.pad(samples.astype(np.float64), N_FFT // 2))
    return (power @ mel_filterbank(MELS)).astype(np.float32)


def partial_starts(samples: int) -> list[int]:
    """Return the first frame of each window that covers a recording of so many samples."""
    frames = -(-(samples + 1) // HOP_LENGTH)
    starts = list(range(0, max(1, frames - PARTIAL_FRAMES + PARTIAL_STEP + 1), PARTIAL_STEP))
    covered = (samples - starts[-1] * HOP_LENGTH) / (PARTIAL_FRAMES * HOP_LENGTH)
    return starts[:-1] if covered < COVERAGE and len(starts) > 1 else starts


def partials(samples: np.ndarray) -> NDArray[np.float32]:
    """Return the features of a recording (samples,) by window, (windows, 160, 40)."""
    starts = partial_starts(len(samples))
    end = (starts[-1] + PARTIAL_FRAMES) * HOP_LENGTH
    level = normalised(samples)
    mel = mel_spectrogram(np.pad(level, (0, max(0, end - len(level)))))
    return np.stack([mel[start : start + PARTIAL_FRAMES] for start in starts])


def load_network(folder: Path) -> torch.nn.Module:
    """Return the network with the published weights of a folder, float32.

    Raises:
        CheckpointError: the file is missing, or not the published one.
    """
    import torch

    from compat.models.resemblyzer_network import VoiceEncoder

    path = verified(folder / FILE, SHA256)
    state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    network = VoiceEncoder(MELS, WIDTH)
    # The file also holds the scale and offset of the training loss.
    fill_from_state(network, path, state, Rules(needless=("similarity_weight", "similarity_bias")))
    return network


def embedder_graph(network: Callable[[], torch.nn.Module], batches: Sequence[int]) -> Graph:
    """Return the graph ``embedder``: mel (batch, 160, 40) to embedding (batch, 256)."""

    def module() -> torch.nn.Module:
        from compat.models.resemblyzer_network import exportable

        return exportable(network())

    return Graph(
        "embedder",
        {"mel": Tensor(("batch", PARTIAL_FRAMES, MELS))},
        ("embedding", "raw", "hidden"),
        {f"b{batch}": {"batch": batch} for batch in batches},
        module,
        windowed=True,
    )


class ResemblyzerModel(Model):
    """Embeds a recording: the mean of its windows' embeddings, scaled to length one."""

    task = SpeakerEmbedding()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def content(self) -> str:
        return SHA256

    def graphs(self) -> tuple[Graph, ...]:
        return (embedder_graph(lambda: self.network, BATCHES),)

    @cached_property
    def network(self) -> torch.nn.Module:
        return load_network(self.folder)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        with stopwatch("features"):
            windows = [partials(item.audio) for item in items]
        with stopwatch("embedder"):
            feeds = {"mel": np.concatenate(windows)}
            embedded = in_batches(session, "embedder", feeds, ["embedding"])["embedding"]
        ends = np.cumsum([len(part) for part in windows])
        means = [part.mean(axis=0) for part in np.split(embedded, ends[:-1])]
        lengths = [max(float(np.linalg.norm(mean)), 1e-6) for mean in means]
        return [prediction(mean / length) for mean, length in zip(means, lengths, strict=True)]

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        return in_batches(session, "embedder", {"mel": partials(item.audio)}, ["hidden", "raw"])
