"""What a CI shows of results: JUnit's XML, and GitHub's page of a step."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from measured import case, report, run, whole, write
from test_compare import failing

from compat.commands.main import main
from compat.judge.results import Run
from compat.report.junit import junit
from compat.report.summary import FAILED, step_summary

FP32, ABSENT = case("cpu-torch", "fp32"), case("cuda-torch", "fp16", on_host_cpu=False)
EVIL = "NaN in\x00 \x1b[2J<b>|\ufffe"


def lines() -> Run:
    source = run({FP32: whole(FP32), ABSENT: []})
    source = failing(source, "accuracy.numerics", "failed", EVIL)
    source = failing(source, "memory.peak", "error", "the disk is full")
    return failing(source, "robustness.stress", "known-failure", "vendor's")


def test_junit_counts_what_failed_and_holds_whatever_results_say() -> None:
    root = ElementTree.fromstring(junit(report(lines())).encode())  # noqa: S314 (written here)
    counts = {name: int(root.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": 6, "failures": 1, "errors": 1, "skipped": 1}
    (failure,) = root.iter("failure")
    assert failure.get("message") == "failed: NaN in� �[2J<b>|�"
    (suite,) = root.iter("testsuite")
    assert suite.get("tests") == "6"
    named = {(one.get("classname"), one.get("name")) for one in root.iter("testcase")}
    assert (FP32.id, "latency.task") in named


def test_the_summary_has_what_ran_and_what_failed_and_no_more() -> None:
    said = step_summary(report(lines()))
    head = said.splitlines()[2]
    assert head == "| | cpu |"  # Nothing ran on cuda.
    assert "2 checks failed" in said and "&lt;b&gt;" in said and "<b>" not in said
    assert "\x1b" not in said
    many = {case("cpu-torch", f"fp32-{n}"): None for n in range(40)}
    broken = run({about: whole(about) for about in many})
    for check in ("accuracy.numerics", "memory.peak"):
        broken = failing(broken, check, "failed", "x" * 5_000)
    long = step_summary(report(broken))
    assert long.count("\n- ") == FAILED + 1 and "and 60 more" in long and len(long) < 10_000


def test_a_run_of_github_gets_its_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "summary.md"
    page.write_text("# Before\n", encoding="utf-8")
    source = write(tmp_path / "results", run({FP32: whole(FP32)}))
    words = ["report", str(source), "--no-site", "--junit", str(tmp_path / "junit.xml")]
    assert main(words) == 0
    assert page.read_text("utf-8") == "# Before\n"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    assert main(words) == 0
    assert page.read_text("utf-8").startswith("# Before\n## Compatibility matrix")
    assert 'failures="0"' in (tmp_path / "junit.xml").read_text("utf-8")
    assert "junit.xml" in capsys.readouterr().out.splitlines()[-1]
