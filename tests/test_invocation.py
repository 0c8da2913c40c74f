"""Where pytest looks for the suites, however their options are spelt and from whichever folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forks
import pytest

from compat.judge.results import read_all

ROOT = Path(__file__).resolve().parents[1]
CASE = ("--models", "whisper-nano", "--targets", "cpu-torch", "--recipes", "fp32")
SHOW = """
import json

def pytest_collection_finish(session):
    config = session.config
    shown = {
        "tests": [item.nodeid for item in session.items],
        "root": str(config.rootpath),
        "settings": str(config.inipath),
        "markers": config.option.strict_markers,
        "imports": config.option.importmode,
        "filters": config.getini("filterwarnings"),
    }
    print("shown:" + json.dumps(shown))
"""
"""A plugin that prints what is collected, and by which settings."""

PYPROJECT = """
[tool.pytest.ini_options]
addopts = "--no-such-option"
pythonpath = ["."]
"""
CONFTEST = 'raise RuntimeError("the conftest of another project")'


@dataclass(frozen=True)
class Done:
    status: int
    text: str

    @property
    def shown(self) -> dict[str, Any]:
        lines = [line for line in self.text.splitlines() if "shown:" in line]
        assert len(lines) == 1, self.text
        found: dict[str, Any] = json.loads(lines[0].partition("shown:")[2])
        return found


Start = Callable[..., Done]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Start pytest in a folder, with a plugin that shows what it is about to run."""
    plugins = tmp_path_factory.mktemp("plugins")
    (plugins / "show_settings.py").write_text(SHOW, encoding="utf-8")
    path = os.pathsep.join([str(plugins), str(ROOT)])

    def run(folder: Path, *arguments: str, **environment: str) -> Done:
        command = [sys.executable, "-m", "pytest", "-p", "show_settings", *arguments]
        environment = {**os.environ, "PYTHONPATH": path, **environment}
        done = forks.run(command, environment, folder, timeout=300, together=True)
        return Done(done.returncode, done.stdout)

    return run


