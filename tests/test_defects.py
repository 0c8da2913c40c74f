"""Planted defects: each check of the suites must be seen to fail on what it is there to find.

One run of the suites over runtimes that each have one defect (see faulty_catalog.py), and over
sound ones, on which no alarm may be raised.
"""

from __future__ import annotations

import re
import runpy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from compat import catalog
from compat.contract.profile import CORE
from compat.judge.results import Collection, Observation
from compat.report import build
from compat.report.model import Configuration

NUMERICS, TASK, STRESS = "accuracy.numerics", "accuracy.task", "robustness.stress"
LATENCY, LOADS, PLACED = "latency.task", "support.loads", "support.placed"
HOST = "latency.host"
SOUND = [f"sound-{name}-{number}" for name in ("torch", "onnx") for number in range(1, 6)]


@dataclass(frozen=True)
class Found:
    """What the run found: observations by case and check, ratings by target and recipe."""

    observations: Mapping[tuple[str, str], Observation]
    ratings: Mapping[str, Configuration]
    collection: Collection

    def of(self, case: str, check: str) -> Observation:
        return self.checks(case)[check]

    def checks(self, case: str) -> dict[str, Observation]:
        """Return a case's observations by check; skip the test if its runtime is not installed."""
        name = f"toy@{case}"
        found = {check: one for (of, check), one in self.observations.items() if of == name}
        for one in found.values():
            for module in re.findall(r"No module named '(\w+)", one.reason):
                pytest.importorskip(module)
        return found


@pytest.fixture(scope="module")
def found(suites: Any, tmp_path_factory: pytest.TempPathFactory) -> Found:
    run = suites.run(
        tmp_path_factory.mktemp("defects"),
        "--weights=pretrained,seeded",
        "--targets=faulty-*,sound-*,cpu-onnxruntime",
        # With generated weights, those that no task metric helps to find; what computes nothing
        # belongs to the tests of workers, and int8 only where a layer of it is broken.
        "-k=not nothing and (pretrained or torch-1 or ignores or nan or state or early)"
        " and not (onnxruntime and not int8-dynamic) and not (onnxruntime and seeded)",
        "--recipes=fp32,int8-dynamic",
    )
    assert run.status == 1, run.text
    collection = run.collection
    assert not collection.problems
    ratings = {f"{one.target}/{one.recipe}": one for one in build(collection).configurations}
    observations = {(one.case, one.check): one for one in run.observations}
    return Found(observations, ratings, collection)


