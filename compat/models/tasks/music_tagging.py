"""Music tagging: a linear probe predicts a clip's tags from the embeddings of all layers.

The probe is trained once, on the *reference's* embeddings of clips that are never judged, and then
applied to the target's embeddings of other clips. A probe trained on the target's own embeddings
would make up for their errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from compat.contract.errors import CompatError
from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.inputs.corpus import Corpus
from compat.metrics import DEGRADATION, NO_WORSE_SHARE, Metric
from compat.metrics.linear_probe import Probe, train
from compat.models.items import Items
from compat.models.tasks.base import Task

LAYERS = "layers"
"""Name of a prediction's embeddings of all layers, float32 (layers, width)."""
SAME_COSINE = 0.95
"""Least cosine to the reference's layer. A single answer counts as wrong if any layer is below."""
DIGITS = 4
"""Decimals of stored scores, which lie between -2 and 2."""


@dataclass(frozen=True)
class MusicTagging(Task):
    """Embeds clips, and tags them by a probe. A prediction is ``{"layers": (layers, width)}``.

    Besides the declared metrics, scores have the cosine of each layer, ``layer_0_cosine`` and so
    on. They are not declared, because the number of layers depends on the model.
    """

    probe: Probe | None = field(default=None, compare=False)
    """The trained probe; None for a corpus without clips to learn from. The judged clips are then
    split into halves, and the reference's answers to each half train the probe of the other."""

    name: ClassVar[str] = "music-tagging"
    fact: ClassVar[str] = "tags"
    truths: ClassVar[tuple[str, ...]] = ("tags",)
    sets: ClassVar[tuple[str, ...]] = ("music",)
    unjudged: ClassVar[tuple[str, ...]] = ("music-train",)
    rescorable: ClassVar[bool] = False  # Cosines need the embeddings, which results do not keep.
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("mean_average_precision", "share", "higher", primary=True),
        Metric("roc_auc", "share", "higher"),
        Metric("accuracy", "share", "higher"),
        Metric("reference_mean_average_precision", "share"),
        DEGRADATION,
        Metric("agreement", "share", "higher"),
        NO_WORSE_SHARE,
        Metric("mean_cosine", "cosine", "higher"),
        Metric("worst_cosine", "cosine", "higher"),
        *(Metric(name, "count") for name in ("clips", "tags")),
        *(Metric(name, "number") for name in ("worst_layer", "worst_recording")),
    )

    def items(self, corpus: Corpus, rate: int, profile: Profile) -> Items:
        chosen = super().items(corpus, rate, profile)
        named = {**corpus.special, **corpus.sets}
        sets = [named[name] for name in self.unjudged if name in named]
        taught = [item for one in sets if one.knows(self.fact) for item in one.items(rate)]
        return replace(chosen, examples=taught if chosen.task else ())

    def unscored_count(self, profile: Profile) -> int | None:
        return profile.pick(12, 120, None)

    def learnt(self, items: Sequence[Item], answers: Sequence[Prediction]) -> MusicTagging:
        if not items:
            return self
        return replace(
            self, probe=train(_features(answers), [item.facts["tags"] for item in items])
        )

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        from compat.metrics.tagging import task_tagging

        given = [item.facts["tags"] for item in items]
        halves = self._probes(given, references)
        known = set.intersection(*(set(probe.tags) for _, probe in halves))
        told = sorted(tag for tag in known if 0 < sum(tag in one for one in given) < len(given))
        if not told:
            raise CompatError(
                "no tag can be judged: each needs clips that have it and clips that do not, both "
                "among those that are judged and among those that the probe is trained on",
                "Add clips to the corpus.",
            )
        ours, theirs = np.zeros((2, len(items), len(told)))
        for part, probe in halves:
            columns = [probe.tags.index(tag) for tag in told]
            for scores, answers in ((ours, predictions), (theirs, references)):
                features = _features([answers[index] for index in part])
                scores[part] = probe.scores(features)[:, columns]
        return task_tagging(
            [[tag in one for tag in told] for one in given],
            ours,
            theirs,
            [one[LAYERS] for one in predictions],
            [one[LAYERS] for one in references],
        )

    def _probes(
        self, given: Sequence[Sequence[str]], references: Sequence[Prediction]
    ) -> list[tuple[list[int], Probe]]:
        """Return the probes, each with the positions of the clips that it tags."""
        everything = list(range(len(given)))
        if self.probe is not None:
            return [(everything, self.probe)]
        if len(given) < 2:
            return [(everything, train(_features(references), given))]
        halves = [everything[0::2], everything[1::2]]
        return [
            (part, train(_features([references[i] for i in rest]), [given[i] for i in rest]))
            for part, rest in (halves, halves[::-1])
        ]

    def stored(self, prediction: Prediction) -> dict[str, Any]:
        kept = super().stored(prediction)
        if self.probe is None:
            return kept
        (scores,) = self.probe.scores(_features([prediction]))
        named = zip(self.probe.tags, scores.tolist(), strict=True)
        return {**kept, "scores": {tag: round(score, DIGITS) for tag, score in named}}

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        from compat.metrics.tagging import worst_cosine

        near = worst_cosine(prediction[LAYERS], reference[LAYERS])
        return {"errors": 0.0 if near >= SAME_COSINE else 1.0, "reference": 0.0}


def _features(answers: Sequence[Prediction]) -> np.ndarray:
    """Return the probe's input, (answers, layers x width): the layers' embeddings side by side."""
    return np.stack([np.asarray(one[LAYERS]).reshape(-1) for one in answers])
