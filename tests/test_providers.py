"""ONNX Runtime's providers: found, absent or broken, and never the CPU in disguise."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from compat import catalog
from compat.build.sources import sources
from compat.contract.case import Recipe, Target
from compat.contract.graph import Stopwatch
from compat.contract.model_reference import ModelReference
from compat.contract.runtime import Options, Probe
from compat.inputs.corpus import load
from compat.runtimes import ort
from compat.runtimes.qnn import session as qnn_session

NANO = ModelReference("whisper", "whisper-nano", "trained", "checkpoints/whisper-nano")

# Recorded: onnxruntime-gpu without CUDA, as in github.com/microsoft/onnxruntime/issues/17801.
NO_CUDA = (
    "\x1b[1;31m2023-10-05 21:29:53.926793500 [E:onnxruntime:Default, provider_bridge_ort.cc:1480 "
    "TryGetProviderInfo_CUDA] /onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:1193"
    " onnxruntime::Provider& onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : "
    "Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.11: cannot "
    "open shared object file: No such file or directory\n\x1b[m\n\n"
    "2023-10-05 21:29:53.926827876 [W:onnxruntime:Default, onnxruntime_pybind_state.cc:743 "
    "CreateExecutionProviderInstance] Failed to create CUDAExecutionProvider. Please reference …\n"
)
BANNER = (
    "*************** EP Error ***************\n"
    "EP Error /onnxruntime/core/session.cc:70 [ONNXRuntimeError] : 1 : FAIL : QNN_COMMON_ERROR when"
    " using ['QNNExecutionProvider']\n"
    "Falling back to ['CPUExecutionProvider'] and retrying.\n"
    "****************************************\n"
)


def target(name: str) -> Target:
    return next(one for one in catalog.load().targets if one.name == name)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            NO_CUDA,
            "Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.11:"
            " cannot open shared object file: No such file or directory",
        ),
        (BANNER, "QNN_COMMON_ERROR when using ['QNNExecutionProvider']"),
        ("a greeting\n", "a greeting"),
        ("", ""),
    ],
)
def test_the_loader_s_message(said: str, message: str) -> None:
    assert ort.loader_message(said) == message


def test_the_cpu_starts_and_what_is_not_there_does_not() -> None:
    assert ort.refusal(ort.PROVIDERS["cpu-onnxruntime"]) == ""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert "CUDA" in ort.refusal(ort.PROVIDERS["cuda-onnxruntime"])


# Detection on machines that are not here ---------------------------------------------------------

CUDA, MIGRAPHX, COREML = "cuda-onnxruntime", "rocm-onnxruntime", "coreml-onnxruntime"
TENSORRT = "cuda-onnxruntime-tensorrt"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Probe]:
    """Probe as on a machine of which a few facts are given; detection only, nothing runs."""
    pytest.importorskip("torch", reason="graphs are exported by it")

    def probe(
        name: str,
        builds: tuple[str, ...] = ("onnxruntime",),
        providers: tuple[str, ...] = (),
        refused: str = "",
        gpu: str = "",
        system: str = "Linux",
    ) -> Probe:
        gpus = [{"vendor": gpu, "name": "a GPU"}] if gpu else []
        monkeypatch.setattr(ort, "_installed", lambda build: build in builds)
        monkeypatch.setattr(ort, "refusal", lambda provider: refused)
        monkeypatch.setattr(ort.hardware, "machine_facts", lambda: {"gpus": gpus})
        monkeypatch.setattr(platform, "system", lambda: system)
        listed = [f"{one}ExecutionProvider" for one in (*providers, "CPU")]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
        return ort.RUNTIME.probe(target(name))

    return probe


def test_found(machine: Callable[..., Probe]) -> None:
    builds = ("onnxruntime-gpu",)
    assert machine(CUDA, builds, ("CUDA",), gpu="nvidia").state == "here"
    assert machine(TENSORRT, builds, ("Tensorrt", "CUDA"), gpu="nvidia").state == "here"
    assert machine(MIGRAPHX, ("onnxruntime-migraphx",), ("MIGraphX",), gpu="amd").state == "here"
    assert machine(COREML, providers=("CoreML",), system="Darwin").state == "here"


@pytest.mark.parametrize("name", [CUDA, TENSORRT, MIGRAPHX])
def test_another_build(machine: Callable[..., Probe], name: str) -> None:
    found = machine(name, gpu="nvidia")
    assert found.state == "absent" and "this build of ONNX Runtime has no" in found.reason
    assert "pip uninstall onnxruntime &&" in found.remedy


def test_core_ml_is_apple_s(machine: Callable[..., Probe]) -> None:
    found = machine(COREML, providers=("CoreML",))
    assert found.state == "absent" and "Darwin only" in found.reason


def test_a_provider_that_does_not_load(machine: Callable[..., Probe]) -> None:
    """With the GPU beside it that is broken; without, there is nothing that could run."""
    said = "libcublasLt.so.12: cannot open shared object file"
    builds = ("onnxruntime-gpu",)
    found = machine(CUDA, builds, ("CUDA",), refused=said, gpu="nvidia")
    assert found.state == "broken" and said in found.reason and found.remedy
    found = machine(CUDA, builds, ("CUDA",), refused=said, gpu="amd")
    assert found.state == "absent" and said in found.reason
    assert "no GPU of nvidia" in found.reason


def test_two_builds_that_overwrite_one_another(machine: Callable[..., Probe]) -> None:
    both = ("onnxruntime", "onnxruntime-gpu")
    found = machine(CUDA, both, gpu="nvidia")
    assert found.state == "broken" and "overwrite one another" in found.reason
    assert "pip uninstall onnxruntime onnxruntime-gpu" in found.remedy
    # What runs all the same says so beside its version.
    assert "overwrite one another" in machine("cpu-onnxruntime", both).facts["conflict"]
    assert "conflict" not in machine("cpu-onnxruntime").facts


# The fallback, for real --------------------------------------------------------------------------


def run_nano(session: Any, model: Any) -> None:
    item = load().sets["clean"].items(model.sample_rate, 1)
    (prediction,) = model.run(session, item, Stopwatch())
    assert prediction["text"], "what fell back answers as well as ever"


def test_placement_catches_a_provider_that_fell_back() -> None:
    """ONNX Runtime warns once and runs everything on the CPU."""
    absent = "DmlExecutionProvider" if sys.platform != "win32" else "CoreMLExecutionProvider"
    provider = ort.Provider(absent, "cpu", ort.RECIPES, "")
    model = catalog.open_model(NANO)
    with pytest.warns(UserWarning, match="is not in available provider names"):
        session = ort.OrtSession(sources(NANO, model, 1), provider, Recipe("fp32"), Options(1))
    run_nano(session, model)
    assert session.placement().share == 0.0
    assert session.placement().devices == {"CPUExecutionProvider": 1.0}
    session.close()


def test_placement_catches_an_npu_that_did_not_start(capfd: pytest.CaptureFixture[str]) -> None:
    """The trap of QNN: a back end that does not initialise leaves a session on the CPU."""
    pytest.importorskip("onnxruntime_qnn", reason="pip install onnxruntime-qnn")
    name = qnn_session.PROVIDER
    qnn_session.register()  # Unless another test did: it is known once a process.
    device = next(one for one in onnxruntime.get_ep_devices() if one.ep_name == name)

    class Plugged(ort.OrtSession):
        def _compile(self, graph: str, point: str, path: Path) -> Any:
            options = onnxruntime.SessionOptions()
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            # A back end that is not there, as a driver that does not load.
            options.add_provider_for_devices([device], {"backend_path": "libQnnHtpAbsent.so"})
            self._executes.setdefault(graph, "fp32")
            return onnxruntime.InferenceSession(path, options)

    model = catalog.open_model(NANO)
    provider = ort.Provider(name, "cpu", ort.RECIPES, "")
    session = Plugged(sources(NANO, model, 1), provider, Recipe("fp32"), Options(1))
    assert "Unable to load backend" in capfd.readouterr().err
    run_nano(session, model)
    assert session.placement().share == 0.0
    assert session.placement().devices == {"CPUExecutionProvider": 1.0}
    session.close()