FAILED = [
    # Case, check, what the reason says.
    ("pretrained/faulty-ignores-input/fp32", NUMERICS, "the same output for different inputs"),
    ("pretrained/faulty-ignores-input/fp32", TASK, "clean.no_worse_share 0"),
    ("pretrained/faulty-ignores-input/fp32", STRESS, "worse"),
    ("pretrained/faulty-on-processor/fp32", PLACED, "share 0"),
    # ONNX Runtime's own fallback, which warns once and answers rightly.
    ("pretrained/faulty-fell-back/fp32", PLACED, "share 0"),
    ("pretrained/faulty-unseen-fallback/fp32", HOST, "speed_up"),
    ("pretrained/faulty-lying-bf16/fp32", NUMERICS, "encoder.snr_db"),
    ("pretrained/faulty-lying-bf16/fp32", NUMERICS, "logits.error_ratio"),
    ("pretrained/faulty-nan/fp32", TASK, "outputs hold NaN values"),
    ("pretrained/faulty-nan/fp32", STRESS, "outputs hold NaN values"),
    ("pretrained/faulty-nan-decoder/fp32", TASK, "clean.no_worse_share"),
    ("pretrained/faulty-nan-decoder/fp32", LATENCY, "timed outputs are not those that were judged"),
    ("pretrained/faulty-truncates/fp32", NUMERICS, "truncated shape (99, 32), expected (100, 32)"),
    ("pretrained/faulty-stops-early/fp32", TASK, "clean.degradation"),
    ("pretrained/faulty-stops-early/fp32", STRESS, "worse"),
    ("pretrained/faulty-keeps-state/fp32", TASK, "clean.degradation"),
    ("pretrained/faulty-keeps-state/fp32", NUMERICS, "logits.error_ratio"),
    ("pretrained/faulty-keeps-state/fp32", STRESS, "changed_by_order"),
    ("pretrained/faulty-memoises/fp32", LATENCY, "a cached result"),
    ("pretrained/faulty-does-not-wait/fp32", LATENCY, "the run returned before the work was done"),
    ("pretrained/faulty-aliased/fp32", NUMERICS, "logits.snr_db"),
    ("pretrained/faulty-aliased/fp32", NUMERICS, "logits.error_ratio"),
    ("pretrained/faulty-broken-layer/int8-dynamic", NUMERICS, "logits.error_ratio"),
    # Generated weights, of which no task metric can say anything.
    ("seeded/faulty-ignores-input/fp32", NUMERICS, "the same output for different inputs"),
    ("seeded/faulty-nan/fp32", NUMERICS, "values are NaN"),
    ("seeded/faulty-nan/fp32", STRESS, "NaN"),
    ("seeded/faulty-nan-decoder/fp32", NUMERICS, "values are NaN"),
    ("seeded/faulty-keeps-state/fp32", NUMERICS, "logits.error_ratio"),
    ("seeded/faulty-keeps-state/fp32", STRESS, "worst_snr_db"),
]


@pytest.mark.parametrize(("case", "check", "said"), FAILED)
def test_a_defect_is_found(found: Found, case: str, check: str, said: str) -> None:
    one = found.of(case, check)
    assert (one.status, one.level) == ("failed", "failed"), one
    assert said in one.reason


def test_an_early_end_is_found_without_a_task_metric(found: Found) -> None:
    """Generated weights run a declared number of tokens: fewer is a truncated output."""
    checks = found.checks("seeded/faulty-stops-early/fp32")
    failed = [one.reason for one in checks.values() if one.status == "failed"]
    assert any("truncated" in reason for reason in failed), failed


def test_a_lower_precision_that_is_reported_is_unsupported(found: Found) -> None:
    """In every check, so that nothing of bfloat16 is shown where float32 was asked for."""
    checks = found.checks("pretrained/faulty-honest-bf16/fp32")
    assert len(checks) == 6
    for one in checks.values():
        assert one.status == "unsupported", one
        assert one.reason.startswith("executed bf16")
    rating = found.ratings["faulty-honest-bf16/fp32"].rating
    assert rating.label == "None (unsupported)"


@pytest.mark.parametrize(
    ("target", "gate"),
    [
        ("faulty-ignores-input/fp32", "accurate"),
        ("faulty-on-processor/fp32", "placed"),
        ("faulty-fell-back/fp32", "placed"),
        ("faulty-lying-bf16/fp32", "accurate"),
        ("faulty-nan/fp32", "accurate"),
        ("faulty-nan-decoder/fp32", "accurate"),
        ("faulty-truncates/fp32", "accurate"),
        ("faulty-stops-early/fp32", "accurate"),
        ("faulty-keeps-state/fp32", "accurate"),
        ("faulty-memoises/fp32", "real_time"),
        ("faulty-does-not-wait/fp32", "real_time"),
        ("faulty-aliased/fp32", "accurate"),
        ("faulty-broken-layer/int8-dynamic", "accurate"),
    ],
)
def test_no_defect_is_rated_high(found: Found, target: str, gate: str) -> None:
    found.checks(f"pretrained/{target}")
    one = found.ratings[target]
    states = {found.key: found.state for found in one.gates}
    assert states[gate] == "failed"
    assert one.rating.ceiling in ("None", "Limited")
    assert one.why


