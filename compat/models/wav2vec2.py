"""Wav2Vec2: speech recognition by an encoder of the waveform and CTC.

Source: Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech
Representations", 2020. Module structure and parameter names are those of the Hugging Face
implementation, so that its checkpoints load unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.contract.case import Family
from compat.contract.graph import Graph, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.contract.session import Session
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.corpus import Corpus
from compat.inputs.weights import POSITIONS
from compat.models.items import Items
from compat.models.parts import filled_windows
from compat.models.parts.ctc import Vocabulary, read_vocabulary
from compat.models.parts.hugging_face import (
    HuggingFaceModel,
    published,
    read_checkpoint,
    read_features,
    stand_in,
)
from compat.models.parts.long_audio import Pauses
from compat.models.parts.wave_encoder import fold_positions, frame_count, normalised
from compat.models.tasks.asr import Transcription

if TYPE_CHECKING:
    import torch

FAMILY = Family(
    name="wav2vec2",
    task="asr",
    row="Wav2Vec2",
    headline="wav2vec2-base",
    stand_in="wav2vec2-nano",
    variants=(
        stand_in("wav2vec2-nano", 1.0),
        published("wav2vec2-base", "facebook/wav2vec2-base-960h", 94.4, core=True),
        published("wav2vec2-large-960h", "facebook/wav2vec2-large-960h", 315.5),
        published("wav2vec2-large-lv60", "facebook/wav2vec2-large-960h-lv60-self", 315.5),
    ),
)

# Settings of Hugging Face's Wav2Vec2Config. Others have its defaults, which are those of the base.
_STRIDES = {"conv_kernel": [10, 3, 3, 3, 3, 2, 2], "conv_stride": [5, 2, 2, 2, 2, 2, 2]}
_BASE = {**_STRIDES, "vocab_size": 32, "feat_extract_norm": "group"}
_LARGE = {
    **_BASE,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_LV60 = {**_LARGE, "feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "wav2vec2-base": _BASE,
    "wav2vec2-large-960h": _LARGE,
    "wav2vec2-large-lv60": _LV60,
}

BATCHES = (1, 4)
LARGE_BATCHES = (8, 16, 24, 32)
"""Large batch sizes, up to those that guides recommend for GPUs. A driver uses them only if there
are as many inputs."""
SIZES = (*BATCHES, *LARGE_BATCHES)

WINDOWS = (4, 10)
"""Seconds of audio that published sizes have points for; shorter audio is padded."""
NANO_WINDOWS = (4,)
"""Seconds of the stand-in's point. Its training had no longer audio, and any amount of padding."""

CONTEXT = 16
"""Frames (0.32 s) that a window sees before and after the part that is taken from it."""
PAUSE = 5
"""Number of adjacent frames (0.1 s) whose common level decides where long audio is cut."""

# GELU leaves 0.43 of the variance of each convolution, which the first factor makes up for. Nearly
# uniform attention adds the same to all frames, which would be equal after twelve layers. With
# sharp attention, rounding errors would change everything.
SEEDED_GAINS: Mapping[str, float | None] = {
    "feature_extractor": 1.5,
    "q_proj": 1.5,
    "k_proj": 1.5,
    "attention.out_proj": 0.3,
}


@dataclass(frozen=True)
class Chunk:
    """A part of a recording that fits a window."""

    samples: np.ndarray
    """float32 (samples,), as recorded."""
    first: int
    """First frame that is used; earlier frames are taken from the chunk before."""
    last: int
    """The frame after the last one that is used."""


def load(variant: str, weights: str, checkpoint: str) -> Wav2Vec2Model:
    """Load the host side of a variant.

    Args:
        variant: a variant of :data:`FAMILY`.
        weights: ``seeded``, ``trained`` or ``pretrained``.
        checkpoint: folder of the checkpoint, absolute or below ``fixtures/``; empty for seeded.

    Raises:
        CheckpointError: the checkpoint is of another architecture, or lacks files.
    """
    if weights == "seeded":
        return Wav2Vec2Model(PUBLISHED[variant], WINDOWS)
    folder, config = read_checkpoint(checkpoint, "wav2vec2", "Wav2Vec2", variant, _BASE)
    if config.get("add_adapter"):
        raise CheckpointError(
            f"{folder / 'config.json'} has add_adapter: convolutions behind the encoder, which "
            "this suite does not run. Name a checkpoint that was fine-tuned without them."
        )
    features = read_features(folder, Wav2Vec2Model.sample_rate)
    return Wav2Vec2Model(
        config,
        NANO_WINDOWS if weights == "trained" else WINDOWS,
        folder,
        read_vocabulary(folder, int(config["vocab_size"])),
        normalize=bool(features.get("do_normalize", True)),
    )


