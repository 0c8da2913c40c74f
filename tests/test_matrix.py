"""`compat matrix`: a first look before the rest, what is pending, and what Ctrl-C leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import forks
import pytest
from backports import zstd

from compat import catalog
from compat.contract.profile import QUICK
from compat.judge.results import read_all
from compat.run.selection import Selection, widest_first

ROOT = Path(__file__).resolve().parents[1]
FAULTY = ROOT / "tests" / "faulty_catalog.py"
HERE = ("cpu-torch", "cpu-onnxruntime", "openvino-cpu")

LATER = f"""
import sys
import time

sys.path.insert(0, {str(FAULTY.parent)!r})

from compat.contract.case import Family, Target, Variant
from compat.contract.runtime import GraphRuntime, Probe
from faulty_catalog import Nothing, load

FAMILY = Family(
    name="later",
    task="tagging",
    row="Later",
    headline="large",
    stand_in="small",
    variants=(
        Variant("small", ("trained",), published=False, core=True, parameters=0.01),
        Variant("large", ("seeded",), core=True, parameters=1.0),
    ),
)


class Later(GraphRuntime):
    name = "later"
    packages = ()
    targets = tuple(
        Target(name, "webgpu", "later", "gpu", ("fp32", "fp16"), families=("later",))
        for name in ("at-once", "never")
    )

    def probe(self, target):
        return Probe("here")

    def compile(self, sources, target, recipe, options):
        hangs = target.name == "never" or recipe.name == "fp16"
        graphs = {{name: source.graph for name, source in sources.items()}}
        return Nothing(graphs, lambda when: time.sleep(600 * hangs))