def test_the_broken_artifact_differs_from_a_sound_one(found: Found) -> None:
    """The same recipe without the broken layer passes: not the precision is at fault."""
    sound = found.of("pretrained/cpu-onnxruntime/int8-dynamic", NUMERICS)
    broken = found.of("pretrained/faulty-broken-layer/int8-dynamic", NUMERICS)
    assert sound.status == "passed", sound.reason
    ratio = broken.values["logits"]["error_ratio"] / sound.values["logits"]["error_ratio"]
    assert ratio > 3


@pytest.mark.parametrize("target", [*SOUND, "sound-slow", "sound-queue"])
def test_no_alarm_on_a_sound_backend(found: Found, target: str) -> None:
    """Two runtimes, five times each from a fresh process; slow and asynchronous ones beside."""
    checks = found.checks(f"pretrained/{target}/fp32")
    assert len(checks) == 6
    for one in checks.values():
        # A busy machine may leave a timing inconclusive, which is no alarm.
        assert one.status in ("passed", "inconclusive"), (one.check, one.reason)
    rating = found.ratings[f"{target}/fp32"].rating
    assert rating.ceiling == "High", rating


def test_a_fallback_answers_rightly(found: Found) -> None:
    """Nothing but placement and speed shows it: that is why both are asked."""
    fell_back = found.checks("pretrained/faulty-fell-back/fp32")
    assert {fell_back[check].status for check in (LOADS, TASK, NUMERICS, STRESS)} == {"passed"}
    unseen = found.checks("pretrained/faulty-unseen-fallback/fp32")
    assert unseen[PLACED].status == "passed" and unseen[PLACED].values["share"] == 1.0
    assert unseen[HOST].values["speed_up"] < 1.0


def test_no_alarm_on_a_device_that_is_faster_than_its_host(found: Found) -> None:
    one = found.of("pretrained/sound-accelerator/fp32", HOST)
    assert one.status == "passed" and one.values["speed_up"] > 1.0, one
    assert len(one.samples["host_s"]) == len(one.samples["target_s"]) == 3


def test_no_alarm_on_a_sound_backend_with_generated_weights(found: Found) -> None:
    checks = found.checks("seeded/sound-torch-1/fp32")
    assert {one.status for one in checks.values()} <= {"passed", "inconclusive"}, checks


def test_false_timings_are_no_yardstick(found: Found) -> None:
    """What answers from memory is no processor to compare an accelerator with."""
    kept = ("toy@pretrained/faulty-memoises/fp32", "toy@pretrained/faulty-on-processor/fp32")
    runs = [
        replace(
            run,
            planned=tuple(one for one in run.planned if one.case.id in kept),
            started=(),
            observations=tuple(one for one in run.observations if one.case in kept),
        )
        for run in found.collection.runs
    ]
    ratings = {one.target: one for one in build(Collection(tuple(runs))).configurations}
    assert set(ratings) == {"faulty-memoises", "faulty-on-processor"}
    worthwhile = next(g for g in ratings["faulty-on-processor"].gates if g.key == "worthwhile")
    assert worthwhile.state == "unknown", worthwhile.reason


def test_what_reaches_the_host_itself_has_no_host_beside_it() -> None:
    path = Path(__file__).parents[1] / "suites" / "test_latency.py"
    asked = runpy.run_path(str(path))["test_host"].check
    cases = {
        case.target.name: asked.asked(case, CORE)
        for case in catalog.load().cases()
        if case.variant.name == "resemblyzer" and case.recipe.name == "fp32"
    }
    # Their tensors lie in the host's memory, their work is another device's all the same.
    assert cases["rocm-onnxruntime"] and cases["coreml-onnxruntime"]
    assert cases["webnn-chromium-npu"] and cases["cuda-torch"]
    assert not cases["webnn-chromium-cpu"] and not cases["wasm-chromium"]
    assert not cases["cpu-torch"] and not cases["webgpu-chromium-software"]
