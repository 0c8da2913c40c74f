"""Benchmarks of the suite itself: what it adds to what it measures. ``make bench`` runs them.

Each benchmark states a limit. A missed limit makes the exit status 1. Times are wall clock;
candidate and baseline are interleaved, and the median over rounds counts. On a busy machine run
them again, or raise ``--rounds``.
"""

from __future__ import annotations

import os

from compat.processes import THREADS

# Before NumPy is imported: the bare loop below must run with one thread, as the worker does.
os.environ.update(dict.fromkeys((*THREADS, "OPENBLAS_NUM_THREADS"), "1"))

import argparse
import json
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import many_results

from compat import catalog
from compat.contract.graph import Stopwatch
from compat.inputs import corpus
from compat.measure.request import CaseRequest
from compat.report.documents import put
from compat.run.client import Worker

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

HEAVY = (
    "ctranslate2",
    "faster_whisper",
    "nncf",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "plotly",
    "scipy",
    "torch",
    "transformers",
)
"""Modules that neither importing compat nor collecting its suites may load."""

COLLECTION_FACTOR = 2.5
START_SECONDS = 0.5
CHECK_SECONDS = 0.050
TIMING_DIFFERENCE = 0.03
TIMED_CASE = "whisper-tiny@seeded/cpu-onnxruntime/fp32"


@dataclass(frozen=True)
class Outcome:
    """One row of the table."""

    name: str
    found: str
    limit: str
    met: bool
    detail: str


def spread(values: Sequence[float]) -> float:
    """Return the interquartile range, in the unit of the values."""
    if len(values) < 2:
        return 0.0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return high - low


def seconds(command: Sequence[str], folder: Path = ROOT) -> float:
    """Run a Python command and return how long it took; end the program if it fails."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    elapsed = time.perf_counter() - started
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace")
        sys.exit(f"bench: {' '.join(command)} failed:\n{said[-3000:]}")
    return elapsed


@contextmanager
def other_catalog(name: str) -> Iterator[Path]:
    """Make one of this folder's catalogs known to this process and to those that it starts."""
    before = os.environ.get(catalog.ENVIRONMENT)
    path = HERE / name
    catalog.use([str(path)])
    try:
        yield path
    finally:
        os.environ.pop(catalog.ENVIRONMENT)
        if before:
            os.environ[catalog.ENVIRONMENT] = before
        catalog.load.cache_clear()


def small_corpus(folder: Path) -> Path:
    """Write a test set of one short recording."""
    folder.mkdir()
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\0\1" * 1600)
    line = {"audio_filepath": "a.wav", "duration": 0.1, "text": "one"}
    (folder / "manifest.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    return folder


# The benchmarks --------------------------------------------------------------------------------


def imports(rounds: int) -> list[Outcome]:
    """Importing compat, and collecting its suites, loads no heavy library."""
    programs = {
        "importing compat": "import compat, compat.catalog, compat.commands.main; "
        "compat.catalog.load()",
        "collecting the suites": "import os, sys, pytest; out, sys.stdout = sys.stdout, "
        "open(os.devnull, 'w'); status = pytest.main(['suites', '--collect-only', '-qq', '-p', "
        "'no:cacheprovider']); sys.stdout = out; assert status == 0, status",
    }
    outcomes = []
    for name, program in programs.items():
        ask = f"{program}; import json, sys; print(json.dumps(sorted(sys.modules)))"
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=False
            )
            times.append(time.perf_counter() - started)
            if done.returncode:
                sys.exit(f"bench: {name} failed:\n{done.stderr[-3000:]}")
        loaded = {module.split(".")[0] for module in json.loads(done.stdout.splitlines()[-1])}
        heavy = sorted(loaded & set(HEAVY))
        outcomes.append(
            Outcome(
                f"{name}: heavy libraries loaded",
                ", ".join(heavy) or "none",
                "none",
                not heavy,
                f"{median(times):.2f} s in a fresh process, spread {spread(times):.2f} s",
            )
        )
    return outcomes


