"""Who had the processors: real processes that burn them, and what is made of it."""

from __future__ import annotations

import contextlib
import json
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compat import catalog
from compat.contract.profile import QUICK
from compat.hardware import facts
from compat.inputs.corpus import DEFAULT
from compat.judge import thresholds
from compat.measure import occupancy
from compat.measure.protocol import Protocol
from compat.measure.request import CaseRequest
from compat.metrics import timing
from compat.metrics.timing import LONG_ENOUGH
from compat.run.client import Worker
from compat.run.measurement import Finding, Measurement

SUITE = Path(__file__).parents[1] / "suites" / "test_latency.py"
LIMITS = thresholds.load([thresholds.default_path()])
CPU = catalog.load().case("whisper-tiny@seeded/cpu-torch/fp32")
CUDA = catalog.load().case("whisper-tiny@seeded/cuda-torch/fp32")
BURN = """
import sys, time
wanted = time.process_time() + float(sys.argv[1])
while time.process_time() < wanted:
    sum(range(1000))
print("done", flush=True)
"""
NEEDED = 0.8
"""Seconds of a processor, counted by the process that uses them: a busy machine changes nothing."""

# Readings --------------------------------------------------------------------------------------

FAMILY = f"""
import json, subprocess, sys, threading, time
from compat.measure import occupancy

START = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', *sys.argv[1:]])"
started = []

def burning(*lead):
    command = [sys.executable, "-c", *lead, {BURN!r}, "{NEEDED}"]
    started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    assert started[0].stdout.readline() == "done\\n"

def itself():
    wanted = time.process_time() + {NEEDED}
    while time.process_time() < wanted:
        sum(range(1000))

def thread():
    one = threading.Thread(target=itself)
    one.start()
    one.join()

def child():
    burning()
    started[0].wait()

def grandchild():
    burning(START + "; time.sleep(600)")

def detached():
    # Its own parent has ended: nothing but the kernel knows whose it was.
    burning(START)
    started[0].wait()

occupancy.keep_orphans()
processors = occupancy.allowed()
before = occupancy.reading(processors)
globals()[sys.argv[1]]()
print(json.dumps([before, occupancy.reading(processors)]))
for one in started:
    one.kill()
"""


@pytest.mark.parametrize("kind", ["itself", "thread", "child", "grandchild", "detached"])
def test_a_helper_is_the_workers_own(kind: str) -> None:
    """However it was started: what a backend does itself must never pass for another's."""
    if kind == "detached" and sys.platform != "linux":
        pytest.skip("only Linux hands over orphans")
    done = subprocess.run(
        [sys.executable, "-c", FAMILY, kind],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout.splitlines()[-1])
    assert after["own_s"] - before["own_s"] >= 0.8 * NEEDED
    assert after["used_s"] - before["used_s"] >= 0.7 * NEEDED


@contextlib.contextmanager
def burners(seconds: float) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Keep every processor busy, by processes that are none of a worker's."""
    command = [sys.executable, "-c", BURN, str(seconds)]
    found = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(facts.available_cpus())
    ]
    try:
        yield found
    finally:
        for one in found:
            one.kill()
            one.wait()


def burn_from_the_first_check_on(results: Path, ended: threading.Event) -> None:
    """Keep every processor busy while checks run, after the start of the run itself."""
    while not any(b'"started"' in one.read_bytes() for one in results.glob("*.jsonl")):
        if ended.wait(0.05):
            return
    with burners(3600):
        ended.wait()


@pytest.fixture
def start(faulty_catalog: Any) -> Iterator[Callable[[str], Worker]]:
    workers: list[Worker] = []

    def begin(target: str) -> Worker:
        request = CaseRequest(f"toy@seeded/{target}/fp32", str(DEFAULT), "quick", threads=1)
        workers.append(Worker(request, 60, 8 << 30))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.close()


def test_what_others_use_is_not_the_workers(start: Callable[[str], Worker]) -> None:
    worker = start("sound-nothing")
    worker.stage("loads")
    before = worker.ask("processors")
    with burners(NEEDED) as others:
        for one in others:
            one.wait()
    after = worker.ask("processors")
    own = after["own_s"] - before["own_s"]
    assert own < 0.25 * NEEDED
    assert after["used_s"] - before["used_s"] - own >= 0.8 * NEEDED * len(others)
    assert after["processors"] == before["processors"] == len(occupancy.allowed())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands over orphans")
