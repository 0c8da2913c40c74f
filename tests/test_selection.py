"""Choosing what to run: marks, options, their typos, and what pytest itself offers."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from compat import catalog
from compat.contract.case import Family, Variant
from compat.contract.errors import CompatError
from compat.contract.profile import CORE, FULL, QUICK
from compat.run.selection import Selection, check_mark_expression, marks, suggestion
from suites import test_robustness

SEEDED = ("--weights", "seeded")
WATCHED = """
import gc, os, sys, pytest

class Watch:
    states = set()

    def pytest_itemcollected(self, item):
        self.states.add(gc.isenabled())

watch, out, sys.stdout = Watch(), sys.stdout, open(os.devnull, "w")
words = ["--collect-only", "-qq", "-p", "no:cacheprovider", *sys.argv[1:]]
status = pytest.main(words, plugins=[watch])
print(int(status), watch.states, gc.get_freeze_count() > 0, gc.isenabled(), file=out)
"""
"""Says whether garbage was searched for while tests were collected, and afterwards."""


def collected(text: str) -> list[str]:
    """Return the case ids that a collection printed, each once."""
    found = re.findall(r"::test_\w+\[([^\]]+)\]", text)
    return list(dict.fromkeys(found))


def collect(suites: Any, folder: Path, *arguments: str, models: str = "") -> list[str]:
    run = suites.run(folder, "--collect-only", *arguments, models=models)
    assert run.status == 0, run.text
    assert not list(folder.glob("*.jsonl")), "collecting measures nothing"
    return collected(run.text)


# Marks and options -----------------------------------------------------------------------------


def test_marks_combine(suites: Any, tmp_path: Path) -> None:
    found = collect(suites, tmp_path, "-m", "openvino and int8", *SEEDED)
    assert "whisper-tiny.en@seeded/openvino-cpu/int8-weights" in found
    assert all("/openvino-" in case and "/int8" in case for case in found)


def test_marks_exclude(suites: Any, tmp_path: Path) -> None:
    found = collect(suites, tmp_path, "-m", "whisper and not emulator and seeded")
    assert "whisper-tiny.en@seeded/cpu-torch/fp32" in found
    assert all(case.startswith("whisper-") and "@seeded" in case for case in found)


def test_options_combine(suites: Any, tmp_path: Path) -> None:
    options = ("--targets=cpu-torch,openvino", "--recipes=fp32,int8", "--weights=seeded")
    found = collect(suites, tmp_path, *options, models="whisper-tiny,whisper-large-v3")
    assert found[0] == "whisper-tiny@seeded/cpu-torch/fp32"
    assert {case.split("/")[0] for case in found} == {
        "whisper-tiny@seeded",
        "whisper-large-v3@seeded",
    }
    assert {case.split("/")[1].split("-")[0] for case in found} == {"cpu", "openvino"}
    assert not any("fp16" in case or "onnxruntime" in case for case in found)


def test_a_recipe_per_component(suites: Any, tmp_path: Path) -> None:
    options = ("--recipes=int8-weights+fp32-decoder", "--targets=cpu-torch", *SEEDED)
    found = collect(suites, tmp_path, *options, models="toy")
    assert found == ["toy@seeded/cpu-torch/int8-weights+fp32-decoder"]


def test_a_variant_called_like_its_family_is_selected_by_name() -> None:
    variants = (Variant("only", ("seeded",)), Variant("only-large", ("seeded",)))
    family = Family("only", "asr", "Only", "only", variants)
    runtime = catalog.load().runtime("torch")
    small = catalog.Catalog((family,), (runtime,))
    found = Selection(models=("only",), targets=("cpu-torch",)).cases(small)
    assert {case.variant.name for case in found} == {"only"}
    found = Selection(models=("only*",), targets=("cpu-torch",)).cases(small)
    assert {case.variant.name for case in found} == {"only", "only-large"}
    assert not Selection(targets=("cpu-torch",)).cases(small), "it is not of the core profile"


@pytest.mark.parametrize(
    "asking",
    [
        {"targets": ("qualcomm",)},
        {"targets": ("qualcomm-emulator",)},
        {"marked": frozenset({"qualcomm"})},
        {"marked": frozenset({"emulator"})},
        {"profile": FULL},
    ],
    ids=str,
)
def test_emulators_run_when_they_are_asked_for(asking: dict[str, Any]) -> None:
    known = catalog.load()
    assert "emulator" in {c.target.evidence for c in Selection(**asking).cases(known)}
    for silent in ({}, {"models": ("whisper-nano",)}, {"targets": ("*-*",)}):
        chosen = {c.target.evidence for c in Selection(**silent).cases(known)}
        assert ("emulator" in chosen) == ("targets" in silent)


def test_slow_starters_run_when_they_are_named() -> None:
    known = catalog.load()
    name = "cpu-torch-compile"

    def targets(**fields: Any) -> set[str]:
        return {case.target.name for case in Selection(**fields).cases(known)}

    assert name not in targets()
    assert name not in targets(models=("whisper-nano",), targets=("cpu",))
    assert name in targets(targets=(name,))
    assert name in targets(marked=frozenset({"torch_compile", "and", "fp32"}))
    assert name in targets(profile=FULL)


def test_the_core_profile_leaves_out_what_decides_nothing() -> None:
    known = catalog.load()

    def cases(**fields: Any) -> set[tuple[str, str, str]]:
        found = Selection(targets=("cpu-torch", "cpu-onnxruntime"), **fields).cases(known)
        return {(c.target.name, c.recipe.name, f"{c.variant.name} {c.weights}") for c in found}

    chosen = cases()
    published = {case for case in chosen if case[:2] == ("cpu-torch", "int8-dynamic")}
    assert ("cpu-torch", "int8-dynamic", "whisper-tiny.en pretrained") in published
    assert {weights.rpartition(" ")[2] for *_, weights in published} == {"pretrained"}
    assert not [name for *_, name in published if name.startswith("whisper-tiny ")]
    assert {(target, recipe) for target, recipe, _ in chosen - published} == {
        ("cpu-torch", "fp32"),
        ("cpu-onnxruntime", "fp32"),
        ("cpu-onnxruntime", "int8-dynamic"),
    }
    assert {target for target, *_ in cases(recipes=("int8-dynamic",))} == {
        "cpu-torch",
        "cpu-onnxruntime",
    }
    speakers = {model for *_, model in cases() if model.startswith("wespeaker")}
    assert speakers == {"wespeaker-resnet34 pretrained"}
    for asked in (
        {"models": ("wespeaker",)},
        {"weights": ("seeded",)},
        {"marked": frozenset({"wespeaker"})},
    ):
        assert "wespeaker-resnet34 seeded" in {model for *_, model in cases(**asked)}, asked


def test_generated_weights_give_way_to_published_ones_that_are_here() -> None:
    chosen = Selection(("whisper-tiny.en",), ("cpu-torch", "openvino-cpu"), ("fp32",))
    cases = chosen.cases(catalog.load())
    absent = "whisper-tiny.en@pretrained/openvino-cpu/fp32"
    found = {case.id for case in chosen.worth(case for case in cases if case.id != absent)}
    assert found == {
        "whisper-tiny.en@pretrained/cpu-torch/fp32",
        "whisper-tiny.en@seeded/openvino-cpu/fp32",
    }
    for asked in ({"weights": ("seeded",)}, {"profile": FULL}, {"marked": frozenset({"seeded"})}):
        selection = replace(chosen, **asked)
        cases = selection.cases(catalog.load())
        assert any(case.weights == "seeded" for case in cases)
        assert selection.worth(cases) == cases


def test_integers_of_generated_weights_are_core_where_a_stand_in_judges_them() -> None:
    known = catalog.load()

    def recipes(model: str, **fields: Any) -> set[str]:
        cases = Selection(targets=("cpu-onnxruntime",), weights=("seeded",), **fields).cases(known)
        return {case.recipe.name for case in cases if case.variant.name == model}

    assert recipes("wav2vec2-base") == {"fp32", "int8-dynamic"}
    assert recipes("encodec-24khz") == {"fp32"}
    for asked in (
        {"recipes": ("int8-dynamic",)},
        {"models": ("encodec-24khz",)},
        {"profile": FULL},
    ):
        assert "int8-dynamic" in recipes("encodec-24khz", **asked), asked


def test_a_first_look_takes_one_variant_of_each_family_in_fp32() -> None:
    known = catalog.load()

    def cases(**fields: Any) -> set[tuple[str, str]]:
        found = Selection(targets=("cpu",), profile=QUICK, **fields).cases(known)
        return {(case.variant.name, case.recipe.name) for case in found}

    families = {
        family.stand_in or family.headline
        for family in known.families
        if any(set(variant.weights) != {"seeded"} for variant in family.variants)
    }
    # whisper.cpp has no float32: its plain recipe is half precision.
    assert cases() == {*((name, "fp32") for name in families), ("whisper-nano", "fp16")}
    assert {recipe for _, recipe in cases(recipes=("int8-dynamic",))} == {"int8-dynamic"}
    marked = cases(marked=frozenset({"bf16"}))
    assert {name for name, _ in marked} == families and {"bf16"} < {recipe for _, recipe in marked}
    assert ("whisper-tiny.en", "fp32") in cases(models=("whisper",))
    assert ("whisper-tiny.en", "fp32") in cases(weights=("seeded",))
    assert ("whisper-tiny.en", "fp32") in cases(marked=frozenset({"seeded"}))


def test_a_first_look_of_a_named_model_is_in_fp32_too() -> None:
    known = catalog.load()
    named = Selection(("whisper-base",), ("cpu-torch", "openvino-cpu"), profile=QUICK)
    assert {case.recipe.name for case in named.cases(known)} == {"fp32"}
    assert {case.weights for case in named.cases(known)} == {"pretrained", "seeded"}
    asked = replace(named, recipes=("int8",))
    assert {case.recipe.precision for case in asked.cases(known)} == {"int8"}
    usual = replace(named, profile=CORE)
    assert {"fp32", "int8-dynamic", "int4-weights"} <= {c.recipe.name for c in usual.cases(known)}


def test_a_first_look_of_what_is_slow_is_brief() -> None:
    known = catalog.load()

    def names(target: str, words: tuple[str, ...] = ("webgpu", "webnn"), **fields: Any) -> set[str]:
        asked = Selection(profile=QUICK, marked=frozenset(words), **fields)
        return {c.variant.name for c in asked.cases(known) if c.target.name == target}

    assert all(target.slow for target in known.targets if target.evidence == "emulator")
    small = {
        *("whisper-nano", "wav2vec2-nano", "silero-vad", "resemblyzer", "segmentation-3.0"),
        *("basic-pitch", "clap-nano", "htdemucs-nano", "mert-nano"),
    }
    assert names("webnn-chromium-cpu") == names("webgpu-chromium-software") == small
    assert names("webgpu-firefox") > small, "a GPU gets the pipelines too"
    # What Chromium's software renderer has shown, Firefox's need not, unless it is named.
    second = "webgpu-firefox-software"
    assert names(second) == {"whisper-nano"}
    assert names(second, ("webgpu", "firefox")) == small
    assert names(second, targets=(second,)) == small
    pipeline = ("diarization-synthetic",)
    assert names(second, models=pipeline) == set(pipeline)


def test_keywords_select(suites: Any, tmp_path: Path) -> None:
    found = collect(
        suites, tmp_path, "-k", "cpu-torch and fp32 and numerics", *SEEDED, models="toy"
    )
    assert found == ["toy@seeded/cpu-torch/fp32"]


def test_cases_come_in_one_order() -> None:
    loaded = catalog.load()
    twice = [[case.id for case in Selection().cases(loaded)] for _ in range(2)]
    assert twice[0] == twice[1]
    assert len(set(twice[0])) == len(twice[0])


def test_no_garbage_is_searched_for_among_cases_and_none_of_them_is_searched_later(
    tmp_path: Path,
) -> None:
    def watched(*words: str) -> str:
        command = [sys.executable, "-c", WATCHED, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        return done.stdout.strip()

    assert watched("suites", "--models", "silero-vad") == "0 {False} True True"
    # Another project's tests are collected as ever.
    (tmp_path / "test_other.py").write_text("def test_other():\n    pass\n", encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    other = str(tmp_path / "test_other.py")
    assert watched("-c", str(tmp_path / "pytest.ini"), other) == "0 {True} False True"


def test_every_mark_of_a_case_is_registered() -> None:
    loaded = catalog.load()
    known = set(marks(loaded))
    for case in loaded.cases():
        assert set(case.marks) <= known


# Typos -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (("--models=whisper-tiney",), "whisper-tiny"),
        (("--targets=cpu-torhc",), "cpu-torch"),
        (("--recipes=int8-dynamik",), "int8-dynamic"),
        (("--recipes=int8-wieghts+fp16-decoder",), "int8-weights"),
        (("--recipes=int8-weights+pf16-decoder",), "fp16"),
        (("--weights=seded",), "seeded"),
        (("--require=cudda",), "cuda"),
        (("--checkpoint=whisper-tny=folder",), "whisper-tiny"),
        (("-m", "whispr and cuda"), "whisper"),
        (("-m", "openvino and int-8"), "int8"),
    ],
)
def test_a_typo_names_the_nearest_word(
    suites: Any, tmp_path: Path, arguments: tuple[str, ...], nearest: str
) -> None:
    run = suites.run(tmp_path, "--collect-only", *arguments, models="")
    assert run.status == 4, run.text[-2000:]
    assert f"Did you mean {nearest!r}?" in run.text
    assert "Traceback" not in run.text


def test_far_from_everything_lists_the_words() -> None:
    assert suggestion("xyzzy", ["cpu", "cuda"]) == "there is no 'xyzzy'. There are: cpu, cuda."


def test_a_checkpoint_needs_a_name(suites: Any, tmp_path: Path) -> None:
    run = suites.run(tmp_path, "--checkpoint", "folder")
    assert run.status == 4
    assert "write it as VARIANT=FOLDER" in run.text


def test_words_of_pytest_are_no_typos() -> None:
    known = ("cuda", "benchmark", "parametrize")
    check_mark_expression("cuda and not (benchmark or parametrize)", known)
    with pytest.raises(CompatError, match="Did you mean 'cuda'"):
        check_mark_expression("cudda", known)


# Absence ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def without_cuda() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")


@pytest.mark.usefixtures("without_cuda")
def test_absent_hardware_is_skipped_with_reason_and_remedy(suites: Any, tmp_path: Path) -> None:
    """`pytest -m cuda` on a machine without CUDA, out-of-tree model included."""
    run = suites.run(tmp_path, "-m", "cuda", models="")
    assert run.status == 0, run.text
    assert run.observations
    for one in run.observations:
        assert one.status == "skipped"
        assert "is absent: " in one.reason
        assert one.remedy
    assert re.search(r"SKIPPED .*cuda-torch is absent.*remedy: ", run.text)
    assert {one.case.split("@")[0] for one in run.observations} >= {"toy", "whisper-nano"}


@pytest.mark.usefixtures("without_cuda")
def test_required_hardware_that_is_absent_fails(suites: Any, tmp_path: Path) -> None:
    run = suites.run(tmp_path, "-m", "cuda", "--require", "cuda", "-k", "loads", *SEEDED)
    assert run.status == 1, run.text
    assert run.observations
    assert "cuda-torch is absent" in run.text


@pytest.mark.usefixtures("without_cuda")
def test_here_leaves_out_what_is_absent(suites: Any, tmp_path: Path) -> None:
    found = collect(
        suites, tmp_path, "--targets=here", "--recipes=fp32", "-k", "loads", *SEEDED, models="toy"
    )
    assert "toy@seeded/cpu-torch/fp32" in found
    assert not any("/cuda-" in case or "/mps-" in case for case in found)


def test_required_hardware_must_be_selected(suites: Any, tmp_path: Path) -> None:
    """No case at all can be absent: nothing would fail."""
    run = suites.run(tmp_path, "--require=cuda", "--targets=sound-nothing")
    assert run.status == 4, run.text
    assert "--require cuda: no case that is selected runs on it" in run.text


def test_a_missing_checkpoint_is_skipped_with_remedy(suites: Any, tmp_path: Path) -> None:
    run = suites.run(
        tmp_path,
        *("--weights=pretrained", "--targets=cpu-torch", "--recipes=fp32", "-k", "loads"),
        models="whisper-tiny",
        HF_HUB_CACHE=str(tmp_path / "hub"),
    )
    assert run.status == 0, run.text
    (one,) = run.observations
    assert one.status == "skipped"
    assert one.reason == "no checkpoint openai/whisper-tiny in the local cache"
    assert "--checkpoint whisper-tiny=FOLDER" in one.remedy


def test_nothing_selected_is_no_failure(suites: Any, tmp_path: Path) -> None:
    run = suites.run(tmp_path, "-m", "coreml and nf4", models="toy")
    assert run.status == 0, run.text
    assert "Nothing was selected" in run.text
    assert "compat list" in run.text
    assert not list(tmp_path.glob("*.jsonl"))


# What pytest itself offers ---------------------------------------------------------------------


def test_last_failed_and_junit(suites: Any, tmp_path: Path) -> None:
    """--lf runs again what failed; JUnit XML shows status and reason."""
    options = ("--targets=breaking-exception,sound-nothing", "-k", "loads or placed", *SEEDED)
    options += ("-o", f"cache_dir={tmp_path / 'pytest'}")
    xml = tmp_path / "junit.xml"
    first = suites.run(tmp_path / "first", *options, f"--junitxml={xml}")
    assert first.status == 1
    assert len(first.observations) == 4
    again = suites.run(tmp_path / "again", *options, "--lf")
    assert again.status == 1
    (one,) = again.observations
    assert (one.case, one.check) == ("toy@seeded/breaking-exception/fp32", "support.placed")

    suite = ElementTree.parse(xml).getroot().find("testsuite")  # noqa: S314 (pytest wrote it)
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("4", "1")
    failed = next(case for case in suite.iter("testcase") if case.find("failure") is not None)
    said = {one.get("name"): one.get("value") for one in failed.iter("property")}
    assert said["case"] == "toy@seeded/breaking-exception/fp32"
    assert said["status"] == "error"
    assert said["reason"] == "no kernel for operator Frobnicate"


def test_parallel_processes_share_the_work_but_time_nothing(suites: Any, tmp_path: Path) -> None:
    """`-n 2`: accuracy in parallel, latency not timed, and the results of both processes merge."""
    targets = "cpu-torch,sound-torch-1,sound-torch-2,sound-torch-3"
    run = suites.run(
        *(tmp_path, "-n", "2", "--recipes=fp32", f"--targets={targets}", *SEEDED),
        *("-k", "loads or numerics or latency"),
    )
    assert run.status == 0, run.text
    runs = run.collection.runs
    assert {found.header.worker for found in runs} == {"gw0", "gw1"}
    assert len({found.header.run for found in runs}) == 1
    assert all(found.header.parallel and found.observations for found in runs)
    # A case stays in one process, whose worker serves all of its checks.
    homes = [{one.case for one in found.observations} for found in runs]
    assert not homes[0] & homes[1]
    assert len(homes[0] | homes[1]) == 4
    assert sum(len(found.planned) for found in runs) == 4
    for one in run.observations:
        if one.check.startswith("latency."):
            assert (one.status, one.reason) == ("skipped", "not timed (parallel)")
            assert one.remedy == "run without -n"
        else:
            assert one.status == "passed", one.reason


def test_a_processor_runs_a_published_size_instead_of_a_small_generated_one() -> None:
    """MusicGen's published size takes minutes with generated weights, and runs when named."""
    selection = Selection(targets=("cpu-torch",))
    cases = selection.cases(catalog.load())
    here = [case for case in cases if case.weights != "pretrained"]
    assert "musicgen-nano" in {case.variant.name for case in selection.worth(here)}
    # With its weights on this machine the published one runs, and the small one does not.
    assert "musicgen-nano" not in {case.variant.name for case in selection.worth(cases)}
    named = Selection(models=("musicgen-nano", "musicgen-small"), targets=("cpu-torch",))
    chosen = {case.variant.name for case in named.worth(named.cases(catalog.load()))}
    assert chosen == {"musicgen-nano", "musicgen-small"}


def test_no_search_for_hard_inputs_keeps_an_emulator_for_hours() -> None:
    known = catalog.load()
    for variant in ("musicgen-nano", "encodec-nano"):
        case = known.case(f"{variant}@seeded/webgpu-chromium-software/fp32")
        assert not test_robustness.test_search.check.asked(case, CORE), variant
    trained = known.case("whisper-nano@trained/webgpu-chromium-software/fp32")
    assert test_robustness.test_search.check.asked(trained, CORE)
