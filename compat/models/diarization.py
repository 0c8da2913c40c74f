"""Speaker diarization: who spoke when, in recordings of any length.

The pipeline is that of pyannote.audio's speaker-diarization-3.1 (Bredin, "pyannote.audio 2.1
speaker diarization pipeline: principle, benchmark, and recipe", Interspeech 2023): windows of ten
seconds are segmented into up to three local speakers each; an embedding is made of what each of
them says alone; the embeddings of all windows are clustered; and in every frame as many speakers
are taken as the windows over it count on average, those first whom most windows name. Two graphs
run on the target, everything between them is NumPy and SciPy on the host.

Two things differ from the published code: windows lie on whole frames, and the last one ends with
the recording instead of reaching into zeros, so that all their frames coincide.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compat.contract.case import Family, Variant
from compat.contract.digests import file_digest
from compat.contract.graph import Graph, Stopwatch
from compat.contract.item import Item, Prediction
from compat.contract.model_reference import ModelReference
from compat.contract.places import FIXTURES
from compat.contract.profile import Profile
from compat.contract.session import Session
from compat.inputs.checkpoints import find_checkpoint, verified
from compat.inputs.corpus import Corpus
from compat.inputs.features import HOP_LENGTH
from compat.models import resemblyzer, segmentation, wespeaker
from compat.models.base import Model
from compat.models.items import Items
from compat.models.parts.batches import in_batches
from compat.models.parts.windows import window_at
from compat.models.speaker_tracks import (
    FIRST_CENTRE,
    FRAME_STEP,
    FRAMES,
    LOCAL,
    RATE,
    Settings,
    assign,
    centres,
    reconstruct,
    to_segments,
)
from compat.models.tasks.diarization import Diarization
from compat.models.tasks.speaker_segmentation import SAMPLES as WINDOW
from compat.models.tasks.speaker_segmentation import powerset_masks

if TYPE_CHECKING:
    import torch

FAMILY = Family(
    name="diarization",
    task="diarization",
    row="Diarization",
    headline="diarization-synthetic",
    variants=(
        Variant(
            "diarization-synthetic",
            ("trained",),
            published=False,
            core=True,
            parameters=2.9,
            trained="checkpoints/segmentation-3.0-synthetic",
        ),
        Variant(
            "diarization-3.1",
            ("pretrained", "seeded"),
            parameters=8.1,
            checkpoint="pyannote/speaker-diarization-3.1",
        ),
    ),
)

BATCHES = (1, 4)
"""Windows, and pieces of speech, that go through a graph at once."""

AT_ONCE = 64
"""Windows whose features are held in memory."""

RESEMBLYZER = "package:Resemblyzer/resemblyzer"
PARTS = {
    "segmentation": "pyannote/segmentation-3.0",
    "embedding": "pyannote/wespeaker-voxceleb-resnet34-LM",
}
"""Subfolders of a checkpoint folder, and the checkpoints that the published pipeline names."""

TRACED_SECONDS = 0.5
"""Seconds of speech that a speaker needs for an embedding that is traced."""


SETTINGS: Mapping[str, Settings] = {
    # The published pipeline's: a window a second, distances between centroids of unit vectors.
    "diarization-3.1": Settings(59, "centroid", 0.7045654963945799, 12),
    "diarization-synthetic": Settings(148, "average", 0.27, 4, apart=1.0, clear=1.5),
}


def load(variant: str, weights: str, checkpoint: str) -> DiarizationModel:
    """Load the host side.

    Args:
        variant: a variant of :data:`FAMILY`.
        weights: ``trained``, ``pretrained`` or ``seeded``.
        checkpoint: ``trained``: the folder of the segmentation, absolute or below ``fixtures/``.
            ``pretrained``: a folder with the subfolders ``segmentation`` and ``embedding``; where
            it has none, as the published pipeline's own, both are looked for in the hub's cache.

    Raises:
        CheckpointError: a part is missing.
    """
    settings = SETTINGS[variant]
    if weights == "seeded":
        return DiarizationModel(settings, None, WindowVoices(None))
    folder = FIXTURES / checkpoint  # An absolute path stays as it is.
    if weights == "trained":
        segmentation.PUBLISHED.file(folder)
        encoder = find_checkpoint(RESEMBLYZER)
        verified(encoder / resemblyzer.FILE, resemblyzer.SHA256)
        return DiarizationModel(settings, folder, PartialVoices(encoder))
    own = all((folder / part).is_dir() for part in PARTS)
    parts = {part: folder / part if own else find_checkpoint(hub) for part, hub in PARTS.items()}
    segmentation.PUBLISHED.file(parts["segmentation"])
    wespeaker.PUBLISHED.file(parts["embedding"])
    return DiarizationModel(settings, parts["segmentation"], WindowVoices(parts["embedding"]))


def origin(family: Family, folder: Path | None) -> ModelReference | None:
    """Return the model that a part is by itself, named as its own cases name it.

    None for generated weights: those of a pipeline are nobody else's.
    """
    if folder is None:
        return None
    own = folder.is_relative_to(FIXTURES)
    checkpoint = folder.relative_to(FIXTURES).as_posix() if own else str(folder)
    weights = "trained" if own else "pretrained"
    return ModelReference(family.name, family.variants[0].name, weights, checkpoint)


# Windows -----------------------------------------------------------------------------------------


def window_starts(samples: int, step: int) -> list[int]:
    """First frames of the windows over so many samples, ``step`` frames apart; the last ends last.

    A frame is :data:`FRAME_STEP` samples. A recording shorter than a window has one.
    """
    last = -(-max(0, samples - WINDOW) // FRAME_STEP)
    # One that nearly coincides with the last would hear nothing new.
    regular = range(0, max(1, last - step // 2), step)
    return [*regular, last] if last else [0]


def window_of(samples: np.ndarray, start: int) -> np.ndarray:
    """Return a window (160000,) that starts at a frame, with zeros after the recording's end."""
    return window_at(samples, start * FRAME_STEP, WINDOW)