def test_a_worker_keeps_what_detached_itself(start: Callable[[str], Worker]) -> None:
    worker = start("detaching-nothing")
    worker.stage("loads")
    before = worker.ask("processors")
    worker.stage("placed")  # Has a helper use as much of a processor.
    after = worker.ask("processors")
    assert after["own_s"] - before["own_s"] >= 0.75 * NEEDED, "the helper passes for another's"


def test_a_comparison_with_the_host_counts_others(
    faulty_catalog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "LONG_ENOUGH", 0.0)
    case = "toy@seeded/faulty-unseen-fallback/fp32"
    protocol = Protocol({"id": case, "corpus": str(DEFAULT), "profile": "quick", "threads": 1})
    found = protocol.stage("host", {})
    assert found["samples"].keys() == {"host_s", "target_s"}
    assert found["others"]["others_busy"] >= 0.0
    assert found["others"]["processors"] == len(occupancy.allowed())


def test_a_kept_result_of_one_round_is_no_fault_beside_others(
    start: Callable[[str], Worker],
) -> None:
    """The same is one where the clocks show nobody else, or cannot show anybody."""
    pytest.importorskip("torch")
    with burners(3600):
        found = start("memoises-slowly").stage("suspicions")
    assert len(found["samples"]["fresh_s"]) == 1, "this is about single rounds"
    assert found["faults"] == []
    (doubt,) = found["doubts"]
    assert "a cached result" in doubt and "other processes kept" in doubt


@pytest.mark.parametrize("others", [0.0, None])
def test_a_kept_result_of_one_round_is_a_fault(
    faulty_catalog: Any, monkeypatch: pytest.MonkeyPatch, others: float | None
) -> None:
    said = {} if others is None else {"others_busy": others, "processors": 2}
    monkeypatch.setattr(timing, "others_busy", lambda before, after: said)
    case = "toy@seeded/memoises-slowly/fp32"
    protocol = Protocol({"id": case, "corpus": str(DEFAULT), "profile": "quick", "threads": 1})
    found = protocol.stage("suspicions", {})
    assert len(found["samples"]["fresh_s"]) == 1, "this is about single rounds"
    (fault,) = found["faults"]
    assert "a cached result" in fault and not found["doubts"]


def test_a_busy_machine_fails_nobody(suites: Any, tmp_path: Path) -> None:
    """A limit that nothing meets, while others burn every processor from the first round on."""
    limit = tmp_path / "limit.toml"
    limit.write_text(
        '[[threshold]]\ncheck = "latency.task"\nmetric = "rtf_upper"\noverride = true\n'
        'at_most = { strict = 1e-9, relaxed = 1e-9 }\nreason = "nothing is as fast"\n'
    )
    arguments = ["--targets=sound-slow", "--weights=pretrained", "-k=latency", "--iterations=24"]
    arguments += [f"--threads={facts.available_cpus()}", f"--thresholds={limit}"]
    results, ended = tmp_path / "busy", threading.Event()
    others = threading.Thread(target=burn_from_the_first_check_on, args=(results, ended))
    others.start()
    try:
        run = suites.run(results, *arguments)
    finally:
        ended.set()
        others.join()
    (one,) = run.observations
    assert one.status == "inconclusive", one.reason
    assert one.level is None and one.remedy
    # Calm rounds may have been too few already, by the arithmetic beside them.
    assert "the machine was busy" in one.reason
    assert one.values["others_busy"] > 0.25


# What is made of them --------------------------------------------------------------------------


class FakeWorker:
    """Answers with rounds of one length, between which others used the processors."""

    def __init__(
        self, seconds: float, others: float, threads: int, same: bool = True, host: float = 1.0
    ) -> None:
        self.seconds, self.others, self.same, self.host = seconds, others, same, host
        self.request = SimpleNamespace(threads=threads)
        self.asked: list[str] = []
        self.doubts: list[str] = []

    def stage(self, name: str, **arguments: Any) -> Any:
        if name == "loads":
            return {"cold": {}}
        if name == "host":
            samples = {"host_s": [self.host] * 3, "target_s": [self.seconds] * 3}
            others = {"others_busy": self.others, "processors": 2}
            return {"samples": samples, "others": others}
        return {
            "samples": {"repeat_s": [self.seconds]},
            "values": {},
            "faults": [],
            "doubts": self.doubts,
        }

    def ask(self, name: str, **arguments: Any) -> Any:
        self.asked.append(name)
        if name == "processors":
            wall = LONG_ENOUGH * self.asked.count("timed")
            used = wall * (1.0 + self.others)
            return {
                "wall_s": wall,
                "used_s": used,
                "own_s": wall,
                "processors": 2,
                "processes": [1, 2],
            }
        return {
            "seconds": self.seconds,
            "baseline_s": 0.01,
            "stages": {},
            "marks": {},
            "audio_s": 10.0,
            "counts": {"tokens": 3},
            "same": self.same,
        }


