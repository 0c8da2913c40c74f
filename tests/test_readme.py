"""The documentation says what is true: commands parse and run, links resolve, numbers agree."""

from __future__ import annotations

import argparse
import importlib.util
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import forks
import msgspec
import pytest

from compat import __version__, catalog
from compat.commands.main import main, parse
from compat.contract.case import HARDWARE, WEIGHTS
from compat.contract.errors import CompatError
from compat.contract.precision import precisions
from compat.inputs import packages
from compat.judge import expectations, results, thresholds
from compat.report import text as report_text
from compat.report.documents import names
from compat.run import plugin, selection

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
GLOSSARY = ROOT / "docs" / "glossary.md"
USAGE = ROOT / "docs" / "usage.md"
EXAMPLES = ROOT / "docs" / "examples"
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
DOCUMENTS = [README, CONTRIBUTING, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKED = [*DOCUMENTS, *sorted((ROOT / "fixtures").rglob("*.md")), ROOT / "reports" / "MATRIX.md"]
"""Whose links are followed: what is said of fixtures, too."""
PLACEHOLDERS = ("FOLDER", "FILE", "CASE")
STANDS_FOR = {
    "--corpus": ROOT / "fixtures" / "corpus",
    "--checkpoint": ROOT / "fixtures" / "checkpoints" / "whisper-nano",
    "--thresholds": ROOT / "fixtures" / "thresholds.toml",
    "--expectations": ROOT / "fixtures" / "expectations",
}
"""What a placeholder after an option is when the command runs here."""
MADE = ("results", "site", "reports/local")
"""Folders that a command makes, or that a person has."""


def blocks(document: Path, *languages: str) -> Iterator[str]:
    """Yield the fenced code blocks in some languages, indentation removed."""
    pattern = rf"^( *)```(?:{'|'.join(languages)})\n(.*?)^\1```"
    for indent, body in re.findall(pattern, read(document), re.S | re.M):
        yield "\n".join(line.removeprefix(indent) for line in body.splitlines())


def read(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def commands(document: Path) -> list[list[str]]:
    """Return the words of every command line in a document."""
    found = []
    for block in blocks(document, "sh", "powershell"):
        for line in block.splitlines():
            words = shlex.split(line.replace("\\", "\\\\"), comments=True)
            if words:
                found.append(words[: words.index(">")] if ">" in words else words)
    return found


COMMANDS = [(document, words) for document in DOCUMENTS for words in commands(document)]


def named(found: Iterable[list[str]]) -> list[Any]:
    """Return every command once, whichever documents have it."""
    return [
        pytest.param(list(words), id=" ".join(words)) for words in dict.fromkeys(map(tuple, found))
    ]


class Complaint(Exception):
    """A parser met a word that it does not know."""


class StrictParser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise Complaint(message)


class Group:
    """Takes what the plugin tells pytest, as argparse takes it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser

    def getgroup(self, *names: str) -> Group:
        return self

    def addoption(self, *names: str, **facts: Any) -> None:
        self.parser.add_argument(*names, **facts)


def suite_options() -> StrictParser:
    """Return a parser of the suites' own options."""
    parser = StrictParser(prog="pytest", add_help=False, allow_abbrev=False)
    plugin.pytest_addoption(Group(parser))  # type: ignore[arg-type]
    return parser


def pytest_options() -> StrictParser:
    """Return a parser of those and of the few options of pytest that the documents use."""
    parser = suite_options()
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("-m", dest="markexpr")
    parser.add_argument("-q", action="count")
    parser.add_argument("-n", type=int)
    parser.add_argument("--junitxml", type=Path)
    parser.add_argument("--pyargs", action="store_true")
    return parser


def with_files(names: list[str]) -> catalog.Catalog:
    """Return the catalog with some catalog files, which stay known to nobody else."""
    if not names:
        return catalog.load()
    catalog.load.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(catalog.ENVIRONMENT, os.pathsep.join(names))
        loaded = catalog.load()
    catalog.load.cache_clear()
    return loaded


def check_pytest(words: list[str]) -> None:
    given = pytest_options().parse_args(words)
    loaded = with_files([name for name in given.catalog if name not in PLACEHOLDERS])
    own = any(path.parts[:1] == ("tests",) for path in given.paths)
    if given.markexpr and not own:
        selection.check_mark_expression(given.markexpr, selection.marks(loaded))
    checkpoints = dict(pair.split("=", 1) for pair in given.checkpoint)
    chosen = selection.Selection(
        given.models, given.targets, given.recipes, given.weights, checkpoints=checkpoints
    )
    chosen.check(loaded)
    chosen.check_required(given.require, loaded)
    if given.pyargs:
        # The module that a wheel has; tests/end_to_end/test_wheel.py runs it.
        assert list(map(str, given.paths)) == ["compat.suites"]
    files = [] if given.pyargs else [*given.paths]
    files += [*given.thresholds, *given.expectations, *map(Path, given.catalog)]
    check_files([*files, *([given.corpus] if given.corpus else ())])


def check_compat(words: list[str]) -> None:
    given = parse(words)
    if given.rest:
        check_pytest(given.rest)
    sources = [one for one in getattr(given, "sources", ()) if isinstance(one, Path)]
    check_files([*sources, *map(Path, given.catalog or ())])
    assert set(getattr(given, "names", ())) <= {package.name for package in packages.known()}


def check_files(paths: list[Path]) -> None:
    for path in paths:
        made = path.as_posix().startswith((*MADE, "reports/results"))
        if str(path) not in PLACEHOLDERS and not made:
            assert (ROOT / path).exists(), f"{path} does not exist"


def check_pip(words: list[str]) -> None:
    parser = StrictParser(prog="pip")
    parser.add_argument("command", choices=["install", "wheel"])
    parser.add_argument("packages", nargs="*")
    parser.add_argument("-c", type=Path)
    parser.add_argument("-e")
    parser.add_argument("--index-url")
    parser.add_argument("--no-deps", action="store_true")
    parser.add_argument("--wheel-dir")
    given = parser.parse_args(words)
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    known = project["optional-dependencies"]
    check_files([given.c] if given.c else [])
    if given.e:
        extras = re.fullmatch(r"\.(?:\[([\w,-]+)\])?", given.e)
        assert extras is not None
        assert set((extras[1] or "").split(",")) <= {*known, ""}
    for package in given.packages:
        if (wheel := re.fullmatch(r"FILE\.whl\[([\w,-]+)\]", package)) or package == ".":
            assert set(wheel[1].split(",") if wheel else ()) <= set(known)
            continue
        assert package in known["torch"], f"{package} is not the version that pyproject.toml pins"
    if given.index_url:
        assert given.index_url.startswith("https://download.pytorch.org/whl/")


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z]+):", read(ROOT / "Makefile"), re.M)
    assert set(words) <= set(targets)


