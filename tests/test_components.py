"""A recipe per component, from the command line to the results file, on two runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def openvino_has_bfloat16() -> bool:
    try:
        import openvino
    except ImportError:
        return False
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize(
    ("target", "decoder"),
    [
        ("cpu-torch", "fp16"),
        ("openvino-cpu", "bf16" if openvino_has_bfloat16() else "fp32"),
    ],
)
def test_encoder_and_decoder_differ(suites: Any, tmp_path: Path, target: str, decoder: str) -> None:
    """The encoder in int8 and the decoder in a float format that this processor executes."""
    recipe = f"int8-dynamic+{decoder}-decoder"
    run = suites.run(
        *(tmp_path, f"--targets={target}", f"--recipes={recipe}", "--weights=pretrained"),
        *("-k", "loads or accuracy or latency or memory", "-m", "int8"),
    )
    checks = run.checks(f"toy@pretrained/{target}/{recipe}")
    if {one.status for one in checks.values()} == {"skipped"}:
        pytest.skip(checks["support.loads"].reason)
    assert set(checks) >= {"support.loads", "accuracy.task", "accuracy.numerics", "latency.task"}
    for one in checks.values():
        assert one.status in ("passed", "inconclusive"), (one.check, one.reason)
        assert one.executed == f"encoder int8-dynamic, decoder {decoder}"
    # Each component errs as its own scheme does: the float one is not rounded to integers as well.
    assert checks["accuracy.numerics"].values["logits"]["error_ratio"] < 3


def test_a_component_that_does_not_execute_its_scheme_is_unsupported(
    suites: Any, tmp_path: Path
) -> None:
    """OpenVINO's processor plug-in executes fp16 as bf16 or fp32, in one component too."""
    recipe = "int8-dynamic+fp16-decoder"
    run = suites.run(
        *(tmp_path, "--targets=openvino-cpu", f"--recipes={recipe}", "--weights=pretrained"),
        *("-k", "loads"),
    )
    one = run.checks(f"toy@pretrained/openvino-cpu/{recipe}")["support.loads"]
    if one.status == "skipped":
        pytest.skip(one.reason)
    assert one.status == "unsupported" and "decoder was asked to run fp16" in one.reason
