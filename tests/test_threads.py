"""Every runtime on a processor uses the number of threads that the run states, and no more."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from compat import catalog
from compat.environment import child_environment
from compat.hardware import facts
from compat.run import Run, Settings

TARGETS = ("cpu-torch", "cpu-onnxruntime", "cpu-ctranslate2", "openvino-cpu")

WORK = """
import json, os, sys, time
from compat import catalog, corpus
from compat.case import Recipe
from compat.graph import Stopwatch
from compat.runtimes.base import Options, Pipeline
from compat.sources import ModelReference, sources

name, threads = sys.argv[1], int(sys.argv[2])
loaded = catalog.load()
target = next(t for t in loaded.targets if t.name == name)
runtime = loaded.runtime(target.runtime)
found = runtime.probe(target)
if found.state != "here":
    print(json.dumps({"skip": found.reason}))
    sys.exit()
nano = ModelReference("whisper", "whisper-nano", "trained", "checkpoints/whisper-nano")
model = nano.load()
opened = sources(nano, model, 1)
session = runtime.compile(opened, target, Recipe("fp32"), Options(threads))
if isinstance(session, Pipeline):
    items = corpus.load().sets["clean"].items(model.sample_rate, 8)
    work = lambda: session.perform(items, Stopwatch())
else:
    import numpy as np
    mel = session.graphs["encoder"].inputs["mel"].at(session.graphs["encoder"].points["b4"])
    feeds = {"mel": np.random.default_rng(0).standard_normal(mel).astype(np.float32)}
    work = lambda: session.run("encoder", feeds, "b4")
work()
time.sleep(0.3)  # Threads that spin after their work come to rest.

def used():
    \"\"\"Processor time of every thread so far, in seconds.\"\"\"
    times = {}
    for thread in os.listdir("/proc/self/task"):
        fields = open(f"/proc/self/task/{thread}/stat").read().rpartition(")")[2].split()
        times[thread] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return times

before, started = used(), time.perf_counter()
while time.perf_counter() - started < 1.5:
    work()
spent = sorted((t - before.get(name, 0.0) for name, t in used().items()), reverse=True)
print(json.dumps({"spent": spent, "total": sum(spent), "wall": time.perf_counter() - started}))
"""


def measure(target: str, threads: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", WORK, target, str(threads)],
        capture_output=True,
        text=True,
        timeout=300,
        env=child_environment(threads),
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "skip" in found:
        pytest.skip(found["skip"])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads the threads' times from /proc")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("target", TARGETS)
def test_as_many_threads_work_as_are_stated(target: str, threads: int) -> None:
    found = measure(target, threads)
    # A thread works if it has a tenth of the busiest one's time: more than housekeeping takes.
    busy = [one for one in found["spent"] if one > 0.1 * found["spent"][0]]
    assert len(busy) == threads, found
    # Never more processors than threads, whatever else the machine is doing.
    assert found["total"] <= 1.1 * threads * found["wall"], found


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


def test_more_threads_than_processors_are_not_timed(suites: Any, tmp_path: Any) -> None:
    """They take turns: the time is that of the operating system's scheduler."""
    many = facts.available_cpus() + 1
    run = suites.run(
        tmp_path,
        "--targets=cpu-torch",
        "--weights=seeded",
        "-k",
        "task or loads or placed",
        f"--threads={many}",
    )
    checks = run.checks("toy@seeded/cpu-torch/fp32")
    assert checks["support.loads"].status == "passed", run.text
    latency = checks["latency.task"]
    assert latency.status == "skipped" and latency.threads == many
    assert latency.reason == f"not timed ({many} threads on {many - 1} processors)"
    assert "--threads" in latency.remedy
