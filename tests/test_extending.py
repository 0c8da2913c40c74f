"""The example of the documentation works as it is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compat.report import build

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "docs" / "example_catalog.py"


@pytest.fixture(scope="module")
def example(suites: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return suites.run(
        tmp_path_factory.mktemp("example"),
        *(f"--catalog={EXAMPLE}", "--targets", "cpu-torch,cpu-numpy", "--recipes", "fp32"),
        models="loudness",
    )


@pytest.mark.parametrize("target", ["cpu-torch", "cpu-numpy"])
def test_an_own_model_and_an_own_runtime_are_measured(example: Any, target: str) -> None:
    checks = example.checks(f"loudness-2@trained/{target}/fp32")
    assert set(checks) == {
        "support.loads",
        "accuracy.task",
        "accuracy.numerics",
        "latency.task",
        "memory.peak",
        "robustness.stress",
    }
    for one in checks.values():
        assert one.status in ("passed", "inconclusive"), (one.check, one.reason)
    assert example.status == 0, example.text
    assert checks["accuracy.numerics"].values["speech"]["snr_db"] > 80


def test_they_get_a_row_of_their_own(example: Any) -> None:
    report = build(example.collection)
    assert "Voice activity" in report.rows
    cell = report.cell("Voice activity", "cpu")
    assert {one.target for one in cell.configurations} == {"cpu-torch", "cpu-numpy"}
    assert all(one.rating.ceiling == "High" for one in cell.configurations)


def test_their_marks_select_them(suites: Any, tmp_path: Path) -> None:
    run = suites.run(
        *(tmp_path, f"--catalog={EXAMPLE}", "--collect-only", "-m", "loudness and numpy"),
        models="",
    )
    assert run.status == 0, run.text
    assert "loudness-2@trained/cpu-numpy/fp32" in run.text
    assert "cpu-torch" not in run.text


def test_a_runtime_may_have_options_of_its_own(suites: Any, tmp_path: Path) -> None:
    catalog = tmp_path / "own_options.py"
    catalog.write_text(
        EXAMPLE.read_text(encoding="utf-8")
        + """
class Tuned(NumPy):
    def add_options(self, add):
        add("--tuning", default="none", help="how it is tuned")

    def use(self, options):
        raise SystemExit(f"tuned to {options.tuning}")


RUNTIME = Tuned()
""",
        encoding="utf-8",
    )
    run = suites.run(
        *(tmp_path, "--collect-only", "--tuning", "concert pitch"),
        models="",
        COMPAT_CATALOG=str(catalog),
    )
    assert "tuned to concert pitch" in run.text


def test_the_example_is_short() -> None:
    """It is read from top to bottom in the documentation."""
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 240
