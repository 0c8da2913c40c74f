"""Commands as a person reads them who has not seen them before: the sum first, each remedy once."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path

import msgspec
import pytest
from measured import case, report, run, whole, write
from rich.console import Console

from compat.commands.main import main
from compat.contract.runtime import Probe
from compat.judge.results import Limit
from compat.report import print_matrix
from compat.run.probing import Prober

FP32 = case("cpu-torch", "fp32")


def shown(*cases: dict, width: int = 80) -> str:
    stream = io.StringIO()
    pairs = [(case(**{k: v for k, v in one.items() if k != "rtf"}), one) for one in cases]
    lines = run([(about, whole(about, rtf=one.get("rtf", 0.15))) for about, one in pairs])
    print_matrix(report(lines), Console(file=stream, width=width, force_terminal=False))
    return stream.getvalue()


MATRIX = (
    {"target": "cpu-torch", "recipe": "fp32"},
    {"target": "openvino-cpu", "recipe": "int8-dynamic-with-a-name", "rtf": 0.0123},
    {"target": "webgpu-x", "recipe": "fp32", "evidence": "emulator", "on_host_cpu": False},
    {"target": "coreml-conversion", "recipe": "fp16", "evidence": "conversion"},
    {"target": "rocm-torch", "recipe": "fp16", "on_host_cpu": False},
    {"target": "cuda-torch", "recipe": "fp16", "on_host_cpu": False},
    {"target": "mps-torch", "recipe": "fp16", "on_host_cpu": False},
)


def test_the_matrix_is_a_matrix_at_80_columns() -> None:
    lines = shown(*MATRIX).splitlines()
    assert max(map(len, lines)) <= 80
    head = lines[1].split()
    assert head[:4] == ["cpu", "cuda", "rocm", "mps"]
    # What a column rests on stands under its name; what does not fit follows in another table.
    assert lines[2].split()[0] == "processor" and "device" in lines[2]
    second = next(number for number, line in enumerate(lines) if line.split()[:1] == ["webgpu"])
    assert "emulator" in lines[second + 1]
    row = next(line for line in lines if line.startswith("Whisper"))
    assert row.split("  ")[0] == "Whisper ● High" and row.count("Limited") == 3
    assert "RTF 0.15" in lines[lines.index(row) + 2] and "RTF 0.012" in " ".join(lines)
    assert "Not measured: qualcomm, webnn" in lines
    # The whole words where there is room.
    assert "Emulated" in shown(*MATRIX, width=200) and "┃ cpu" in shown(*MATRIX, width=200)


def test_it_says_whether_an_accelerator_was_used() -> None:
    said = "No accelerator ran anything here."
    processor = {"target": "webnn-chromium-cpu", "recipe": "fp32", "on_host_cpu": False}
    alone = shown(processor)
    assert said in alone and "processor" in alone and "device" not in alone
    assert "First, 2 cores (" in alone.splitlines()[-1]
    assert said not in shown(processor, dict(processor, target="cuda-torch"))


def test_reasons_are_cut_and_counted() -> None:
    about = case("cpu-torch", "fp32")
    lines = run({about: [o for o in whole(about, rtf=None) if o.check == "memory.peak"]})
    stream = io.StringIO()
    print_matrix(report(lines), Console(file=stream, width=80))
    assert "and 2 more reasons" in stream.getvalue()


def test_the_list_counts_first_and_says_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    failed = case("cpu-torch", "fp32", "seeded")
    lines = whole(failed)
    lines[2] = msgspec.structs.replace(lines[2], status="crashed", level=None, values={})
    write(tmp_path / "reports" / "local" / "results", run({FP32: whole(FP32), failed: lines}))
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "targets; 2 were measured, of which 1 fail" in " ".join(out.split())
    assert len(out.splitlines()) < 30
    assert main(["list", "--models", "whisper-tiny", "--targets", "cpu-torch"]) == 0
    rows = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines() if "@" in line)
    assert rows["whisper-tiny@pretrained/cpu-torch/fp32"] == "✓ 2026-11-20"
    assert rows["whisper-tiny@seeded/cpu-torch/fp32"] == "✕ 2026-11-20 robustness.stress crashed"
    assert rows["whisper-tiny@seeded/cpu-torch/bf16"] == "·"
    assert main(["list", "--models", "whisper-tiny", "--targets", "cpu-torch", "--ids"]) == 0
    assert set(capsys.readouterr().out.split()) == set(rows)


def test_the_list_of_what_is_here_asks_the_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(self: Prober, targets: object) -> dict[str, Probe]:
        return {
            target.name: Probe("here" if target.name == "cpu-torch" else "absent", "x")
            for target in targets  # type: ignore[attr-defined]
        }

    monkeypatch.setattr(Prober, "all", found)
    assert main(["list", "--models", "whisper-tiny", "--here", "--ids"]) == 0
    assert {line.split("/")[1] for line in capsys.readouterr().out.split()} == {"cpu-torch"}


def test_the_doctor_begins_with_a_sum_and_tells_each_remedy_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    def found(self: Prober, targets: list) -> dict[str, Probe]:
        facts = {"torch": "2.13", "types": ["fp32", "int8"], "gpu": {"fp16": False}}
        states = {"cpu-torch": Probe("here", facts=facts)}
        broken = Probe("broken", "wrong\x1b[2J version", "update it")
        absent = Probe("absent", "no CUDA device", "install the driver")
        return {
            t.name: states.get(t.name, broken if t.name == "cpu-mlx" else absent) for t in targets
        }

    monkeypatch.setattr(Prober, "all", found)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 of 45 targets is here: machine ")
    assert out.count("install the driver") == 1 and out.count("no CUDA device") == 1
    assert "cpu-torch: torch 2.13, types fp32 int8, gpu fp16 no\n" in out
    assert "cpu-mlx: wrong�[2J version. update it" in out
    assert max(map(len, out.splitlines()[:-2])) <= 80 and "\x1b" not in out


def test_rescoring_ends_with_one_sum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = whole(FP32)
    limit = Limit(
        metric="logits.snr_db",
        value=90.0,
        strict=99.0,
        relaxed=10.0,
        direction="at_least",
        level="relaxed",
        reason="",
    )
    lines[1] = msgspec.structs.replace(lines[1], level="relaxed", limits=(limit,))
    source = write(
        tmp_path / "results", run({FP32: lines}), run({FP32: whole(FP32)}, "Second", "20261121T1-b")
    )
    assert main(["rescore", str(source), "--output", str(tmp_path / "new")]) == 0
    shown = capsys.readouterr()
    said = " ".join(shown.out.split())
    assert re.search(r"12 observations of 2 files: \d levels changed, in [12] files", said)
    assert said.count("observations of") == 1
    assert shown.err == ""  # Progress is for a terminal.


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def test_sharing_changes_nothing_and_names_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "reports" / "results").mkdir(parents=True)
    git(tmp_path, "init", "-q", str(checkout))
    write(checkout / "reports" / "local" / "results", run({FP32: whole(FP32)}, "Zen <b>9"))
    monkeypatch.chdir(checkout)
    assert main(["share"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 results files of Zen <b>9, 2 cores (")
    machine = out.partition("(")[2].partition(")")[0]
    for command in (
        f"git switch --create evidence-{machine}",
        "compat publish reports/local/results",
        "git add reports docs README.md",
        "gh pr create",
    ):
        assert f"  {command}" in out
    assert not any((checkout / "reports" / "results").iterdir())
    body = (checkout / "reports" / "local" / "share" / "pull-request.md").read_text("utf-8")
    assert "Zen &lt;b&gt;9" in body and "6 passed" in body and "Cells that change" in body
    # What it names is what contributes: afterwards there is nothing left to do.
    assert main(["publish", "reports/local/results"]) == 0
    capsys.readouterr()
    assert main(["share"]) == 0
    assert "there is nothing to do" in capsys.readouterr().out


def test_sharing_outside_a_checkout_says_where_to_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    source = write(tmp_path / "mine", run({FP32: whole(FP32)}))
    assert main(["share", str(source)]) == 0
    out = capsys.readouterr().out
    assert "git clone" in out and f"compat publish {source.resolve()}" in out
    own = write(tmp_path / "own", run({FP32: whole(FP32)}, name="20261121T1-own", own=("corpus",)))
    assert main(["share", str(own)]) == 3
    assert "left out" in capsys.readouterr().err
    assert main(["share", str(tmp_path / "nothing")]) == 3


def test_words_after_an_option_are_results_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "results", run({FP32: whole(FP32)}))
    for words in (["report", "--no-site", str(source)], ["rescore", "--output", "x", "--nothing"]):
        if "--nothing" in words:
            with pytest.raises(SystemExit):
                main(words)
        else:
            assert main(words) == 0
            assert "High" in capsys.readouterr().out
