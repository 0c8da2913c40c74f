"""Small models of the families that hear and code: what they can do, and where they run.

Trained ones stand for published weights in the rows' task metrics. All of them stand for published
sizes on emulators. Those of other families are tested beside these.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch

from compat import catalog
from compat.build.schemes import float_module
from compat.build.torch_session import TorchSession
from compat.contract.graph import Stopwatch
from compat.contract.item import Item, Prediction
from compat.contract.model_reference import ModelReference
from compat.contract.profile import CORE, QUICK
from compat.inputs.corpus import load
from compat.metrics.numerics import contrast_db
from compat.models.base import Model
from compat.run.selection import CORE_ON_EMULATORS, QUICK_WHERE_SLOW, Selection

NANO = {
    "encodec": "encodec-nano@seeded",
    "mert": "mert-nano@trained",
    "clap": "clap-nano@trained",
    "htdemucs": "htdemucs-nano@trained",
}
"""The small size of each family, with the kind of its weights."""
EMULATORS = ("qualcomm-emulator", "webgpu-chromium-software")
SIZES = pytest.mark.parametrize("family", NANO)


@cache
def opened(family: str) -> Model:
    name, _, weights = NANO[family].partition("@")
    folder = f"checkpoints/{name}" if weights == "trained" else ""
    return catalog.open_model(ModelReference(family, name, weights, folder))


@cache
def session_of(family: str) -> TorchSession:
    graphs = {graph.name: graph for graph in opened(family).graphs()}
    modules = {name: float_module(graph) for name, graph in graphs.items()}
    return TorchSession(graphs, modules, dict.fromkeys(graphs, "fp32"), torch.device("cpu"))


def answers(family: str, items: Sequence[Item]) -> list[Prediction]:
    """Return what PyTorch answers in float32."""
    return opened(family).run(session_of(family), items, Stopwatch())


@SIZES
def test_they_tell_inputs_apart(family: str) -> None:
    """Admission, on the inputs of the suites: what answers everything alike measures nothing."""
    model, session = opened(family), session_of(family)
    items = model.items(load().with_channels(model.channels), QUICK).numerics
    pairs = zip(items, answers(family, items), strict=True)
    first, second = [model.trace(session, item, answer) for item, answer in pairs][:2]
    for name in first:
        if first[name].dtype.kind == "f":
            assert contrast_db([first[name], second[name]]) > -12, name
            assert contrast_db([first[name], first[name]]) < -100, "one input twice"


def scores(family: str, name: str) -> dict[str, Any]:
    """Return the scores of a set of the core profile."""
    model = opened(family)
    found = model.items(load().with_channels(model.channels), CORE)
    predictions = answers(family, found.task[name])
    taught = answers(family, found.examples) if found.examples else []
    task = model.task.learnt(found.examples, taught)
    return task.scores(found.task[name], predictions, predictions)


# Better than what needs no network ----------------------------------------------------------------


def test_clap_names_sounds() -> None:
    """Of ten classes; whoever guesses is right once in ten times."""
    found = scores("clap", "sounds")
    assert found["items"] == 40
    assert found["zero_shot_accuracy"] >= 0.9
    assert found["text_to_audio_r1"] >= 0.8


def test_htdemucs_separates_stems() -> None:
    """SDR is 0 for silence. Vocals are left silent, as the model card says."""
    found = scores("htdemucs", "stems")
    for stem in ("drums", "bass", "other"):
        assert found[f"sdr_{stem}"] > 3.0, found
    assert found["sdr_vocals"] >= 0.0
    assert found["si_sdr_improvement"] > 4.0
    assert found["sdr"] > found["mixture_sdr"] + 8.0


def test_a_probe_finds_tags_in_embeddings_of_mert() -> None:
    found = scores("mert", "music")
    assert found["mean_average_precision"] >= 0.85


# Where they run -----------------------------------------------------------------------------------


@SIZES
def test_they_are_small_and_declared_as_unpublished(family: str) -> None:
    name, _, weights = NANO[family].partition("@")
    (of,) = [one for one in catalog.load().families if one.name == family]
    (declared,) = [one for one in of.variants if one.name == name]
    network = opened(family).network  # type: ignore[attr-defined]
    parameters = sum(one.numel() for one in network.parameters())
    # Codebooks are buffers, which the published numbers count.
    parameters += sum(one.numel() for part, one in network.named_buffers() if "codebook" in part)
    assert declared.parameters == pytest.approx(parameters / 1e6, abs=0.06)
    assert declared.parameters < min(CORE_ON_EMULATORS, QUICK_WHERE_SLOW)
    assert not declared.published and declared.weights == (weights,)
    assert of.stand_in == (name if weights == "trained" else "")


@SIZES
def test_emulators_run_them_in_the_core_profile(family: str) -> None:
    """And no published size of the family, which would take hours there."""
    cases = Selection(targets=EMULATORS).cases(catalog.load())
    chosen = {(c.target.name, c.variant.name) for c in cases if c.family.name == family}
    assert chosen == {(target, NANO[family].partition("@")[0]) for target in EMULATORS}
