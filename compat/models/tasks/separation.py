"""Source separation: a song's stems, scored against the stems that it was mixed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.inputs.audio import SLACK, CorpusError, read_audio
from compat.inputs.corpus import TestSet
from compat.metrics import DEGRADATION, NO_WORSE_SHARE, Metric
from compat.metrics.predictions import prediction_faults
from compat.models.tasks.base import Task

STEMS = ("drums", "bass", "other", "vocals")
"""Stems of a prediction, in order."""
NEAR_DB = 10.0
"""Least fidelity in dB of a hard input's worst stem; an answer below it counts as wrong."""


def middles(test_set: TestSet, seconds: float) -> TestSet:
    """Return the set cut to the middle of each recording, because songs begin and end faintly."""

    def middle(line: Mapping[str, Any]) -> Mapping[str, Any]:
        beyond = float(line["duration"]) - seconds
        if beyond <= 0:
            return line
        return {**line, "offset": line.get("offset", 0.0) + beyond / 2, "duration": seconds}

    return replace(test_set, lines=tuple(map(middle, test_set.lines)))


@dataclass(frozen=True)
class Separation(Task):
    """Separates songs. A prediction is ``{"stems": float32 (4, channels, samples)}``.

    The true stems are the fact ``stems``: one file each, as long as the mixture, which is their
    sum. They are read when an answer is scored; models do not see them.
    """

    name: ClassVar[str] = "separation"
    fact: ClassVar[str] = "stems"
    sets: ClassVar[tuple[str, ...]] = ("stems",)
    unjudged: ClassVar[tuple[str, ...]] = ("music-train",)
    rescorable: ClassVar[bool] = False  # Scores need the sounds; results keep only digests.
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("sdr", "dB", "higher", primary=True),
        *(Metric(f"sdr_{stem}", "dB", "higher") for stem in STEMS),
        Metric("si_sdr", "dB", "higher"),
        *(Metric(f"si_sdr_{stem}", "dB", "higher") for stem in STEMS),
        Metric("si_sdr_improvement", "dB", "higher"),
        Metric("mixture_sdr", "dB"),
        Metric("reference_sdr", "dB"),
        Metric(DEGRADATION.name, "dB", "lower"),
        NO_WORSE_SHARE,
        Metric("fidelity", "dB", "higher"),
        Metric("worst_fidelity", "dB", "higher"),
        Metric("recordings", "count"),
        Metric("worst_recording", "number"),
    )

    def recordings(self, test_set: TestSet, rate: int, profile: Profile) -> Sequence[Item]:
        """Read only the middle of some songs, as a second of a song takes seconds to separate."""
        cut = middles(test_set, profile.pick(8.0, 12.0, 30.0))
        items = cut.items(rate, profile.pick(1, 3, 8))
        return [replace(item, facts=_located(item, test_set.folder)) for item in items]

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        from compat.metrics.separation import fidelity_db, stems_of, task_separation

        songs, fidelities = [], []
        for item, prediction, reference in zip(items, predictions, references, strict=True):
            ours, theirs = prediction["stems"], reference["stems"]
            songs.append(stems_of(STEMS, true_stems(item), ours, theirs, item.audio))
            fidelities.append(fidelity_db(theirs, ours))
        return task_separation(songs, fidelities)

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        from compat.metrics.separation import fidelity_db

        worst = min(fidelity_db(reference["stems"], prediction["stems"]))
        return {"errors": float(worst < NEAR_DB), "reference": 0.0}

    def faults(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction] | None = None
    ) -> list[str]:
        from compat.metrics.separation import exchanged

        faults = prediction_faults(predictions, references)
        for index, (one, other) in enumerate(zip(predictions, references or (), strict=False)):
            ours, theirs = one["stems"], other["stems"]
            if ours.shape != theirs.shape:
                faults.append(f"recording {index}: stems of {ours.shape}, not {theirs.shape}")
                continue
            order = exchanged(theirs, ours)
            said = [f"{STEMS[i]} as {STEMS[out]}" for i, out in enumerate(order) if out != i]
            sides = exchanged(theirs.swapaxes(0, 1), ours.swapaxes(0, 1))
            said += [f"channel {i} as {out}" for i, out in enumerate(sides) if out != i]
            if said:
                faults.append(f"recording {index}: exchanged: {', '.join(said)}")
        return faults


def true_stems(item: Item) -> np.ndarray:
    """Read the stems that a song was mixed from, (4, channels, samples), at the item's rate.

    Raises:
        CorpusError: a stem is missing, cannot be read, or has another length than the song.
    """
    channels, samples = item.audio.shape
    part = (float(item.facts.get("offset", 0.0)), item.seconds)
    stems = np.zeros((len(STEMS), channels, samples), np.float32)
    for index, stem in enumerate(STEMS):
        path = Path(item.facts["stems"][stem])
        read = read_audio(path, item.rate, *part, channels)
        if abs(read.shape[-1] - samples) > SLACK * item.rate:
            raise CorpusError(
                f"audio file {path}: {read.shape[-1]} samples, and the song {item.id} has "
                f"{samples}: restore it, or correct the manifest."
            )
        kept = min(samples, read.shape[-1])
        stems[index, :, :kept] = read[:, :kept]
    return stems


def _located(item: Item, folder: Path) -> Mapping[str, Any]:
    """Return the facts of a song with the paths of its stems.

    Raises:
        CorpusError: a stem is not named.
    """
    named = item.facts["stems"]
    missing = [stem for stem in STEMS if stem not in named]
    if missing:
        raise CorpusError(
            f"{folder}: the song {item.id} has no stem called {', '.join(missing)}: its fact "
            f"stems needs a file for each of {', '.join(STEMS)}."
        )
    paths = {stem: str(folder / named[stem]) for stem in STEMS}
    return {**item.facts, "stems": paths}