def masks_of(segments: Sequence[Sequence[Any]], start: float = 0.0) -> NDArray[np.bool_]:
    """Return who speaks in a window that starts at a time in seconds, (589, 3).

    The columns are the three speakers who speak most in it.
    """
    at = start + centres(FRAMES)
    spoken: dict[str, NDArray[np.bool_]] = {}
    for begin, end, speaker, *_ in segments:
        now = (begin <= at) & (at < end)
        spoken[speaker] = spoken.get(speaker, np.zeros(FRAMES, bool)) | now
    most = sorted(spoken.values(), key=lambda mask: -int(mask.sum()))[:LOCAL]
    silent = [np.zeros(FRAMES, bool)] * (LOCAL - len(most))
    return np.stack([*most, *silent], axis=1)


def alone(masks: NDArray[np.bool_], least: float) -> NDArray[np.bool_]:
    """Leave out the frames (windows, 589, 3) in which several speak, for whom enough is left.

    ``least`` is how many seconds are enough; others keep all that they say.
    """
    single = masks & (masks.sum(axis=2, keepdims=True) < 2)
    enough = single.sum(axis=1, keepdims=True) * FRAME_STEP >= least * RATE
    kept: NDArray[np.bool_] = np.where(enough, single, masks)
    return kept


# Embeddings --------------------------------------------------------------------------------------


class Voices(ABC):
    """Makes embeddings of what local speakers say in windows."""

    least: float
    """Seconds that a speaker must say alone for overlapped speech to be left out."""

    @abstractmethod
    def graph(self) -> Graph:
        """Return the graph that runs on the target."""

    @abstractmethod
    def content(self) -> str:
        """Return hex digits that identify the weights."""

    @abstractmethod
    def embed(
        self,
        session: Session,
        windows: Sequence[np.ndarray],
        masks: NDArray[np.bool_],
        stopwatch: Stopwatch,
    ) -> np.ndarray:
        """Return embeddings (windows, 3, 256); zeros for those who say too little.

        ``windows`` are audio (160000,), ``masks`` (windows, 589, 3) what each is heard in.
        """


