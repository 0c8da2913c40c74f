"""Running the suites for real, in processes of their own, on the toy model of faulty_catalog.py."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from compat.build.artifacts import ArtifactError
from compat.build.nursery import ENVIRONMENT as NURSERY
from compat.build.nursery import Nursery
from compat.judge.results import Collection, Observation, read_all
from compat.runtimes.web.browser import MODULES as WEB_PACKAGES

ROOT = Path(__file__).resolve().parents[1]
# Set before pytest's parallel processes start. Threads that spin between two small products take
# the processors from the other process: scores of sounds used five times the processor time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# For small_whisper.py, which more than one file of tests imports.
sys.path.insert(0, str(ROOT / "tests"))

import forks  # noqa: E402

FAULTY = ROOT / "tests" / "faulty_catalog.py"


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Outcome:
    """What a run of the suites printed, returned and wrote."""

    status: int
    text: str
    results: Path

    @property
    def collection(self) -> Collection:
        return read_all([self.results])

    @property
    def observations(self) -> list[Observation]:
        return [one for run in self.collection.runs for one in run.observations]

    def checks(self, case: str) -> dict[str, Observation]:
        """Return the observations of one case by check."""
        return {one.check: one for one in self.observations if one.case == case}


@dataclass(frozen=True)
class Suites:
    """Starts pytest on the suites with the toy model, cheaply and with a cache of its own."""

    cache: Path
    checkpoint: Path

    def environment(self) -> dict[str, str]:
        """Return an environment without browsers, each of which takes seconds to be probed."""
        environment = {**os.environ, "COMPAT_CACHE": str(self.cache), "COLUMNS": "200"}
        environment.pop("COMPAT_CATALOG", None)
        return {**environment, WEB_PACKAGES: str(self.cache / "none")}

    def environment_elsewhere(self) -> dict[str, str]:
        """Return the environment for another installation, which has a nursery of its own."""
        return {name: value for name, value in self.environment().items() if name != NURSERY}

    def command(self, results: Path, *arguments: str, models: str = "toy") -> list[str]:
        """Return the command line; an empty ``models`` leaves the selection to ``arguments``."""
        # Paths after a blank would be misread at first, which costs a second start of pytest.
        command = [sys.executable, "-m", "pytest", "suites", "-q"]
        command += ["-o", f"cache_dir={results.with_name(results.name + '-pytest')}"]
        command += ["--quick", "--iterations", "3", "--threads", "1", "--benchmark-quiet"]
        command += [f"--catalog={FAULTY}", "--checkpoint", f"toy={self.checkpoint}"]
        command += [f"--thresholds={ROOT / 'tests' / 'toy_thresholds.toml'}"]
        command += [f"--results={results}", "--tb=line"]
        if models:
            command += ["--models", models]
        return [*command, *arguments]

    def run(
        self,
        results: Path,
        *arguments: str,
        models: str = "toy",
        preexec: Callable[[], None] | None = None,
        fresh: bool = False,
        **environment: str,
    ) -> Outcome:
        """Run the suites to their end, in a forked process unless it is to be a ``fresh`` one.

        What is measured of the toy needs PyTorch, which computes its references.
        """
        if "--collect-only" not in arguments and (reason := lacking("torch")):
            pytest.skip(reason)
        command = self.command(results, *arguments, models=models)
        environment = {**self.environment(), **environment}
        if not fresh and preexec is None:
            forked = forks.run(command, environment, ROOT, timeout=900, together=True)
            return Outcome(forked.returncode, forked.stdout, results)
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            preexec_fn=preexec,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, results)

    def start(self, results: Path, *arguments: str, models: str = "toy") -> subprocess.Popen[str]:
        """Start a run that the test will interrupt."""
        if reason := lacking("torch"):
            pytest.skip(reason)
        return subprocess.Popen(
            self.command(results, *arguments, models=models),
            cwd=ROOT,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Whoever runs the tests in the background has told them to ignore Ctrl-C.
            preexec_fn=None if sys.platform == "win32" else _heed_interrupts,
            text=True,
        )


# Extras ------------------------------------------------------------------------------------------

BROUGHT = {
    *("bitsandbytes", "coremltools", "ctranslate2", "diffusers", "duckdb", "faster_whisper"),
    *("fsspec", "gguf", "jsonschema", "mlx", "nncf", "onnx", "onnxruntime", "onnxscript"),
    *("openvino", "pyarrow", "_pywhispercpp", "sacrebleu", "torch", "torchao", "transformers"),
}
"""Modules that extras bring: without them, what imports them is skipped."""


def lacking(name: str | None) -> str:
    """Return why a test that imports a module cannot run, if an extra is not installed."""
    top = (name or "").partition(".")[0]
    absent = top in BROUGHT and importlib.util.find_spec(top) is None
    return f"{top} is not installed" if absent else ""


def not_found(text: str) -> str | None:
    """Return the last module of which a traceback says that there is none."""
    found = re.findall(r"No module named '([\w.]+)'", text)
    return found[-1] if found else None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Skip a file of tests that imports what no extra brought."""
    report = yield
    imports = report.failed and isinstance(collector, pytest.Module)
    if imports and (reason := lacking(not_found(str(report.longrepr)))):
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"Skipped: {reason}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, Any, Any]:
    """Skip a test that imports, while it runs or in a builder, what no extra brought."""
    return (yield from _skipping())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, Any, Any]:
    """Skip every test of a fixture that imports what no extra brought."""
    return (yield from _skipping())


