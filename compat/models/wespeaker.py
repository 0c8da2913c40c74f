"""WeSpeaker ResNet34: speaker embeddings of up to three speakers in windows of ten seconds.

Source: Wang et al., "Wespeaker: A research and production oriented speaker embedding learning
toolkit", ICASSP 2023, as wrapped by pyannote.audio 3.1 (``WeSpeakerResNet34``), with its parameter
names, so that the checkpoint ``pyannote/wespeaker-voxceleb-resnet34-LM`` loads unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compat.contract.case import Family, Variant
from compat.contract.graph import Graph, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.contract.session import Session
from compat.inputs import kaldi
from compat.inputs.corpus import Corpus
from compat.inputs.generator import sum_to_zero
from compat.inputs.weights import Rules
from compat.models.base import Model
from compat.models.items import Items
from compat.models.parts.batches import in_batches
from compat.models.parts.pyannote import Published
from compat.models.parts.windows import Windows, filled
from compat.models.tasks.speaker_embedding import SpeakerEmbedding, prediction

if TYPE_CHECKING:
    import torch

FAMILY = Family(
    name="wespeaker",
    task="speaker-embedding",
    row="Speaker embedding",
    headline="wespeaker-resnet34",
    variants=(
        Variant(
            "wespeaker-resnet34",
            ("pretrained", "seeded"),
            # Without published weights here, Resemblyzer's decide the row of the matrix, so that
            # generated ones need not run in the core profile.
            core="pretrained",
            parameters=6.6,
            checkpoint="pyannote/wespeaker-voxceleb-resnet34-LM",
        ),
    ),
)

SAMPLES = 160_000
"""Samples of a window: 10 s."""
FRAMES = 998
"""Frames of a window, 10 ms apart, each of which sees 25 ms."""
SPEAKERS = 3
"""Number of masks of a window: one pass of the network serves three speakers."""
MASK_FRAMES = 589
"""Frames of a mask, which are those of pyannote's segmentation."""
STRIDE = 8
POOLED_FRAMES = 125
"""Frames that are left after the network's strides."""
STRETCH = 20
"""Frames of a mask (a third of a second) after which the traced masks switch between on and off."""
WIDTH = 256

BATCHES = (1, 4)
WINDOWS = Windows(SAMPLES, SAMPLES)

# Normalisations stay the identity. Rectifiers halve the power, and the larger factor of
# convolutions restores it.
SEEDED_GAINS: Mapping[str, float | None] = {"bn": None, "shortcut.1": None, "conv1": 1.4}


def load(variant: str, weights: str, checkpoint: str) -> WeSpeakerModel:
    """Load the host side; ``checkpoint`` is a folder, empty for seeded weights.

    Raises:
        CheckpointError: the folder has no weights of this architecture.
    """
    if weights == "seeded":
        return WeSpeakerModel(None)
    folder = Path(checkpoint)
    PUBLISHED.file(folder)
    return WeSpeakerModel(folder)


# Features ----------------------------------------------------------------------------------------


def fbank(samples: np.ndarray) -> NDArray[np.float32]:
    """Return the features (998, 80) of a window: audio (samples,) at 16 kHz of at most 10 s.

    They are Kaldi's log mel filter bank (Hamming window, no dither) of the waveform times 2^15,
    less the mean over the frames. Shorter audio has fewer frames, which are followed by zeros; the
    mean is taken over the audio's frames alone. Audio shorter than one frame is lengthened by
    zeros.
    """
    wave = np.zeros(max(kaldi.WINDOW, min(len(samples), SAMPLES)), np.float32)
    wave[: len(samples)] = samples[:SAMPLES]
    frames = kaldi.fbank(wave, "hamming")
    features = np.zeros((FRAMES, kaldi.MELS), np.float32)
    features[: len(frames)] = frames - frames.mean(axis=0)
    return features


