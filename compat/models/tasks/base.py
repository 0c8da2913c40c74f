"""The base class of tasks, which choose inputs, name the facts they need, and score answers.

Families with the same task share its class: two speech recognisers are scored by the same code. The
rest of the suite (measurement, thresholds, report) reads a task's declared metrics and knows no
task by name.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from compat.contract.item import AUDIO, Item, Prediction
from compat.contract.named import resolve
from compat.contract.profile import Profile
from compat.inputs import stress
from compat.inputs.corpus import Corpus, TestSet
from compat.metrics import DEGRADATION, NO_WORSE_SHARE, POOLED, Metric
from compat.metrics.predictions import prediction_faults, same_prediction
from compat.models.items import Items, beginnings

ScoredSet = tuple[Sequence[Item], Sequence[Prediction], Sequence[Prediction]]
"""Items of a test set, the predictions for them, and the reference's predictions."""
OUTSIDE_UEM = "outside_uem"
"""Name of the value that counts the recordings whose UEM leaves nothing to be scored."""
PAIRED = (DEGRADATION.name, f"{DEGRADATION.name}_interval", NO_WORSE_SHARE.name)
"""Names of the values that compare answers with the reference's on the same inputs."""
FAINTER = 0.002
"""Share by which each unseen input is fainter than the one before. Its bytes differ, so that no
cache knows it, and the work stays the same."""


