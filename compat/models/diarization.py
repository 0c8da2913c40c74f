"""Speaker diarization: who spoke when, in recordings of any length.

The pipeline is that of pyannote.audio's speaker-diarization-3.1 (Bredin, "pyannote.audio 2.1
speaker diarization pipeline: principle, benchmark, and recipe", Interspeech 2023). Windows of ten
seconds are segmented into up to three local speakers each. An embedding is made of what each local
speaker says alone. The embeddings of all windows are clustered. In every frame the number of
speakers is the average over the windows that cover it; the speakers whom most windows name are
taken first. Two graphs run on the target, everything between them is NumPy and SciPy on the host.

Two things differ from the published code, so that the frames of all windows coincide: windows begin
on whole frames, and the last window ends with the recording instead of reaching into zeros.
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
"""Batch sizes of the graphs: numbers of windows, or of pieces of speech."""

AT_ONCE = 64
"""Largest number of windows whose features are held in memory at once."""

RESEMBLYZER = "package:Resemblyzer/resemblyzer"
PARTS = {
    "segmentation": "pyannote/segmentation-3.0",
    "embedding": "pyannote/wespeaker-voxceleb-resnet34-LM",
}
"""Subfolders of a checkpoint folder, with the checkpoints that the published pipeline names."""

TRACED_SECONDS = 0.5
"""Seconds of speech that a local speaker needs for the embedding to be traced."""


SETTINGS: Mapping[str, Settings] = {
    # Settings of the published pipeline: a window every second (59 frames), and distances between
    # centroids of unit vectors.
    "diarization-3.1": Settings(59, "centroid", 0.7045654963945799, 12),
    "diarization-synthetic": Settings(148, "average", 0.27, 4, apart=1.0, clear=1.5),
}


def load(variant: str, weights: str, checkpoint: str) -> DiarizationModel:
    """Load the host side.

    Args:
        variant: a variant of :data:`FAMILY`.
        weights: ``trained``, ``pretrained`` or ``seeded``.
        checkpoint: ``trained``: the folder of the segmentation, absolute or below ``fixtures/``.
            ``pretrained``: a folder with the subfolders ``segmentation`` and ``embedding``. If it
            has none, like the published pipeline's own folder, both are looked for in the hub's
            cache.

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
    """Return the reference of the model that a part is by itself, as the part's own cases name it.

    None for generated weights, which belong to the pipeline alone.
    """
    if folder is None:
        return None
    own = folder.is_relative_to(FIXTURES)
    checkpoint = folder.relative_to(FIXTURES).as_posix() if own else str(folder)
    weights = "trained" if own else "pretrained"
    return ModelReference(family.name, family.variants[0].name, weights, checkpoint)


# Windows -----------------------------------------------------------------------------------------


