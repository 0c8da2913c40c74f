"""Builders forked from a nursery: as good as those started afresh, and gone as surely."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat.build import artifacts, nursery
from compat.contract.cache import CACHE
from compat.processes import child_environment

ROOT = Path(__file__).resolve().parents[1]

# It imports PyTorch, that builders need not.
pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a nursery")

JOBS = """
import json, os, sys, time
from pathlib import Path


def look(folder):
    import torch

    found = {
        "preloaded": "torch" in LOADED,
        "parent": os.getppid(),
        "cwd": os.getcwd(),
        "offline": os.environ.get("HF_HUB_OFFLINE"),
        "word": os.environ.get("A_WORD"),
        "threads": torch.get_num_threads(),
        "open": len(list(Path("/proc/self/fd").iterdir())),
    }
    (Path(folder) / "found.json").write_text(json.dumps(found))


def broken(folder):
    print("on its way")
    raise RuntimeError("no such kernel")


def killed(folder):
    print("on its way", flush=True)
    os.kill(os.getpid(), 9)


def waits(folder, log):
    Path(log).write_text(str(os.getpid()))
    time.sleep(60)


LOADED = set(sys.modules)
"""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "jobs_of_the_nursery.py").write_text(JOBS, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def running(jobs: Path) -> Iterator[nursery.Nursery]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(jobs), str(ROOT))))
        patch.syspath_prepend(str(jobs))
        patch.setenv(nursery.ENVIRONMENT, "")  # Not that of the other tests.
        found = nursery.Nursery(threads=1)
        yield found
        found.close()


@pytest.fixture(autouse=True)
def cache(running: nursery.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path


def fetch(job: str, threads: int = 1, **arguments: object) -> Path:
    function = getattr(importlib.import_module("jobs_of_the_nursery"), job)
    return artifacts.Artifact(function, arguments, threads=threads).fetch()


def test_a_builder_is_forked_into_the_asker_s_surroundings(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_WORD", "of the asker")
    monkeypatch.chdir(cache)
    before = len(list(Path("/proc/self/fd").iterdir()))
    found = json.loads((fetch("look", threads=2) / "found.json").read_text())
    assert found["preloaded"] and found["parent"] != os.getpid()
    assert (found["cwd"], found["word"], found["offline"]) == (str(cache), "of the asker", "1")
    assert found["threads"] == 2
    # Standard streams and the folder being listed: nothing of the nursery's is left open.
    assert found["open"] <= 5
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_builder_finds_the_modules_of_the_asker(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "jobs_of_the_asker.py").write_text(JOBS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(cache))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(cache), os.environ["PYTHONPATH"])))
    look = importlib.import_module("jobs_of_the_asker").look
    folder = artifacts.Artifact(look, {}, threads=1).fetch()
    assert json.loads((folder / "found.json").read_text())["preloaded"]


def test_what_fails_says_why() -> None:
    with pytest.raises(artifacts.ArtifactError, match="RuntimeError: no such kernel") as caught:
        fetch("broken")
    assert "on its way" in str(caught.value)
    with pytest.raises(artifacts.ArtifactError, match=r"ended by SIGKILL; it last .* on its way"):
        fetch("killed")


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


def _builder_of(log: Path, environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start a process that asks for an artifact; return it and its builder."""
    arguments = {"log": str(log)}
    code = (
        "import jobs_of_the_nursery; from compat.build.artifacts import Artifact; "
        f"Artifact(jobs_of_the_nursery.waits, {arguments}).fetch()"
    )
    asker = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 20
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return asker, int(log.read_text())


def test_a_builder_ends_with_who_asked_for_it(cache: Path) -> None:
    asker, builder = _builder_of(cache / "log", child_environment(1))
    asker.send_signal(signal.SIGKILL)
    asker.wait()
    assert _gone(builder)


@pytest.mark.parametrize("sent", [b"", b'{"environment": '])
def test_an_asker_that_leaves_too_soon_does_no_harm(sent: bytes) -> None:
    ours, theirs = os.pipe()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[nursery.ENVIRONMENT])
        if sent:
            socket.send_fds(connection, [sent], [theirs])
    os.close(theirs)
    with os.fdopen(ours, "rb") as output:
        assert output.read() == b"", "nobody is left who could write"
    assert json.loads((fetch("look") / "found.json").read_text())["preloaded"]


def test_a_builder_that_cannot_begin_says_why(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache / "removed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(os, "getcwd", lambda: str(folder))
    folder.rmdir()
    with pytest.raises(artifacts.ArtifactError, match="No such file or directory"):
        fetch("look")


def test_a_nursery_that_is_gone_is_done_without(jobs: Path, cache: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(jobs), str(ROOT))))
        patch.setenv(nursery.ENVIRONMENT, str(cache / "nobody-listens"))
        found = json.loads((fetch("look") / "found.json").read_text())
    assert not found["preloaded"] and found["parent"] == os.getpid()


def test_another_installation_builds_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in another environment is to import what is installed there."""
    monkeypatch.setattr(nursery, "INSTALLED", ["/another/environment", nursery.__file__])
    found = json.loads((fetch("look") / "found.json").read_text())
    assert not found["preloaded"] and found["parent"] == os.getpid()


def test_a_closed_nursery_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(nursery.ENVIRONMENT, "")
    another = nursery.Nursery()
    path = Path(os.environ[nursery.ENVIRONMENT])
    assert path.is_socket() and path.parent.stat().st_mode & 0o077 == 0
    process = another._process
    assert process is not None and process.poll() is None
    another.close()
    assert process.returncode == 0 and not path.parent.exists()
    assert nursery.ENVIRONMENT not in os.environ


def test_a_run_inside_another_uses_its_nursery(running: nursery.Nursery) -> None:
    path = os.environ[nursery.ENVIRONMENT]
    inner = nursery.Nursery()
    assert inner._process is None
    inner.close()
    assert os.environ[nursery.ENVIRONMENT] == path
    assert json.loads((fetch("look") / "found.json").read_text())["preloaded"]


def test_at_once_it_imports_before_any_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(nursery.ENVIRONMENT, "")
    usual = nursery.Nursery(threads=1)
    monkeypatch.setenv(nursery.ENVIRONMENT, "")
    early = nursery.Nursery(threads=1, at_once=True)

    def imported(one: nursery.Nursery) -> bool:
        assert one._process is not None
        return "libtorch" in Path(f"/proc/{one._process.pid}/maps").read_text()

    try:
        deadline = time.monotonic() + 120
        while not imported(early):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert not imported(usual)
    finally:
        early.close()
        usual.close()
