"""The cache of derived files: whole or not at all, whoever builds at the same time."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from compat.build import artifacts, nursery
from compat.contract import digests
from compat.contract.cache import CACHE

ROOT = Path(__file__).resolve().parents[1]

JOBS = """
import time
from pathlib import Path
from compat.models.whisper import FAMILY, load


def slow(folder, log, seconds, scheme=""):
    with open(log, "a") as file:
        file.write("built\\n")
    time.sleep(seconds)
    (Path(folder) / "data.txt").write_text("whole")


def broken(folder):
    (Path(folder) / "data.txt").write_text("half")
    raise RuntimeError("no such kernel")


def talkative(folder):
    print("a long story " * 1000)
    raise RuntimeError("no such kernel,\\nwhich is why")


def forgetful(folder):
    open("a-file-of-its-own")
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    # Builders are processes of their own here; those of a nursery have tests of their own.
    monkeypatch.delenv(nursery.ENVIRONMENT, raising=False)
    (tmp_path / "jobs_of_the_test.py").write_text(JOBS, encoding="utf-8")
    # For builders, and for this process.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), str(ROOT))))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "jobs_of_the_test", raising=False)
    for cached in (digests.code_digest, digests.code_files, digests._file):
        cached.cache_clear()
    return tmp_path / "cache"


def artifact(job: str, model: str = "1", **arguments: object) -> artifacts.Artifact:
    function = getattr(importlib.import_module("jobs_of_the_test"), job)
    return artifacts.Artifact(function, arguments, inputs={"model": model})


def fetch(job: str, model: str = "1", **arguments: object) -> Path:
    return artifact(job, model, **arguments).fetch()


def test_builds_once_however_many_ask(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(fetch, "slow", log=str(log), seconds=0.5) for _ in range(4)]
        folders = {one.result() for one in asked}
    assert len(folders) == 1
    assert log.read_text().splitlines() == ["built"]
    assert (folders.pop() / "data.txt").read_text() == "whole"


def test_other_content_is_another_artifact(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    first = fetch("slow", log=log, seconds=0)
    assert fetch("slow", log=log, seconds=0) == first
    assert fetch("slow", model="2", log=log, seconds=0) != first


def test_a_failed_build_leaves_nothing_and_says_why(cache: Path) -> None:
    with pytest.raises(artifacts.ArtifactError, match="no such kernel"):
        fetch("broken")
    assert [path for path in cache.iterdir() if path.suffix != ".lock"] == []


def test_the_cause_comes_before_the_tail() -> None:
    with pytest.raises(artifacts.ArtifactError) as caught:
        fetch("talkative")
    first, *tail = str(caught.value).splitlines()
    assert first == "jobs_of_the_test:talkative failed: RuntimeError: no such kernel, which is why"
    assert any("in talkative" in line for line in tail)


def test_a_missing_file_of_a_job_is_no_fault_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPAT_BUILDING", "1")
    with pytest.raises(FileNotFoundError, match="a-file-of-its-own"):
        fetch("forgetful")


def test_a_builder_that_is_dead_at_once_is_no_fault_of_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(artifacts.sys, "executable", shutil.which("false"))
    # More than a pipe holds: writing it to a dead process fails.
    with pytest.raises(artifacts.ArtifactError, match="slow failed: it said nothing"):
        fetch("slow", log="x" * 1_000_000, seconds=0)


def test_whoever_waits_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, int]] = []
    monkeypatch.setattr(artifacts, "on_wait", lambda what, pids: heard.append((what, len(pids))))
    for _ in range(2):
        fetch("slow", log=os.devnull, seconds=0, scheme="int8")
    building = "jobs_of_the_test:slow int8"
    assert heard == [(building, 0), (building, 1), ("", 0)]  # The second found it.


def test_side_by_side_they_are_told_of_and_timed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, int]] = []
    monkeypatch.setattr(artifacts, "on_wait", lambda what, pids: heard.append((what, len(pids))))
    before, started = artifacts.seconds_building(), time.perf_counter()
    jobs = [partial(fetch, "slow", log=os.devnull, seconds=2, scheme=s) for s in ("one", "two")]
    artifacts.side_by_side(jobs, 2)
    took = time.perf_counter() - started
    assert artifacts.seconds_building() - before == pytest.approx(took, abs=0.5)
    assert heard[-1] == ("", 0)
    both = {"jobs_of_the_test:slow one", "jobs_of_the_test:slow two"}
    assert any(set(what.split(", ")) == both and builders == 2 for what, builders in heard)
    assert heard.count(("", 0)) == 1  # When the last has ended.


def test_side_by_side_a_failure_is_raised() -> None:
    jobs = [partial(fetch, "slow", log=os.devnull, seconds=0), partial(fetch, "broken")]
    with pytest.raises(artifacts.ArtifactError, match="no such kernel"):
        artifacts.side_by_side(jobs, 2)


def test_a_job_builds_what_it_needs_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPAT_BUILDING", "1")
    found: list[int] = []
    artifacts.side_by_side([lambda: found.append(threading.get_ident())] * 3, 2)
    assert len(found) == 3 and len(set(found)) == 1


def test_an_unfinished_folder_is_built_again(tmp_path: Path, cache: Path) -> None:
    log = str(tmp_path / "log")
    folder = fetch("slow", log=log, seconds=0)
    (folder / "artifact.json").unlink()
    (folder / "data.txt").write_text("half")
    again = fetch("slow", log=log, seconds=0)
    assert again == folder and (again / "data.txt").read_text() == "whole"


def test_a_cache_that_cannot_be_written_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE, str(tmp_path / "file" / "cache"))
    with pytest.raises(artifacts.ArtifactError, match=r"compat cache clear.*COMPAT_CACHE"):
        fetch("slow", log=os.devnull, seconds=0)


def test_shown_and_cleared(cache: Path) -> None:
    fetch("slow", log=os.devnull, seconds=0)
    (entry,) = artifacts.entries()
    assert entry.job == "jobs_of_the_test:slow" and entry.bytes > 0
    assert json.loads((entry.folder / "artifact.json").read_text())["arguments"]["seconds"] == 0
    assert artifacts.clear("another") == 0
    assert artifacts.clear() == entry.bytes
    assert list(cache.iterdir()) == []


def test_a_builder_ends_with_its_parent(tmp_path: Path) -> None:
    import subprocess

    import psutil

    log = tmp_path / "log"
    code = (
        "import jobs_of_the_test; from compat.build.artifacts import Artifact; "
        f"Artifact(jobs_of_the_test.slow, {{'log': {str(log)!r}, 'seconds': 60}}).fetch()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    builders = psutil.Process(parent.pid).children()
    assert builders
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(builders, timeout=10)
    assert not alive