def pedantic(one_round: Callable[[], None], rounds: int, iterations: int, warmup_rounds: int):
    for _ in range(warmup_rounds + rounds):
        one_round()


def measured(name: str, worker: FakeWorker) -> tuple[str, str, str | None, Mapping[str, Any]]:
    """Return status, reason, level and values of a check of the suite."""
    test = runpy.run_path(str(SUITE))[name]
    case = CUDA if name == "test_host" else CPU
    plan: Any = {"worker": worker, "thresholds": LIMITS, "iterations": 4, "warmup": 2}
    plan |= {"profile": QUICK, "chosen": True, "found_file": Path(), "recommendation": None}
    measurement = Measurement(case, test.check, **plan)
    error = None
    try:
        if name == "test_host":
            test(measurement)
        else:
            test(measurement, SimpleNamespace(pedantic=pedantic, extra_info={}))
    except Finding as found:
        error = found
    one = measurement.observation(error, None, "fp32")
    assert bool(one.remedy) == (one.status == "inconclusive")
    return one.status, one.reason, one.level, one.values


BUSY = "other processes kept 1.9 of 2 processors busy"


@pytest.mark.parametrize(
    ("seconds", "others", "threads", "status", "level", "mentioned"),
    [
        # RTF 2: failed, unless others had the processors.
        (20.0, 1.9, 2, "inconclusive", None, True),
        (20.0, 0.1, 2, "failed", "failed", False),
        # RTF 0.7: better than that nobody knows, worse it is not.
        (7.0, 1.9, 2, "passed", "relaxed", True),
        (7.0, 0.1, 2, "passed", "relaxed", False),
        # RTF 0.1: on a quiet machine it would be less still.
        (1.0, 1.9, 2, "passed", "strict", False),
        # One thread of two processors has one to itself.
        (20.0, 1.1, 1, "failed", "failed", False),
        (20.0, 1.9, 1, "inconclusive", None, True),
    ],
)
def test_a_time_on_a_busy_machine_is_an_upper_bound(
    seconds: float, others: float, threads: int, status: str, level: str | None, mentioned: bool
) -> None:
    worker = FakeWorker(seconds, others, threads)
    found = measured("test_task", worker)
    assert (found[0], found[2]) == (status, level)
    assert (BUSY in found[1]) == mentioned, found[1]
    if status == "inconclusive":
        assert "rtf_upper 2, needs at most 1" in found[1]
    # The figure is evidence whatever came of it, and counts from the first timed round on.
    assert found[3]["others_busy"] == pytest.approx(others)
    assert worker.asked == ["timed"] * 2 + ["processors"] + ["timed"] * 4 + ["processors"]


def test_a_busy_machine_excuses_no_fault() -> None:
    status, reason, level, _ = measured("test_task", FakeWorker(20.0, 1.9, 2, same=False))
    assert (status, level) == ("failed", "failed")
    assert "timed outputs are not those that were judged" in reason


def test_what_single_rounds_show_on_a_busy_machine_is_no_verdict() -> None:
    doubt = f"{BUSY}; repeats of one input run 3.3 times as fast as fresh inputs"
    worker = FakeWorker(1.0, 0.1, 2)
    worker.doubts.append(doubt)
    status, reason, level, values = measured("test_task", worker)
    assert (status, level) == ("inconclusive", None)
    assert reason == f"the machine was busy: {doubt}"
    assert values["rtf"] == 0.1, "what was measured is kept"
    # Nor does it excuse a fault.
    faulty = FakeWorker(1.0, 0.1, 2, same=False)
    faulty.doubts.append(doubt)
    assert measured("test_task", faulty)[0] == "failed"


@pytest.mark.parametrize("seconds", [0.1, 2.0])
def test_a_ratio_on_a_busy_machine_is_no_bound(seconds: float) -> None:
    """Others may have slowed the host, the device or both: neither way is it a verdict."""
    status, reason, _, values = measured("test_host", FakeWorker(seconds, 1.9, 2))
    assert status == "inconclusive" and BUSY in reason
    assert values["speed_up"] == 1.0 / seconds
    status, *_ = measured("test_host", FakeWorker(seconds, 0.1, 2))
    assert status == ("passed" if seconds < 1.0 else "failed")