RUNTIME = Later()
"""
"""A model whose small variant a first look takes, and a runtime that answers it on one target, in
fp32, and hangs otherwise."""


def command(tmp_path: Path, *words: str, code: str = "") -> list[str]:
    """Return the command line of `compat matrix` on the runtime above."""
    file = tmp_path / "later_catalog.py"
    file.write_text(LATER, encoding="utf-8")
    main = f"{code}\nimport sys\nfrom compat.commands.main import main\nsys.exit(main())"
    python = ("-c", main) if code else ("-m", "compat")
    return [
        *(sys.executable, *python, "matrix", f"--catalog={file}"),
        *("--results", str(tmp_path / "results"), "--threads", "1", "--time-limit", "30"),
        *("-k", "loads or placed", *words),
    ]


def interrupted(
    suites: Any, command: list[str], end: signal.Signals = signal.SIGINT
) -> tuple[int, str, str]:
    """Start the command, end it when it has shown what is pending; return what it said.

    A terminal sends Ctrl-C to the command and to what it started, a scheduler SIGTERM to it alone.

    The status comes first, then the text until then, then the text after it.
    """
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=suites.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout is not None
            shown = ""
            for line in process.stdout:
                shown += line
                if "pending." in line:
                    break
            if end == signal.SIGINT:
                os.killpg(process.pid, end)
            else:
                process.send_signal(end)
            rest, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, shown, rest


def left(tmp_path: Path) -> str:
    """Return the index page of the site that was left."""
    return (tmp_path / "results" / "site" / "index.html").read_text(encoding="utf-8")


def test_a_first_look_sees_every_row_on_each_hardware_first() -> None:
    cases = Selection(targets=HERE, profile=QUICK).cases(catalog.load())
    ordered = widest_first(cases)
    assert sorted(case.id for case in ordered) == sorted(case.id for case in cases)
    cells = [(case.family.row, case.target.hardware) for case in ordered]
    first, rest = cells[: len(set(cells))], cells[len(set(cells)) :]
    assert len(set(first)) == len(first)
    assert rest
    for case in ordered[: len(first)]:
        alike = [
            other.variant.parameters
            for other in cases
            if (other.family.row, other.target.hardware) == (case.family.row, case.target.hardware)
        ]
        assert case.variant.parameters == min(alike), case.id


def test_the_smallest_of_a_row_goes_first() -> None:
    asked = Selection(models=("whisper",), targets=("cpu-torch",), recipes=("fp32",))
    cases = asked.cases(catalog.load())[::-1]
    names = [case.variant.name for case in widest_first(cases)]
    assert names == ["whisper-nano", *(name for name in names if name != "whisper-nano")]
    assert cases[0].variant.name != "whisper-nano"


def test_quick_runs_in_that_order(suites: Any, tmp_path: Path) -> None:
    options = (f"--targets={','.join(HERE)}", "-k", "loads", "--collect-only")
    text = suites.run(tmp_path, *options, models="").text
    found = [line.partition("[")[2].rstrip("]") for line in text.splitlines() if "[" in line]
    targets = [case.split("/")[1] for case in found]
    assert set(targets[: targets.index("cpu-onnxruntime")]) == {"cpu-torch", "openvino-cpu"}
    assert found.index("diarization-synthetic@trained/openvino-cpu/fp32") < targets.index(
        "cpu-onnxruntime"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal to a group of processes")
def test_ctrl_c_after_the_first_look_leaves_its_matrix_and_site(
    suites: Any, tmp_path: Path
) -> None:
    """What the second look is still to measure was shown as pending by then."""
    words = ("--targets=at-once", "--language", "de")
    status, shown, rest = interrupted(suites, command(tmp_path, *words))
    assert status == 130, shown + rest
    assert "[1/1] small@trained/at-once/fp32  ✓ loads ✓ placed" in shown
    assert "… Pending: None to High" in shown, shown
    assert "… Pending" not in rest
    assert "Incomplete: None to High" in rest, rest
    assert "Interrupted: what was measured is kept" in rest
    quick, core = sorted(read_all([tmp_path / "results"]).runs, key=lambda one: one.header.started)
    assert [quick.header.profile, core.header.profile] == ["quick", "core"]
    assert [one.status for one in quick.observations] == ["passed", "passed"]
    assert {plan.case.recipe for plan in quick.planned} == {"fp32"}
    assert {plan.case.recipe for plan in core.planned} == {"fp32", "fp16"}
    assert all("--language" in one.header.arguments for one in (quick, core))
    assert "Later" in left(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal to a group of processes")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_long_first_look_shows_what_it_has(
    suites: Any, tmp_path: Path, end: signal.Signals
) -> None:
    words = ("--quick", "--targets=at-once,never")
    code = "from compat.commands import matrix; matrix.LATEST_S = 0.0"
    status, shown, rest = interrupted(suites, command(tmp_path, *words, code=code), end)
    assert status == 130, shown + rest
    assert "of 4 checks are pending." in shown, shown
    assert "[1/2] small@trained/at-once/fp32  ✓ loads ✓ placed" in shown + rest
    (run,) = read_all([tmp_path / "results"]).runs
    assert run.header.profile == "quick"
    assert [one.case.split("/")[1] for one in run.observations] == ["at-once"] * 2
    assert "Later" in left(tmp_path)


def test_quick_is_the_first_look_alone(suites: Any, tmp_path: Path) -> None:
    words = ("--quick", "--targets=at-once")
    done = forks.run(command(tmp_path, *words), suites.environment(), ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = read_all([tmp_path / "results"]).runs
    assert run.header.profile == "quick"
    assert "pending" not in done.stdout


def test_packed_results_have_their_site(suites: Any, tmp_path: Path) -> None:
    """They are no results of this run, whose matrix would be empty."""
    run = suites.run(tmp_path / "earlier", "--targets=sound-nothing", "-k", "loads")
    (file,) = run.results.glob("*.jsonl")
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / f"{file.name}.zst").write_bytes(zstd.compress(file.read_bytes()))
    words = ("--targets=at-once", "-k", "no_such_check")
    done = forks.run(command(tmp_path, *words), suites.environment(), ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Toy" in left(tmp_path)
    assert "Compatibility matrix" not in done.stdout
