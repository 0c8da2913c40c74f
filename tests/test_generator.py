"""Generated weights: normalisations are known by their class, and published digests stay."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from compat.catalog import open_model
from compat.contract.model_reference import ModelReference
from compat.inputs import generator
from compat.models import segmentation, wespeaker


def filled(network: nn.Module, gain: float | None = 1.0) -> nn.Module:
    generator.seed(network, lambda name: gain)
    return network


class T5LayerNorm(nn.Module):
    """A normalisation of a library's own, as transformers has it for T5."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8))


class Subclass(nn.GroupNorm):
    """As Demucs has one, with another name."""


class NormalLayer(nn.Module):
    """Is called much like a normalisation, and is none."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LayerNorm(8),
        lambda: nn.RMSNorm(8),
        lambda: nn.GroupNorm(2, 8),
        lambda: nn.BatchNorm1d(8),
        lambda: nn.BatchNorm2d(8),
        lambda: nn.InstanceNorm1d(8, affine=True),
        lambda: Subclass(2, 8),
        T5LayerNorm,
    ],
)
@pytest.mark.parametrize("name", ["LayerNorm", "final_layer_norm", "1", "bn"])
def test_normalisations_are_ones_whatever_they_are_called(
    make: Callable[[], nn.Module], name: str
) -> None:
    network = filled(nn.ModuleDict({name: make()}), 0.5).state_dict()
    assert (network[f"{name}.weight"] == 1).all()
    for other in network.keys() & {f"{name}.bias"}:
        assert 0 < network[other].abs().max() <= 0.01


def test_what_is_only_called_a_normalisation_is_none() -> None:
    network = filled(nn.ModuleDict({"norm": NormalLayer(), "layer_norm": nn.Linear(4, 4)}))
    assert 0 < network.state_dict()["norm.weight"].abs().max() < 0.02
    assert network.state_dict()["layer_norm.weight"].std() > 0.2


def test_normalisations_without_weights_are_left_alone() -> None:
    assert not list(filled(nn.InstanceNorm1d(8)).parameters())


def test_a_normalisation_may_keep_what_its_architecture_gives_it() -> None:
    network = nn.Sequential(nn.LayerNorm(8))
    nn.init.constant_(network[0].weight, 3.0)
    assert (filled(network, None).state_dict()["0.weight"] == 3).all()


@pytest.mark.parametrize("dim", [0, 2])
def test_weight_normalisation_changes_no_kernel(dim: int) -> None:
    """The same kernel, whether it is filled before or after length and direction are joined."""

    def convolution() -> Any:
        return nn.Sequential(nn.Conv1d(6, 4, 5))

    plain, normed = filled(convolution())[0], convolution()
    parametrizations.weight_norm(normed[0], "weight", dim=dim)
    filled(normed)
    torch.testing.assert_close(normed[0].weight, plain.weight, rtol=1e-6, atol=0)
    parametrize.remove_parametrizations(normed[0], "weight")
    torch.testing.assert_close(normed[0].weight, plain.weight, rtol=1e-6, atol=0)
    assert torch.equal(normed[0].bias, plain.bias)


def test_a_kernel_under_weight_normalisation_may_keep_its_values() -> None:
    network = parametrizations.weight_norm(nn.Conv1d(6, 4, 5))
    before = {name: one.clone() for name, one in network.state_dict().items()}
    filled(network, None)
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())


# Published results were measured with these weights: another digest makes them stale.
DIGESTS = {
    "wespeaker": "58d7c9fb37ee17ed",
    "segmentation": "1eeb68991c80bd9c",
    "whisper-tiny": "e6dc31b37b55a0d4",
    "wav2vec2-base": "b22e7c404468f2e9",
}


SINUSOIDS = "encoder.embed_positions.weight"
"""Computed by PyTorch and not generated: its last bits are the processor's."""


def digest_of(network: nn.Module) -> str:
    found = hashlib.sha256()
    for name, value in network.state_dict().items():
        if name.endswith(SINUSOIDS):
            continue
        found.update(name.encode())
        found.update(value.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize("family", DIGESTS)
def test_generated_weights_stay_what_they_are(family: str) -> None:
    own: dict[str, Callable[[None], nn.Module]] = {
        "wespeaker": wespeaker.PUBLISHED.load,
        "segmentation": segmentation.PUBLISHED.load,
    }
    if family in own:
        network = own[family](None)
    else:
        name = family.partition("-")[0]
        network = open_model(ModelReference(name, family, "seeded")).network  # type: ignore[attr-defined]
    assert digest_of(network) == DIGESTS[family]