def window_starts(samples: int, step: int) -> list[int]:
    """Return the first frame of each window over so many samples, ``step`` frames apart.

    The last window ends with the recording. A frame is :data:`FRAME_STEP` samples. A recording
    shorter than a window has one window.
    """
    last = -(-max(0, samples - WINDOW) // FRAME_STEP)
    # A regular window that nearly coincides with the last one would add nothing new.
    regular = range(0, max(1, last - step // 2), step)
    return [*regular, last] if last else [0]


def window_of(samples: np.ndarray, start: int) -> np.ndarray:
    """Return a window (160000,) that starts at a frame, with zeros after the recording's end."""
    return window_at(samples, start * FRAME_STEP, WINDOW)


def masks_of(segments: Sequence[Sequence[Any]], start: float = 0.0) -> NDArray[np.bool_]:
    """Return who speaks in the window that starts at ``start`` seconds, (589, 3).

    The columns are the three speakers who speak most in the window.
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
    """Return masks (windows, 589, 3) without frames in which several people speak.

    A speaker to whom less than ``least`` seconds would remain keeps all frames.
    """
    single = masks & (masks.sum(axis=2, keepdims=True) < 2)
    enough = single.sum(axis=1, keepdims=True) * FRAME_STEP >= least * RATE
    kept: NDArray[np.bool_] = np.where(enough, single, masks)
    return kept


# Embeddings --------------------------------------------------------------------------------------


class Voices(ABC):
    """Makes embeddings of the local speakers of windows."""

    least: float
    """Seconds that a speaker must speak alone; with less, overlapped speech is used too."""

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
        """Return embeddings (windows, 3, 256); zeros for speakers who say too little.

        ``windows`` are audio (160000,). ``masks`` (windows, 589, 3) are the frames from which the
        embedding of each local speaker is made.
        """


class PartialVoices(Voices):
    """Resemblyzer's embeddings: the mean over pieces of 1.6 s of a speaker's joined speech."""

    least = 0.6
    shortest = 0.3
    """Seconds of speech that a speaker needs to be recognised."""
    pieces = 3
    """Largest number of pieces of one speaker in one window; other windows hold the rest."""

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
        """Return the speech of one speaker in a window as pieces of mel frames, (160, 40) each."""
        hop, length = HOP_LENGTH, resemblyzer.PARTIAL_FRAMES
        # For each mel frame of 10 ms, the nearest frame of the segmentation.
        at = np.rint((np.arange(WINDOW // hop) * hop - FIRST_CENTRE) / FRAME_STEP).astype(int)
        heard = mask[at.clip(0, FRAMES - 1)]
        speech = mel[: len(heard)][heard]
        if len(speech) * hop < self.shortest * RATE:
            return []
        # The package raises the level of a whole recording; here the level of this speaker's speech
        # is raised.
        spoken = samples.reshape(-1, hop)[heard]
        level = np.abs(resemblyzer.normalised(spoken)).max() / max(np.abs(spoken).max(), 1e-12)
        speech = speech * np.float32(level**2)
        if len(speech) < length:
            return [np.resize(speech, (length, speech.shape[1]))]
        count = min(self.pieces, -(-len(speech) // length))
        starts = np.linspace(0, len(speech) - length, count).astype(int)
        return [speech[start : start + length] for start in starts]


class WindowVoices(Voices):
    """WeSpeaker's embeddings: one pass over a window serves its three speakers, each by a mask."""

    least = 400 / RATE
    """Seconds, as in the published pipeline: 25 ms, the shortest input of the network."""

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
    """Diarization by segmentation, embeddings, clustering and reconstruction.

    A prediction is ``{"segments": [[start, end, speaker], …], "level": …}``, with times in seconds.
    The level is NaN or infinite if any output of a graph was.
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
        # Generated weights know no speakers: they get speech for time and memory, and windows of it
        # for numerics.
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
                # Any NaN in the outputs makes the level NaN.
                level = float(scores[part].mean()) + float(np.square(embeddings[part]).sum())
                predictions.append({"segments": segments, "level": level})
        return predictions

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        """Return log-probabilities of the first window, and embeddings of its speakers.

        The speakers' masks come from the guide, because a mask that differs by a frame would be
        another input.
        """
        samples = window_of(item.audio, 0)
        masks = masks_of(guide["segments"])[None]
        # Every window has three rows: speakers who say too little get a mask of the whole window.
        little = masks.sum(axis=1, keepdims=True) * FRAME_STEP < TRACED_SECONDS * RATE
        embedded = self.voices.embed(session, [samples], masks | little, Stopwatch())
        return {"segmentation": self._segment(session, [samples])[0], "embeddings": embedded[0]}

    def _segment(self, session: Session, windows: Sequence[np.ndarray]) -> np.ndarray:
        """Return log-probabilities (windows, 589, 7)."""
        feeds = {"waveform": [samples[None] for samples in windows]}
        found = in_batches(session, "segmentation", feeds, ["log_probabilities"])
        return found["log_probabilities"]
