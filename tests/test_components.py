"""A recipe per component, from the command line to the results file, on two runtimes."""

from __future__ import annotations

from typing import Any

import pytest


def openvino_has_bfloat16() -> bool:
    try:
        import openvino
    except ImportError:
        return False
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


RECIPES = {
    "cpu-torch": ("int8-dynamic+fp16-decoder", "fp16"),
    "openvino-cpu": ("int8-dynamic+bf16-decoder", "bf16")
    if openvino_has_bfloat16()
    else ("int8-dynamic+fp32-decoder", "fp32"),
}


@pytest.fixture(scope="module")
def run(suites: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    recipes = ",".join(dict.fromkeys(recipe for recipe, _ in RECIPES.values()))
    return suites.run(
        tmp_path_factory.mktemp("components") / "results",
        *(f"--targets={','.join(RECIPES)}", f"--recipes={recipes}", "--weights=pretrained"),
        # What PyTorch makes of bfloat16 is not asked: it costs time.
        *("-k", "(loads or accuracy) and not (torch and bf16)", "-m", "int8"),
    )


@pytest.mark.parametrize("target", RECIPES)
def test_encoder_and_decoder_differ(run: Any, target: str) -> None:
    """The encoder in int8 and the decoder in a float format that this processor executes."""
    recipe, decoder = RECIPES[target]
    checks = run.checks(f"toy@pretrained/{target}/{recipe}")
    assert set(checks) == {"support.loads", "accuracy.task", "accuracy.numerics"}, run.text
    if {one.status for one in checks.values()} == {"skipped"}:
        pytest.skip(checks["support.loads"].reason)
    for one in checks.values():
        assert one.status == "passed", (one.check, one.reason)
        assert one.executed == f"encoder int8-dynamic, decoder {decoder}"
    # Each component errs as its own scheme does: the float one is not rounded to integers as well.
    assert checks["accuracy.numerics"].values["logits"]["error_ratio"] < 3


def test_a_component_that_does_not_execute_its_scheme_is_unsupported(run: Any) -> None:
    """OpenVINO executes fp16 as bf16 or fp32 on a processor without it, in one component too."""
    one = run.checks("toy@pretrained/openvino-cpu/int8-dynamic+fp16-decoder")["support.loads"]
    if one.status == "skipped":
        pytest.skip(one.reason)
    if one.status == "passed":
        assert one.executed == "encoder int8-dynamic, decoder fp16"
        return
    assert one.status == "unsupported" and "decoder was asked to run fp16" in one.reason
