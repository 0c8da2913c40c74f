"""Basic Pitch: the notes of music, whatever plays it, by convolutions over windows of 2 s.

Source: Bittner et al., "A Lightweight Instrument-Agnostic Model for Polyphonic Note Transcription
and Multipitch Estimation", ICASSP 2022, in the form of the package basic-pitch 0.4.0 (Spotify,
Apache-2.0). Weights are those of the ONNX file that it ships; its code is never imported. Windows
and notes are the package's. Its bends of pitch are left out, as no metric judges them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compat.contract.case import Family, Variant
from compat.contract.graph import Graph, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.session import Session
from compat.inputs.checkpoints import verified
from compat.models.base import Model
from compat.models.basic_pitch_notes import FRAME, SAMPLE_RATE, SAMPLES, frame_times, notes
from compat.models.parts.batches import in_batches
from compat.models.parts.windows import window_at
from compat.models.tasks.music_transcription import MusicTranscription, prediction

if TYPE_CHECKING:
    import torch

FAMILY = Family(
    name="basic-pitch",
    task="music-transcription",
    row="Music transcription",
    headline="basic-pitch",
    variants=(
        Variant(
            "basic-pitch",
            ("pretrained",),
            core=True,
            parameters=0.07,
            checkpoint="package:basic-pitch/basic_pitch/saved_models/icassp_2022",
        ),
    ),
)

FILE = "nmp.onnx"
SHA256 = "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec"

OVERLAP = 30
"""Frames that two windows share, of which each gives half."""
STEP = SAMPLES - OVERLAP * FRAME
"""Samples from one window to the next."""
FRAMES_A_SECOND = SAMPLE_RATE // FRAME
"""Frames that are kept of a second: 86, although there are 86.13."""

BATCHES = (1, 4)
OUTPUTS = ("note", "onset", "contour")


def load(variant: str, weights: str, checkpoint: str) -> BasicPitchModel:
    """Load the host side; ``checkpoint`` is the package's folder, which holds ``nmp.onnx``.

    Raises:
        CheckpointError: the file is missing, or not the published one.
    """
    folder = Path(checkpoint)
    verified(folder / FILE, SHA256)
    return BasicPitchModel(folder)


def windows(audio: np.ndarray) -> np.ndarray:
    """Return windows (windows, 43844) of audio (samples,), half an overlap of zeros before it."""
    padded = np.pad(audio, (OVERLAP // 2 * FRAME, 0))
    return np.stack([window_at(padded, start, SAMPLES) for start in range(0, len(padded), STEP)])


def joined(posteriorgrams: np.ndarray, samples: int) -> np.ndarray:
    """Return the frames (frames, bins) of a recording.

    Args:
        posteriorgrams: of the recording's :func:`windows`, (windows, 172, bins).
        samples: length of the recording.
    """
    half = OVERLAP // 2
    inner = posteriorgrams[:, half:-half]
    kept = int(samples * (FRAMES_A_SECOND / SAMPLE_RATE))
    return inner.reshape(-1, inner.shape[-1])[:kept]


class BasicPitchModel(Model):
    """Posteriorgrams of windows that overlap, joined, and the notes in them."""

    sample_rate = SAMPLE_RATE
    task = MusicTranscription()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def content(self) -> str:
        return SHA256

    def graphs(self) -> tuple[Graph, ...]:
        return (
            Graph(
                "posteriorgrams",
                {"waveform": Tensor(("batch", SAMPLES))},
                OUTPUTS,
                {f"b{batch}": {"batch": batch} for batch in BATCHES},
                lambda: self.network,
                windowed=True,
            ),
        )

    @cached_property
    def network(self) -> torch.nn.Module:
        """The torch module with the published weights, float32."""
        from compat.models.basic_pitch_network import read

        return read(self.folder / FILE)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        with stopwatch("features"):
            cut = [windows(item.audio) for item in items]
        with stopwatch("posteriorgrams"):
            feeds = {"waveform": np.concatenate(cut)}
            heard = in_batches(session, "posteriorgrams", feeds, OUTPUTS[:2])
        ends = np.cumsum([len(part) for part in cut])[:-1]
        with stopwatch("notes"):
            return [
                _prediction(*(joined(part, len(item.audio)) for part in parts))
                for item, *parts in zip(
                    items, *(np.split(heard[name], ends) for name in OUTPUTS[:2]), strict=True
                )
            ]

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        heard = in_batches(session, "posteriorgrams", {"waveform": windows(item.audio)})
        return {name: joined(heard[name], len(item.audio)) for name in OUTPUTS}


def _prediction(note: np.ndarray, onset: np.ndarray) -> Prediction:
    times = frame_times(len(note))
    found = notes(note, onset)
    level = float(note.mean(dtype=np.float64)) if note.size else 0.0
    return prediction([(times[start], times[end], *of) for start, end, *of in found], level)
