"""Any subset of the runtimes installs and runs; what is missing is absent, never an import error.

``make extras`` makes the environments for real. Here each is this one seen through links, from
which some distributions are left out: their modules and their metadata are not there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from compat import catalog
from compat.contract.case import HARDWARE
from compat.runtimes.ort import BUILDS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]

TORCH = ("torch", "transformers")
ORT = ("onnxruntime", "onnx", "onnxscript", "onnx-ir")
OTHERS = (
    *("openvino", "nncf", "ctranslate2", "faster-whisper", "torchao", "bitsandbytes"),
    *("coremltools", "onnxruntime-qnn", "mlx", "openai-whisper", "pywhispercpp", "gguf"),
)
SUBSETS = {
    # What is left out, and which of three targets are then here.
    "no runtime": ((*TORCH, *ORT, *OTHERS), set()),
    "torch": ((*ORT, *OTHERS), {"cpu-torch"}),
    "torch and onnxruntime": (OTHERS, {"cpu-torch", "cpu-onnxruntime"}),
}
KEPT = {"cpu-torch": "torch", "cpu-onnxruntime": "onnxruntime"}
TARGETS = ("cpu-torch", "cpu-onnxruntime", "openvino-cpu")


def top_levels(name: str) -> set[str]:
    """Return what a distribution put into site-packages."""
    try:
        files = metadata.distribution(name).files or []
    except metadata.PackageNotFoundError:
        return set()
    return {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}


def environment_without(folder: Path, names: tuple[str, ...]) -> Path:
    """Make a virtual environment like this one but without some distributions."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", vars=paths))
    left_out = {entry for name in names for entry in top_levels(name)}
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.name not in left_out:
            (site / entry.name).symlink_to(entry)
    scripts = "Scripts" if sys.platform == "win32" else "bin"
    return folder / scripts / Path(sys.executable).name


@pytest.fixture(scope="module", params=list(SUBSETS))
def subset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if sys.prefix == sys.base_prefix or sys.platform == "win32":
        pytest.skip("needs a virtual environment to link to")
    left_out, here = SUBSETS[request.param]
    for target in here:
        if not top_levels(KEPT[target]):
            pytest.skip(f"{KEPT[target]} is not installed")
    return environment_without(tmp_path_factory.mktemp("subset") / "venv", left_out), here