class Task(ABC):
    """A task of models: it chooses inputs, scores answers, and declares its metrics."""

    name: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    """All numbers except intervals that :meth:`score` returns for a test set; one is primary."""
    fact: ClassVar[str] = ""
    """Fact that every recording of a test set must have, such as ``text``, to be scored."""
    counted: ClassVar[tuple[str, ...]] = ()
    """Lists in a prediction that are written step by step, such as ``tokens``. Timings record their
    lengths. Generated weights never end by themselves, so their lists may not be cut short."""
    truths: ClassVar[tuple[str, ...]] = ()
    """Facts of an item that are kept beside its prediction, so that scores can be recomputed."""
    rescorable: ClassVar[bool] = True
    """Whether :meth:`scores` needs no more than what :meth:`stored` keeps. Scores computed from
    arrays need more: ``compat rescore`` leaves such scores as they were measured, and judges them
    by the new limits."""
    sets: ClassVar[tuple[str, ...]] = ()
    """Names of the test sets that are preferred if a corpus has them."""
    unjudged: ClassVar[tuple[str, ...]] = ()
    """Names of shipped sets that are made for calibration and training, and never judged. If there
    are none, calibration uses the corpus's sets that are not judged."""
    unscored: ClassVar[int] = 12
    """Number of recordings taken from a corpus without the facts, for timing and numerics alone."""
    pooled: ClassVar[bool] = False
    """Whether the degradation against the reference is also computed over all test sets together,
    because only that many inputs make its interval narrow enough to judge by."""
    beginning_seconds: ClassVar[float | None] = None
    """Seconds at a recording's beginning that a first look uses; None for whole recordings."""
    brief_seconds: float = 10.0
    """Seconds of audio of each test set in a slow target's first look."""

    # Inputs ------------------------------------------------------------------------------------

    def items(self, corpus: Corpus, rate: int, profile: Profile) -> Items:
        """Choose the inputs of weights that know the task.

        A corpus without the facts gives inputs whose answers are not scored; numerics, latency
        and robustness are measured as usual. A task whose inputs are no recordings (prompts, noise)
        overrides this method, and needs neither the corpus nor :meth:`recordings`.

        Args:
            corpus: test sets by name.
            rate: sampling rate in hertz.
            profile: decides how many inputs are chosen.
        """
        chosen = {
            name: self.recordings(test_set, rate, profile)
            for name, test_set in corpus.choose(self.preferred(profile), self.fact).items()
        }
        if not chosen:
            count = self.unscored_count(profile)
            return Items.of({"speech": corpus.speech.items(rate, count)}, scored=False)
        if profile.first_look and self.beginning_seconds is not None:
            chosen = beginnings(chosen, self.beginning_seconds)
        return Items.of(chosen)

    def preferred(self, profile: Profile) -> tuple[str, ...]:
        """Return the names of the test sets that a profile prefers."""
        return self.sets

    def unscored_count(self, profile: Profile) -> int | None:
        """Return the number of recordings taken from a corpus without the facts; None for all."""
        return self.unscored

    def recordings(self, test_set: TestSet, rate: int, profile: Profile) -> Sequence[Item]:
        """Read as many recordings of a test set as a profile wants."""
        return test_set.items(rate, self.unscored_count(profile))

    def fresh(self, item: Item, number: int) -> Item:
        """Return an input that no model has seen, and that takes as much work as ``item``.

        ``number`` counts from 1. The default makes the audio a trace fainter each time.
        """
        fainter = np.float32(1 - FAINTER * number)
        return item.with_audio(item.audio * fainter, "fresh")

    def hard(
        self, entries: Sequence[Mapping[str, Any]], easy: Sequence[Item], rate: int
    ) -> list[Item]:
        """Make hard inputs from the entries of a stress list, and from easy ones.

        The default makes audio: silence, noise, clipping, very short and very long recordings. A
        task whose inputs are not audio alone returns hard inputs of its own and ignores the
        entries.

        Args:
            entries: recipes of audio, as in ``fixtures/stress.toml``.
            easy: speech of the corpus, or some of the task's own inputs if these are not audio.
            rate: sampling rate in hertz.
        """
        return [stress.make(dict(entry), easy, rate) for entry in entries]

    # Answers -----------------------------------------------------------------------------------

    def learnt(self, items: Sequence[Item], answers: Sequence[Prediction]) -> Task:
        """Return a copy of the task that has learnt from the reference's answers to the examples.

        The copy uses it in scores and in stored answers. The default learns nothing.

        Args:
            items: :attr:`Items.examples`, which no target has seen; none for most tasks.
            answers: the reference's answers, one for each item.
        """
        return self

    def score(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        """Return the metrics of one test set against the truth and against the reference.

        Values are built-in numbers that JSON can carry. A metric with a function of its own is
        computed from the result of :meth:`compared`.
        """
        values = self.scores(items, predictions, references)
        for metric in self.metrics:
            if metric.compute is not None:
                compute = resolve(metric.compute)
                values[metric.name] = compute(*self.compared(items, predictions))
        return values

    def score_sets(self, sets: Mapping[str, ScoredSet]) -> dict[str, Any]:
        """Score test sets by name.

        Recordings of which no part is to be scored would count as free of errors. They are left
        out, and so is a set that has no others. ``worst_recording`` still is the position among all
        items of a set.
        """
        scores: dict[str, Any] = {}
        left_out = 0
        for name, columns in sets.items():
            scored = [index for index, item in enumerate(columns[0]) if item.is_scored]
            left_out += len(columns[0]) - len(scored)
            if scored:
                scores[name] = self.score(
                    [columns[0][index] for index in scored],
                    [columns[1][index] for index in scored],
                    [columns[2][index] for index in scored],
                )
                if "worst_recording" in scores[name]:
                    scores[name]["worst_recording"] = scored[scores[name]["worst_recording"]]
        if self.pooled and scores:
            scores[POOLED] = self._pooled(list(sets.values()))
        return {**scores, OUTSIDE_UEM: left_out} if scores and left_out else scores

    def _pooled(self, sets: Sequence[ScoredSet]) -> dict[str, Any]:
        """Score all inputs together; return only the values of :data:`PAIRED`."""
        rows = [row for columns in sets for row in zip(*columns, strict=True)]
        items, predictions, references = zip(*rows, strict=True)
        values = self.score(items, predictions, references)
        return {name: values[name] for name in PAIRED if name in values}

    @abstractmethod
    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        """Return the metrics that the task computes by itself."""

    def compared(self, items: Sequence[Item], predictions: Sequence[Prediction]) -> tuple[Any, Any]:
        """Return the truths and the answers in the form that functions of metrics take."""
        return items, predictions

    @abstractmethod
    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        """Return the errors of one answer and of the reference's: ``{"errors", "reference"}``.

        Hard inputs are judged one by one, so each answer is compared with the reference's answer to
        the same input.
        """

    def seconds(self, item: Item, prediction: Prediction) -> float:
        """Return the seconds of audio of an answer; the real-time factor is its time over these.

        The default is the length of the input. A task that makes audio (speech from text) returns
        the length of the answer, which must be more than 0 even if the answer holds no audio.
        """
        return item.seconds

    def same(self, one: Prediction, other: Prediction) -> bool:
        """Return whether two answers are equal except for rounding."""
        return same_prediction(one, other)

    def faults(
        self, predictions: Sequence[Prediction], references: Sequence[Prediction] | None = None
    ) -> list[str]:
        """Return faults that averages would hide: NaN, empty answers, one answer to all inputs."""
        return prediction_faults(predictions, references)

    def inventions(self, item: Item, prediction: Prediction, reference: Prediction) -> list[str]:
        """Return parts of an answer that its input cannot hold, unless the reference has them too.

        For example, words transcribed from silence. The default returns nothing; only tasks that
        write texts override it.
        """
        return []

    # What results keep -------------------------------------------------------------------------

    def truth(self, item: Item) -> dict[str, Any]:
        """Return the facts that answers to an item are scored against, as JSON."""
        return {name: item.facts[name] for name in self.truths if item.facts.get(name) is not None}

    def stored(self, prediction: Prediction) -> dict[str, Any]:
        """Return what a results file keeps of an answer, as JSON: arrays become digests.

        :meth:`scores` gets the same values when results are scored again. A task that needs more
        than the digest of an array also keeps a few numbers of it, or is not :attr:`rescorable`.
        """
        return {
            name: _array_facts(value) if isinstance(value, np.ndarray) else value
            for name, value in prediction.items()
        }

    def row(
        self, test_set: str, item: Item, prediction: Prediction, reference: Prediction
    ) -> dict[str, Any]:
        """Return everything that a score is computed from, so that it can be computed again."""
        kept, expected = self.stored(prediction), self.stored(reference)
        row = {
            "set": test_set,
            "item": item.id,
            "audio_s": item.seconds,
            "truth": self.truth(item),
            "prediction": kept,
        }
        return row if kept == expected else {**row, "reference": expected}

    def restored(self, identifier: str, truth: Mapping[str, Any], seconds: float) -> Item:
        """Return an item made from a stored row: it can be scored, but it holds no inputs."""
        return Item(identifier, {}, seconds, facts=truth)


def is_recording(item: Item) -> bool:
    """Return whether an item's only input is audio, so that any other recording may replace it."""
    return item.inputs.keys() == {AUDIO}


def _array_facts(array: np.ndarray) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    return {"shape": list(array.shape), "sha256": digest}
