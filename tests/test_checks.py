"""Versions of checks: collected in one place, and written by the suites exactly so."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from compat.judge.checks import VERSIONS
from compat.run.measurement import Check, check

ROOT = Path(__file__).resolve().parents[1]


def declared() -> dict[str, int]:
    """Return every check that the suites declare, with the version that they write."""
    found: dict[str, int] = {}
    for path in sorted((ROOT / "suites").glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"suite_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for value in vars(module).values():
            one = getattr(value, "check", None)
            if isinstance(one, Check):
                found[one.name] = one.version
    return found


def test_the_suites_write_exactly_the_versions_that_reports_know() -> None:
    assert declared() == dict(VERSIONS)
    assert min(VERSIONS.values()) >= 1


def test_knowing_them_imports_no_suite_and_no_model() -> None:
    code = (
        "import sys, compat.judge.checks, compat.report;"
        "print([m for m in ('pytest', 'torch', 'numpy', 'compat.catalog') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_outside_author_says_the_version_of_an_own_check_only() -> None:
    def question() -> None:
        """Ask something."""

    def version(name: str, said: int | None) -> int:
        check(name, said)(question)
        found: Check = question.check  # type: ignore[attr-defined]
        return found.version

    current = VERSIONS["support.loads"]
    assert version("mine.question", None) == 1
    assert version("mine.question", 4) == 4
    assert version("support.loads", None) == version("support.loads", current) == current
    for name, said in (("support.loads", current + 1), ("mine.question", 0)):
        with pytest.raises(ValueError, match="versions begin at 1"):
            version(name, said)
