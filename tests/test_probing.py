"""What is here, absent or broken: asked in processes of their own, which may die of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from compat import catalog
from compat.run import probing

RUNTIME = """
import os, signal, time
from compat.contract.case import Target
from compat.contract.runtime import GraphRuntime, Probe


class Odd(GraphRuntime):
    name = "odd"
    packages = ()
    targets = (Target("cpu-odd", "cpu", "odd", "cpu", ("fp32",), on_host_cpu=True),)

    def probe(self, target):
        print("a vendor library greets you")
        {how}
        return Probe("here", facts={{"version": "1"}})

    def compile(self, sources, target, recipe, options):
        raise AssertionError


RUNTIME = Odd()
"""


def probe(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> probing.Probe:
    file = tmp_path / "odd_catalog.py"
    file.write_text(RUNTIME.format(how=how), encoding="utf-8")
    monkeypatch.setenv(catalog.ENVIRONMENT, str(file))
    catalog.load.cache_clear()
    try:
        return probing.probe_runtime("odd")["cpu-odd"]
    finally:
        monkeypatch.undo()
        catalog.load.cache_clear()


@pytest.mark.parametrize(
    "how", ["pass", "import atexit; atexit.register(os.write, 1, b' # libvendor says good-bye')"]
)
def test_here_whatever_it_prints(how, tmp_path, monkeypatch) -> None:
    found = probe(how, tmp_path, monkeypatch)
    assert found.state == "here" and found.facts == {"version": "1"}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raise OSError('libvendor.so.1: cannot open')", "libvendor.so.1: cannot open"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "status -11"),
        ("os._exit(7)", "status 7"),
    ],
)
def test_broken_says_how(how, said, tmp_path, monkeypatch) -> None:
    if sys.platform == "win32" and "SIGSEGV" in how:
        pytest.skip("no signals on Windows")
    found = probe(how, tmp_path, monkeypatch)
    assert found.state == "broken" and said in found.reason and found.remedy


def test_a_hang_is_broken(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(probing, "TIME_LIMIT", 3.0)
    found = probe("time.sleep(60)", tmp_path, monkeypatch)
    assert found.state == "broken" and "did not answer" in found.reason


def test_every_absent_target_names_a_remedy() -> None:
    found = probing.Prober().all(catalog.load().targets)
    assert set(found) == {target.name for target in catalog.load().targets}
    for name, one in found.items():
        assert one.state in ("here", "absent"), (name, one.reason)
        assert one.state == "here" or (one.reason and one.remedy), name


def test_only_what_is_asked_for_is_probed() -> None:
    """Probing another target of the same runtime may start a browser, or import for seconds."""
    targets = {target.name: target for target in catalog.load().targets}
    prober = probing.Prober()
    assert set(prober.all([targets["webgpu-chromium"]])) == {"webgpu-chromium"}
    mine = {name for name, target in targets.items() if target.runtime == "onnxruntime"}
    prober(targets["cpu-onnxruntime"])
    assert set(prober.all([])) == {"webgpu-chromium"} | mine


def test_what_is_known_without_pytorch_does_not_import_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import takes seconds, once in each process that probes."""
    known = catalog.load()
    versions = {"torch": "2.13.0+cpu"}
    monkeypatch.setattr("compat.runtimes.pytorch.metadata.version", versions.__getitem__)
    monkeypatch.setattr("compat.runtimes.torch_quantised.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "torch", None)  # An import fails.
    targets = {target.name: target for target in known.targets}
    found = {
        name: known.runtime(targets[name].runtime).probe(targets[name])
        for name in ("cuda-torch", "rocm-torch", "cuda-torchao", "cpu-torchao", "cpu-torch")
    }
    assert {name: probe.state for name, probe in found.items()} == {
        **dict.fromkeys(("cuda-torch", "rocm-torch", "cuda-torchao", "cpu-torchao"), "absent"),
        "cpu-torch": "broken",
    }
    assert found["cuda-torch"].reason == "PyTorch 2.13.0+cpu is not a CUDA build"
    assert found["rocm-torch"].reason == "PyTorch 2.13.0+cpu is not a HIP build"
    assert found["cpu-torchao"].reason == "torchao is not installed"
