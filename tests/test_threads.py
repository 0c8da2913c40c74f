"""Every runtime on a processor uses the number of threads that the run states, and no more."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from compat import catalog
from compat.hardware import facts
from compat.processes import child_environment
from compat.run.measurement import Check, Finding
from compat.run.run import Run, Settings

TARGETS = ("cpu-torch", "cpu-onnxruntime", "cpu-ctranslate2", "openvino-cpu")

WORK = """
import json, os, sys, time
import numpy as np
from compat import catalog
from compat.build.sources import sources
from compat.contract.case import Recipe
from compat.contract.graph import Stopwatch
from compat.contract.model_reference import ModelReference
from compat.contract.runtime import Options
from compat.inputs import corpus

name = sys.argv[1]
loaded = catalog.load()
target = next(t for t in loaded.targets if t.name == name)
runtime = loaded.runtime(target.runtime)
found = runtime.probe(target)
if found.state != "here":
    print(json.dumps({"skip": found.reason}))
    sys.exit()
nano = ModelReference("whisper", "whisper-nano", "trained", "checkpoints/whisper-nano")
model = catalog.open_model(nano)
opened = sources(nano, model, 1)
items = corpus.load().sets["clean"].items(model.sample_rate, 8)


def used():
    \"\"\"Processor time of every thread so far, in seconds.\"\"\"
    times = {}
    for thread in os.listdir("/proc/self/task"):
        fields = open(f"/proc/self/task/{thread}/stat").read().rpartition(")")[2].split()
        times[thread] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return times


threads = int(sys.argv[2])
execution = runtime.open(model, opened, target, Recipe("fp32"), Options(threads))
session = getattr(execution, "session", None)
if session is None:
    work = lambda: execution.predict(items, Stopwatch())
else:
    mel = session.graphs["encoder"].inputs["mel"].at(session.graphs["encoder"].points["b4"])
    feeds = {"mel": np.random.default_rng(0).standard_normal(mel).astype(np.float32)}
    work = lambda: session.run("encoder", feeds, "b4")
work()
time.sleep(0.3)  # Threads that spin after their work come to rest.
# Where other processes want the processors, work may be over before a second thread had a turn.
for _ in range(25):
    before, started = used(), time.perf_counter()
    while time.perf_counter() - started < 1.2:
        work()
    wall = time.perf_counter() - started
    spent = {name: time - before.get(name, 0.0) for name, time in used().items()}
    total = sum(spent.values())
    if session is None:
        # Features and text, on this side of the runtime, while its own threads wait.
        del spent[str(os.getpid())]
    # A thread works if it has a tenth of the busiest one's time: housekeeping has less.
    busy = sum(one > 0.1 * max(spent.values()) for one in spent.values())
    found = {"busy": busy, "spent": list(spent.values()), "total": total, "wall": wall}
    if busy >= threads:
        break
print(json.dumps(found), flush=True)
execution.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the threads' times from /proc")
@pytest.mark.parametrize("target", TARGETS)
def test_as_many_threads_work_as_are_stated(target: str) -> None:
    for threads in (1, 2):
        done = subprocess.run(
            [sys.executable, "-c", WORK, target, str(threads)],
            capture_output=True,
            text=True,
            timeout=300,
            # As a worker has it: MKL, which CTranslate2 computes with on Intel's processors, heeds
            # the environment and not what the session asks for.
            env=child_environment(threads),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout.splitlines()[-1])
        if "skip" in seen:
            pytest.skip(seen["skip"])
        assert seen["busy"] == threads, (threads, seen)
        assert seen["total"] <= 1.1 * threads * seen["wall"], (threads, seen)


def test_every_processor_target_is_measured() -> None:
    """Targets that start slowly compile with the threads of the runtime that they extend."""
    known = {t.name for t in catalog.load().targets if t.on_host_cpu and not t.on_request}
    assert set(TARGETS) <= known


@pytest.mark.parametrize(("workers", "threads"), [(1, 8), (2, 4), (3, 2), (8, 1), (20, 1)])
def test_parallel_processes_share_the_processors(
    monkeypatch: pytest.MonkeyPatch, workers: int, threads: int
) -> None:
    monkeypatch.setattr(facts, "available_cpus", lambda: 8)
    run = Run(Settings(workers=workers))
    assert run.threads == threads
    assert run.threads * workers <= 8 or run.threads == 1


def test_more_threads_than_processors_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take turns: the time would be that of the operating system's scheduler."""
    many = facts.available_cpus() + 1
    for threads, said in (
        (many, f"not timed \\({many} threads on {many - 1} processors\\)"),
        (1, ""),
    ):
        run = Run(Settings(threads=threads))
        monkeypatch.setattr(run, "_write", lambda line: None)
        monkeypatch.setattr(run, "absent", lambda case: None)
        for timed in (True, False):
            case = SimpleNamespace(id="a case")
            asked: Any = SimpleNamespace(case=case, check=Check("latency.task", timed=timed))
            if timed and said:
                with pytest.raises(Finding, match=said) as found:
                    run.begin(asked)
                assert found.value.status == "skipped" and found.value.remedy
            else:
                run.begin(asked)
