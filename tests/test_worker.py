"""Workers that crash, hang, chatter, fill the memory or lose their parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from compat.build import nursery
from compat.build.artifacts import ArtifactError
from compat.contract.errors import CompatError
from compat.contract.session import Crash, Unsupported
from compat.inputs.audio import CorpusError
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.corpus import DEFAULT
from compat.inputs.stress import DEFAULT as STRESS
from compat.measure import worker as worker_process
from compat.measure.request import CaseRequest
from compat.run.client import (
    KINDS,
    Crashed,
    OutOfMemory,
    StageError,
    StageInput,
    StageUnsupported,
    TimedOut,
    Worker,
)

GIB = 2**30
CORPUS = str(DEFAULT)

pytestmark = pytest.mark.usefixtures("faulty_catalog")

Start = Callable[..., Worker]


def request_for(target: str, **changes: Any) -> CaseRequest:
    fields = {"id": f"toy@seeded/{target}/fp32", "corpus": CORPUS, "profile": "quick", "threads": 1}
    return CaseRequest(**{**fields, "stress": (str(STRESS),), **changes})


@pytest.fixture
def start() -> Iterator[Start]:
    """Start workers that are ended with the test; check that none is left."""
    workers: list[Worker] = []

    def begin(target: str, time_limit: float = 60, memory_limit: int = 8 * GIB, **changes: Any):
        workers.append(Worker(request_for(target, **changes), time_limit, memory_limit))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.close()
    assert not left_over()


def left_over(parent: int | None = None) -> list[psutil.Process]:
    """Return the worker processes below a process that still live."""
    return [
        child
        for child in psutil.Process(parent).children(recursive=True)
        # The server of forks.py names the module among those that it has imported.
        if command_line(child)[1:3] == ["-m", "compat.measure.worker"]
    ]


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def gone(process: int, seconds: float = 10.0) -> bool:
    """Wait until a process has ended; a zombie has."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if psutil.Process(process).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)


def process_of(worker: Worker) -> int:
    assert worker._process is not None
    return worker._process.pid


def test_a_sound_worker_answers(start: Start) -> None:
    worker = start("sound-nothing")
    found = worker.stage("loads")
    assert found["executed"] == {"encoder": "fp32", "decoder": "fp32"}
    assert found["faults"] == []
    first = process_of(worker)
    assert worker.stage("placed")["share"] == 1.0
    assert process_of(worker) == first


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("breaking-segfault", "the worker was ended by SIGSEGV during placed"),
        (
            "breaking-abort",
            "the worker was ended by SIGABRT during placed; it last printed: "
            "the driver lost its device",
        ),
    ],
)
def test_a_crash_is_named_and_costs_one_stage(start: Start, target: str, said: str) -> None:
    worker = start(target)
    before = worker.stage("loads")
    first = process_of(worker)
    with pytest.raises(Crashed) as caught:
        worker.stage("placed")
    assert str(caught.value).startswith(said)
    assert caught.value.status == "crashed"
    assert gone(first)
    # What was known stays known, and what comes later gets a fresh process.
    assert worker.stage("loads") == before
    assert worker.stage("batches") == [1, 2]
    assert process_of(worker) != first


def test_a_crash_is_remembered_and_not_repeated(start: Start) -> None:
    worker = start("breaking-segfault")
    for _ in range(2):
        with pytest.raises(Crashed):
            worker.stage("placed")
    assert worker._process is None


@pytest.mark.parametrize("target", ["breaking-hang", "breaking-hang-in-library"])
def test_a_hang_is_ended_at_the_time_limit(start: Start, target: str) -> None:
    worker = start(target)
    worker.stage("loads")
    worker.time_limit = 1.0
    first = process_of(worker)
    started = time.monotonic()
    with pytest.raises(TimedOut, match=r"^placed took over 1 s \(--time-limit\)"):
        worker.stage("placed")
    assert time.monotonic() - started < 10
    assert gone(first)
    worker.time_limit = 60.0
    assert worker.stage("batches") == [1, 2]