class Wav2Vec2Model(HuggingFaceModel):
    """Greedy transcription; long audio is cut into overlapping windows."""

    architecture = "Wav2Vec2ForCTC"
    gains = SEEDED_GAINS
    needless = (*POSITIONS, "masked_spec_embed")  # Only training masks inputs.

    def __init__(
        self,
        config: Mapping[str, Any],
        windows: tuple[int, ...],
        folder: Path | None = None,
        vocabulary: Vocabulary | None = None,
        *,
        normalize: bool = True,
    ) -> None:
        super().__init__(config, folder)
        self.windows = windows
        self.vocabulary = vocabulary
        self.normalize = normalize
        # The stand-in knows only a few words.
        self.task = Transcription(open_vocabulary=windows != NANO_WINDOWS)
        self.hop = hop = prod(config["conv_stride"])
        window = windows[-1] * self.sample_rate
        self.pauses = Pauses(window, window // 3, CONTEXT * hop, PAUSE * hop, grid=hop, last=False)
        # Checkpoints with group normalisation over time, which the padding changes anyway, were
        # trained without a mask. Those with layer normalisation were trained with one.
        self.masked = config["feat_extract_norm"] == "layer"

    def content(self) -> Any:
        return [super().content(), self.windows]

    def adapt(self, network: Any) -> None:
        fold_positions(network.wav2vec2)

    # Graphs ------------------------------------------------------------------------------------

    def graphs(self) -> tuple[Graph, ...]:
        # The shortest window comes first, because the first point is always compiled.
        points = {
            f"b{batch}-{seconds}s": {
                "batch": batch,
                "samples": seconds * self.sample_rate,
                "frames": frame_count(self.config, seconds * self.sample_rate),
            }
            for seconds in self.windows
            for batch in SIZES
        }
        inputs = {"samples": Tensor(("batch", "samples"))}
        if self.masked:
            inputs["mask"] = Tensor(("batch", "frames"))
        return (
            Graph(
                "recogniser",
                inputs,
                ("best", "level", "features", "logits"),
                points,
                self.recogniser,
                scalar="level",
                large_batches=LARGE_BATCHES,
            ),
        )

    def recogniser(self) -> torch.nn.Module:
        from compat.models.wav2vec2_network import Recogniser

        return Recogniser(self.network)

    # Driver ------------------------------------------------------------------------------------

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        if self.folder:
            return super().items(corpus, profile)
        window = self.windows[-1 if profile.whole else 0] * self.sample_rate
        number = profile.pick(2, 2, 8)
        chosen = filled_windows.cut(corpus.speech, self.sample_rate, window, number)
        return Items({}, chosen, chosen)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        with stopwatch("features"):
            chunks = [(i, chunk) for i, item in enumerate(items) for chunk in self.chunks(item)]
        best: dict[int, np.ndarray] = {}
        levels = [0.0] * len(items)
        for point, batch in self._batches([chunk for _, chunk in chunks], len(items)):
            with stopwatch("features"):
                feeds = self._feeds([chunks[index][1] for index in batch], point)
            with stopwatch("recogniser"):
                outputs = session.run("recogniser", feeds, point, ("best", "level"))
                session.synchronize()
                found, level = outputs["best"].numpy(), outputs["level"].numpy()
            for row, index in enumerate(batch):
                item, chunk = chunks[index]
                best[index] = found[row, chunk.first : chunk.last].copy()
                levels[item] += float(level[row])
        with stopwatch("text"):
            frames: list[list[int]] = [[] for _ in items]
            for index, (item, _) in enumerate(chunks):
                frames[item] += best[index].tolist()
            return [
                {**self._prediction(of_item), "level": level}
                for of_item, level in zip(frames, levels, strict=True)
            ]

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        chunk = self.chunks(item)[0]
        point = self._point(chunk, 1)
        outputs = session.run(
            "recogniser", self._feeds([chunk], point), point, ("features", "logits")
        )
        return {name: handle.numpy()[0, : chunk.last].copy() for name, handle in outputs.items()}

    def chunks(self, item: Item) -> list[Chunk]:
        """Cut a recording in pauses into chunks that fit the longest window.

        Cuts lie between two frames. The chunks on either side reach :data:`CONTEXT` frames beyond
        the cut, so that no frame that is used is near an edge.
        """
        *pieces, end = self.pauses.pieces(item.audio)
        chunks = [
            Chunk(piece, CONTEXT if index else 0, len(piece) // self.hop - CONTEXT)
            for index, piece in enumerate(pieces)
        ]
        return [*chunks, Chunk(end, CONTEXT if chunks else 0, frame_count(self.config, len(end)))]

    def _point(self, chunk: Chunk, batch: int) -> str:
        seconds = len(chunk.samples) / self.sample_rate
        return f"b{batch}-{next(window for window in self.windows if window >= seconds)}s"

    def _batches(self, chunks: Sequence[Chunk], items: int) -> list[tuple[str, list[int]]]:
        """Group chunks that have the same window; return pairs of a point and indices of chunks."""
        size = next((batch for batch in SIZES if batch >= items), SIZES[-1])
        by_point: dict[str, list[int]] = {}
        for index, chunk in enumerate(chunks):
            by_point.setdefault(self._point(chunk, size), []).append(index)
        return [
            (point, indices[start : start + size])
            for point, indices in by_point.items()
            for start in range(0, len(indices), size)
        ]

    def _feeds(self, chunks: Sequence[Chunk], point: str) -> dict[str, np.ndarray]:
        shapes = self.graphs()[0].examples(point)
        feeds = {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}
        for row, chunk in enumerate(chunks):
            feeds["samples"][row, : len(chunk.samples)] = (
                normalised(chunk.samples) if self.normalize else chunk.samples
            )
            if self.masked:
                feeds["mask"][row, : frame_count(self.config, len(chunk.samples))] = 1.0
        return feeds

    def _prediction(self, frames: Sequence[int]) -> Prediction:
        if self.vocabulary is None:
            # Generated weights write no text. Shares of outputs are compared instead, because they
            # hardly change if rounding tips a frame near a tie.
            counts = np.bincount(frames, minlength=self.config["vocab_size"])
            return {"shares": (counts / len(frames)).tolist()}
        tokens, text = self.vocabulary.decode(frames)
        return {"tokens": tokens, "text": text}
