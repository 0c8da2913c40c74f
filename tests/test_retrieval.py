"""Zero-shot classification and retrieval: scores by hand, by SciPy, and of planted defects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from compat.contract.item import Item
from compat.contract.profile import BRIEF, CORE, QUICK
from compat.inputs.corpus import Corpus, TestSet, load
from compat.metrics.retrieval import best_rank, rank_correlation, recall, task_retrieval
from compat.models.tasks.zero_shot import (
    SENTENCES,
    ZeroShotClassification,
    answer,
    own_sentence,
    prompt,
    sentences_of,
)

NAN = float("nan")
TASK = ZeroShotClassification(10.0)


@pytest.mark.parametrize(
    ("cosines", "right", "rank"),
    [
        ([0.9, 0.5, 0.1], [0], 1),
        ([0.9, 0.5, 0.1], [2], 3),
        ([0.9, 0.5, 0.1], [2, 1], 2),
        ([0.9, 0.5, 0.1], [0, 1, 2], 1),
        ([0.5, 0.5, 0.5], [0], 3),  # Equally near is no answer.
        ([NAN, 0.5, 0.1], [0], 3),
        ([NAN, 0.5, 0.1], [1], 1),
        ([NAN, NAN, NAN], [1], 3),
    ],
)
def test_rank_of_the_best_right_candidate(
    cosines: list[float], right: list[int], rank: int
) -> None:
    assert best_rank(cosines, right) == rank


def test_recall_counts_ranks_up_to_k() -> None:
    assert [recall([1, 2, 5, 6], k) for k in (1, 2, 5)] == [0.25, 0.5, 0.75]


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=12))
@settings(max_examples=60, deadline=None)
def test_rank_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    one, other = map(list, zip(*pairs, strict=True))
    expected = spearmanr(one, other).statistic if len({*one}) > 1 < len({*other}) else 0.0
    assert rank_correlation(one, other) == pytest.approx(expected, abs=1e-12)


def test_rank_correlation_of_what_is_no_order() -> None:
    assert rank_correlation([1.0], [2.0]) == 1.0
    assert rank_correlation([1.0, NAN], [1.0, 2.0]) == 0.0
    with pytest.raises(ValueError, match="as many cosines"):
        rank_correlation([1.0, 2.0], [1.0])


def space(sounds: int = 12, classes: int = 4, noise: float = 0.4) -> dict[str, Any]:
    """Return recordings near sentences of their classes and captions, in 16 dimensions."""
    random = np.random.default_rng(0)

    def unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    labels = unit(random.standard_normal((classes, 16)))
    own = np.arange(sounds) % classes
    captions = unit(labels[own] + 0.5 * random.standard_normal((sounds, 16)) / 4)
    audio = unit(captions + noise * random.standard_normal((sounds, 16)) / 4)
    return {"labels": labels, "captions": captions, "audio": audio, "own": own}


def answers(vectors: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "embedding": one.tolist(),
            "labels": (vectors["labels"] @ one).tolist(),
            "captions": (vectors["captions"] @ one).tolist(),
        }
        for one in vectors["audio"]
    ]


def scored(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> dict[str, Any]:
    own = space()["own"]
    return task_retrieval(
        [int(one) for one in own], [[index] for index in range(len(own))], found, expected
    )


def test_the_reference_has_no_degradation() -> None:
    expected = answers(space())
    values = scored(expected, expected)
    assert values["zero_shot_accuracy"] == values["reference_zero_shot_accuracy"] > 0.8
    assert values["degradation"] == 0.0 and values["no_worse_share"] == 1.0
    assert values["same_label"] == 1.0 and values["rank_correlation"] == pytest.approx(1.0)
    assert values["mean_cosine"] == pytest.approx(1.0)
    assert values["audio_to_text_r5"] >= values["audio_to_text_r1"] > 0.5
    assert values["text_to_audio_r5"] >= values["text_to_audio_r1"] > 0.5
    low, high = values["zero_shot_accuracy_interval"]
    assert low <= values["zero_shot_accuracy"] <= high
    assert (values["items"], values["labels"], values["captions"]) == (12, 4, 12)
    declared = {metric.name for metric in TASK.metrics}
    assert {name.removesuffix("_interval") for name in values} == declared


@pytest.mark.parametrize("defect", ["order of prompts", "one answer", "not a number", "inverted"])
def test_planted_defects_lose_accuracy_and_order(defect: str) -> None:
    vectors = space()
    expected = answers(vectors)
    broken = {name: value.copy() for name, value in vectors.items()}
    if defect == "order of prompts":
        broken["labels"] = np.roll(broken["labels"], 1, axis=0)
        broken["captions"] = np.roll(broken["captions"], 1, axis=0)
    elif defect == "one answer":
        broken["audio"][:] = broken["audio"][0]
    elif defect == "not a number":
        broken["audio"][:] = NAN
    else:
        broken["audio"] = -broken["audio"]
    values = scored(answers(broken), expected)
    assert values["zero_shot_accuracy"] <= 0.34
    assert values["degradation"] >= 0.5 and values["degradation_interval"][0] > 0.2
    assert values["no_worse_share"] <= 0.5
    assert values["rank_correlation"] < 0.7
    assert values["audio_to_text_r1"] <= 0.34
    cosines = values["worst_cosine"]
    assert (cosines > 0.999) == (defect == "order of prompts")


def test_sets_without_labels_or_without_captions() -> None:
    expected = answers(space())
    only_labels = [{k: v for k, v in one.items() if k != "captions"} for one in expected]
    only_captions = [{k: v for k, v in one.items() if k != "labels"} for one in expected]
    own = [int(one) for one in space()["own"]]
    values = task_retrieval(own, [[]] * 12, only_labels, only_labels)
    assert "audio_to_text_r1" not in values and values["degradation"] == 0.0
    captions = [[index] for index in range(12)]
    values = task_retrieval([None] * 12, captions, only_captions, only_captions)
    assert "zero_shot_accuracy" not in values and values["degradation"] == 0.0
    with pytest.raises(ValueError, match="per recording"):
        task_retrieval([1], [[0]], [], [])


def test_a_recording_has_many_captions_and_a_caption_many_recordings() -> None:
    """Any right one counts, in both directions."""
    predictions = [
        {"embedding": [1.0, 0.0], "captions": [0.1, 0.9, 0.5]},
        {"embedding": [0.0, 1.0], "captions": [0.2, 0.1, 0.8]},
    ]
    values = task_retrieval([None, None], [[0, 1], [1, 2]], predictions, predictions)
    assert values["audio_to_text_r1"] == 1.0
    # Caption 0 is nearest to the second recording, 1 to the first, 2 to the second.
    assert values["text_to_audio_r1"] == pytest.approx(2 / 3)


# The task ----------------------------------------------------------------------------------------


def items(count: int = 3) -> list[Item]:
    facts = [
        {"label": "dog_bark", "caption": "A dog barks twice."},
        {"label": "rain", "caption": ["Rain falls.", "It rains on a roof."]},
        {"label": "dog_bark", "caption": "A dog barks twice."},
    ]
    audio = np.zeros(48_000, np.float32)
    return [Item.from_audio(f"s{i}", audio, 48_000, facts[i]) for i in range(count)]


class Given(TestSet):
    """A set of items that lie in memory."""

    def item(self, index: int, rate: int) -> Item:
        return items()[index]


@pytest.fixture
def sounds() -> TestSet:
    return Given("sounds", load().path, tuple(dict(item.facts) for item in items()))


def test_recordings_get_all_candidates(sounds: TestSet) -> None:
    found = TASK.recordings(sounds, 48_000, QUICK)
    assert found[1].facts["labels"] == ["dog_bark", "rain"]
    said = ["A dog barks twice.", "Rain falls.", "It rains on a roof."]
    assert found[0].facts["captions"] == said
    assert [item.facts["right_label"] for item in found] == [0, 1, 0]
    assert [item.facts["right_captions"] for item in found] == [[0], [1, 2], [0]]
    classes = ["This is a sound of dog bark.", "This is a sound of rain."]
    assert sentences_of(found[0]) == [*classes, *said]
    assert own_sentence(found[1]) == "Rain falls."
    kept = TASK.truth(found[1])
    assert kept["right_captions"] == [1, 2] and "labels" not in kept
    # A first look on a slow target compares with what is said of the few that it hears.
    assert len(TASK.recordings(sounds, 48_000, BRIEF)[0].facts["labels"]) <= 2


def test_any_set_with_labels_or_captions_is_scored(sounds: TestSet) -> None:
    corpus = Corpus(load().path, {"speech": load().sets["clean"]}, {"sounds": sounds})
    assert list(TASK.items(corpus, 48_000, CORE).task) == ["sounds"]
    own = Given("own", load().path, sounds.lines)
    corpus = Corpus(load().path, {"speech": load().sets["clean"], "own": own})
    assert list(TASK.items(corpus, 48_000, CORE).task) == ["own"]


def test_the_shipped_sounds_are_scored_by_class_and_caption() -> None:
    shipped = load()
    found = TASK.items(shipped, 48_000, CORE)
    assert list(found.task) == ["sounds"] and len(found.task["sounds"]) == 40
    for item in found.task["sounds"][::7]:
        facts = item.facts
        assert facts["labels"][facts["right_label"]] == facts["label"]
        assert [facts["captions"][i] for i in facts["right_captions"]] == [facts["caption"]]
        assert (len(facts["labels"]), len(facts["captions"])) == (10, 40)
    few = TASK.items(shipped, 48_000, QUICK).task["sounds"]
    assert len(few) == 12 and len(few[0].facts["labels"]) == 10


def test_recordings_of_which_nothing_is_said_are_compared_with_some_sentences() -> None:
    audio = np.zeros(10, np.float32)
    unknown = [Item.from_audio(f"stress-{name}", audio, 48_000) for name in "abcdefgh"]
    found = [sentences_of(item) for item in unknown]
    assert all(len(one) == 2 and set(one) <= set(SENTENCES) for one in found)
    assert len({tuple(one) for one in found}) > 4
    assert [own_sentence(item) for item in unknown] == [one[0] for one in found]
    labelled = Item.from_audio("one", audio, 48_000, {"label": "rain"})
    assert own_sentence(labelled) == prompt("rain")


def test_an_answer_is_cosines_in_the_order_of_the_candidates(sounds: TestSet) -> None:
    item = TASK.recordings(sounds, 48_000, QUICK)[0]
    said = sentences_of(item)
    vectors = dict(zip(said, np.eye(len(said), dtype=np.float32), strict=True))
    prediction = answer(item, np.arange(len(said), dtype=np.float32), vectors)
    assert prediction["labels"] == [0.0, 1.0] and prediction["captions"] == [2.0, 3.0, 4.0]
    assert TASK.seconds(Item("long", {}, 60.0), prediction) == 10.0
    turned = {**prediction, "embedding": [1.0, *[0.0] * 4]}
    assert TASK.errors(item, prediction, prediction)["errors"] == 0.0
    assert TASK.errors(item, turned, prediction)["errors"] == 1.0
    spoilt = {**prediction, "embedding": [NAN] * 5}
    assert TASK.errors(item, spoilt, prediction)["errors"] == 1.0
