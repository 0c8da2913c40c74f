"""The scripts that runners execute, as they execute them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat.runtimes.web.browser import MODULES as WEB_PACKAGES

ROOT = Path(__file__).parent.parent
TOOLS = ("sh", "dirname", "tr", "mkdir", "rm", "cat")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="scripts of a POSIX shell")


def script(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    return subprocess.run(
        ["/bin/sh", f"ci/{name}", *arguments],
        cwd=ROOT,
        # No test here is about a browser, each of which takes seconds to be probed.
        env={**kept, "COMPAT_VENV": sys.prefix, WEB_PACKAGES: "none", **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture
def attempt() -> Iterator[str]:
    """The name of an attempt, whose artifacts are removed afterwards."""
    name = f"test{os.getpid()}"
    yield name
    for folder in (ROOT / "artifacts").glob(f"*-{name}"):
        shutil.rmtree(folder)


def test_a_runner_leaves_results_junit_and_the_doctor(
    attempt: str, tmp_path: Path, cache_folder: Path
) -> None:
    options = ("--quick", "--models", "whisper-nano", "--targets", "cpu-torch", "-k", "loads")
    found = script(
        *("run", "cpu", *options),
        COMPAT_RECIPES="fp32,int8-dynamic",
        COMPAT_ATTEMPT=attempt,
        COMPAT_CACHE=str(cache_folder),
    )
    assert found.returncode == 0, found.stdout + found.stderr
    folder = ROOT / "artifacts" / f"cpu-fp32_int8-dynamic-{attempt}"
    assert "cpu-torch" in (folder / "doctor.txt").read_text(encoding="utf-8")
    junit = (folder / "junit.xml").read_text(encoding="utf-8")
    assert "whisper-nano@trained/cpu-torch/int8-dynamic" in junit
    assert list((folder / "results").glob("*.jsonl"))

    # What the merging job is given: this, and the half of a file that a runner left which died.
    arrived, site = tmp_path / "artifacts", tmp_path / "site"
    shutil.copytree(folder, arrived / "cpu")
    whole = next((folder / "results").glob("*.jsonl")).read_bytes()
    (arrived / "cuda").mkdir()
    (arrived / "cuda" / "20260101T000000Z-000000.main.jsonl").write_bytes(whole[: len(whole) // 2])
    summary = tmp_path / "summary.md"
    merged = script(
        "merge",
        str(arrived),
        str(site),
        COMPAT_PYTHON=sys.executable,
        GITHUB_STEP_SUMMARY=str(summary),
    )
    assert merged.returncode == 0, merged.stdout + merged.stderr
    assert (site / "index.html").is_file()
    assert "**Whisper**" in summary.read_text(encoding="utf-8")


def test_a_runner_without_its_hardware_fails(attempt: str) -> None:
    options = ("--quick", "--models", "whisper-nano", "--recipes", "fp16", "-k", "loads")
    found = script(
        "run", "mps" if sys.platform != "darwin" else "qualcomm", *options, COMPAT_ATTEMPT=attempt
    )
    assert found.returncode == 1
    assert "absent" in found.stdout


def test_no_runner_has_nothing_to_merge(tmp_path: Path) -> None:
    found = script(
        "merge", str(tmp_path / "nothing"), str(tmp_path / "site"), COMPAT_PYTHON=sys.executable
    )
    assert found.returncode == 3, "nothing to show is no success"
    assert "can be reported, so no site is written" in found.stdout + found.stderr
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("hardware", ["webgpu", "webnn"])
def test_web_columns_bring_their_browsers(hardware: str, tmp_path: Path) -> None:
    for tool in TOOLS:
        (tmp_path / tool).symlink_to(shutil.which(tool) or pytest.skip(f"no {tool} here"))
    found = script("run", hardware, PATH=str(tmp_path))
    assert found.returncode == 1
    assert "No npm was found" in found.stderr


def test_hardware_that_does_not_exist_is_explained() -> None:
    for arguments in ((), ("gpu",)):
        found = script("run", *arguments)
        assert found.returncode == 2
        assert "webgpu|webnn" in found.stderr