def test_memory_over_the_limit_is_ended(start: Start) -> None:
    worker = start("breaking-memory", memory_limit=GIB)
    worker.stage("loads")
    first = process_of(worker)
    with pytest.raises(OutOfMemory, match=r"placed used 1\.\d GiB, over the limit of 1\.0 GiB"):
        worker.stage("placed")
    assert gone(first)


def test_an_allocation_that_fails_is_out_of_memory_too(start: Start) -> None:
    worker = start("breaking-allocation")
    with pytest.raises(OutOfMemory, match="failed to allocate memory for 40 GiB"):
        worker.stage("placed")


def test_garbage_on_standard_output_disturbs_nothing(start: Start) -> None:
    worker = start("breaking-chatter")
    assert worker.stage("loads")["model_bytes"] == 0
    assert worker.stage("placed")["share"] == 1.0


def test_death_while_idle_is_reported_once(start: Start) -> None:
    worker = start("breaking-later")
    worker.stage("loads")
    assert worker._process is not None
    worker._process.wait(timeout=30)
    with pytest.raises(Crashed, match="the worker was ended by SIGBUS before batches"):
        worker.stage("batches")
    assert worker.stage("placed")["share"] == 1.0


def test_an_exception_keeps_the_worker_and_its_trace(start: Start) -> None:
    worker = start("breaking-exception")
    worker.stage("loads")
    first = process_of(worker)
    with pytest.raises(StageError) as caught:
        worker.stage("placed")
    assert str(caught.value) == "no kernel for operator Frobnicate"
    assert "ValueError" in caught.value.trace
    assert worker.stage("batches") == [1, 2]
    assert process_of(worker) == first


def test_a_slow_import_is_timed_apart(start: Start) -> None:
    cold = start("slow-import").stage("loads")["cold"]
    assert cold["import_s"] >= 1.0
    assert cold["load_s"] < 1.0


def test_an_import_past_the_time_limit_is_a_timeout(start: Start) -> None:
    worker = start("slow-import", time_limit=0.5)
    with pytest.raises(TimedOut, match=r"loads took over 0\.5 s"):
        worker.stage("loads")


def test_an_unusable_corpus_is_named(start: Start, tmp_path: Path) -> None:
    worker = start("sound-nothing", corpus=str(tmp_path))
    with pytest.raises(StageInput, match=r"no manifest\.jsonl in"):
        worker.stage("loads")