@pytest.fixture(scope="module")
def plain(start: Start) -> dict[str, Any]:
    """What runs without any path, in the checkout's root."""
    shown = start(ROOT, "--co", "-q", *CASE).shown
    assert shown["root"] == str(ROOT) and shown["settings"] == str(ROOT / "pyproject.toml")
    assert shown["markers"] and shown["imports"] == "importlib" and shown["filters"][0] == "error"
    assert shown["tests"]
    assert all(test.startswith("suites/test_") for test in shown["tests"])
    return shown


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder in no project, with one of each thing that an option takes."""
    for name in ("corpus", "results", "checkpoint", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "limits.toml").write_text("", encoding="utf-8")
    (tmp_path / "browser").write_text("", encoding="utf-8")
    example = (ROOT / "docs" / "example_catalog.py").read_text(encoding="utf-8")
    (tmp_path / "own_catalog.py").write_text(example, encoding="utf-8")
    (tmp_path / "test_other.py").write_text("def test_other(): pass\n", encoding="utf-8")
    return tmp_path


def paths(folder: Path) -> dict[str, str]:
    return {
        "--corpus": str(folder / "corpus"),
        "--results": str(folder / "results"),
        "--thresholds": str(folder / "limits.toml"),
        "--catalog": str(folder / "own_catalog.py"),
        "--checkpoint": f"whisper-nano={folder / 'checkpoint'}",
        "--browser-path": str(folder / "browser"),
    }


def spelt(options: dict[str, str], equals: bool) -> list[str]:
    if equals:
        return [f"{name}={value}" for name, value in options.items()]
    return [word for pair in options.items() for word in pair]


@pytest.mark.parametrize(
    ("option", "equals"), [*((name, False) for name in (*paths(Path()), "all")), ("all", True)]
)
def test_a_path_outside_changes_nothing(
    start: Start, plain: dict[str, Any], outside: Path, option: str, equals: bool
) -> None:
    options = {k: v for k, v in paths(outside).items() if option in (k, "all")}
    assert start(ROOT, "--co", "-q", *CASE, *spelt(options, equals)).shown == plain


@pytest.mark.parametrize("equals", [False, True], ids=["blank", "equals"])
@pytest.mark.parametrize("folder", ["outside", "docs"])
def test_from_any_folder(
    start: Start, plain: dict[str, Any], outside: Path, folder: str, equals: bool
) -> None:
    """Options of the suites are enough to mean them, even beside other tests."""
    where = outside if folder == "outside" else ROOT / folder
    assert start(where, "--co", "-q", *CASE, *spelt(paths(outside), equals)).shown == plain


def test_suites_that_are_named(start: Start, plain: dict[str, Any], outside: Path) -> None:
    command = ("--co", "-q", *CASE, *spelt(paths(outside), False), str(ROOT / "suites"))
    assert start(outside / "empty", *command).shown == plain


def test_a_path_in_another_project_brings_nothing_of_it(
    start: Start, plain: dict[str, Any], outside: Path
) -> None:
    """Neither arguments nor conftests nor modules; with a path to the pytest that runs it."""
    (outside / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (outside / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (outside / "rich.py").write_text(CONFTEST, encoding="utf-8")
    corpus = str(outside / "corpus")
    assert start(ROOT, "--co", "-q", *CASE, "--corpus", corpus).shown == plain


def test_added_arguments_and_files_of_arguments(
    start: Start, plain: dict[str, Any], outside: Path
) -> None:
    corpus = str(outside / "corpus")
    done = start(ROOT, "--co", "-q", *CASE, PYTEST_ADDOPTS=f"--corpus '{corpus}'")
    assert done.shown == plain
    file = outside / "arguments.txt"
    file.write_text(f"--corpus\n{corpus}\n", encoding="utf-8")
    assert start(ROOT, "--co", "-q", *CASE, f"@{file}").shown == plain


def test_another_project_keeps_its_tests(start: Start, outside: Path) -> None:
    """One that has settings for pytest; what is named is run, too."""
    (outside / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    options = ("--co", "-q", "--corpus", str(outside / "corpus"))
    shown = start(outside, *options).shown
    assert shown["tests"] == ["test_other.py::test_other"]
    assert shown["settings"] == str(outside / "pytest.ini")
    (outside / "pytest.ini").unlink()
    assert start(outside, *options, "test_other.py").shown["tests"] == shown["tests"]


@pytest.mark.parametrize("arguments", [(), ("-m", "cpu"), ("-q", "-k", "loads")], ids=str)
def test_a_folder_without_suites_says_where_they_are(
    start: Start, outside: Path, arguments: tuple[str, ...]
) -> None:
    done = start(outside / "empty", *arguments)
    assert done.status == pytest.ExitCode.NO_TESTS_COLLECTED
    assert str(ROOT / "suites") in done.text and "compat matrix" in done.text


def test_tests_without_the_mark_say_it_too(start: Start, outside: Path) -> None:
    done = start(outside, "-m", "cpu")
    assert "1 deselected" in done.text and str(ROOT / "suites") in done.text
    # Who chose among tests by name knows what they are.
    assert "No suite is here" not in start(outside, "-k", "nothing").text


def test_what_was_measured_lies_where_it_was_asked_for(suites: Any, outside: Path) -> None:
    """By two processes, from another folder, with relative paths after blanks; then again."""
    options = ["--results", "results", "--junitxml", "results/junit.xml", "-n", "2"]
    options += ["-o", "cache_dir=pytest-cache", "--targets", "breaking-exception,sound-nothing"]
    options += ["--weights", "seeded", "-k", "loads or placed"]
    command = suites.command(outside / "unused", *options)
    command.remove("suites")

    def run(*more: str) -> int:
        return subprocess.run(
            [*command, *more],
            cwd=outside,
            env={**suites.environment(), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        ).returncode

    assert run() == 1
    runs = read_all([outside / "results"]).runs
    assert sorted(run.header.worker for run in runs) == ["gw0", "gw1"]
    assert sum(len(run.observations) for run in runs) == 4
    assert (outside / "results" / "junit.xml").is_file()
    assert run("--lf", "--results", "again") == 1
    (again,) = [run for run in read_all([outside / "again"]).runs if run.observations]
    assert [one.case for one in again.observations] == ["toy@seeded/breaking-exception/fp32"]
