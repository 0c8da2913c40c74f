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

import psutil
import pytest

from compat.client import (
    Crashed,
    OutOfMemory,
    StageError,
    StageInput,
    StageUnsupported,
    TimedOut,
    Worker,
)
from compat.corpus import DEFAULT
from compat.protocol_request import CaseRequest
from compat.stress import DEFAULT as STRESS

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
        if "compat.worker" in " ".join(command_line(child))
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
    assert not log.exists()


PARENT = """
import sys, threading
from compat.client import Worker
from compat.protocol_request import CaseRequest
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
        *("--time-limit", "10", "--memory-limit", "1"),
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
