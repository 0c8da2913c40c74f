"""Messages that are published: what is left of paths."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from compat.run.privacy import without_paths
from compat.run.run import relative


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a project below the home folder of somebody, with a cache elsewhere."""
    project = tmp_path / "home" / "jane" / "project"
    project.mkdir(parents=True)
    monkeypatch.chdir(project)
    monkeypatch.setenv("HOME", str(project.parent))
    monkeypatch.setenv("USERPROFILE", str(project.parent))
    monkeypatch.setenv("COMPAT_CACHE", str(tmp_path / "large disk" / "cache"))
    monkeypatch.setattr(sys, "prefix", str(project / ".venv"))
    return tmp_path


@pytest.mark.parametrize(
    ("said", "published"),
    [
        ("no {}/home/jane/project/audio/a.flac: restore it", "no audio/a.flac: restore it"),
        ("in {}/home/jane/project", "in ."),
        ("{}/home/jane/project-2/a.flac", "~/project-2/a.flac"),
        ("'{}/home/jane/audio/a.flac'", "'~/audio/a.flac'"),
        ("{}/home/jane is full", "~ is full"),
        (
            'File "{}/home/jane/project/.venv/lib/torch/nn.py", line 3',
            'File "…/lib/torch/nn.py", line 3',
        ),
        ("cannot write {}/large disk/cache: full", "cannot write $COMPAT_CACHE: full"),
        ("{}/large disk/cache/export-1/model.onnx", "$COMPAT_CACHE/export-1/model.onnx"),
        ("{}/audio/a.flac has no data", "…/a.flac has no data"),
        ("--checkpoint toy={}/weights", "--checkpoint toy=…/weights"),
    ],
)
def test_paths_are_cut(places: Path, said: str, published: str) -> None:
    assert without_paths(said.format(places)) == published


@pytest.mark.parametrize(
    "said",
    [
        "no kernel for /encoder/layers.0/MatMul",
        "toy@seeded/cpu-torch/fp32 and/or 3/4 of 10 dB/s",
        "see https://github.com/microsoft/onnxruntime/issues/1",
        "restore audio/clean/a.flac, ./b.flac or ../c.flac",
        "logits.snr_db 17.3 < 20",
    ],
)
def test_what_is_no_path_stays(places: Path, said: str) -> None:
    assert without_paths(said) == said


def test_a_root_as_working_folder_is_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path.cwd().anchor)
    assert without_paths("no kernel for /encoder/MatMul/x") == "no kernel for /encoder/MatMul/x"


@pytest.mark.parametrize(
    ("given", "published"),
    [
        ("{}/home/jane/corpus", "…/corpus"),
        ("--corpus={}/home/jane/corpus", "--corpus=…/corpus"),
        ("--corpus={}/home/jane/lang=en/corpus", "--corpus=…/corpus"),
        ("--checkpoint=toy={}/home/jane/project/toy", "--checkpoint=toy=toy"),
        ("--models=toy", "--models=toy"),
    ],
)
def test_arguments_name_no_folder_of_a_person(places: Path, given: str, published: str) -> None:
    """Not even of one whose name has an equals sign."""
    expected = published.replace("/", os.sep) if published.endswith("corpus") else published
    assert relative([given.format(places)]) == (expected,)
