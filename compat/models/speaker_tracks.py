"""Who spoke when, from the speakers of windows: clustering of local speakers, and reconstruction.

The code runs on the host after the networks, in NumPy and SciPy. Source: speaker-diarization-3.1 of
pyannote.audio, see :mod:`compat.models.diarization`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compat.models.tasks import speaker_segmentation

RATE = speaker_segmentation.SAMPLE_RATE
FRAMES = speaker_segmentation.FRAMES
FRAME_STEP = round(speaker_segmentation.STEP_SECONDS * RATE)
FIRST_CENTRE = round(speaker_segmentation.FRAME_SECONDS * RATE) // 2
"""Samples from the start of a window to the centre of its first frame."""
LOCAL = speaker_segmentation.SPEAKERS
NOBODY = -1
"""Label of a local speaker who is silent, or says too little to be distinguished from others."""


@dataclass(frozen=True)
class Settings:
    """Parameters that a pipeline's authors tuned."""

    step: int
    """Frames from one window to the next."""
    linkage: str
    """Definition of the distance between two clusters: ``centroid`` (Euclidean distance of their
    means) or ``average`` (mean of the cosine distances between their members)."""
    threshold: float
    """Distance beyond which clusters are different speakers."""
    smallest: int
    """Number of embeddings that a cluster needs to be a speaker. A tenth of all embeddings suffices
    if that is fewer."""
    apart: float = 0.0
    """Number added to the distance between local speakers of one window, who are different people;
    for ``average`` only."""
    clear: float = 0.0
    """Seconds for which a local speaker must speak to take part in the clustering."""
    gap: float = 0.0
    """Seconds of silence that are bridged within a speaker's turn."""
    shortest: float = 0.0
    """Seconds of the shortest turn that is kept."""


# Clustering --------------------------------------------------------------------------------------


def cluster(
    embeddings: np.ndarray, windows: NDArray[np.int64], settings: Settings
) -> NDArray[np.int64]:
    """Group embeddings (n, width) by speaker; return labels (n,) from 0 on.

    The clustering is agglomerative, on embeddings scaled to length one. Clusters that are too small
    join the nearest large cluster, by the cosine between their means. If no cluster is large
    enough, all embeddings get one label.

    Args:
        embeddings: embeddings, none of which is zero.
        windows: (n,), the window of each embedding.
        settings: the pipeline's settings.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import cdist, pdist

    if len(embeddings) < 2:
        return np.zeros(len(embeddings), np.int64)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    if settings.linkage == "centroid":
        tree = linkage(unit, "centroid", "euclidean")
    else:
        one, other = np.triu_indices(len(unit), 1)
        together = windows[one] == windows[other]
        tree = linkage(pdist(unit, "cosine") + settings.apart * together, settings.linkage)
    labels = fcluster(tree, settings.threshold, "distance").astype(np.int64)
    smallest = min(settings.smallest, max(1, round(0.1 * len(unit))))
    found, counts = np.unique(labels, return_counts=True)
    large, small = found[counts >= smallest], found[counts < smallest]
    if not len(large):
        return np.zeros(len(unit), np.int64)
    if len(small):
        means = {label: unit[labels == label].mean(axis=0) for label in found}
        distances = cdist([means[one] for one in small], [means[one] for one in large], "cosine")
        for label, nearest in zip(small, distances.argmin(axis=1), strict=True):
            labels[labels == label] = large[nearest]
    inverse: NDArray[np.int64] = np.unique(labels, return_inverse=True)[1]
    return inverse


def assign(
    embeddings: np.ndarray, heard: NDArray[np.bool_], settings: Settings
) -> NDArray[np.int64]:
    """Label the local speakers of all windows, (windows, 3), or :data:`NOBODY`.

    The speakers who speak for long enough are clustered. Then every speaker gets the label of the
    nearest cluster mean.

    Args:
        embeddings: (windows, 3, width), zeros where there is no speaker.
        heard: the frames (windows, 589, 3) from which the embeddings were made.
        settings: the pipeline's settings.
    """
    from scipy.spatial.distance import cdist

    labels = np.full(embeddings.shape[:2], NOBODY, np.int64)
    known = np.isfinite(embeddings).all(axis=2) & embeddings.any(axis=2)
    if not known.any():
        return labels
    clear = known & (heard.sum(axis=1) * FRAME_STEP >= settings.clear * RATE)
    chosen = clear if clear.any() else known
    vectors = embeddings[chosen].astype(np.float64)
    groups = cluster(vectors, np.nonzero(chosen)[0], settings)
    means = [vectors[groups == group].mean(axis=0) for group in range(groups.max() + 1)]
    labels[known] = cdist(embeddings[known], means, "cosine").argmin(axis=1)
    return labels


# Reconstruction ----------------------------------------------------------------------------------


def centres(frames: int) -> NDArray[np.float64]:
    """Return the time of each frame's centre, in seconds."""
    found: NDArray[np.float64] = (FIRST_CENTRE + FRAME_STEP * np.arange(frames)) / RATE
    return found


def reconstruct(
    masks: NDArray[np.bool_], starts: Sequence[int], labels: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return who speaks in each frame of a recording, bool (frames, speakers).

    Args:
        masks: who speaks in each window, (windows, 589, 3).
        starts: first frame of each window.
        labels: the speaker of each local speaker, (windows, 3), or :data:`NOBODY`.
    """
    frames = starts[-1] + FRAMES
    votes = np.zeros((frames, int(labels.max(initial=NOBODY)) + 1))
    spoken, covered = np.zeros(frames), np.zeros(frames)
    for mask, start, label in zip(masks, starts, labels, strict=True):
        part = slice(start, start + FRAMES)
        for speaker in set(label.tolist()) - {NOBODY}:
            votes[part, speaker] += mask[:, label == speaker].any(axis=1)
        spoken[part] += mask.sum(axis=1)
        covered[part] += 1
    count = np.rint(spoken / covered)
    order = np.argsort(-votes, axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    active: NDArray[np.bool_] = (rank < count[:, None]) & (votes > 0)
    return active


def to_segments(active: NDArray[np.bool_], seconds: float, settings: Settings) -> list[list[Any]]:
    """Turn frames (frames, speakers) into lists [start, end, speaker], in order, rounded to 10 ms.

    Speakers are numbered in the order in which they first speak. The numbers of clusters have no
    meaning, so they must not make two answers differ.
    """
    half = FRAME_STEP / 2 / RATE
    turns: list[list[tuple[float, float]]] = []
    for track in active.T:
        edges = np.flatnonzero(np.diff(np.pad(track.astype(np.int8), 1))).reshape(-1, 2)
        found: list[tuple[float, float]] = []
        for first, stop in edges:
            start = 0.0 if first == 0 else centres(first + 1)[-1] - half
            end = seconds if stop == len(track) else min(seconds, centres(stop)[-1] + half)
            if found and start - found[-1][1] <= settings.gap:
                found[-1] = (found[-1][0], end)
            elif start < end:
                found.append((start, end))
        kept = [(start, end) for start, end in found if end - start >= settings.shortest]
        turns += [kept] if kept else []
    segments = sorted(
        (round(float(start), 2), round(float(end), 2), f"speaker-{number}")
        for number, spans in enumerate(sorted(turns), 1)
        for start, end in spans
    )
    return [[start, end, speaker] for start, end, speaker in segments if start < end]