class PartialVoices(Voices):
    """Resemblyzer's: the mean over pieces of 1.6 s of the speech, joined where it has pauses."""

    least = 0.6
    shortest = 0.3
    """Seconds of speech below which nobody can be recognised."""
    pieces = 3
    """Most pieces of one speaker in one window: other windows hold the rest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def graph(self) -> Graph:
        graph = resemblyzer.embedder_graph(lambda: self.network, BATCHES)
        return replace(graph, origin=origin(resemblyzer.FAMILY, self.folder))

    @cached_property
    def network(self) -> torch.nn.Module:
        return resemblyzer.load_network(self.folder)

    def content(self) -> str:
        return file_digest(self.folder / resemblyzer.FILE)

    def embed(
        self,
        session: Session,
        windows: Sequence[np.ndarray],
        masks: NDArray[np.bool_],
        stopwatch: Stopwatch,
    ) -> np.ndarray:
        rows: list[np.ndarray] = []
        owners: list[tuple[int, int]] = []
        with stopwatch("features"):
            for index, samples in enumerate(windows):
                if not masks[index].any():
                    continue
                mel = resemblyzer.mel_spectrogram(samples)
                for speaker in range(LOCAL):
                    made = self._pieces(samples, mel, masks[index, :, speaker])
                    rows += made
                    owners += [(index, speaker)] * len(made)
        sums = np.zeros((len(windows), LOCAL, resemblyzer.WIDTH))
        with stopwatch("embedding"):
            if rows:
                feeds = {"mel": rows}
                embedded = in_batches(session, "embedder", feeds, ["embedding"])
                for owner, row in zip(owners, embedded["embedding"], strict=True):
                    sums[owner] += row
        lengths = np.linalg.norm(sums, axis=2, keepdims=True)
        return sums / np.where(lengths == 0, 1.0, lengths)

    def _pieces(
        self, samples: np.ndarray, mel: np.ndarray, mask: NDArray[np.bool_]
    ) -> list[np.ndarray]:
        """Cut what one speaker says in a window into pieces (160, 40)."""
        hop, length = HOP_LENGTH, resemblyzer.PARTIAL_FRAMES
        # The frame of the segmentation that is nearest to each frame of 10 ms.
        at = np.rint((np.arange(WINDOW // hop) * hop - FIRST_CENTRE) / FRAME_STEP).astype(int)
        heard = mask[at.clip(0, FRAMES - 1)]
        speech = mel[: len(heard)][heard]
        if len(speech) * hop < self.shortest * RATE:
            return []
        # What the package does to a recording, done to what this speaker says of it.
        spoken = samples.reshape(-1, hop)[heard]
        level = np.abs(resemblyzer.normalised(spoken)).max() / max(np.abs(spoken).max(), 1e-12)
        speech = speech * np.float32(level**2)
        if len(speech) < length:
            return [np.resize(speech, (length, speech.shape[1]))]
        count = min(self.pieces, -(-len(speech) // length))
        starts = np.linspace(0, len(speech) - length, count).astype(int)
        return [speech[start : start + length] for start in starts]


class WindowVoices(Voices):
    """WeSpeaker's: one pass over a window serves its three speakers, each by a mask."""

    least = 400 / RATE
    """The published pipeline's: as much as the network needs to give anything, 25 ms."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def graph(self) -> Graph:
        graph = wespeaker.embedding_graph(lambda: self.network, BATCHES)
        return replace(graph, origin=origin(wespeaker.FAMILY, self.folder))

    @cached_property
    def network(self) -> torch.nn.Module:
        return wespeaker.PUBLISHED.load(self.folder)

    def content(self) -> str:
        return wespeaker.PUBLISHED.digest(self.folder)

    def embed(
        self,
        session: Session,
        windows: Sequence[np.ndarray],
        masks: NDArray[np.bool_],
        stopwatch: Stopwatch,
    ) -> np.ndarray:
        found = np.zeros((len(windows), LOCAL, wespeaker.WIDTH))
        spoken = np.flatnonzero(masks.any(axis=(1, 2))).tolist()
        with stopwatch("features"):
            rows = [wespeaker.fbank(windows[index]) for index in spoken]
        with stopwatch("embedding"):
            if rows:
                heard = [masks[index].T.astype(np.float32) for index in spoken]
                feeds = {"fbank": rows, "masks": heard}
                found[spoken] = in_batches(session, "embedding", feeds)["embeddings"]
        said: NDArray[np.bool_] = np.any(masks, axis=1, keepdims=True)
        return np.where(said.transpose(0, 2, 1), found, 0.0)


# Driver ------------------------------------------------------------------------------------------


class DiarizationModel(Model):
    """Segmentation, embeddings, clustering, reconstruction.

    A prediction is ``{"segments": [[start, end, speaker], …], "level": …}``, times in seconds;
    the level is NaN or infinite if anything that a graph gave was.
    """

    task = Diarization()

    def __init__(self, settings: Settings, folder: Path | None, voices: Voices) -> None:
        self.settings = settings
        self.folder = folder
        self.voices = voices

    def content(self) -> Any:
        weights = segmentation.PUBLISHED.digest(self.folder)
        return [weights, type(self.voices).__name__, self.voices.content(), asdict(self.settings)]

    def graphs(self) -> tuple[Graph, ...]:
        graph = segmentation.segmentation_graph(lambda: self.network, BATCHES)
        segment = replace(graph, origin=origin(segmentation.FAMILY, self.folder))
        return (segment, self.voices.graph())

    @cached_property
    def network(self) -> torch.nn.Module:
        return segmentation.PUBLISHED.load(self.folder)

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        if self.folder:
            return super().items(corpus, profile)
        # Generated weights know nobody: they get speech for time and memory, and windows of it for
        # numerics.
        sets = corpus.choose(self.task.sets, self.task.fact)
        speech = next((one.excerpts() for one in sets.values()), corpus.speech)
        joined = np.concatenate([item.audio for item in speech.items(self.sample_rate, 24)])
        parts = [
            Item.from_audio(f"window-{index}", joined[index * WINDOW : (index + 1) * WINDOW])
            for index in range(min(3, -(-len(joined) // WINDOW)))
        ]
        return Items({}, parts, [Item.from_audio("two-windows", joined[: 2 * WINDOW])])

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        starts = [window_starts(len(item.audio), self.settings.step) for item in items]
        windows = [
            window_of(item.audio, start)
            for item, firsts in zip(items, starts, strict=True)
            for start in firsts
        ]
        found = []
        for start in range(0, len(windows), AT_ONCE):
            group = windows[start : start + AT_ONCE]
            with stopwatch("segmentation"):
                scored = self._segment(session, group)
            spoken = powerset_masks(scored).astype(bool)
            single = alone(spoken, self.voices.least)
            found.append(
                (scored, spoken, single, self.voices.embed(session, group, single, stopwatch))
            )
        scores, masks, heard, embeddings = map(np.concatenate, zip(*found, strict=True))
        predictions: list[Prediction] = []
        first = 0
        with stopwatch("clustering"):
            for item, firsts in zip(items, starts, strict=True):
                part = slice(first, first + len(firsts))
                first += len(firsts)
                labels = assign(embeddings[part], heard[part], self.settings)
                active = reconstruct(masks[part], firsts, labels)
                segments = to_segments(active, item.seconds, self.settings)
                # Anything that is no number makes the level none.
                level = float(scores[part].mean()) + float(np.square(embeddings[part]).sum())
                predictions.append({"segments": segments, "level": level})
        return predictions

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        """Return log-probabilities of the first window, and embeddings of who speaks in it.

        Who does is taken from the guide: a frame more or less of somebody is another input.
        """
        samples = window_of(item.audio, 0)
        masks = masks_of(guide["segments"])[None]
        # In place of those who say too little, everything: of every window there are three rows.
        little = masks.sum(axis=1, keepdims=True) * FRAME_STEP < TRACED_SECONDS * RATE
        embedded = self.voices.embed(session, [samples], masks | little, Stopwatch())
        return {"segmentation": self._segment(session, [samples])[0], "embeddings": embedded[0]}

    def _segment(self, session: Session, windows: Sequence[np.ndarray]) -> np.ndarray:
        """Return log-probabilities (windows, 589, 7)."""
        feeds = {"waveform": [samples[None] for samples in windows]}
        found = in_batches(session, "segmentation", feeds, ["log_probabilities"])
        return found["log_probabilities"]