def check_python(words: list[str]) -> None:
    if words[0].startswith("-3."):
        words = words[1:]
    if words[0] == "-m":
        assert words[1:] == ["venv", ".venv"]
        return
    check_files([Path(words[0])])
    if words[0].endswith("bench.py"):
        names = [word for word in words[1:] if re.fullmatch("[a-z]+", word)]
        assert set(names) <= set(benchmarks().BENCHMARKS)


def check_sh(words: list[str]) -> None:
    script, *rest = words
    check_files([Path(script)])
    if script == "ci/run":
        assert re.search(rf"\b{rest[0]}\b", re.search("usage: .*", read(ROOT / script))[0])  # type: ignore[index]
        check_pytest(["-m", *rest])


def check_known(words: list[str]) -> None:
    assert words in (
        [".", ".venv/bin/activate"],
        [".venv\\Scripts\\Activate.ps1"],
        ["lint-imports", "--no-logo"],
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "."],
        ["mypy"],
    )


CHECKERS = {
    "pytest": check_pytest,
    "compat": check_compat,
    "pip": check_pip,
    "make": check_make,
    "python": check_python,
    "python3": check_python,
    "py": check_python,
    "sh": check_sh,
}


def benchmarks() -> Any:
    folder = str(ROOT / "tests" / "benchmarks")
    if folder not in sys.path:  # Where Python looks for what a script imports from beside it.
        sys.path.append(folder)
    return load_file(ROOT / "tests" / "benchmarks" / "bench.py")