def collection(rounds: int) -> list[Outcome]:
    """Collecting 10,000 checks costs little more than collecting 10,000 bare tests."""
    with tempfile.TemporaryDirectory() as name, other_catalog("many_cases.py") as many:
        folder = Path(name)
        cases = [
            case.id
            for case in catalog.load().cases()
            if (case.family.name, case.target.runtime) == ("many", "many-runtime")
        ]
        bare = "import pytest\n" + "".join(
            f"\n\n@pytest.mark.parametrize('case', {cases!r})\ndef test_{n}(case):\n    pass\n"
            for n in range(5)
        )
        (folder / "test_bare.py").write_text(bare, encoding="utf-8")
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        common = ["-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider"]
        common += ["--import-mode=importlib", "--strict-markers"]
        ours = [*common, "suites", "--full", "--catalog", str(many)]
        ours += ["--models", "many", "--targets", "many-*"]
        theirs = [*common, "-p", "no:compat", "-c", "pytest.ini", "test_bare.py"]
        counts = [_collected(ours, ROOT), _collected(theirs, folder)]
        times: dict[str, list[float]] = {"ours": [], "bare": []}
        for _ in range(rounds):
            times["bare"].append(seconds(theirs, folder))
            times["ours"].append(seconds(ours))
        factor = median(times["ours"]) / median(times["bare"])
        return [
            Outcome(
                f"collecting {counts[0]:,} checks against {counts[1]:,} bare tests",
                f"× {factor:.2f}",
                f"× {COLLECTION_FACTOR}",
                factor <= COLLECTION_FACTOR and counts == [10_000, 10_000],
                f"{median(times['ours']):.2f} s (spread {spread(times['ours']):.2f}) against "
                f"{median(times['bare']):.2f} s (spread {spread(times['bare']):.2f})",
            )
        ]


def _collected(command: Sequence[str], folder: Path) -> int:
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False
    )
    return sum(
        int(line.rsplit(": ", 1)[1])
        for line in done.stdout.splitlines()
        if ".py: " in line and line.rsplit(": ", 1)[1].isdigit()
    )


def start(rounds: int) -> list[Outcome]:
    """A worker's first answer comes soon after its runtime could have been imported at all."""
    with tempfile.TemporaryDirectory() as name, other_catalog("trivial_case.py"):
        request = CaseRequest(
            "trivial@seeded/trivial-cpu/fp32", str(small_corpus(Path(name) / "corpus"))
        )
        workers, bare = [], []
        for round_ in range(rounds + 1):
            bare_s = seconds(["-c", "import onnxruntime"])
            worker = Worker(request, 120.0, 8 << 30)
            started = time.perf_counter()
            worker.stage("loads")
            worker_s = time.perf_counter() - started
            worker.close()
            if round_:  # The first round fills the file cache.
                workers.append(worker_s)
                bare.append(bare_s)
    beyond = [ours - theirs for ours, theirs in zip(workers, bare, strict=True)]
    return [
        Outcome(
            "first answer of a worker, beyond importing its runtime",
            f"{median(beyond):.2f} s",
            f"{START_SECONDS} s",
            median(beyond) <= START_SECONDS,
            f"{median(workers):.2f} s against {median(bare):.2f} s for a bare "
            f"`import onnxruntime`; spread of the differences {spread(beyond):.2f} s",
        )
    ]


SUITE = """\
from compat.run.measurement import check

NUMBERS = dict(cosine=1.0, worst_cosine=1.0, snr_db=110.0, worst_snr_db=110.0, worst_utterance=0,
               max_error=1e-6, passing_tolerance=1e-6, rms_error=1e-7, signal_rms=0.4,
               non_finite=0, error_ratio=0.5, oracle_snr_db=110.0, contrast_db=-5.0)
"""
CHECK = """

@check("accuracy.numerics")
def test_{n}(measurement):
    measurement.stage("loads")
    measurement.judge({{"encoder": NUMBERS, "logits": NUMBERS, "inputs": 3}})
"""


