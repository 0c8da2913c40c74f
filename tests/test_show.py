"""What `compat show` tells of a case: its rating, which observation counts, its history."""

from __future__ import annotations

from pathlib import Path

import pytest
from measured import case, run, whole, write
from test_history import at

from compat.commands.main import main
from compat.report.text import slug

CASE = "whisper-tiny@pretrained/cpu-torch/fp32"


@pytest.fixture
def shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")

    def show(*runs, words: tuple[str, ...] = (), name: str = CASE) -> str:
        folder = write(tmp_path / f"{len(list(tmp_path.iterdir()))}", *runs)
        assert main(["show", name, *words, str(folder)]) == 0
        out: str = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= 80, out
        return out

    return show


def test_rating_what_counts_limits_and_history(shown) -> None:
    out = shown(*(at(day, rtf=0.1 if day < 6 else 0.3) for day in range(12)))
    assert "rated High: whisper-tiny@pretrained, cpu-torch fp32" in out
    assert "latency.task passed (strict), 2026-09-12 in 011-aaaaaa.main: rtf 0.3" in out
    assert "on First, 2 cores (" in out
    assert "accuracy.numerics *.snr_db ≥ 80, 60" in out
    # Every measurement is there, and the last one counts.
    rows = [row for row in out.splitlines() if ": 0." in row and "core" in row]
    assert len(rows) == 12 and [("◂" in row) for row in rows] == [False] * 11 + [True]
    assert "worse since 2026-09-07: rtf 0.1 → 0.3 (3 × as long" in " ".join(out.split())


def test_a_long_history_is_cut_and_a_short_one_says_that_it_is(shown) -> None:
    short = shown(at(0), at(1, versions={"torch": "2.14", "numpy": "2"}))
    assert "too short to tell a step from noise: 3 more runs" in short
    # What is new there is not told, what has another version is.
    assert "[torch 2.13 → 2.14]" in short
    runs = [at(day) for day in range(15)]
    assert "3 earlier ones (--all)" in shown(*runs)
    assert "earlier ones" not in shown(*runs, words=("--all",))


def test_what_fails_is_told_with_its_number_and_what_is_hostile_is_escaped(shown) -> None:
    from test_compare import failing

    broken = failing(at(1), "accuracy.numerics", "failed", "NaN in \x1b[2Jlogits")
    out = shown(broken)
    assert "accuracy.numerics failed, 2026-09-02 in 001-aaaaaa.main: NaN in �[2Jlogits" in " ".join(
        out.split()
    )
    assert "\x1b" not in out


def test_a_case_of_another_catalog_is_shown_from_its_results(shown) -> None:
    about = case("cpu-abacus", "fp32", variant="mine")
    out = shown(run({about: whole(about)}), name=about.id)
    assert "not in this catalog" in out and "rated High" in out


def test_its_page_is_named_where_there_is_one(
    shown, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "`compat report` writes it" in shown(at(1))
    page = tmp_path / "site" / "cells" / f"{slug('Whisper', 'cpu')}.html"
    page.parent.mkdir(parents=True)
    page.touch()
    assert main(["show", CASE, str(tmp_path), "--site", str(tmp_path / "site")]) == 0
    assert f"page: {page.as_uri()}#whisper--cpu-torch--fp32--" in capsys.readouterr().out


def test_a_case_is_looked_up_before_anything_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["show", "whisper-tiny@seeded/cpu-torch/fp32"]) == 0
    assert "no measurements yet" in capsys.readouterr().out
    assert main(["show", "whisper-tny@seeded/cpu-torch/fp32"]) == 3
    assert "whisper-tiny@seeded/cpu-torch/fp32" in capsys.readouterr().err