def test_the_doctor_names_what_is_missing(suites: Any, subset: Any) -> None:
    """Asked where nothing is installed: what is asked for elsewhere the suites ask for too."""
    python, here = subset
    if here:
        pytest.skip("the suites ask for it")
    done = subprocess.run(
        [python, "-m", "compat", "doctor", "--json"],
        cwd=ROOT,
        env=suites.environment_elsewhere(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = {row["target"]: row for row in json.loads(done.stdout)["targets"]}
    assert {name for name in TARGETS if rows[name]["state"] == "here"} == here
    for name, row in rows.items():
        assert row["state"] in ("here", "absent"), (name, row["reason"])
        assert row["state"] == "here" or (row["reason"] and row["remedy"]), name
    assert {row["hardware"] for row in rows.values()} == set(catalog.load().hardware)


def test_the_suites_run_what_is_here(suites: Any, subset: Any, tmp_path: Path) -> None:
    python, here = subset
    if not here:
        pytest.skip("there is nothing to run")
    results = tmp_path / "results"
    arguments = [f"--targets={','.join(TARGETS)}", "--weights=seeded", "--recipes=fp32", "-k=loads"]
    command = suites.command(results, *arguments)
    done = subprocess.run(
        [python, *command[1:]],
        cwd=ROOT,
        env=suites.environment_elsewhere(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [
        json.loads(line)
        for (file,) in [results.glob("*.jsonl")]
        for line in file.read_text().splitlines()
    ]
    found = {one["case"].split("/")[1]: one for one in lines if one["kind"] == "observation"}
    assert set(found) == set(TARGETS)
    for name, one in found.items():
        assert one["status"] == ("passed" if name in here else "skipped"), one
        assert name in here or (name in one["reason"] and one["remedy"])


def test_tests_are_skipped_without_an_extra_and_fail_without_anything_else(tmp_path: Path) -> None:
    """As tests/conftest.py has it: a module that no extra brings is an error as ever."""
    python = environment_without(tmp_path / "venv", ("sacrebleu",))
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_top.py").write_text("import sacrebleu\ndef test_top(): pass\n")
    (tmp_path / "test_typo.py").write_text("import sacreblew\ndef test_typo(): pass\n")
    body = "def test_inside(): import sacrebleu\ndef test_wrong(): import sacreblew\n"
    (tmp_path / "test_inside.py").write_text(body)
    fixture = "import pytest\n@pytest.fixture(scope='module')\ndef kept(): import sacrebleu\n"
    tests = "def test_first(kept): pass\ndef test_second(kept): pass\n"
    (tmp_path / "test_fixture.py").write_text(fixture + tests)
    failed = "from compat.build.artifacts import ArtifactError\n" + "".join(
        f"def test_{name}(): raise ArtifactError(\"No module named '{name}'\")\n"
        for name in ("sacrebleu", "sacreblew")
    )
    (tmp_path / "test_built.py").write_text(failed)
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(
        [*command, "-rs", "--continue-on-collection-errors", tmp_path],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "2 failed, 5 skipped, 1 error" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("sacrebleu is not installed") == 3


# What pyproject.toml declares --------------------------------------------------------------------


def closure(extra: str) -> list[Requirement]:
    """Return the requirements of an extra, those of the extras that it names included."""
    found = []
    for line in EXTRAS[extra]:
        requirement = Requirement(line)
        if requirement.name == PROJECT["project"]["name"]:
            found += [one for name in requirement.extras for one in closure(name)]
        else:
            found.append(requirement)
    return found


def builds(extra: str) -> set[str]:
    """Return which builds of ONNX Runtime an extra brings; faster-whisper depends on one."""
    names = {canonicalize_name(one.name) for one in closure(extra)}
    return (names | ({"onnxruntime"} if "faster-whisper" in names else set())) & set(BUILDS)


def test_extras_that_overwrite_one_another_are_declared_to() -> None:
    declared = [
        frozenset(pair)
        for exclusive in PROJECT["tool"]["uv"]["conflicts"]
        for pair in combinations([one["extra"] for one in exclusive], 2)
    ]
    needed = {
        frozenset((one, other))
        for one in EXTRAS
        for other in EXTRAS
        if builds(one) and builds(other) and builds(one) != builds(other)
    }
    assert needed, "there are extras of several builds"
    assert set(declared) == needed
    # One that is declared twice could be lost from either place unseen.
    assert len(declared) == len(needed)
    assert all(len(builds(extra)) <= 1 for extra in EXTRAS)


def extras_of_runners() -> dict[str, str]:
    """Return what ci/run installs for each hardware."""
    script = (ROOT / "ci" / "run").read_text(encoding="utf-8")
    return dict(re.findall(r"^    (\w+)\) extras=([\w,-]+) ;;$", script, re.MULTILINE))


@pytest.mark.parametrize("hardware", ["cuda", "rocm", "openvino"])
def test_an_image_has_what_its_runner_would_install(hardware: str) -> None:
    """Else ci/run would find an environment without it, and take that as it is."""
    image = (ROOT / "ci" / f"Dockerfile.{hardware}").read_text(encoding="utf-8")
    assert f"sh ci/bootstrap.sh .venv {extras_of_runners()[hardware]}\n" in image
    assert f'ENTRYPOINT ["sh", "ci/run", "{hardware}"]' in image
    assert f"-f ci/Dockerfile.{hardware} " in image


def test_runners_install_nothing_that_excludes_one_another() -> None:
    """What ci/run installs for each hardware is one build of ONNX Runtime at most."""
    chosen = extras_of_runners()
    assert set(chosen) == set(HARDWARE)
    for hardware, extras in chosen.items():
        brought = set().union(*map(builds, extras.split(",")))
        assert len(brought) <= 1, (hardware, brought)


def test_every_runtime_has_an_extra() -> None:
    """Whatever the catalog's runtimes call their distribution can be installed by an extra."""
    offered = {canonicalize_name(one.name) for extra in EXTRAS for one in closure(extra)}
    for runtime in catalog.load().runtimes:
        own = [canonicalize_name(name) for name in runtime.packages]
        assert not own or set(own) & offered, runtime.name


@pytest.mark.parametrize("extra", ["torch", "cpu"])
def test_what_everybody_installs_needs_no_marker(extra: str) -> None:
    assert not [str(one) for one in closure(extra) if one.marker]


def test_platforms_without_a_wheel_are_left_out() -> None:
    linux = {"sys_platform": "linux", "platform_machine": "x86_64"}
    mac = {"sys_platform": "darwin", "platform_machine": "arm64"}
    for extra, name in (("tensorrt", "tensorrt-cu13"), ("rocm", "onnxruntime-migraphx")):
        (one,) = [found for found in closure(extra) if found.name == name]
        assert one.marker is not None
        assert one.marker.evaluate(linux) and not one.marker.evaluate(mac)


def test_the_cheap_form_leaves_out_what_is_to_be_missing(tmp_path: Path) -> None:
    if sys.prefix == sys.base_prefix or sys.platform == "win32":
        pytest.skip("needs a virtual environment to link to")
    if not top_levels("onnxruntime"):
        pytest.skip("onnxruntime is not installed")
    python = environment_without(tmp_path / "venv", ("onnxruntime",))
    code = "import importlib.util as u, sys; sys.exit(u.find_spec('onnxruntime') is not None)"
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    assert subprocess.run([python, "-c", code], env=env, check=False).returncode == 0
    assert re.search("onnx", str(top_levels("onnxruntime")))
