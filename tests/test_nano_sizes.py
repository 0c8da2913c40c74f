"""Small sizes with generated weights, which stand for families where a published size is too slow.

Those of the generating families are tested beside their families.
"""

from __future__ import annotations

import pytest
import torch

from compat import catalog
from compat.build.schemes import float_module
from compat.build.torch_session import TorchSession
from compat.contract.graph import Stopwatch
from compat.contract.model_reference import ModelReference
from compat.contract.profile import CORE, QUICK
from compat.inputs.corpus import load
from compat.metrics.numerics import contrast_db
from compat.run.selection import CORE_ON_EMULATORS, QUICK_WHERE_SLOW, Selection
from suites import test_robustness

NANO = {
    "encodec": "encodec-nano",
    "mert": "mert-nano",
    "clap": "clap-nano",
    "htdemucs": "htdemucs-nano",
}
"""The size of each family that hears or codes."""
EMULATORS = ("qualcomm-emulator", "webgpu-chromium-software")
SIZES = pytest.mark.parametrize(("family", "variant"), NANO.items(), ids=NANO.values())


@SIZES
def test_generated_weights_tell_inputs_apart(family: str, variant: str) -> None:
    """Admission, on the inputs of the suites: what answers everything alike measures nothing."""
    model = catalog.open_model(ModelReference(family, variant, "seeded", ""))
    graphs = {graph.name: graph for graph in model.graphs()}
    modules = {name: float_module(graph) for name, graph in graphs.items()}
    session = TorchSession(graphs, modules, dict.fromkeys(graphs, "fp32"), torch.device("cpu"))
    items = model.items(load().with_channels(model.channels), QUICK).numerics
    answers = model.run(session, items, Stopwatch())
    pairs = zip(items, answers, strict=True)
    first, second = [model.trace(session, item, answer) for item, answer in pairs]
    for name in first:
        if first[name].dtype.kind == "f":
            assert contrast_db([first[name], second[name]]) > -12, name
            assert contrast_db([first[name], first[name]]) < -100, "one input twice"


@SIZES
def test_they_are_small_and_declared_as_unpublished(family: str, variant: str) -> None:
    (declared,) = [
        one for of in catalog.load().families for one in of.variants if one.name == variant
    ]
    network = catalog.open_model(ModelReference(family, variant, "seeded", "")).network  # type: ignore[attr-defined]
    weights = sum(one.numel() for one in network.parameters())
    # Codebooks are buffers, which the published numbers count.
    weights += sum(one.numel() for name, one in network.named_buffers() if "codebook" in name)
    assert declared.parameters == pytest.approx(weights / 1e6, abs=0.06)
    assert declared.parameters < min(CORE_ON_EMULATORS, QUICK_WHERE_SLOW)
    assert not declared.published and declared.weights == ("seeded",)


@SIZES
def test_emulators_run_them_in_the_core_profile(family: str, variant: str) -> None:
    """And no published size of the family, which would take hours there."""
    cases = Selection(targets=EMULATORS).cases(catalog.load())
    chosen = {(c.target.name, c.variant.name) for c in cases if c.family.name == family}
    assert chosen == {(target, variant) for target in EMULATORS}


def test_no_search_for_hard_inputs_keeps_an_emulator_for_hours() -> None:
    known = catalog.load()
    for variant in NANO.values():
        case = known.case(f"{variant}@seeded/webgpu-chromium-software/fp32")
        assert not test_robustness.test_search.check.asked(case, CORE), variant
    trained = known.case("whisper-nano@trained/webgpu-chromium-software/fp32")
    assert test_robustness.test_search.check.asked(trained, CORE)


def test_a_processor_runs_a_published_size_instead_where_it_can() -> None:
    """HTDemucs' published size takes minutes with generated weights, and runs when named."""
    selection = Selection(targets=("cpu-torch",))
    cases = selection.cases(catalog.load())
    here = [case for case in cases if case.weights != "pretrained"]
    chosen = {case.variant.name for case in selection.worth(here)}
    assert chosen & {*NANO.values()} == {"htdemucs-nano"}
    # With its weights on this machine the published one runs, and the small one does not.
    assert "htdemucs-nano" not in {case.variant.name for case in selection.worth(cases)}
    named = Selection(models=("encodec-nano", "encodec-24khz"), targets=("cpu-torch",))
    chosen = {case.variant.name for case in named.worth(named.cases(catalog.load()))}
    assert chosen == {"encodec-nano", "encodec-24khz"}
