"""compat.judge.expectations: matching, expiry, versions, and what a broken file is told."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from compat.contract.case import HARDWARE
from compat.contract.errors import CompatError
from compat.judge.expectations import Expectations, load
from compat.run.run import Run, Settings

TODAY = date(2026, 11, 20)
CASE = "whisper-tiny@seeded/qualcomm-emulator/int8-a8w8"
VERSIONS = {"onnxruntime": "1.31.1", "torch": "2.13.0+cpu"}
ENTRY = """\
[[expect]]
case = "whisper-*/qualcomm-*/int8-*"
check = "accuracy.*"
owner = "vendor"
error = 'snr_db 1\\d\\.'
link = "https://github.com/onnxruntime/onnxruntime/issues/1"
version = "onnxruntime < 1.33"
expires = 2027-03-01
reason = "8-bit activations lose the quiet frames; ends with 16-bit ones"
"""


def _load(tmp_path: Path, text: str, name: str = "qualcomm.toml") -> Expectations:
    path = tmp_path / name
    path.write_text(text)
    return load([path])


def test_match(tmp_path: Path) -> None:
    expectations = _load(tmp_path, ENTRY)
    found = expectations.match(CASE, "accuracy.numerics", VERSIONS, TODAY)
    assert found is not None
    assert found.id == "qualcomm#1" and found.owner == "vendor"
    assert found.expires == date(2027, 3, 1) and found.link.startswith("https://")
    assert expectations.match(CASE, "latency.task", VERSIONS, TODAY) is None
    other = CASE.replace("qualcomm", "cuda")
    assert expectations.match(other, "accuracy.numerics", VERSIONS, TODAY) is None


def test_expiry(tmp_path: Path) -> None:
    expectations = _load(tmp_path, ENTRY)
    check = "accuracy.task"
    assert expectations.match(CASE, check, VERSIONS, date(2027, 2, 28)) is not None
    assert expectations.match(CASE, check, VERSIONS, date(2027, 3, 1)) is None


@pytest.mark.parametrize(
    ("specifier", "versions", "holds"),
    [
        ('"onnxruntime < 1.33"', {"onnxruntime": "1.32.9"}, True),
        ('"onnxruntime < 1.33"', {"onnxruntime": "1.33.0"}, False),
        ('"onnxruntime < 1.33"', {}, False),
        ('"onnxruntime < 1.33"', {"onnxruntime": "unknown"}, False),
        ('"onnxruntime >= 1.30, < 1.33"', {"onnxruntime": "1.29"}, False),
        ('"onnxruntime_qnn == 2.7.0"', {"onnxruntime-qnn": "2.7.0"}, True),
        ('"torch == 2.13.0"', {"torch": "2.13.0+cpu"}, True),
        ('"torch >= 2.13.0.dev0"', {"torch": "2.14.0.dev20261101"}, True),
        ('["torch < 3", "onnx > 1"]', {"torch": "2.13.0", "onnx": "1.23"}, True),
        ('["torch < 3", "onnx > 1"]', {"torch": "2.13.0", "onnx": "0.9"}, False),
    ],
)
def test_versions(tmp_path: Path, specifier: str, versions: dict[str, str], holds: bool) -> None:
    expectations = _load(tmp_path, ENTRY.replace('"onnxruntime < 1.33"', specifier))
    found = expectations.match(CASE, "accuracy.task", versions, TODAY)
    assert (found is not None) is holds


def test_reason_selects_the_right_entry(tmp_path: Path) -> None:
    second = ENTRY.replace("'snr_db 1\\d\\.'", '"hangs (after 60 s"')
    expectations = _load(tmp_path, ENTRY + second)

    def matched(reason: str) -> str:
        found = expectations.match(CASE, "accuracy.task", VERSIONS, TODAY, reason)
        return found.id if found else ""

    assert matched("encoder.snr_db 17.3, needs at least 20") == "qualcomm#1"
    # Not a regular expression (an open bracket): a substring.
    assert matched("the worker hangs (after 60 s)") == "qualcomm#2"
    assert matched("encoder.snr_db 7.3, needs at least 20") == ""
    assert matched("crashed with signal 11") == ""


def test_substring_with_special_characters(tmp_path: Path) -> None:
    expectations = _load(tmp_path, ENTRY.replace("'snr_db 1\\d\\.'", '"Unsupported op Erf (QNN)"'))
    assert expectations.entries[0].explains("failed: Unsupported op Erf (QNN) at node 3")
    assert not expectations.entries[0].explains("Unsupported op Gelu (QNN)")


def test_audit(tmp_path: Path) -> None:
    unmatched = ENTRY.replace("whisper-*/qualcomm", "wisper-*/qualcomm")
    expired = ENTRY.replace("2027-03-01", "2026-11-20")
    check = ENTRY.replace("accuracy.*", "acuracy.*")
    expectations = _load(tmp_path, ENTRY + unmatched + expired + check)
    problems = expectations.audit([CASE], TODAY, ["accuracy.task"])
    assert len(problems) == 3
    assert "entry 2 (line 10): case = 'wisper-*" in problems[0]
    assert "entry 3 (line 19): expired on 2026-11-20" in problems[1]
    assert "entry 4 (line 28): check = 'acuracy.*'" in problems[2]
    assert len(expectations.audit([CASE], TODAY)) == 2
    # Versions that do not hold here leave an entry matched: another machine may need it.
    assert _load(tmp_path, ENTRY).audit([CASE], TODAY) == ()


def test_never_needs_neither_link_nor_expiry(tmp_path: Path) -> None:
    text = ENTRY.replace('"vendor"', '"never"')
    lines = [line for line in text.splitlines() if not line.startswith(("link", "expires"))]
    found = _load(tmp_path, "\n".join(lines))
    assert found.entries[0].expires is None
    assert found.match(CASE, "accuracy.task", VERSIONS, date(2100, 1, 1)) is not None


def _without(key: str) -> str:
    return "\n".join(line for line in ENTRY.splitlines() if not line.startswith(key))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[expect]\n", "not valid TOML"),
        ("[[expected]]\n", "'expected' at the top level"),
        ("expect = 3\n", "at the top level"),
        (ENTRY + "colour = 1\n", r"entry 1 \(line 1\): unknown key 'colour'"),
        (_without("case"), "add case"),
        (_without("check"), "add check"),
        (_without("owner"), "add owner"),
        (_without("error"), "add error"),
        (_without("reason"), "add reason"),
        (_without("link"), "needs link"),
        (_without("expires"), "add expires"),
        (ENTRY.replace("2027-03-01", '"2027-03-01"'), "date without quotes"),
        (ENTRY.replace("2027-03-01", "2027-03-01T10:00:00"), "date without quotes"),
        (ENTRY.replace('"vendor"', '"them"'), "ours.*vendor.*never"),
        (ENTRY.replace("https://", "file://"), "http or https"),
        (ENTRY.replace('"onnxruntime < 1.33"', '"< 1.33"'), "no requirement"),
        (ENTRY.replace('"onnxruntime < 1.33"', '"onnxruntime"'), "no requirement"),
        (ENTRY.replace('"onnxruntime < 1.33"', "1.33"), "no requirement"),
        (ENTRY.replace("'snr_db 1\\d\\.'", "'.*'"), "matches every failure"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CompatError, match=message) as caught:
        _load(tmp_path, text)
    assert "qualcomm.toml" in str(caught.value)


def test_absent_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CompatError, match="no expectations file"):
        load([tmp_path / "cuda.toml"])
    (tmp_path / "b.toml").write_text(ENTRY)
    (tmp_path / "a.toml").write_text(ENTRY + ENTRY)
    (tmp_path / "notes.txt").write_text("not TOML [")
    assert [entry.id for entry in load([tmp_path]).entries] == ["a#1", "a#2", "b#1"]


MORE = """
from pathlib import Path
from compat.judge import expectations