ODD = """
import os, signal, time
from faulty_catalog import Nothing, nothing
from compat.build.artifacts import Artifact
from compat.contract.case import Target
from compat.contract.runtime import GraphRuntime, Probe
from compat.contract.session import Placement

NAMES = ("builds-slowly", "builds-briefly", "builds-largely", "builds-nothing", "builds-fatally")


class Builds(GraphRuntime):
    name = "builds"
    packages = ()
    targets = tuple(Target(n, "webgpu", "builds", "gpu", ("fp32",)) for n in (*NAMES, "odd"))

    def probe(self, target):
        return Probe("here")

    def compile(self, sources, target, recipe, options):
        graphs = {{name: source.graph for name, source in sources.items()}}
        if target.name in NAMES:
            job = globals()[target.name.replace("-", "_")]
            Artifact(job, {{}}, inputs={{"model": {fingerprint!r}}}).fetch()
        return Odd(graphs, nothing)


class Odd(Nothing):
    answer = None

    def placement(self):
        import numpy

        return Placement({{"cpu": 1.0, "other": numpy.float32(0.5), "more": numpy.nan}}, "cpu", "")

    def model_bytes(self):
        return {model_bytes}


def builds_slowly(folder):
    time.sleep(3.0)


def builds_briefly(folder):
    time.sleep(0.2)


def builds_largely(folder):
    held = b"1" * (1 << 30)
    time.sleep(1.5)


def builds_nothing(folder):
    raise RuntimeError("no such kernel,\\nnor another: out of memory for it")


def builds_fatally(folder):
    os.kill(os.getpid(), signal.SIGKILL)


RUNTIME = Builds()
"""


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Add a runtime that has things built, and answers what JSON cannot carry."""

    def add(model_bytes: str = "0") -> None:
        file = tmp_path / "odd_catalog.py"
        file.write_text(ODD.format(fingerprint=str(tmp_path), model_bytes=model_bytes))
        both = os.pathsep.join((os.environ["COMPAT_CATALOG"], str(file)))
        monkeypatch.setenv("COMPAT_CATALOG", both)

    return add


@pytest.mark.parametrize("target", ["builds-slowly", "builds-largely"])
def test_building_costs_the_case_neither_time_nor_memory(
    start: Start, odd: Callable[..., None], target: str
) -> None:
    odd()
    worker = start(target, memory_limit=GIB * 3 // 4)
    said: list[str] = []
    worker._said = said.append
    worker.stage("batches")
    worker.time_limit = 2.0
    assert worker.stage("loads")["artifacts_s"] >= 1.5
    (building,) = {one for one in said if one.startswith("building")}
    assert building.endswith(target.replace("-", "_"))
    assert said[0] == "batches" and said[1] == said[-1] == "loads"


def test_a_hang_after_building_is_ended_all_the_same(
    start: Start, odd: Callable[..., None]
) -> None:
    odd("time.sleep(60)")
    worker = start("builds-briefly")
    worker.stage("batches")
    worker.time_limit = 1.0
    with pytest.raises(TimedOut, match="loads took over 1 s"):
        worker.stage("loads")


def test_building_has_a_limit_of_its_own(
    start: Start, odd: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its builder shall be its child, and not a nursery's.
    monkeypatch.delenv(nursery.ENVIRONMENT, raising=False)
    odd()
    worker = start("builds-slowly")
    assert worker.building_limit >= 10 * worker.time_limit
    worker.building_limit = 1.0
    worker.stage("batches")
    processes: set[int] = set()
    family = psutil.Process(process_of(worker))
    worker._said = lambda stage: processes.update(p.pid for p in [family, *family.children()])
    with pytest.raises(StageInput, match=r"building .*builds_slowly took over 1 s"):
        worker.stage("loads")
    assert len(processes) == 2  # Itself and the builder.
    assert all(gone(process) for process in processes)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("builds-nothing", "failed: RuntimeError: no such kernel, nor another: out of memory"),
        ("builds-fatally", "failed: the builder was ended by SIGKILL"),
    ],
)
def test_a_builder_that_fails_says_nothing_of_the_hardware(
    start: Start, odd: Callable[..., None], target: str, said: str
) -> None:
    odd()
    worker = start(target)
    with pytest.raises(StageInput) as caught:
        worker.stage("loads")
    assert said in str(caught.value).splitlines()[0]
    assert worker.stage("batches") == [1, 2]


def test_numbers_of_other_packages_become_built_in(start: Start, odd: Callable[..., None]) -> None:
    odd()
    worker = start("odd")
    assert worker.stage("placed")["devices"] == {"cpu": 1.0, "other": 0.5, "more": "nan"}


def test_what_json_cannot_carry_costs_one_stage(start: Start, odd: Callable[..., None]) -> None:
    odd("{1, 2}")
    worker = start("odd")
    with pytest.raises(StageInput, match=r"loads must return built-in numbers \(got set\)"):
        worker.stage("loads")
    first = process_of(worker)
    assert worker.stage("batches") == [1, 2]
    assert process_of(worker) == first


def test_a_score_that_is_no_number_is_named() -> None:
    scores = {"wer": np.float32("inf"), "counts": (np.int64(3), np.bool_(True))}
    assert json.loads(worker_process.encoded("task", scores)) == {
        "wer": "inf",
        "counts": [3, True],
    }
    for value in (np.zeros(2), {1, 2}, object()):
        with pytest.raises(CompatError) as caught:
            worker_process.encoded("task", {"clean": {"wer": value}})
        named = f"score() must return built-in numbers (got {type(value).__name__})"
        assert str(caught.value) == named


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Unsupported("no bfloat16"), "unsupported"),
        (Crash("the tab is gone"), "crashed"),
        (CorpusError("no manifest"), "input"),
        (CheckpointError("no weights"), "input"),
        (ArtifactError("the builder ran out of memory"), "input"),
        (CompatError("no number"), "input"),
        (MemoryError(), "out-of-memory"),
        (RuntimeError("CUDA out of memory"), "out-of-memory"),
        (RuntimeError("another"), "error"),
    ],
)
def test_the_class_of_an_error_says_how_a_stage_ended(error: Exception, kind: str) -> None:
    assert worker_process.kind_of(error) == kind
    assert kind in KINDS


def test_a_recipe_that_cannot_run_is_unsupported(start: Start) -> None:
    worker = start("sound-nothing", id="toy@seeded/cpu-onnxruntime/bf16")
    with pytest.raises(StageUnsupported, match="bfloat16"):
        worker.stage("loads")


def test_nothing_is_left_behind(start: Start) -> None:
    worker = start("sound-nothing")
    worker.stage("loads")
    first = process_of(worker)
    log = worker._log
    assert log is not None
    worker.close()
    assert gone(first)
    assert log.closed and not isinstance(log.name, str), "it has no name that could be left"


PARENT = """
import sys, threading
from compat.measure.request import CaseRequest
from compat.run.client import Worker
worker = Worker(CaseRequest({id!r}, {corpus!r}, "quick", threads=1), 600, 1 << 40)
worker.stage("loads")
print(worker._process.pid, flush=True)
worker.stage("placed")
print("done", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("target", ["sound-nothing", "breaking-hang", "breaking-hang-in-library"])
def test_a_worker_ends_with_its_parent(target: str) -> None:
    """Idle, busy, or stuck in a library that keeps the interpreter's lock."""
    source = PARENT.format(id=f"toy@seeded/{target}/fp32", corpus=CORPUS)
    parent = subprocess.Popen(
        [sys.executable, "-c", source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    try:
        time.sleep(0.5)
        assert psutil.pid_exists(worker)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert gone(worker)
    finally:
        parent.kill()
        parent.communicate()
        if not gone(worker, 0.0):
            os.kill(worker, signal.SIGKILL)


def test_faults_cost_only_their_own_cases(suites: Any, tmp_path: Path) -> None:
    """In a whole run: right statuses, the other cases measured, nothing left behind."""
    names = ("abort", "exception", "hang", "memory", "segfault")
    targets = ",".join(["sound-nothing", *(f"breaking-{name}" for name in names)])
    # Only checks that need no reference: these runtimes compute nothing.
    run = suites.run(
        tmp_path,
        *("--weights", "seeded", "--targets", targets, "-k", "loads or placed"),
        *("--time-limit", "10", "--memory-limit", "0.4"),
    )
    assert run.status == 1, run.text
    statuses = {
        one.case.split("/")[1]: one.status for one in run.observations if "placed" in one.check
    }
    assert statuses == {
        "sound-nothing": "passed",
        "breaking-abort": "crashed",
        "breaking-exception": "error",
        "breaking-hang": "timeout",
        "breaking-memory": "out-of-memory",
        "breaking-segfault": "crashed",
    }
    loaded = [one.status for one in run.observations if one.check == "support.loads"]
    assert loaded == ["passed"] * 6
    # An exception out of the runtime is a verdict on it.
    (failed,) = [one for one in run.observations if one.status == "error"]
    assert failed.level == "failed"
    assert not left_over()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_ended_run_leaves_no_worker(suites: Any, tmp_path: Path, end: signal.Signals) -> None:
    run = suites.start(
        tmp_path, "--weights", "seeded", "--targets", "breaking-hang", "-k", "loads or placed"
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not placed_has_begun(tmp_path):
            time.sleep(0.1)
        workers = left_over(run.pid)
        assert len(workers) == 1
        os.kill(run.pid, end)
        run.wait(timeout=30)
        assert all(gone(worker.pid) for worker in workers)
    finally:
        run.kill()
        text, _ = run.communicate()
    if end == signal.SIGINT:
        assert run.returncode == 2, text
        assert "KeyboardInterrupt" in text


def placed_has_begun(folder: Path) -> bool:
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    found = [json.loads(line) for line in lines if line.endswith("}")]
    return any(one["kind"] == "started" and one["check"] == "support.placed" for one in found)