def judged(rounds: int) -> list[Outcome]:
    """One more check of a stage that was performed already costs little."""
    few, many = 1, 201
    with tempfile.TemporaryDirectory() as name, other_catalog("trivial_case.py") as trivial:
        folder = Path(name)
        small_corpus(folder / "corpus")
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        times: dict[int, list[float]] = {few: [], many: []}
        for count in times:
            text = SUITE + "".join(CHECK.format(n=n) for n in range(count))
            (folder / f"test_{count}.py").write_text(text, encoding="utf-8")
        for _ in range(rounds):
            for count, found in times.items():
                command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "pytest.ini"]
                command += [f"test_{count}.py", "--catalog", str(trivial), "--models", "trivial"]
                command += ["--targets", "trivial-cpu"]
                command += ["--corpus", "corpus", "--results", "results", "--threads", "1"]
                found.append(seconds(command, folder))
        lines = [
            text
            for path in (folder / "results").glob("*.jsonl")
            for text in path.read_text(encoding="utf-8").splitlines()
        ]
        observations = [json.loads(text) for text in lines if '"kind":"observation"' in text]
        complete = len(observations) == rounds * (few + many) and all(
            one["status"] == "passed" and one["limits"] for one in observations
        )
    each = [(b - a) / (many - few) for a, b in zip(times[few], times[many], strict=True)]
    return [
        Outcome(
            "one judged check of a remembered stage",
            f"{1e3 * median(each):.1f} ms",
            f"{1e3 * CHECK_SECONDS:.0f} ms",
            median(each) <= CHECK_SECONDS and complete,
            f"pytest, judging and writing included; spread {1e3 * spread(each):.1f} ms"
            + ("" if complete else "; NOT EVERY CHECK PASSED AND WAS JUDGED"),
        )
    ]


def timing(rounds: int) -> list[Outcome]:
    """What a worker reports as latency is what a bare loop around the same session takes."""
    from dataclasses import asdict

    from compat.measure.protocol import Protocol

    # Without stress inputs: their reference outputs take minutes the first time, and are not used.
    request = CaseRequest(TIMED_CASE, str(corpus.DEFAULT), profile="quick", threads=1)
    worker = Worker(request, 1200.0, 12 << 30)
    try:
        worker.ask("timed", index=0)
        protocol = Protocol(asdict(request))
        execution = protocol.case.execution
        items = protocol.case.inputs.items.timed

        def bare(index: int) -> float:
            started = time.perf_counter()
            execution.predict([items[index % len(items)]], Stopwatch())
            return time.perf_counter() - started

        def reported(index: int) -> float:
            return float(worker.ask("timed", index=index)["seconds"])

        bare(0)
        pairs = []
        for index in range(rounds):
            # Who goes first alternates, so that a drift of the machine favours neither.
            if index % 2:
                ours, theirs = reported(index), bare(index)
            else:
                theirs, ours = bare(index), reported(index)
            pairs.append((ours, theirs))
    finally:
        worker.close()
    ratios = [ours / theirs for ours, theirs in pairs]
    difference = median(ratios) - 1.0
    return [
        Outcome(
            f"latency of {TIMED_CASE}, worker against a bare loop",
            f"{difference:+.1%}",
            f"± {TIMING_DIFFERENCE:.0%}",
            abs(difference) <= TIMING_DIFFERENCE,
            f"median of {rounds} pairs, {median(o for o, _ in pairs):.3f} s against "
            f"{median(t for _, t in pairs):.3f} s; spread of the ratios {spread(ratios):.1%}",
        )
    ]


REPORTED = """\
import json, resource, sys, time
from pathlib import Path
started = time.perf_counter()
from compat.judge.results import read_all
from compat.report import build, with_changes, write_site
read = read_all([Path(sys.argv[1])], predictions=False)
seconds = [time.perf_counter() - started]
report = with_changes(build(read), read)
seconds.append(time.perf_counter() - started)
write_site(report, Path(sys.argv[2]))
seconds.append(time.perf_counter() - started)
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(json.dumps({"seconds": seconds, "peak": peak, "ratings": len(report.configurations)}))
"""
SITES = {
    "published": (0, 0, 4.0, 1e9),
    "30 machines": (100_000, 30, 30.0, 1e9),
    "a million observations": (1_000_000, 2, 60.0, 2e9),
}
"""Observations and machines, and the seconds and bytes that a site of them may take."""
INDEX_BYTES = PAGE_BYTES = 3_000_000


