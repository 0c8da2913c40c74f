"""What documents say of programs is true: generated tables, names of options, lengths."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_readme import DOCUMENTS, GUIDES, README, ROOT, load_file, read, suite_options

from compat import api
from compat.commands import publish as publishing
from compat.commands.main import command_parser, main
from compat.contract.errors import CompatError
from compat.experiments import EXPERIMENTS
from compat.report.documents import filled, names, put

DOCS = [path for path in DOCUMENTS if path.is_relative_to(ROOT / "docs")]
FOREIGN = {"--index-url", "--junitxml", "--markers", "--no-deps", "--pyargs", "--wheel-dir"}
"""Options of pytest and pip that documents name."""
SCRIPTS = (
    *("docs/build/tables.py", "fixtures/build/limits.py", "fixtures/build/libraries.py"),
    *("tests/benchmarks/bench.py", "tests/benchmarks/speed.py"),
)
MOST_WORDS = {"README": 900, "guide": 800, "docs": 12_000}


@pytest.fixture(scope="module")
def tables() -> Any:
    # Where Python looks for what the script imports from beside it.
    sys.path.append(str(ROOT / "docs" / "build"))
    return load_file(ROOT / "docs" / "build" / "tables.py")


# Generated tables ------------------------------------------------------------------------------


def test_no_table_is_stale(tables: Any) -> None:
    stale = [path.relative_to(ROOT).as_posix() for path in tables.stale()]
    assert not stale, f"run `python docs/build/tables.py`: {stale}"


def test_a_changed_table_is_stale(tables: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tables.OF_CODE, "people", lambda: "| somebody else |")
    tables.made.cache_clear()
    assert [path.name for path in tables.stale()] == ["corpora.md"]
    tables.made.cache_clear()


def test_publishing_in_a_checkout_makes_its_tables_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = re.search(r'"run": "([^"]+)"', read(ROOT / "docs" / "results.md"))
    assert shown is not None
    (results,) = (ROOT / "reports" / "results").rglob(f"{shown[1]}.main.jsonl.zst")
    (tmp_path / "reports").mkdir()
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(README, tmp_path)
    monkeypatch.setattr(publishing, "ROOT", tmp_path)
    monkeypatch.setattr(publishing, "TABLES", tmp_path / "docs" / "build" / "tables.py")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert main(["publish", str(results), "--output", str(tmp_path / "elsewhere")]) == 0
    assert "written" not in capfd.readouterr().out
    assert main(["publish", str(results), "--output", str(tmp_path / "reports")]) == 0
    assert "written: docs/accuracy.md" in capfd.readouterr().out
    assert read(tmp_path / "docs" / "accuracy.md") != read(ROOT / "docs" / "accuracy.md")


def test_every_table_has_its_place_and_its_program(tables: Any) -> None:
    placed = [name for path in [README, *DOCS] for name in names(read(path))]
    known = {tables.WHAT_RAN, *tables.OF_RESULTS, *tables.OF_ANSWERS, *tables.OF_CODE}
    known |= {*tables.MEASURED}
    assert sorted(placed) == sorted(known)
    for script in tables.MEASURED.values():
        assert "put(" in read(ROOT / script)


def test_only_what_is_between_the_marks_is_replaced(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    text = "before\n<!-- generated: a -->\nold\n<!-- end -->\nbetween\n<!-- generated: b -->\n"
    document.write_text(f"{text}kept\n<!-- end -->\nafter\n", encoding="utf-8")
    put(document, "a", "| new |")
    assert read(document) == f"{text}kept\n<!-- end -->\nafter\n".replace("old", "| new |")
    with pytest.raises(CompatError, match="has no table c"):
        put(document, "c", "")


# Names in the text -----------------------------------------------------------------------------


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from parsers(one)


def options() -> set[str]:
    """Return every option that a person can give."""
    found = [suite_options(), *parsers(command_parser())]
    known = {name for one in found for action in one._actions for name in action.option_strings}
    scripts = {
        name
        for script in (*SCRIPTS, *(f"compat/experiments/{one}.py" for one in EXPERIMENTS))
        for name in re.findall(r"\"(--[a-z-]+)\"", read(ROOT / script))
    }
    return known | scripts | FOREIGN | set(re.findall(r"--[a-z-]+", read(ROOT / "ci" / "run")))


OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_options_in_the_text_exist(document: Path) -> None:
    said = {option for code in in_backquotes(document) for option in OPTION.findall(code)}
    # Arguments of a browser, behind an option that hands them on.
    assert not {one for one in said - options() if f"--browser-arg={one}" not in read(document)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_the_text_exist(document: Path) -> None:
    (choices,) = (
        action
        for action in command_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.M))
    for code in in_backquotes(document):
        if (command := re.match(r"compat ([a-z]+)", code)) is not None:
            assert command[1] in choices.choices, f"{document.name}: {code}"
        if (target := re.fullmatch(r"make ([a-z-]+)", code)) is not None:
            assert target[1] in targets, f"{document.name}: {code}"
        if (script := re.match(r"python ([\w./-]+\.py)", code)) is not None:
            assert (ROOT / script[1]).exists(), f"{document.name}: {code}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_variables_in_the_text_exist(document: Path) -> None:
    files = [*ROOT.glob("compat/**/*.py"), *ROOT.glob("ci/*"), ROOT / "Makefile"]
    code = "".join(read(path) for path in files if path.is_file())
    for name in re.findall(r"`\$?(COMPAT_[A-Z_]+)", read(document)):
        assert name in code, f"{document.name}: {name}"


def test_classes_that_authors_are_told_of_are_in_the_api() -> None:
    told = read(ROOT / "docs" / "extending.md").split("## What a model has to say")[1]
    said = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)*)[.`(]", told.split("\n## Weights\n")[0]))
    assert {"Transcription", "GraphRuntime", "Item"} <= said
    assert {name for name in said if not hasattr(api, name)} == set()


def in_backquotes(document: Path) -> list[str]:
    """Return the words in backquotes in the text of a document, outside of blocks of code."""
    prose = re.sub(r"```.*?```", "", read(document), flags=re.S)
    return re.findall(r"`([^`\n]+)`", prose)


def test_misspelt_options_and_commands_are_seen(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("say `pytest --targest here`", encoding="utf-8")
    with pytest.raises(AssertionError):
        test_options_in_the_text_exist(document)
    for command in ("compat matricks", "make matricks", "python docs/matricks.py"):
        document.write_text(f"say `{command}`", encoding="utf-8")
        with pytest.raises(AssertionError):
            test_commands_in_the_text_exist(document)


# Length ----------------------------------------------------------------------------------------


def words(document: Path) -> int:
    """Count the words of a document beside its generated tables; marks of Markdown are none."""
    own = filled(read(document), lambda name: "")
    return sum(any(letter.isalnum() for letter in word) for word in own.split())


def test_documents_stay_short() -> None:
    assert words(README) <= MOST_WORDS["README"]
    assert {path.name: words(path) for path in GUIDES if words(path) > MOST_WORDS["guide"]} == {}
    assert sum(map(words, DOCS)) <= MOST_WORDS["docs"]


DECISION = re.compile(r"### [^\n]+\n\n- Why: [^\n]+\n(- Cost: [^\n]+\n)?")
MOST_OF_A_DECISION = 110
"""Words of an entry, its heading included."""


def entries() -> list[str]:
    """Return the entries of the decisions, packages' headings left out."""
    text = re.sub(r"^## .*$", "", read(ROOT / "docs" / "decisions.md"), flags=re.M)
    return [f"### {entry.strip()}\n" for entry in text.split("### ")[1:]]


def test_decisions_have_a_reason_and_a_cost_in_few_words() -> None:
    assert [entry for entry in entries() if not DECISION.fullmatch(entry)] == []
    assert [entry for entry in entries() if len(entry.split()) > MOST_OF_A_DECISION] == []
    assert not DECISION.fullmatch("### A thing\n\n2026-11-29. It was decided at length.\n")
