"""Bad input and bad surroundings: a clear message, and nothing lost that was measured before."""

from __future__ import annotations

import getpass
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forks
import pytest

from compat.contract.errors import CompatError
from compat.contract.places import FIXTURES
from compat.inputs.corpus import load
from compat.judge.results import read_all

ROOT = FIXTURES.parent
QUICK = ("--weights", "seeded", "--targets", "cpu-torch", "--recipes", "fp32")
"""One case of the toy model."""


def copy_corpus(folder: Path, count: int = 8) -> Path:
    """Copy a few utterances into a corpus that a test may spoil."""
    chosen = folder / "clean"
    chosen.mkdir(parents=True)
    lines = (FIXTURES / "corpus/clean/manifest.jsonl").read_text().splitlines()[:count]
    for line in lines:
        name = json.loads(line)["audio_filepath"]
        shutil.copy(FIXTURES / "corpus/clean" / name, chosen / name)
    (chosen / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def spoil_line(folder: Path, **changes: Any) -> None:
    manifest = folder / "clean/manifest.jsonl"
    lines = manifest.read_text().splitlines()
    found = {**json.loads(lines[2]), **changes}
    lines[2] = json.dumps({name: value for name, value in found.items() if value is not None})
    manifest.write_text("\n".join(lines))


def remove_audio(folder: Path) -> None:
    (folder / "clean/clean-0003.flac").unlink()


def spoil_header(folder: Path) -> None:
    (folder / "clean/clean-0000.flac").write_bytes(b"this is no audio" * 100)


def empty_manifest(folder: Path) -> None:
    (folder / "clean/manifest.jsonl").write_text("\n")


def break_line(folder: Path) -> None:
    with (folder / "clean/manifest.jsonl").open("a") as manifest:
        manifest.write('{"audio_filepath": "clean-0000.flac", "dura')


def binary_manifest(folder: Path) -> None:
    (folder / "clean/manifest.jsonl").write_bytes(b"\xff\xfe\x00\x01")


def remove_everything(folder: Path) -> None:
    shutil.rmtree(folder / "clean")


@pytest.mark.parametrize(
    ("spoil", "file", "remedy"),
    [
        (remove_audio, "clean-0003.flac is missing", "restore it"),
        (empty_manifest, "manifest.jsonl is empty", "at least one utterance"),
        (break_line, "manifest.jsonl:9:", "Correct or remove the line"),
        (binary_manifest, "manifest.jsonl", "UTF-8"),
        (remove_everything, "no manifest.jsonl in", "A corpus is a folder"),
        (lambda f: spoil_line(f, text=None), "manifest.jsonl:3: no 'text'", "Correct"),
        (lambda f: spoil_line(f, duration=-1), "manifest.jsonl:3:", "duration positive"),
        (lambda f: spoil_line(f, audio_filepath=5), "manifest.jsonl:3:", "must be strings"),
        (lambda f: spoil_line(f, duration=1500), "manifest.jsonl:3: the duration", "Correct the"),
        (spoil_header, "clean-0000.flac", "Convert it to WAV or FLAC, or restore it."),
        (
            lambda f: spoil_line(f, audio_filepath="../../secret.wav"),
            "../../secret.wav lies outside the corpus",
            "move it inside",
        ),
    ],
)
def test_a_bad_corpus_is_named_before_anything_runs(
    suites: Any, tmp_path: Path, spoil: Callable[[Path], None], file: str, remedy: str
) -> None:
    corpus = copy_corpus(tmp_path / "corpus")
    spoil(corpus)
    run = suites.run(tmp_path / "results", *QUICK, f"--corpus={corpus}")
    assert run.status == 4, run.text
    assert file in run.text
    assert remedy in run.text
    assert "Traceback" not in run.text
    assert not run.observations


def test_a_line_separator_in_a_text_ends_no_line(tmp_path: Path) -> None:
    corpus = copy_corpus(tmp_path / "corpus")
    manifest = corpus / "clean/manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[0]["text"] = "six\u2028five"
    text = "\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    manifest.write_bytes(text.encode())
    assert load(corpus).sets["clean"].lines[0]["text"] == "six\u2028five"


def test_audio_that_cannot_be_decoded_is_named(suites: Any, tmp_path: Path) -> None:
    corpus = copy_corpus(tmp_path / "corpus")
    audio = corpus / "clean/clean-0000.flac"
    data = audio.read_bytes()
    audio.write_bytes(data[: len(data) // 2])  # The header is whole.
    run = suites.run(
        tmp_path / "results",
        *("--weights", "seeded", "--targets", "sound-nothing", "-k", "loads"),
        f"--corpus={corpus}",
    )
    assert run.status == 1, run.text
    (one,) = run.observations
    assert one.status == "error"
    assert "cannot read audio file" in one.reason
    assert "clean-0000.flac" in one.reason
    assert "breaks off after" in one.reason
    assert "Convert it to WAV or FLAC, or restore it." in one.reason
    assert one.level is None, "it says nothing of the hardware"
    # Results are published: neither folders nor the names of people that are in them.
    text = "".join(path.read_text() for path in run.results.glob("*.jsonl"))
    for secret in (str(tmp_path), tempfile.gettempdir() + "/", str(Path.home()), str(ROOT)):
        assert secret not in text
    assert f"pytest-of-{getpass.getuser()}" not in text


def test_a_corpus_of_one_utterance_gives_clear_results(suites: Any, tmp_path: Path) -> None:
    corpus = copy_corpus(tmp_path / "corpus", 1)
    run = suites.run(
        tmp_path / "results",
        *("--weights", "pretrained", "--targets", "cpu-torch", "--recipes", "fp32"),
        *(f"--corpus={corpus}", "-k", "loads or numerics or (accuracy and task) or stress"),
    )
    found = {one.check: one for one in run.observations}
    assert set(found) == {
        "support.loads",
        "accuracy.numerics",
        "accuracy.task",
        "robustness.stress",
    }
    for one in found.values():
        assert one.status in ("passed", "inconclusive", "skipped"), (one.check, one.reason)
        assert one.status == "passed" or one.reason, one.check
    (header,) = [part.header for part in run.collection.runs]
    assert header.own == ("corpus", "thresholds", "checkpoint:toy")


@pytest.mark.parametrize("left", [0, 3])
def test_recordings_whose_uem_leaves_nothing_are_not_scored(
    suites: Any, tmp_path: Path, left: int
) -> None:
    corpus = copy_corpus(tmp_path / "corpus", 5)
    manifest = corpus / "clean/manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for line in lines[left:]:
        line["uem"] = [[1.0, 1.0]]
    manifest.write_text("\n".join(json.dumps(line) for line in lines))
    run = suites.run(
        tmp_path / "results",
        *("--weights", "pretrained", "--targets", "cpu-torch", "--recipes", "fp32"),
        *(f"--corpus={corpus}", "-k", "accuracy and task"),
    )
    (one,) = run.observations
    if left:
        assert one.status == "passed", one.reason
        assert one.values["outside_uem"] == 2
        assert len(one.predictions) == 5
    else:
        assert one.status == "skipped", one.reason
        assert "nothing to score" in one.reason
        assert "leaves nothing of what is heard of clean-0000, clean-0001" in one.reason
        assert "correct the UEM" in one.remedy
        assert not one.values


# Checkpoints -----------------------------------------------------------------------------------


def write_config(folder: Path, model_type: str) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))


def without_weights(folder: Path) -> None:
    write_config(folder, "whisper")


def with_a_pickle(folder: Path) -> None:
    write_config(folder, "whisper")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")


def another_architecture(folder: Path) -> None:
    write_config(folder, "wav2vec2")
    (folder / "model.safetensors").write_bytes(b"")


def broken_config(folder: Path) -> None:
    write_config(folder, "whisper")
    (folder / "config.json").write_text("{")
    (folder / "model.safetensors").write_bytes(b"")


def nowhere(folder: Path) -> None:
    assert not folder.exists()


def incomplete_config(folder: Path) -> None:
    write_config(folder, "whisper")
    (folder / "model.safetensors").write_bytes(b"")


@pytest.mark.parametrize(
    ("make", "said", "remedy"),
    [
        (nowhere, "no checkpoint folder", "check the path"),
        (without_weights, "has no weights (*.safetensors)", "Copy model.safetensors there"),
        (with_a_pickle, "pytorch_model.bin, a pickle", "Convert it: model.save_pretrained"),
        (another_architecture, "describes a 'wav2vec2' model", "folder of a Whisper checkpoint"),
        (broken_config, "config.json", "Restore the file from the checkpoint"),
        (incomplete_config, "config.json", "Restore the file from the checkpoint"),
    ],
)
def test_a_bad_checkpoint_is_named(
    tmp_path: Path, make: Callable[[Path], None], said: str, remedy: str
) -> None:
    from compat.inputs.checkpoints import CheckpointError
    from compat.models.whisper import load as load_whisper

    make(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError) as caught:
        load_whisper("whisper-tiny", "pretrained", str(tmp_path / "checkpoint"))
    assert said in str(caught.value)
    assert remedy in str(caught.value)
    assert str(tmp_path / "checkpoint") in str(caught.value)


def test_a_bad_checkpoint_costs_its_own_case_only(suites: Any, tmp_path: Path) -> None:
    """Named in the observation; a pickle is not opened, whatever it holds."""
    with_a_pickle(tmp_path / "checkpoint")
    run = suites.run(
        tmp_path / "results",
        *("--weights", "pretrained,seeded", "--targets", "sound-nothing", "-k", "loads"),
        *("--checkpoint", f"toy={tmp_path / 'checkpoint'}"),
    )
    found = {one.case.split("/")[0]: one for one in run.observations}
    assert found["toy@seeded"].status == "passed"
    assert found["toy@pretrained"].status == "error"
    assert found["toy@pretrained"].level is None
    assert "a pickle, which can run code" in found["toy@pretrained"].reason


def test_damaged_weights_are_named(suites: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(suites.checkpoint, tmp_path / "checkpoint")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    run = suites.run(
        tmp_path / "results",
        *("--weights", "pretrained", "--targets", "sound-nothing", "-k", "loads"),
        *("--checkpoint", f"toy={folder}"),
    )
    (one,) = run.observations
    assert (one.status, one.level) == ("error", None)
    assert "…/model.safetensors is damaged" in one.reason
    assert "Restore the file from the checkpoint." in one.reason
    assert run.status == 1


# TOML ------------------------------------------------------------------------------------------


def test_malformed_thresholds_are_named(suites: Any, tmp_path: Path) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text('[[threshold]]\ncheck = "latency.task\n')
    run = suites.run(tmp_path / "results", *QUICK, f"--thresholds={limits}")
    assert run.status == 4, run.text
    assert f"{limits} is not valid TOML" in run.text
    assert "line 2" in run.text
    assert "Traceback" not in run.text


def test_malformed_stress_inputs_are_named(suites: Any, tmp_path: Path) -> None:
    """The list that earlier searches on this machine left beside the results."""
    (tmp_path / "found-stress.toml").write_text('[[input]]\nname = "x"\nkind = "musik"\n')
    run = suites.run(tmp_path, *QUICK)
    assert run.status == 4, run.text
    assert "found-stress.toml: input 1 needs a name and a kind out of speech" in run.text


@pytest.mark.parametrize("text", ["[[expectation]\n", '[[expectation]]\ncase = "*"\n'])
def test_malformed_expectations_are_named(tmp_path: Path, text: str) -> None:
    from compat.judge import expectations

    (tmp_path / "cpu.toml").write_text(text)
    with pytest.raises(CompatError) as caught:
        expectations.load([tmp_path])
    assert str(tmp_path / "cpu.toml") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def broken(:\n", "does not import: SyntaxError"),
        ("import a_module_that_is_not_there\n", "does not import: ModuleNotFoundError"),
        ("x = 1\n", "declares nothing: it needs FAMILY and load(), or RUNTIME"),
    ],
)
def test_a_bad_catalog_file_is_named(suites: Any, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    run = suites.run(tmp_path / "results", *QUICK, f"--catalog={file}")
    assert run.status == 4, run.text
    assert f"catalog file {file} {said}" in run.text
    assert "Traceback" not in run.text


# Places that cannot be written -----------------------------------------------------------------


def test_results_that_cannot_be_written_are_named(suites: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = suites.run(tmp_path / "file", *QUICK)
    assert run.status == 4, run.text
    assert f"cannot write results to {tmp_path / 'file'}" in run.text
    assert "--results DIR" in run.text
    assert "Traceback" not in run.text


def test_a_cache_that_cannot_be_written_is_named(suites: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = suites.run(
        tmp_path / "results", *QUICK, "-k", "numerics", COMPAT_CACHE=str(tmp_path / "file")
    )
    (one,) = run.observations
    assert (one.status, one.level) == ("error", None)
    assert "cannot write the cache $COMPAT_CACHE: " in one.reason
    assert "name another folder in $COMPAT_CACHE" in one.reason


def report_of(folder: Path) -> str:
    """Return what `compat report` prints of a results folder."""
    command = [sys.executable, "-m", "compat", "report", "--no-site", str(folder)]
    done = forks.run(command, os.environ, ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_keeps_what_was_written(suites: Any, tmp_path: Path) -> None:
    """The disk is full after a few observations; the run ends with a sentence, not a trace."""

    def small_files() -> None:
        # Every file that the run writes may grow to 12 kB and no more.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))

    targets = "sound-nothing,slow-import,breaking-exception,breaking-chatter,breaking-abort"
    run = suites.run(
        *(tmp_path, "--weights", "seeded,pretrained", "--targets", targets),
        *("-k", "loads or placed or peak"),
        preexec=small_files,
    )
    assert run.status == 3, run.text
    assert "cannot append to" in run.text
    assert "free some space" in run.text
    (file,) = run.collection.runs
    assert file.observations
    assert len(file.problems) <= 1  # The line that the disk cut short.
    assert "Toy" in report_of(tmp_path)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_keeps_what_was_measured(
    suites: Any, tmp_path: Path, end: signal.Signals
) -> None:
    run = suites.start(
        tmp_path,
        *("--weights", "seeded", "--targets", "sound-nothing,breaking-hang"),
        *("-k", "loads or placed"),
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not hangs(tmp_path):
        time.sleep(0.1)
    os.kill(run.pid, end)
    text, _ = run.communicate(timeout=30)
    assert run.returncode == (2 if end == signal.SIGINT else -signal.SIGKILL), text
    (file,) = read_all([tmp_path]).runs
    kept = {(one.case.split("/")[1], one.check): one.status for one in file.observations}
    hung = ("breaking-hang", "support.placed")
    assert len(kept) == 3
    assert hung not in kept
    assert file.started[-1].case.split("/")[1] == "breaking-hang"
    assert not file.problems
    assert "Toy" in report_of(tmp_path)


def hangs(folder: Path) -> bool:
    return any(
        one.case.split("/")[1] == "breaking-hang" and one.check == "support.placed"
        for run in read_all([folder]).runs
        for one in run.started
    )
