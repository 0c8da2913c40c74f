"""The wheel: built, installed into a new environment, and used in an empty folder.

The environment sees the dependencies of the one that runs the tests, but not its ``compat``. It
lies inside a project whose settings, conftest and commits must not matter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from compat import __version__
from compat.judge.results import Collection, read_all

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(sys.platform == "win32", reason="folders of an environment differ"),
]

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 50_000_000
"""Bytes."""
HOSTILE = '[tool.pytest.ini_options]\naddopts = "--no-such-option"\n'
CONFTEST = 'raise RuntimeError("the conftest of the project around")\n'
IDENTITY = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
ENTRY = "[compat]\nloudness = loudness_models\n"
METADATA = "Metadata-Version: 2.1\nName: loudness-models\nVersion: 1.0\n"
LIMIT = """
[[threshold]]
check = "accuracy.numerics"
metric = "*.snr_db"
at_least = { strict = 1000.0, relaxed = 900.0 }
family = "loudness"
override = true
reason = "nothing is that exact"
"""
KNOWN = """
[[expect]]
case = "loudness-*"
check = "accuracy.numerics"
owner = "never"
error = "snr_db"
reason = "the limit cannot be met"
"""


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and an empty folder to work in."""

    wheel: Path
    python: Path
    home: Path
    folder: Path

    @property
    def package(self) -> Path:
        return next(self.python.parents[1].glob("lib/python*/site-packages")) / "compat"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the empty folder, for a person who has set nothing."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("COMPAT_", "PYTEST_", "PYTHON", "XDG_"))
        }
        return subprocess.run(
            [self.python, *words],
            cwd=self.folder,
            env={**kept, "HOME": str(self.home), "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1500,
            check=False,
        )

    def compat(self, *words: str) -> str:
        done = self.run(str(self.python.with_name("compat")), *words)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def results(self) -> Collection:
        return read_all([self.folder / "reports" / "local" / "results"])


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the wheel and install it, without its dependencies."""
    project = tmp_path_factory.mktemp("project")
    (project / "pyproject.toml").write_text(HOSTILE, encoding="utf-8")
    for words in (("init", "-q"), ("add", "."), (*IDENTITY, "commit", "-qm", "theirs")):
        subprocess.run(["git", *words], cwd=project, check=True)
    pip = [sys.executable, "-m", "pip"]
    built = project / "dist"
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", built, ROOT], check=True)
    (wheel,) = built.glob("*.whl")

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project / "venv"], check=True)
    python = project / "venv" / "bin" / "python"
    site = next((project / "venv").glob("lib/python*/site-packages"))
    # A path in a .pth file is searched, but what .pth files lie there, as that of a checkout that
    # is installed as such, are not read.
    paths = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(paths)), encoding="utf-8")
    subprocess.run(
        [
            *pip,
            "--python",
            python,
            "install",
            "-q",
            "--no-deps",
            "--no-warn-script-location",
            wheel,
        ],
        check=True,
    )
    return Installed(wheel, python, tmp_path_factory.mktemp("home"), project)


@pytest.fixture
def installed(environment: Installed, tmp_path: Path) -> Installed:
    """The environment, with an empty folder of this test's own."""
    return Installed(environment.wheel, environment.python, environment.home, tmp_path)


@pytest.fixture
def surrounded(installed: Installed) -> Iterator[Installed]:
    """The same, where the project around the environment has a conftest too.

    One that names the suites by `--pyargs` is given it, as with any package's tests.
    """
    conftest = installed.wheel.parents[1] / "conftest.py"
    conftest.write_text(CONFTEST, encoding="utf-8")
    yield installed
    conftest.unlink()


def test_what_is_in_the_wheel(environment: Installed) -> None:
    assert environment.wheel.stat().st_size <= LARGEST
    with zipfile.ZipFile(environment.wheel) as wheel:
        names = set(wheel.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "compat", "suites", "fixtures"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    expected = {
        name if name.startswith("compat/") else f"compat/{name}"
        for name in tracked
        if not name.startswith("fixtures/build/") and (ROOT / name).exists()
    }
    own = {name for name in names if not name.startswith("audio_compat-")}
    assert own >= expected, "a file that git knows is missing"
    assert not [name for name in own if "node_modules" in name or "fixtures/build" in name]


def test_one_version(installed: Installed) -> None:
    """The package, its metadata and the command say the same."""
    assert installed.compat("--version").strip() == f"compat {__version__}"
    said = "from importlib import metadata; import compat; print(metadata.version('audio-compat'))"
    done = installed.run("-c", f"{said}; print(compat.__file__)")
    version, where = done.stdout.split()
    assert version == __version__
    assert Path(where).parent == installed.package


def test_the_quick_profile_of_one_model(surrounded: Installed) -> None:
    installed = surrounded
    pytest.importorskip("torch")
    before = {path for path in installed.package.rglob("*") if path.suffix != ".pyc"}
    shown = installed.compat(
        *("matrix", "--quick", "--models", "whisper-nano"),
        *("--targets", "cpu-torch", "--recipes", "fp32"),
    )
    assert "Whisper" in shown and "[1/1] whisper-nano@trained/cpu-torch/fp32" in shown
    (run,) = installed.results().runs
    # Beside the browsers' tests a time decides nothing.
    assert {one.status for one in run.observations} - {"inconclusive"} == {"passed"}, shown
    assert run.header.commit == "", "the project around is not this one"
    assert (installed.folder / "reports" / "local" / "site" / "index.html").is_file()
    assert {path.name for path in installed.folder.iterdir()} <= {"reports", ".benchmarks"}
    # Exports and references are in the user's cache, and nothing is in the package.
    assert any(installed.home.rglob("make-*")), "the cache is elsewhere"
    after = {path for path in installed.package.rglob("*") if path.suffix != ".pyc"}
    assert {path for path in after - before if path.name != "__pycache__"} == set()


def test_pytest_with_what_a_repository_has_of_its_own(installed: Installed) -> None:
    """A model, a limit that it cannot meet, and the word that this is known."""
    pytest.importorskip("torch")
    example = (ROOT / "docs" / "example_catalog.py").read_text(encoding="utf-8")
    for name, text in (("my_models.py", example), ("limits.toml", LIMIT), ("known.toml", KNOWN)):
        (installed.folder / name).write_text(text, encoding="utf-8")
    words = ["-m", "pytest", "--pyargs", "compat.suites", "-m", "cpu", "--quick", "-q"]
    words += ["--catalog", "my_models.py", "--models", "loudness", "--targets", "cpu-torch"]
    words += ["-k", "loads or numerics", "--thresholds", "limits.toml"]
    done = installed.run(*words)
    assert done.returncode == 1, done.stdout
    done = installed.run(*words, "--expectations", "known.toml", "--results", "known")
    assert done.returncode == 0, done.stdout
    (run,) = read_all([installed.folder / "known"]).runs
    assert [one.status for one in run.observations] == ["passed", "known-failure"], done.stdout
    assert run.header.own == ("thresholds", "expectations")


def test_options_are_enough_to_mean_the_suites(surrounded: Installed) -> None:
    """Also where a folder has tests; what pytest remembers goes there."""
    installed = surrounded
    (installed.folder / "test_own.py").write_text("def test_own(): pass\n", encoding="utf-8")
    words = ("-m", "pytest", "--models", "whisper-nano", "--targets", "cpu-torch", "--co", "-q")
    done = installed.run(*words)
    assert done.returncode == 0, done.stdout
    assert "suites/test_support.py::test_loads[whisper-nano@trained/cpu-torch/fp32]" in done.stdout
    assert "test_own" not in done.stdout
    done = installed.run("-m", "pytest", "-m", "cpu")
    assert "`--pyargs compat.suites`" in done.stdout


def test_another_package_brings_models(installed: Installed) -> None:
    site = installed.package.parent
    example = (ROOT / "docs" / "example_catalog.py").read_text(encoding="utf-8")
    information = site / "loudness_models-1.0.dist-info"
    information.mkdir()
    (site / "loudness_models.py").write_text(example, encoding="utf-8")
    (information / "METADATA").write_text(METADATA, encoding="utf-8")
    (information / "entry_points.txt").write_text(ENTRY, encoding="utf-8")
    try:
        assert "loudness-2@trained/cpu-torch/fp32" in installed.compat(
            "list", "--models", "loudness"
        )
    finally:
        (information / "entry_points.txt").unlink()


def test_doctor_and_fetch(installed: Installed) -> None:
    shown = json.loads(installed.compat("doctor", "--json"))
    assert {"cpu-torch", "cuda-torch"} <= {row["target"] for row in shown["targets"]}
    assert "make browsers, " not in json.dumps(shown)
    assert "· absent  silero-vad" in installed.compat("fetch")
    assert str(installed.home) in installed.compat("fetch")
