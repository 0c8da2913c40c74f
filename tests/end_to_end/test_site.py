"""The published evidence in Chromium: each question is answered in three clicks or fewer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from compat.commands.sources import rated
from compat.judge.results import read_all
from compat.report import write_site

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "compat" / "runtimes" / "web"
CHROMIUM = WEB / "browser" / "chromium"

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(
        not CHROMIUM.exists() or shutil.which("node") is None,
        reason="no browser here: make browsers",
    ),
]

Click = tuple[str, str]
"""What is clicked: a CSS selector, and words that it holds."""


def cell(row: str, hardware: str) -> Click:
    return (f'a[data-cell^="{row}"][data-cell$="--{hardware}"]', "")


FAILURES: Click = (".bar a", "Failures")
QUESTIONS: dict[str, tuple[Sequence[Click], str]] = {
    "which precision for Whisper on OpenVINO": (
        [cell("whisper", "openvino")],
        r"fastest openvino-cpu · int8-dynamic · RTFx [\d.]+ · WER",
    ),
    "which runtime is fastest on my processor": (
        [(".doors a", "AMD EPYC, avx512")],
        r"on the processor.*Whisper.*fastest",
    ),
    "why is this cell Limited": (
        [cell("whisper", "webnn")],
        r"Limited.*up to [\d.]+ times slower than this machine's CPU",
    ),
    "when and on what was it measured": (
        [cell("whisper", "openvino")],
        r"AMD EPYC, avx512.*measured \d+ Nov 2026",
    ),
    "what changed since the last run": (
        [(".bar a", "Changes")],
        r"Run of \d+ Nov 2026: .*(not measured again|new|same)",
    ),
    "is it wrong only here": ([FAILURES], r"only here: "),
    "was the accelerator used": ([], r"No accelerator was ever timed"),
    "cold start and memory": (
        [cell("whisper", "openvino"), (".hero a", "openvino")],
        r"peak memory [\d.]+ MB.*cold start [\d.]+ (s|ms)",
    ),
    "what does int8 cost": (
        [cell("whisper", "openvino")],
        r"int8-dynamic .{0,80}(High|Medium|Limited).{0,200}pp",
    ),
    "what fails and whose is it": ([FAILURES], r"this project"),
    "what never ran": ([(".bar a", "Never ran")], r"openvino-npu.*OpenVINO finds no NPU device"),
    "a badge": ([cell("whisper", "openvino")], r"Copy badge.*Whisper · openvino.*High"),
    "the raw data": (
        [cell("whisper", "openvino"), (".hero a", "openvino")],
        r"source lines.*raw samples",
    ),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what a browser found on the site of the published evidence."""
    site = tmp_path_factory.mktemp("published") / "site"
    published = ROOT / "reports" / "results"
    index = write_site(rated([published], read_all([published], predictions=False)), site)
    pages = [
        "index.html",
        "failures.html",
        "changes.html",
        "claims.html",
        "machines.html",
        "coverage.html",
        "methods.html",
    ]
    for folder in ("cells", "models", "machines", "configurations"):
        pages.append(f"{folder}/{max((site / folder).iterdir(), key=_size).name}")
    asked = {
        "modules": str(WEB),
        "chromium": str(CHROMIUM),
        "index": index.as_uri(),
        "pages": [*pages, "embed.html"],
        "questions": [{"name": n, "clicks": clicks} for n, (clicks, _) in QUESTIONS.items()],
    }
    done = subprocess.run(
        ["node", str(Path(__file__).with_name("clicks.mjs"))],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answered: dict[str, Any] = json.loads(done.stdout)
    return answered


def _size(path: Path) -> int:
    return path.stat().st_size


@pytest.mark.parametrize("question", QUESTIONS)
def test_each_question_is_answered_in_three_clicks(question: str, found: dict[str, Any]) -> None:
    clicks, answer = QUESTIONS[question]
    assert len(clicks) <= 3
    assert re.search(answer, found["answers"][question]), found["answers"][question][:3000]


def test_nothing_is_wrong_on_the_way_and_nothing_leaves_the_page(found: dict[str, Any]) -> None:
    assert found["problems"] == []
    assert found["paint"] <= 2000


def test_a_filter_is_quick_stays_in_the_address_and_goes_into_the_cell(
    found: dict[str, Any],
) -> None:
    filtered = found["filter"]
    assert filtered["took"] <= 100
    assert filtered["details"] and all("int8" in one for one in filtered["details"])
    assert filtered["after"] == 1 < filtered["before"]
    assert "precision=int8" in filtered["address"] and "words=whisper" in filtered["address"]
    assert "?precision=int8" in filtered["link"]
    assert "precision=int8" in found["carried"]["back"]
    assert found["carried"]["dim"] > 0


def test_tables_sort_and_the_unknown_stays_last(found: dict[str, Any]) -> None:
    up, down = found["sorted"]["up"], found["sorted"]["down"]
    known = [float(one) for one in up if one]
    assert known == sorted(known) and len(known) > 1
    assert [float(one) for one in down if one] == known[::-1]
    assert up[len(known) :] == down[len(known) :] == [""] * (len(up) - len(known))
    assert found["sorted"]["said"] == "descending"


def test_claims_are_chosen_by_their_verdict(found: dict[str, Any]) -> None:
    claims = found["claims"]
    assert {*claims["verdicts"]} == {"refuted"}
    assert 1 < len(claims["verdicts"]) < claims["all"]
    assert "verdict=refuted" in claims["address"]
    assert claims["told"] == f"{len(claims['verdicts'])} rows"
    assert claims["ids"] == sorted(claims["ids"], reverse=True)


def test_the_matrix_is_walked_by_keys(found: dict[str, Any]) -> None:
    assert found["moved"] == [2, 3], "column and row, below two rows of headings"
    assert found["searched"] == "words"


def test_no_page_is_wider_than_its_window(found: dict[str, Any]) -> None:
    for name, width in found["widths"].items():
        assert width <= int(name.rpartition(" ")[2]), name


def test_the_matrix_prints_on_one_page(found: dict[str, Any]) -> None:
    assert found["printed"] == 1