shipped = expectations.load
expectations.load = lambda paths: shipped([*paths, Path({file!r})])
"""


@pytest.mark.parametrize("parallel", [(), ("-n", "2")])
def test_a_run_reports_misspelt_checks(
    suites: Any, tmp_path: Path, parallel: tuple[str, ...]
) -> None:
    """Beside what the project ships, in one process and in several."""
    text = ENTRY.replace("whisper-*/qualcomm-*/int8-*", "toy@*").replace("accuracy", "acuracy")
    (tmp_path / "toy.toml").write_text(text)
    (tmp_path / "more_expectations.py").write_text(MORE.format(file=str(tmp_path / "toy.toml")))
    run = suites.run(
        *(tmp_path / "results", "-p", "more_expectations", *parallel, "--strict-expectations"),
        *("--weights", "seeded", "--targets", "sound-nothing", "-k", "loads"),
        PYTHONPATH=str(tmp_path),
    )
    assert [one.status for one in run.observations] == ["passed"], run.text
    assert run.status == 1, run.text
    assert run.text.count("check = 'acuracy.*' matches no check (accuracy.numerics,") == 1
    assert "results: " in run.text


def test_shipped_files_load() -> None:
    folder = Path(__file__).resolve().parent.parent / "fixtures" / "expectations"
    assert {path.stem for path in folder.glob("*.toml")} == set(HARDWARE)
    load([folder])


def test_own_expectations_stand_beside_the_shipped_ones_and_are_told(tmp_path: Path) -> None:
    """As `--expectations` names them: results that rest on them say so."""
    shipped = Run(Settings())
    (tmp_path / "own.toml").write_text(ENTRY, encoding="utf-8")
    for path in (tmp_path, tmp_path / "own.toml"):
        run = Run(Settings(expectation_files=(path,)))
        assert [one.id for one in run.expectations.entries] == [
            *(one.id for one in shipped.expectations.entries),
            "own#1",
        ]
        assert run.replaced() == ("expectations",)
    assert shipped.replaced() == ()
