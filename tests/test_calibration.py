"""Calibration: what quantisers are shown is typical, and none of what is judged afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compat.build import calibration
from compat.catalog import open_model
from compat.contract.model_reference import ModelReference
from compat.contract.profile import FULL
from compat.inputs import corpus

NANO = ModelReference("whisper", "whisper-nano", "trained", "checkpoints/whisper-nano")


def judged(reference: ModelReference) -> set[str]:
    items = open_model(reference).items(corpus.load(), FULL)
    groups = (*items.task.values(), items.numerics, items.timed)
    return {item.id.rsplit("-", 1)[0] for group in groups for item in group} | {
        item.id for group in groups for item in group
    }


@pytest.mark.parametrize(
    ("reference", "left_out"),
    [
        (NANO, {"clean", "hard"}),
        (ModelReference("whisper", "whisper-tiny", "seeded"), {"clean"}),
        (
            ModelReference(
                "segmentation",
                "segmentation-3.0",
                "trained",
                "checkpoints/segmentation-3.0-synthetic",
            ),
            {"conversations"},
        ),
        (ModelReference("wespeaker", "wespeaker-resnet34", "seeded"), {"speakers"}),
    ],
)
def test_none_of_what_is_judged(reference: ModelReference, left_out: set[str]) -> None:
    items, said = calibration.choose(open_model(reference), corpus.load())
    assert len(items) >= calibration.ITEMS
    sets = {item.id.split("-")[0] for item in items}
    assert not sets & left_out and all(name in said for name in sets)
    assert not {item.id for item in items} & judged(reference)
    assert "judged" not in said


def test_a_corpus_of_one_set_says_so(tmp_path: Path) -> None:
    (tmp_path / "clean").symlink_to(corpus.DEFAULT / "clean")
    items, said = calibration.choose(open_model(NANO), corpus.load(tmp_path))
    assert items and "the same that are judged" in said


def test_records_the_inputs_of_a_graph_with_its_states() -> None:
    recorded = calibration.record(NANO, "decoder", "b1", "")
    graph = {graph.name: graph for graph in open_model(NANO).graphs()}["decoder"]
    assert len(recorded.feeds) == calibration.CALLS
    for feed in recorded.feeds:
        assert {name: (value.shape, str(value.dtype)) for name, value in feed.items()} == {
            name: (tuple(shape), dtype) for name, (shape, dtype) in graph.examples("b1").items()
        }
    positions = {int(feed["position"][0]) for feed in recorded.feeds}
    assert min(positions) < 4 < max(positions), "steps from all over the utterances"
    # Each is a copy: a cache that is written in place later must not show in earlier calls.
    for feed in recorded.feeds:
        filled = np.abs(feed["key_0"]).sum(axis=(0, 1, 2)) > 0
        assert filled.sum() == feed["position"][0]


def test_a_batch_has_the_ranges_of_one_input() -> None:
    """Else a graph for batches would round by other steps, and answers change by their number."""
    for graph in ("encoder", "decoder"):
        alone, four = (calibration.record(NANO, graph, point, "").feeds for point in ("b1", "b4"))
        spec = {found.name: found for found in open_model(NANO).graphs()}[graph]
        assert len(alone) == len(four)
        for one, feed in zip(alone, four, strict=True):
            for name, (shape, dtype) in spec.examples("b4").items():
                assert (feed[name].shape, str(feed[name].dtype)) == (shape, dtype)
                axes = [k for k, size in enumerate(shape) if size != one[name].shape[k]]
                assert len(axes) == ("batch" in {**spec.inputs, **spec.state}[name].shape)
                for axis in axes:
                    for row in range(4):
                        found = np.take(feed[name], [row], axis)
                        assert np.array_equal(found, one[name])


def test_a_point_without_one_of_a_single_input_is_recorded_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = {found.name: found for found in open_model(NANO).graphs()}["encoder"]
    monkeypatch.setattr(type(spec), "other_batches", lambda self, point: [])
    recorded = calibration.record(NANO, "encoder", "b32", "")
    # More than there are recordings.
    assert calibration.ITEMS < 32
    assert {feed["mel"].shape[0] for feed in recorded.feeds} == {32}
    assert not np.array_equal(recorded.feeds[0]["mel"][0], recorded.feeds[0]["mel"][1])
