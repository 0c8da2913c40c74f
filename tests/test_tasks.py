"""Tasks: what they declare is what they score, and what they keep is enough to score again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from compat import catalog
from compat.build.reference import Outputs, _store_predictions
from compat.contract.item import Item
from compat.contract.profile import BRIEF, CORE, FULL, PROFILES, QUICK
from compat.inputs import corpus
from compat.inputs.checkpoints import CheckpointError, find_checkpoint
from compat.judge.results import CaseFacts, MetricFacts, Observation, read_all
from compat.metrics import Metric
from compat.metrics.predictions import prediction_faults, same_prediction
from compat.models.base import Model
from compat.models.tasks.agreement import Agreement
from compat.models.tasks.asr import Transcription
from compat.models.tasks.base import Task
from compat.report import tables, text

PUBLISHED = Path(__file__).resolve().parents[1] / "reports" / "results"


def families() -> list[str]:
    return [family.name for family in catalog.load().families]


def task_of(name: str) -> Task:
    """Return the task of a family, by whichever of its variants has weights here."""
    known = catalog.load()
    family = next(family for family in known.families if family.name == name)
    for variant in family.variants:
        for weights in variant.weights:
            try:
                found = variant.trained if weights == "trained" else ""
                if weights == "pretrained":
                    found = str(find_checkpoint(variant.checkpoint))
                model: Model = known.family_module(name).load(variant.name, weights, found)
            except CheckpointError:
                continue
            return model.task
    pytest.skip(f"no weights of {name} are here")


@pytest.fixture(scope="module")
def scored() -> dict[str, tuple[CaseFacts, Observation]]:
    """A published observation of each family whose answers were scored."""
    chosen: dict[str, tuple[CaseFacts, Observation]] = {}
    for run in read_all([PUBLISHED]).runs:
        facts = {planned.case.id: planned.case for planned in run.planned}
        for one in run.observations:
            complete = one.predictions and "audio_s" in one.predictions[0]
            if one.check == "accuracy.task" and complete and one.case in facts:
                about = facts[one.case]
                chosen.setdefault(about.family, (about, one))
    return chosen


CHARACTERS = {"reference_cer", "characters"}


@pytest.mark.parametrize("name", families())
def test_a_family_names_its_models_task(name: str) -> None:
    family = next(family for family in catalog.load().families if family.name == name)
    assert task_of(name).name == family.task


@pytest.mark.parametrize("name", families())
def test_what_is_scored_is_declared(
    name: str, scored: Mapping[str, tuple[CaseFacts, Observation]]
) -> None:
    """On published answers: every number has a unit, and the primary one an interval."""
    if name not in scored:
        pytest.skip("no scored answers of it were published")
    task = task_of(name)
    _, one = scored[name]
    rows = [row for row in one.predictions if row["set"] == one.predictions[0]["set"]]
    declared = {metric.name for metric in task.metrics}
    (primary,) = [metric.name for metric in task.metrics if metric.primary]
    if not task.rescorable:  # Results do not keep what the scores are computed from.
        assert declared | {f"{primary}_interval"} <= one.values[rows[0]["set"]].keys()
        return
    items = [task.restored(row["item"], row["truth"], row["audio_s"]) for row in rows]
    answers = [row["prediction"] for row in rows]
    values = task.score(items, answers, [row.get("reference", row["prediction"]) for row in rows])
    intervals = {f"{name}_interval" for name in declared}
    # Languages without spaces have these in the place of others.
    assert {key for key in values if key not in intervals} == declared - CHARACTERS
    assert f"{primary}_interval" in values
    published = one.values[rows[0]["set"]]
    # A metric with a function of its own may be newer than what was published.
    newer = {m.name for m in task.metrics if m.compute is not None} - published.keys()
    compared = {key: value for key, value in values.items() if key not in newer}
    assert compared == published, "scores are what they were when published"


def test_a_metric_that_is_named_needs_no_other_line() -> None:
    """One entry among the metrics of a task is all that a file with a function needs."""

    @dataclass(frozen=True)
    class Task(Transcription):
        metrics: ClassVar[tuple[Metric, ...]] = (
            *Transcription.metrics,
            Metric("same", "share", "higher", compute="operator:eq"),
        )

    item = Item("one", {}, 1.0, 16_000, {"text": "yes"})
    for said in ("yes", "no"):
        answers = [{"text": said, "tokens": [1]}]
        assert Task(open_vocabulary=False).score([item], answers, answers)["same"] == (
            said == "yes"
        )


BEFORE_UNITS = (
    *("whisper", "wav2vec2", "silero", "resemblyzer", "wespeaker", "segmentation", "diarization"),
)
"""Families that were measured when results did not name their units yet."""


@pytest.mark.parametrize("name", BEFORE_UNITS)
def test_a_report_shows_declared_numbers_as_it_showed_named_ones(
    name: str, scored: Mapping[str, tuple[CaseFacts, Observation]]
) -> None:
    """Results of before name no units; their pages must not read otherwise."""
    if name not in scored:
        pytest.skip("no scored answers of it were published")
    _, one = scored[name]
    declared = {m.name: MetricFacts(**m.facts) for m in task_of(name).metrics}
    for values in one.values.values():
        assert text.primary_metric(values, declared) == text.primary_metric(values)
    assert tables.tables(one.values, declared) == tables.tables(one.values)


def test_a_metric_is_one_line_of_a_task() -> None:
    def exact(truths: list[str], answers: list[str]) -> float:
        return sum(map(str.__eq__, truths, answers)) / len(truths)

    @dataclass(frozen=True)
    class Exact(Transcription):
        metrics: ClassVar[tuple[Metric, ...]] = (
            *Transcription.metrics,
            Metric("exact", "share", "higher", compute=exact),
        )

    items = [Item("a", {}, 1.0, facts={"text": "one"}), Item("b", {}, 1.0, facts={"text": "two"})]
    answers = [{"text": "one"}, {"text": "too"}]
    assert Exact(open_vocabulary=False).score(items, answers, answers)["exact"] == 0.5
    declared = {"exact": MetricFacts(**Exact.metrics[-1].facts)}
    assert text.quantity("exact", 0.5, declared=declared) == "50 %"
    assert text.quantity("exact", 0.5) == "0.5"


@pytest.mark.parametrize(
    ("unit", "value", "shown"),
    [
        ("share", 0.125, "12.5 %"),
        ("points", 0.02, "+2.00 pp"),
        ("dB", 12.34, "12.3 dB"),
        ("cosine", 0.9999999, "0.999999"),
        ("ratio", 1.5, "1.5 ×"),
        ("count", 12, "12"),
        ("number", 0.25, "0.25"),
    ],
)
def test_units_are_shown_as_declared(unit: str, value: float, shown: str) -> None:
    declared = {"strange": MetricFacts(unit=unit)}
    assert text.quantity("strange", value, declared=declared) == shown


# Predictions that hold arrays ------------------------------------------------------------------


def test_arrays_are_compared_and_searched_for_faults() -> None:
    one = {"audio": np.linspace(-1, 1, 100, dtype=np.float32), "codes": np.arange(4)}
    near = {**one, "audio": one["audio"] * np.float32(1.001)}
    assert same_prediction(one, near)
    assert not same_prediction(one, {**one, "audio": one["audio"] * np.float32(1.1)})
    assert not same_prediction(one, {**one, "codes": np.array([0, 1, 2, 4])})
    assert not same_prediction(one, {**one, "audio": one["audio"][:-1]})
    spoilt = {**one, "audio": np.full(100, np.nan, np.float32)}
    assert prediction_faults([one, spoilt], None) == ["1 of 2 outputs hold NaN values"]
    silent = {"audio": np.zeros(100, np.float32), "codes": np.zeros(4, np.int64)}
    faults = prediction_faults([silent, silent], [one, {**one, "codes": np.arange(4) + 1}])
    assert faults == ["the same output for all 2 inputs", "2 of 2 outputs are empty"]


def test_results_keep_digests_of_arrays() -> None:
    task = Agreement()
    audio = np.arange(6, dtype=np.float32).reshape(2, 3)
    stored = task.stored({"audio": audio, "text": "x"})
    assert stored["text"] == "x"
    assert stored["audio"]["shape"] == [2, 3]
    assert stored == task.stored({"audio": audio.copy(), "text": "x"})
    assert stored != task.stored({"audio": audio + 1, "text": "x"})


def test_arrays_of_the_reference_come_back(tmp_path: Path) -> None:
    predictions = {
        "a": {"audio": np.arange(3, dtype=np.float32), "text": "one"},
        "b@c": {"audio": np.zeros((2, 2), np.float32), "text": "two"},
    }
    _store_predictions(tmp_path, predictions)
    read = Outputs(tmp_path).predictions
    assert {name: one["text"] for name, one in read.items()} == {"a": "one", "b@c": "two"}
    for name, one in predictions.items():
        np.testing.assert_array_equal(read[name]["audio"], one["audio"])


# Inputs ----------------------------------------------------------------------------------------


def test_profiles_pick_by_thoroughness() -> None:
    assert [profile.pick(1, 2, 3) for profile in (BRIEF, QUICK, CORE, FULL)] == [1, 1, 2, 3]
    assert list(PROFILES) == ["brief", "quick", "core", "full"]
    assert QUICK.rank < CORE.rank < FULL.rank


def test_any_fact_of_a_manifest_can_be_what_is_scored(tmp_path: Path) -> None:
    shipped = corpus.load()
    assert set(shipped.choose(("clean", "hard"), "text")) == {"clean", "hard"}
    assert shipped.choose((), "labels") == {}
    task = Agreement()
    rate, (first, *_) = 16_000, corpus.load().sets["clean"].items(16_000, 1)
    items: dict[str, Any] = {"scored": task.items(shipped, rate, QUICK)}
    assert list(items["scored"].task) == ["clean"]
    assert not Agreement(scored=False).items(shipped, rate, QUICK).task
    fresh = task.fresh(first, 1)
    assert fresh.id != first.id and fresh.seconds == first.seconds
    assert not np.array_equal(fresh.audio, first.audio)


LANGUAGES = [  # Those of published answers are English.
    # Language, truth, answer, metric, its value: one sign of five, one word of two, and so on.
    ("zh-CN", "你好,世界啊。", "你好 世界呀", "cer", 1 / 5),
    ("th", "สวัสดี", "สวัสดี", "cer", 0.0),
    ("Japanese", "今日は", "今日わ", "cer", 1 / 3),
    ("hi", "की बात", "का बात", "wer", 1 / 2),
    ("es", "1 o 2", "¿1 o 2?", "wer", 0.0),
    ("es", "Tú (risas) y él", "tú y el", "wer", 1 / 3),
    ("en", "the colour, twenty one", "THE COLOR 21", "wer", 0.0),
    (None, "the colour, twenty one", "THE COLOR 21", "wer", 0.0),
]


@pytest.mark.parametrize(("language", "truth", "answer", "metric", "value"), LANGUAGES)
def test_a_language_has_its_normaliser_and_its_metric(
    language: str | None, truth: str, answer: str, metric: str, value: float
) -> None:
    task = Transcription(open_vocabulary=True)
    item = task.restored("a", {"text": truth, "lang": language}, 1.0)
    silent = [{"text": truth}]
    scores = task.score([item, item], [{"text": answer}] * 2, silent * 2)
    assert scores[metric] == pytest.approx(value)
    assert scores["degradation"] == pytest.approx(value)
    assert f"{metric}_interval" in scores and ("wer" in scores) == (metric == "wer")
    names = {one.name for one in task.metrics}
    assert {key for key in scores if not key.endswith("_interval")} <= names
    assert task.truth(item) == {"text": truth} | ({"lang": language} if language else {})


def test_a_set_of_several_languages_counts_each_in_its_units() -> None:
    task = Transcription(open_vocabulary=True)
    spoken = (("zh", "你好世界"), ("de", "drei Wörter hier"))
    items = [task.restored(name, {"text": text, "lang": name}, 1.0) for name, text in spoken]
    answers = [{"text": "你好世"}, {"text": "drei Wörter hier"}]
    scores = task.score(items, answers, answers)
    assert (scores["words"], scores["wer"]) == (7, pytest.approx(1 / 7))
    assert task.errors(items[0], answers[0], answers[1])["errors"] == 1