def site(rounds: int) -> list[Outcome]:
    """A site of what is published, and of a hundred thousand observations, is made in time."""
    outcomes = []
    for name, (observations, machines, limit_s, limit_bytes) in SITES.items():
        with tempfile.TemporaryDirectory() as temporary:
            results, folder = many_results.PUBLISHED, Path(temporary) / "site"
            if observations:
                results = Path(temporary) / "results"
                many_results.write(results, observations, machines)
            found = []
            for _ in range(rounds):
                command = [sys.executable, "-c", REPORTED, str(results), str(folder)]
                done = subprocess.run(
                    command, cwd=ROOT, capture_output=True, text=True, check=False
                )
                if done.returncode:
                    sys.exit(f"bench: site failed:\n{done.stderr[-3000:]}")
                found.append(json.loads(done.stdout))
            best = min(found, key=lambda one: one["seconds"][-1])
            read, built, whole = best["seconds"]
            largest = next(many_results.sizes(folder))
            index = (folder / "index.html").stat().st_size
        outcomes += [
            Outcome(
                f"site of {name}: time",
                f"{whole:.1f} s",
                f"{limit_s:.0f} s",
                whole <= limit_s,
                f"{read:.1f} s of them reading, {built - read:.1f} s rating "
                f"{best['ratings']:,} configurations",
            ),
            Outcome(
                f"site of {name}: memory",
                f"{best['peak'] / 1e6:.0f} MB",
                f"{limit_bytes / 1e6:.0f} MB",
                best["peak"] <= limit_bytes,
                "most that the process held at once",
            ),
            Outcome(
                f"site of {name}: largest page",
                f"{largest[1] / 1e6:.2f} MB",
                f"{PAGE_BYTES / 1e6:.0f} MB",
                largest[1] <= PAGE_BYTES and index <= INDEX_BYTES,
                f"{largest[0]}; the index {index / 1e6:.2f} MB",
            ),
        ]
    return outcomes


BENCHMARKS: dict[str, tuple[Callable[[int], list[Outcome]], int]] = {
    "imports": (imports, 3),
    "collection": (collection, 3),
    "start": (start, 5),
    "judged": (judged, 3),
    "timing": (timing, 32),
    "site": (site, 1),
}
"""Name to function and number of rounds."""


# The table -------------------------------------------------------------------------------------


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a Markdown table."""
    lines = ["| benchmark | found | limit | met | detail |", "| --- | --- | --- | --- | --- |"]
    for one in outcomes:
        met = "yes" if one.met else "**no**"
        lines.append(f"| {one.name} | {one.found} | {one.limit} | {met} | {one.detail} |")
    return "\n".join(lines)


def conditions() -> str:
    """Say when, with what and on what the benchmarks ran."""
    import platform
    from datetime import UTC, datetime

    from compat.hardware import facts
    from compat.run.run import git_commit

    processor = facts.machine_facts().get("cpu", {}).get("model", "unknown processor")
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {git_commit() or 'unknown'}, {processor}, "
        f"{facts.available_cpus()} cores, {platform.system()}, Python "
        f"{platform.python_version()}{load} at the end."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, help="rounds of each (default: its own number)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the table there")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}: there are {', '.join(BENCHMARKS)}")
    outcomes = []
    for name in options.names or BENCHMARKS:
        function, rounds = BENCHMARKS[name]
        for one in function(options.rounds or rounds):
            mark = "ok  " if one.met else "FAIL"
            print(f"{mark} {one.name}: {one.found} (limit {one.limit}); {one.detail}", flush=True)
            outcomes.append(one)
    said = f"{table(outcomes)}\n\n{conditions()}"
    print(f"\n{said}")
    if options.write:
        put(options.write, "benchmarks", said)
    return 0 if all(one.met for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
