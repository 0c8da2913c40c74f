"""The tables of measured limits, and the defects that are planted for them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BUILD = Path(__file__).parents[1] / "fixtures" / "build"


@pytest.fixture(scope="module")
def planted() -> Any:
    sys.path.insert(0, str(BUILD))
    try:
        import planted
    finally:
        sys.path.remove(str(BUILD))
    return planted


def _row(target: str, defect: str, snr_db: float, error: float) -> dict[str, Any]:
    output = {"snr_db": snr_db, "worst_cosine": 1.0, "rms_error": error, "signal_rms": 1.0}
    key = f"{target}/int8-weights/{defect or 'sound'}"
    return {
        "key": key,
        "target": target,
        "recipe": "int8-weights",
        "defect": defect,
        "oracle": "oracle/int8-weights/sound",
        "outputs": {"decoder.norm": output, "logits": output},
        "words": {"degradation": 0.0, "words": 100},
    }


def test_a_limit_lies_between_what_is_sound_and_what_is_clearly_broken() -> None:
    rows = [
        _row("oracle", "", 30.0, 0.1),
        _row("cpu-torch", "", 29.0, 0.12),
        _row("cpu-torch", "gross", 10.0, 0.48),
        _row("cpu-torch", "slight", 28.5, 0.13),
    ]
    tables = runpy.run_path(str(BUILD / "limit_tables.py"))["tables"]
    made = tables({row["key"]: row for row in rows}).splitlines()
    assert "| int8-weights | logits.snr_db | 29 to 30 | 10 | 19.5 | slight |" in made
    # The middle of 1.2 and 4.8 times the oracle's error.
    assert any("logits.error_ratio" in line and "| 2.4 | slight |" in line for line in made)
    (slight,) = (line for line in made if "| slight | **nothing** |" in line)
    (gross,) = (line for line in made if "| gross | logits.snr_db, logits.error_ratio" in line)
    assert "| decoder.norm |" in gross and "| – |" in slight


def test_recipes_that_were_not_measured_again_stay() -> None:
    merged = runpy.run_path(str(BUILD / "limit_tables.py"))["merged"]
    head = "| recipe | metric |\n| --- | --- |\n"
    shown = "| recipe, target | defect |\n| --- | --- |\n"
    old = f"{head}| fp32 | a |\n| int8 | b |\n| int8 | c |\n\n{shown}| fp32, cpu | mask |"
    new = f"{head}| int8 | d |\n| int4 | e |\n\n{shown}| int8, cpu | row |"
    assert merged("", new) == new
    assert merged(old + "\n", new) == (
        f"{head}| fp32 | a |\n| int8 | d |\n| int4 | e |\n\n{shown}| fp32, cpu | mask |\n"
        "| int8, cpu | row |"
    )


def test_every_defect_of_weights_changes_some_and_keeps_shapes(planted: Any) -> None:
    torch.manual_seed(0)
    sound = {
        f"model.{side}.{name}": torch.randn(128, 128)
        for side in ("encoder", "decoder")
        for name in ("embed_positions.weight", "layers.1.fc2.weight")
    }
    found = [one for one in planted.DEFECTS if one.weights and one.name != "other-layer"]
    assert len(found) == 6
    for defect in found:
        weights = {name: value.clone() for name, value in sound.items()}
        defect.weights(weights)
        changed = [name for name in sound if not torch.equal(weights[name], sound[name])]
        assert len(changed) == 1, defect
        assert weights[changed[0]].shape == sound[changed[0]].shape


def test_two_layers_exchange_what_makes_their_keys_and_values(planted: Any) -> None:
    parts = ("k_proj.weight", "q_proj.weight", "v_proj.weight", "v_proj.bias")
    names = [f"model.decoder.layers.{n}.encoder_attn.{part}" for n in (1, 2) for part in parts]
    weights = {name: torch.tensor(place) for place, name in enumerate(names)}
    (swap,) = (defect.weights for defect in planted.DEFECTS if defect.name == "other-layer")
    swap(weights)
    assert [int(weights[name]) for name in names] == [4, 1, 6, 7, 0, 5, 2, 3]


def test_half_precision_and_saturation_lose_what_they_should(planted: Any) -> None:
    scores = torch.randn(4, 64) * 5
    with planted.HalfSoftmax():
        half = scores.softmax(dim=-1)
    assert 0 < float((half - scores.softmax(dim=-1)).abs().max()) < 1e-2
    codes, scale = torch.full((1, 4), 127.0), torch.ones(1)
    exact = torch.zeros(1, 1)
    low = planted._saturated(codes, scale, None, (torch.tensor([[0.0, 0.0, 0.0, 255.0]]),), exact)
    high = planted._saturated(codes, scale, None, (torch.full((1, 4), 255.0),), exact)
    assert float(low) == 0  # One product alone fits.
    assert float(high) == -2 * (2 * 127 * 255 - 32767)
