"""Agreement: a task that takes the reference's answers for right, as its corpus holds no truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.inputs.corpus import Corpus, TestSet
from compat.metrics import NO_WORSE_SHARE, Metric
from compat.models.items import Items
from compat.models.tasks.base import Task


@dataclass(frozen=True)
class Agreement(Task):
    """Counts the inputs whose answer equals the reference's but for rounding.

    It needs no truth, so a new model can be measured before anybody has annotated audio for it.
    """

    scored: bool = True
    """Whether the weights know their task. Answers of generated weights prove nothing: with them
    only numerics, latency and robustness are measured."""

    name: ClassVar[str] = "agreement"
    fact: ClassVar[str] = ""
    truths: ClassVar[tuple[str, ...]] = ()
    sets: ClassVar[tuple[str, ...]] = ("clean",)
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("agreement", "share", "higher", primary=True),
        NO_WORSE_SHARE,
    )

    def items(self, corpus: Corpus, rate: int, profile: Profile) -> Items:
        chosen = super().items(corpus, rate, profile)
        return chosen if self.scored else replace(chosen, task={})

    def recordings(self, test_set: TestSet, rate: int, profile: Profile) -> Sequence[Item]:
        return test_set.items(rate, profile.pick(4, 8, 24))

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        agreeing = sum(map(self.same, predictions, references)) / len(items)
        return {"agreement": agreeing, "no_worse_share": agreeing}

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        return {"errors": float(not self.same(prediction, reference)), "reference": 0.0}
