"""Families that generate, from prompts and noise: nothing but their own files knows of them.

``toy_diffusion.py`` carries a latent through a schedule and answers with stereo sound;
``toy_codes.py`` writes four codes a step with caches, and sound of them. Both go through the suites
as a speech recogniser does, on each kind of runtime that runs graphs.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import forks
import numpy as np
import pytest

from compat import catalog
from compat.build import calibration
from compat.contract.item import Item
from compat.contract.model_reference import ModelReference
from compat.inputs.corpus import DEFAULT
from compat.judge.results import Observation, read_all
from compat.measure.protocol import Protocol
from compat.measure.request import CaseRequest
from compat.models.tasks.base import is_recording
from compat.report import build
from compat.report.text import task_metric
from compat.runtimes.web import browser as web

ROOT = Path(__file__).resolve().parents[1]
TOYS = tuple(ROOT / "tests" / f"{name}.py" for name in ("toy_diffusion", "toy_codes"))
FAULTY = ROOT / "tests" / "faulty_generation.py"
LIMITS = ROOT / "tests" / "toy_generation.toml"
DIFFUSION, CODES = "toy-diffusion", "toy-codes"
MODELS = (DIFFUSION, CODES)
CHROMIUM = "wasm-chromium"
TARGETS = ("cpu-torch", "cpu-onnxruntime", "openvino-cpu", CHROMIUM)
PRIMARY = {DIFFUSION: ("snr_db", "dB"), CODES: ("token_agreement", "share")}
TASK, NUMERICS, STRESS = "accuracy.task", "accuracy.numerics", "robustness.stress"


def lacking(target: str) -> str:
    """Return why a target cannot run here, with what mends it."""
    if target == CHROMIUM:
        return ": ".join(filter(None, web.lacking()))
    package = {"cpu-torch": "torch", "cpu-onnxruntime": "onnxruntime", "openvino-cpu": "openvino"}
    missing = importlib.util.find_spec(package[target]) is None
    return f"pip install {package[target]}" if missing else ""


HERE = tuple(target for target in TARGETS if not lacking(target))


def run(suites: Any, results: Path, *arguments: str, files: tuple[Path, ...] = TOYS) -> Any:
    named = [f"--catalog={file}" for file in files]
    recipe = ("--recipes", "fp32", f"--thresholds={LIMITS}")
    browsers = {web.MODULES: str(web.modules())}
    return suites.run(results, *named, *recipe, *arguments, models=",".join(MODELS), **browsers)


@pytest.fixture(scope="module")
def measured(suites: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("generation")
    return run(suites, folder, "--targets", ",".join(HERE))


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> Iterator[None]:
    """Make both toys known to this process for one test."""
    monkeypatch.delenv(catalog.ENVIRONMENT, raising=False)
    monkeypatch.setenv("COMPAT_CACHE", str(cache_folder))
    # `use` changes the environment by itself: it is put back with the rest.
    monkeypatch.setenv(catalog.ENVIRONMENT, "")
    catalog.use([str(file) for file in TOYS])
    yield
    catalog.load.cache_clear()


# Through the suites ----------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", MODELS)
def test_they_are_measured(measured: Any, model: str, target: str) -> None:
    if reason := lacking(target):
        pytest.skip(reason)
    checks = measured.checks(f"{model}@trained/{target}/fp32")
    expected = {"support.loads", TASK, NUMERICS, "latency.task", "memory.peak"}
    # A page is slow: a first look leaves its hard inputs out.
    expected |= set() if target == CHROMIUM else {STRESS}
    assert expected <= set(checks), measured.text
    for check in expected - {"latency.task"}:  # It may be inconclusive on a busy machine.
        assert checks[check].status == "passed", (check, checks[check].reason)
        assert checks[check].level == "strict", (check, checks[check].reason)
    assert checks["latency.task"].status in ("passed", "inconclusive")
    name, unit = PRIMARY[model]
    assert name in checks[TASK].values["prompts"]
    facts = checks[TASK].metrics[name]
    assert (facts.unit, facts.better, facts.primary) == (unit, "higher", True)


def test_hard_prompts_are_tried(measured: Any) -> None:
    inputs = {
        model: set(measured.checks(f"{model}@trained/cpu-torch/fp32")[STRESS].values["inputs"])
        for model in MODELS
    }
    assert {"hard-empty", "hard-very-long", "hard-much-noise"} <= inputs[DIFFUSION]
    assert {"hard-empty", "hard-very-long", "hard-repeated"} <= inputs[CODES]
    assert not any(name.startswith("stress-") for names in inputs.values() for name in names)


def test_the_search_says_that_it_draws_audio_alone(measured: Any) -> None:
    search = measured.checks("toy-codes@trained/cpu-torch/fp32")["robustness.search"]
    assert search.status == "skipped"
    assert "draws audio" in search.reason


def test_arrays_stay_out_of_the_results(measured: Any) -> None:
    sound = measured.checks("toy-diffusion@trained/cpu-torch/fp32")[TASK].predictions[0]
    assert sound["prediction"].keys() == {"audio"}
    assert sound["prediction"]["audio"].keys() == {"shape", "sha256"}
    assert sound["prediction"]["audio"]["shape"] == [2, 2048]
    codes = measured.checks("toy-codes@trained/cpu-torch/fp32")[TASK].predictions
    assert all(len(step) == 4 for row in codes for step in row["prediction"]["tokens"])
    lengths = {len(row["prediction"]["tokens"]) for row in codes}
    assert len(lengths) > 1  # The stop rule ended them.


def test_time_is_held_against_what_was_made(measured: Any) -> None:
    checks = measured.checks("toy-codes@trained/cpu-torch/fp32")
    lengths = [len(row["prediction"]["tokens"]) for row in checks[TASK].predictions]
    seconds = checks["latency.task"].samples["audio_seconds"]
    assert {round(one * 100) for one in seconds} <= set(lengths)  # A step gives 10 ms.


# Afterwards ------------------------------------------------------------------------------------


def test_the_report_shows_their_primary_metric(measured: Any) -> None:
    report = build(measured.collection)
    shown = {(one.family, one.target): task_metric(one) for one in report.configurations}
    assert {(model, target) for model in MODELS for target in HERE} == set(shown)
    assert report.rows == ("Toy generation",) or "Toy generation" in report.rows
    for (family, _), metric in shown.items():
        name = {DIFFUSION: "snr db 1", CODES: "token agreement 100 %"}[family]
        assert metric.startswith(name), metric
        assert "(prompts)" in metric


def test_what_results_hold_is_scored_again(suites: Any, measured: Any, tmp_path: Path) -> None:
    """Codes are in the results; of sounds there are digests, and their scores stay."""
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    for file in measured.results.glob("*.jsonl"):
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            if line.get("check") == TASK and "values" in line:
                primary = "snr_db" if line["case"].startswith(DIFFUSION) else "token_agreement"
                line["values"]["prompts"][primary] = 0.5
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (spoilt / file.name).write_text(text, encoding="utf-8")
    again = tmp_path / "again"
    command = [sys.executable, "-m", "compat", "rescore", str(spoilt), "--output", str(again)]
    command += ["--thresholds", str(LIMITS)]
    command += [word for file in TOYS for word in ("--catalog", str(file))]
    forks.run(command, suites.environment(), ROOT, timeout=120).check_returncode()
    scored = {one.case: one for one in observations(again) if one.check == TASK}
    for target in HERE:
        codes = scored[f"{CODES}@trained/{target}/fp32"]
        original = measured.checks(codes.case)[TASK]
        assert codes.values == original.values
        assert codes.metrics == original.metrics
        assert codes.status == "passed"
        sound = scored[f"{DIFFUSION}@trained/{target}/fp32"]
        assert sound.values["prompts"]["snr_db"] == 0.5
        assert sound.metrics == measured.checks(sound.case)[TASK].metrics
        assert sound.status == "failed"  # Judged by the limits all the same.


def observations(folder: Path) -> list[Observation]:
    return [one for run in read_all([folder]).runs for one in run.observations]


# What a first look leaves out ------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_batches_answer_as_single_inputs_do(toys: None, model: str) -> None:
    request = CaseRequest(f"{model}@trained/cpu-torch/fp32", str(DEFAULT), "core", threads=1)
    stage = Protocol(asdict(request)).stage("stress", {})
    assert stage["batch"] == {"items": 2, "different": []}
    batch = Protocol(asdict(request)).stage("throughput", {"batch": 2, "rounds": 1})
    assert batch["audio_s"] > 0


@pytest.mark.parametrize("model", MODELS)
def test_quantisers_see_unseen_prompts(toys: None, model: str) -> None:
    reference = ModelReference(model, model, "trained", "")
    graphs = catalog.open_model(reference).graphs()
    for graph in graphs:
        recorded = calibration.record(reference, graph.name, next(iter(graph.points)), "")
        assert recorded.said == "24 inputs like those that are judged"
        assert recorded.feeds[0].keys() == {*graph.inputs, *graph.state}
        one, other = recorded.feeds[0], recorded.feeds[-1]
        assert any(not np.array_equal(one[name], other[name]) for name in graph.inputs)


def test_audio_with_a_prompt_is_no_recording_of_a_corpus() -> None:
    """Of such an input a corpus has one half: nothing may be put in its place."""
    audio = np.zeros(16_000, np.float32)
    spoken = Item.from_audio("spoken", audio)
    assert is_recording(spoken)
    assert not is_recording(replace(spoken, inputs={"audio": audio, "prompt": "louder"}))
    assert not is_recording(Item("prompt", {"prompt": "louder"}, 1.0))


# Planted defects -------------------------------------------------------------------------------

BOTH = (TASK, NUMERICS)
DEFECTS = {
    f"{DIFFUSION}@trained/drops-carry": BOTH,
    f"{DIFFUSION}@trained/loses-step": BOTH,
    f"{DIFFUSION}@trained/ignores-noise": BOTH,
    f"{DIFFUSION}@trained/ignores-prompt": BOTH,
    f"{DIFFUSION}@trained/swaps-channels": BOTH,
    f"{CODES}@trained/ignores-words": BOTH,
    f"{CODES}@trained/forgets-past": BOTH,
    # Numerics force the codes, so that what happens to them shows in the answers alone.
    f"{CODES}@trained/drops-codes": (TASK,),
    f"{CODES}@trained/shifts-streams": (TASK,),
    f"{CODES}@trained/stops-at-one-code": (TASK,),
}


@pytest.fixture(scope="module")
def spoilt(suites: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("defects-of-generation")
    targets = ",".join(case.rpartition("/")[2] for case in DEFECTS)
    files = (*TOYS, FAULTY)
    return run(suites, folder, "--targets", targets, "-k", "accuracy or stress", files=files)


@pytest.mark.parametrize("case", DEFECTS)
def test_defects_are_caught(spoilt: Any, case: str) -> None:
    checks = spoilt.checks(f"{case}/fp32")
    assert set(checks) == {*BOTH, STRESS}, spoilt.text
    failed = {check for check, one in checks.items() if one.status == "failed"}
    assert failed - {STRESS} == set(DEFECTS[case]), [one.reason for one in checks.values()]
    # Hard inputs show each of them too, and need no limits of the family's own.
    assert checks[STRESS].level in ("relaxed", "failed")