def load_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"documented_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    before = dict(os.environ)
    try:
        spec.loader.exec_module(module)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return module


def call(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a Python command from the project's root."""
    return forks.run([sys.executable, *words], {**os.environ, **environment}, ROOT, timeout=600)


# Commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", named(words for _, words in COMMANDS))
def test_command_parses(words: list[str]) -> None:
    checker = CHECKERS.get(words[0])
    if checker is None:
        check_known(words)
    else:
        checker(words[1:])


def test_misspelt_commands_do_not_parse() -> None:
    with pytest.raises(Complaint):
        check_pytest(["--no-such-option"])
    with pytest.raises(CompatError):
        check_pytest(["-m", "kuda"])
    with pytest.raises(CompatError):
        check_pytest(["--models", "whisper-tinny"])
    with pytest.raises(SystemExit):
        check_compat(["matricks"])
    with pytest.raises(AssertionError):
        check_make(["matricks"])
    with pytest.raises(AssertionError):
        check_pip(["install", "-e", ".[no-such-extra]"])


READING = ("claims", "compare", "list", "query", "recommend", "schema", "show")
"""Commands that change nothing and start no process."""


def is_cheap(words: list[str]) -> bool:
    # What a command above it in a document measures is not there, and neither is another network.
    made = any(word.startswith(("reports/local/", "s3:", "branch/", "--export")) for word in words)
    other = {"latest", "previous", "--here"} & set(words)
    return words[0] == "compat" and words[1] in READING and not made and not other


@pytest.mark.parametrize("words", named(words for _, words in COMMANDS if is_cheap(words)))
def test_command_that_only_reads_runs(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if words[1] == "query":
        pytest.importorskip("duckdb")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COMPAT_CATALOG", "")
    # 1 says that a comparison found something worse.
    try:
        status = main(words[1:])
    finally:
        catalog.load.cache_clear()  # A catalog file is nobody else's.
    assert status in ((0, 1) if words[1] == "compare" else (0,)), capsys.readouterr().err
    assert capsys.readouterr().out.strip()


def is_collected(document: Path, words: list[str]) -> bool:
    inside = document in (README, USAGE, *GUIDES) and "--pyargs" not in words
    return inside and words[0] == "pytest" and not any(word.startswith("tests") for word in words)


def real(words: list[str]) -> Iterator[str]:
    """Yield the words of a command with something real in the place of placeholders."""
    for before, word in itertools.pairwise(["", *words]):
        stands_for = str(STANDS_FOR.get(before, ""))
        yield re.sub("FOLDER|FILE", lambda _, path=stands_for: path, word) if stands_for else word


@pytest.mark.parametrize(
    "words", named(words for document, words in COMMANDS if is_collected(document, words))
)
def test_selection_collects(words: list[str]) -> None:
    given = list(real(words))
    if "here" in given:
        pytest.importorskip("torch")  # Without a runtime nothing is here.
    done = call("-m", "pytest", *given[1:], "--collect-only", "-qq", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "suites/test_support.py: " in done.stdout


ELSEWHERE = {
    "compat cache": ("test_cli.py", 'main(["cache"])'),
    "compat doctor": ("test_newcomer.py", '"doctor"'),
    "compat list --here": ("test_newcomer.py", '"--here"'),
    "compat compare": ("test_compare.py", '"compare"'),
    "compat fetch": ("test_fetch.py", '"fetch"'),
    "compat matrix --quick": ("end_to_end/test_wheel.py", '"matrix"'),
    "compat publish": ("test_report.py", 'main(["publish"'),
    "compat recommend": ("test_advice.py", '"recommend"'),
    "compat report": ("test_ci_summary.py", '"report"'),
    "compat rescore": ("test_newcomer.py", 'main(["rescore"'),
    "compat share": ("test_newcomer.py", 'main(["share"])'),
    "pip install FILE.whl": ("end_to_end/test_wheel.py", '"install"'),
    "python docs/build/tables.py": ("test_documents.py", "tables.stale()"),
    "python tests/benchmarks/bench.py": ("test_readme.py", "benchmarks()"),
}
"""Commands of the guides that write or measure, by their first words: the test that runs such a
command, and the words in it that do."""
OURS = {"make", "ruff", "lint-imports", "mypy", "pytest"}
"""What the person who runs these tests runs anyway: a command of a guide may begin so."""


@pytest.mark.parametrize(
    "words", named(words for document, words in COMMANDS if document in GUIDES)
)
def test_every_command_of_a_guide_is_run_by_a_test(words: list[str]) -> None:
    if is_cheap(words) or words[0] in OURS:
        return
    command = " ".join(words)
    ((test, does),) = (test for start, test in ELSEWHERE.items() if command.startswith(start))
    assert does in read(ROOT / "tests" / test)


# Tables and length --------------------------------------------------------------------------


def first_column(text: str, heading: str) -> list[str]:
    """Return the first cells of the table below a heading, its head left out."""
    below = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in below.splitlines() if line.startswith("|")]
    return [row.split("|")[1].strip() for row in rows[2:]]


def test_the_readme_names_every_family() -> None:
    said = re.sub(r"[-\s]", "", read(README).lower())
    families = [family.name for family in catalog.load().families]
    assert [name for name in families if name.replace("-", "") not in said] == []


def test_hardware_without_a_runtime_is_named() -> None:
    said = re.search(r"\*\*No runtime yet\*\* for: ([a-z, ]+)\.", read(README))
    served = {target.hardware for target in catalog.load().targets}
    missing = [name for name in HARDWARE if name not in served]
    assert (said[1].split(", ") if said else []) == missing


def test_the_changelog_has_the_version_and_nothing_else_states_one() -> None:
    """It is in `compat/__init__.py`, whence the metadata take it."""
    declared = tomllib.loads(read(ROOT / "pyproject.toml"))
    assert declared["project"]["dynamic"] == ["version"]
    assert declared["tool"]["hatch"]["version"]["path"] == "compat/__init__.py"
    newest = re.search(r"^## (\S+?),? ", read(ROOT / "CHANGELOG.md"), re.M)
    assert newest is not None
    assert newest[1] == __version__


def test_licence_is_the_one_that_the_project_declares() -> None:
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    assert project["license"] == "Apache-2.0"
    licence = read(ROOT / "LICENSE")
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


# Links and places ------------------------------------------------------------------------------


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives to a document's headings."""
    prose = re.sub(r"```.*?```", "", read(document), flags=re.S)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", prose, re.M)
    }


@pytest.mark.parametrize("document", LINKED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_resolve(document: Path) -> None:
    published = any((ROOT / "reports" / "results").rglob("*.jsonl*"))
    prose = re.sub(r"```.*?```", "", read(document), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if target.relative_to(ROOT).as_posix() == "reports/MATRIX.md" and not published:
            continue  # Written by the first `compat publish`.
        assert target.exists(), f"{document.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{document.name}: {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_place_of_one_machine(document: Path) -> None:
    assert not re.search(r"(?<![\w.])/(?:home|root|work|tmp|Users|opt)/", read(document))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_in_backquotes_exist(document: Path) -> None:
    for name in re.findall(
        r"`((?:compat|suites|fixtures|docs|tests|ci|reports)/[\w./-]+)[`:]", read(document)
    ):
        made = name.startswith(("reports/local", "reports/archive"))
        assert made or (ROOT / name).exists(), f"{document.name}: {name}"


# Glossary and numbers --------------------------------------------------------------------------


def glossary_words(heading: str) -> set[str]:
    below = read(GLOSSARY).split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"^\|[^|\n]*?(?:\|\s*)?`([\w-]+)`", below, re.M))


def test_glossary_has_words_that_the_code_uses() -> None:
    used = names_of_the_code()
    assert {"case", "stand_in", "worker"} <= glossary_things()
    assert glossary_things() - used == set()
    assert "frobnication" not in used


def glossary_things() -> set[str]:
    """Return the words of the glossary, of which a row may explain two."""
    rows = first_column(read(GLOSSARY), "Things")
    return {word.replace("-", "_") for row in rows for word in row.split(", ")}


def names_of_the_code() -> set[str]:
    """Return the words in names of classes, functions, arguments and variables, as singulars."""
    text = "\n".join(read(path) for path in (ROOT / "compat").rglob("*.py"))
    names = {one.string for one in tokenize.generate_tokens(io.StringIO(text).readline)}
    words = {word for name in names if name.isidentifier() for word in parts_of(name)}
    return names | words | {word.removesuffix("s") for word in words}


def parts_of(name: str) -> list[str]:
    """Return the words of a name in any case: ``GraphRuntime`` and ``graph_runtime`` have two."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_")


def test_glossary_has_every_status() -> None:
    assert glossary_words("Statuses") == {*get_args(results.Status), "not-run", "cut-off", "stale"}
    assert glossary_words("Statuses") == set(report_text.STATUSES)


def test_glossary_has_every_fixed_mark() -> None:
    expected = {*HARDWARE, *precisions(), *WEIGHTS, *selection.EVIDENCE}
    assert glossary_words("Marks") == expected


def test_glossary_and_rating_name_every_rating() -> None:
    for _, name, _ in report_text.RATINGS.values():
        assert name in read(GLOSSARY)
        assert name in read(ROOT / "docs" / "rating.md")


def test_rating_states_the_rules_version() -> None:
    from compat.judge.rating import RULE_VERSION

    said = re.search(r"`RULE_VERSION`, now (\d+)", read(ROOT / "docs" / "rating.md"))
    assert said is not None
    assert int(said[1]) == RULE_VERSION


def test_benchmark_limits_and_names_are_documented() -> None:
    bench = benchmarks()
    document = read(ROOT / "docs" / "benchmarks.md")
    assert "benchmarks" in names(document)
    assert all(f"| `{name}` |" in document for name in bench.BENCHMARKS)


# Examples --------------------------------------------------------------------------------------


def test_example_lines_are_results() -> None:
    decoder = msgspec.json.Decoder(results.Line)
    texts = blocks(ROOT / "docs" / "results.md", "json")
    lines = [decoder.decode(line) for text in texts for line in text.splitlines()]
    kinds = {type(line) for line in lines}
    assert kinds == set(get_args(results.Line))


def toml_examples(document: Path, head: str) -> list[str]:
    found = [text for text in blocks(document, "toml") if text.startswith(head)]
    assert found
    return found


def test_example_threshold_and_expectation_are_valid(tmp_path: Path) -> None:
    for number, text in enumerate(
        toml_examples(ROOT / "docs" / "guides" / "model.md", "[[threshold]]")
    ):
        (tmp_path / f"{number}.toml").write_text(text, encoding="utf-8")
        assert thresholds.load([tmp_path / f"{number}.toml"]).entries
    cases = [case.id for case in catalog.load().cases()]
    for text in toml_examples(ROOT / "docs" / "guides" / "machine.md", "[[expect]]"):
        path = tmp_path / "cuda.toml"
        path.write_text(text, encoding="utf-8")
        loaded = expectations.load([path])
        (entry,) = loaded.entries
        assert any(entry.covers(case, entry.check) for case in cases)


def test_examples_import_from_the_api_alone() -> None:
    texts = [read(path) for path in [ROOT / "docs" / "example_catalog.py", *EXAMPLES.glob("*.py")]]
    imports = [re.findall(r"^\s*(?:from|import) (compat[\w.]*)", text, re.M) for text in texts]
    assert {name for found in imports for name in found} == {"compat.api"}


def test_example_model_runs_on_the_example_runtime(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    done = call(
        *("-m", "pytest", "suites", "-q", "-p", "no:cacheprovider", "--quick", "--threads", "1"),
        *("--catalog", str(EXAMPLES / "level.py")),
        *("--catalog", str(EXAMPLES / "onnx_reference.py")),
        *("--models", "level", "--targets", "cpu-torch,cpu-onnx-reference", "--recipes", "fp32"),
        *("-k", "loads or numerics or stress", "--results", str(tmp_path / "results")),
        COMPAT_CACHE=str(tmp_path / "cache"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = results.read_all([tmp_path / "results"]).runs[0].observations
    assert [(one.status, one.level) for one in found] == [("passed", "strict")] * 6


def test_example_metric_computes() -> None:
    metric = load_file(EXAMPLES / "exact.py")
    assert metric.exact_match(["one", "two"], ["one", "too"]) == 0.5
    with pytest.raises(ValueError, match="one hypothesis per reference"):
        metric.exact_match([], [])