def _skipping() -> Generator[None, Any, Any]:
    try:
        return (yield)
    except ModuleNotFoundError as error:
        if reason := lacking(error.name):
            pytest.skip(reason)
        raise
    except ArtifactError as error:
        if reason := lacking(not_found(str(error))):
            pytest.skip(reason)
        raise


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that start the most runs, so that no long one is left to the end."""
    runs = Counter(item.path for item in items if "suites" in getattr(item, "fixturenames", ()))
    items.sort(key=lambda item: -runs[item.path])


@pytest.fixture(scope="session", autouse=True)
def nursery() -> Iterator[Nursery]:
    """One nursery for the builders of all tests: only the first waits for PyTorch's import."""
    shared = Nursery(threads=1)
    yield shared
    shared.close()


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests; ``$COMPAT_TEST_CACHE`` keeps it while tests are being written.

    pytest's workers share it: its locks are those of any two runs on one machine.
    """
    if named := os.environ.get("COMPAT_TEST_CACHE"):
        return Path(named)
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    (shared / "cache").mkdir(exist_ok=True)
    return shared / "cache"


@pytest.fixture(scope="session")
def faulty() -> ModuleType:
    """The catalog file as a module, for its constants and its checkpoint."""
    spec = importlib.util.spec_from_file_location("faulty_catalog_for_tests", FAULTY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses look their module up.
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def suites(
    cache_folder: Path, faulty: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Suites:
    """How tests run the suites."""
    return Suites(cache_folder, faulty.write_checkpoint(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture
def faulty_catalog(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> Iterator[Any]:
    """Make the faulty catalog this process's own for one test."""
    from compat import catalog

    monkeypatch.setenv("COMPAT_CATALOG", str(FAULTY))
    monkeypatch.setenv("COMPAT_CACHE", str(cache_folder))
    catalog.load.cache_clear()
    yield catalog.load()
    catalog.load.cache_clear()


@pytest.fixture
def export(tmp_path: Path) -> Callable[[Any, Any], Any]:
    """Return a function that makes the source of a graph from a module, for any runtime."""
    import torch

    from compat.build.sources import OPSET, GraphSource, example_tensors
    from compat.contract.model_reference import ModelReference

    @dataclass(frozen=True)
    class Exported(GraphSource):
        def onnx(self, point: str, scheme: str = "fp32", forms: tuple[str, ...] = ()) -> Path:
            folder = tmp_path / self.graph.name
            folder.mkdir(exist_ok=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.onnx.export(
                    self.module(),
                    example_tensors(self.graph, point),
                    input_names=[*self.graph.inputs, *self.graph.state],
                    output_names=[
                        *self.graph.outputs,
                        *(f"new_{name}" for name in self.graph.state),
                    ],
                    opset_version=OPSET,
                    dynamo=True,
                    verbose=False,
                )
            assert program is not None
            program.save(str(folder / "model.onnx"))
            return folder / "model.onnx"

    reference = ModelReference("whisper", "whisper-nano", "trained", "checkpoints/whisper-nano")
    return lambda graph, network: Exported(reference, replace(graph, module=lambda: network), "")


@dataclass(frozen=True)
class Sampler:
    """A graph whose output goes into it again, as a sampler's latent does."""

    source: Any
    latent: Any
    """float32 (1, 64): where it begins."""
    times: Any
    """float32 (steps, 1, 64): what each step is told."""
    expected: Mapping[str, Any]
    """Each output of every step, (steps, 1, 64), by PyTorch."""


@pytest.fixture(params=["after", "beside"])
def sampler(request: pytest.FixtureRequest, export: Callable[[Any, Any], Any]) -> Sampler:
    """A sampler that reads its input after it has written the output that is carried.

    Runtimes write an output at another time where it is read again (``after``).
    """
    import numpy as np
    import torch

    from compat.contract.graph import Graph, Tensor

    class Denoise(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)

        def forward(self, latent: torch.Tensor, time: torch.Tensor) -> tuple[torch.Tensor, ...]:
            denoised = torch.tanh(self.a(latent)) + time
            if request.param == "beside":
                return denoised, torch.tanh(self.b(latent))
            return denoised, torch.tanh(self.b(denoised)) + latent

    network = Denoise().eval().requires_grad_(False)
    inputs = {"latent": Tensor((1, 64)), "time": Tensor((1, 64))}
    outputs = ("denoised", "difference")
    graph = Graph("sampler", inputs, outputs, {"p": {}}, Denoise)
    latent, *times = np.random.default_rng(0).standard_normal((8, 1, 64)).astype(np.float32)
    rows: dict[str, list[Any]] = {name: [] for name in outputs}
    carried = torch.from_numpy(latent)
    for time in times:
        values = network(carried, torch.from_numpy(time))
        for name, value in zip(outputs, values, strict=True):
            rows[name].append(value.numpy())
        carried = values[0]
    expected = {name: np.stack(row) for name, row in rows.items()}
    return Sampler(export(graph, network), latent, np.stack(times), expected)