def whole(samples: int) -> NDArray[np.float32]:
    """Return masks (3, 589) that each cover all audio of a window with so many samples."""
    frames = min(max(kaldi.frame_count(samples), 1), FRAMES)
    pooled = -(-frames // STRIDE)
    masks = np.zeros((SPEAKERS, MASK_FRAMES), np.float32)
    masks[:, : pooled * MASK_FRAMES // POOLED_FRAMES] = 1.0
    return masks


# Network -----------------------------------------------------------------------------------------


def resnet34() -> torch.nn.Module:
    """Return the published architecture, as initialised by torch."""
    from compat.models.wespeaker_network import WeSpeakerResNet34

    return WeSpeakerResNet34(WIDTH)


def embedding_graph(network: Callable[[], torch.nn.Module], batches: Sequence[int]) -> Graph:
    """Return the graph ``embedding``: fbank and masks of windows to embeddings (batch, 3, 256)."""
    return Graph(
        "embedding",
        {
            "fbank": Tensor(("batch", FRAMES, kaldi.MELS)),
            "masks": Tensor(("batch", SPEAKERS, MASK_FRAMES)),
        },
        ("embeddings",),
        {f"b{batch}": {"batch": batch} for batch in batches},
        network,
    )


# Weights -----------------------------------------------------------------------------------------


# Generated kernels sum to zero. Otherwise the differences between the embeddings of different
# speech would be 22 dB below the embeddings themselves; so they are 2 dB below.
PUBLISHED = Published(
    hub="pyannote/wespeaker-voxceleb-resnet34-LM",
    rules=Rules(
        needless=("num_batches_tracked",),
        remedy="It is no WeSpeaker ResNet34 as pyannote.audio saves it: name a folder of "
        "pyannote/wespeaker-voxceleb-resnet34-LM.",
    ),
    build=resnet34,
    gains=SEEDED_GAINS,
    finish=sum_to_zero,
)


# Driver ------------------------------------------------------------------------------------------


class WeSpeakerModel(Model):
    """Embeds a recording; the embedding of a long one is the mean over its windows."""

    task = SpeakerEmbedding()

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def content(self) -> Any:
        return PUBLISHED.digest(self.folder)

    def graphs(self) -> tuple[Graph, ...]:
        return (embedding_graph(lambda: self.network, BATCHES),)

    @cached_property
    def network(self) -> torch.nn.Module:
        return PUBLISHED.load(self.folder)

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        if self.folder:
            return super().items(corpus, profile)
        # Generated weights know no speakers: they get windows filled with speech.
        chosen = filled(corpus.speech.items(self.sample_rate), SAMPLES, profile.pick(2, 2, 8))
        return Items({}, chosen, chosen)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        starts = [WINDOWS.starts(len(item.audio)) for item in items]
        with stopwatch("features"):
            windows = [
                item.audio[start : start + SAMPLES]
                for item, firsts in zip(items, starts, strict=True)
                for start in firsts
            ]
            feeds = {"fbank": [fbank(one) for one in windows]}
            feeds["masks"] = [whole(len(one)) for one in windows]
        with stopwatch("embedding"):
            embeddings = in_batches(session, "embedding", feeds)["embeddings"][:, 0]
        # Windows are weighted by their length, because a short last window says little.
        lengths = np.array([[len(one)] for one in windows])
        ends = np.cumsum([len(firsts) for firsts in starts])[:-1]
        sums = np.split(embeddings.astype(np.float64) * lengths, ends)
        return [
            prediction(one.sum(axis=0) / len(item.audio))
            for one, item in zip(sums, items, strict=True)
        ]

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        samples = item.audio[:SAMPLES]
        masks = whole(len(samples))
        spoken = int(masks[0].sum())
        masks[1, -(-spoken // 2) :] = 0.0
        masks[2] *= np.arange(MASK_FRAMES) // STRETCH % 2 == 0
        feeds = {"fbank": fbank(samples)[None], "masks": masks[None]}
        embeddings = in_batches(session, "embedding", feeds)["embeddings"][0]
        return dict(zip(("whole", "half", "stretches"), embeddings, strict=True))
