"""The layout of the package: its layers, what is gone, and what importing it does not load."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compat import catalog

ROOT = Path(__file__).resolve().parents[1]
COMPAT = ROOT / "compat"
HEAVY = {
    *("coremltools", "ctranslate2", "faster_whisper", "mlx", "nncf", "onnx", "onnxruntime"),
    *("onnxscript", "openvino", "plotly", "pyannote", "scipy", "torch", "torchao", "transformers"),
    *("jiwer", "whisper"),
}
MOVED = """
compat.artifacts compat.calibration compat.case compat.cli compat.client compat.corpus
compat.entries compat.environment compat.expectations compat.experiment compat.features
compat.findings compat.graph compat.measurement compat.mil compat.models.speaker
compat.models.transcription compat.nursery compat.occupancy compat.onnx_schemes compat.plugin
compat.privacy compat.probing compat.progress compat.protocol compat.protocol_request
compat.qnn_graph compat.rating compat.recommendations compat.recurrence compat.reference
compat.report.judge compat.rescoring compat.results compat.runtimes.base
compat.runtimes.ctranslate2 compat.runtimes.faster_whisper compat.runtimes.mlx
compat.runtimes.openai_whisper compat.runtimes.ort_web compat.selection compat.sources
compat.stress compat.thresholds compat.weights compat.worker compat.commands.cli
""".split()  # noqa: SIM905 (fifty words, not fifty lines)
"""Modules of earlier layouts, which would be second doors to what is elsewhere now."""
OUTCOMES = {"Finding", "StageFailure", "PageError", "Damaged", "_NotItsTasks", "_Unreadable"}
"""Exceptions that are no :class:`CompatError`, as none has a remedy that a person is told: how a
check or a stage ended, what a page said, what of a results file is none of what it should be."""


@pytest.mark.parametrize("name", MOVED)
def test_nothing_is_left_at_its_old_place(name: str) -> None:
    with pytest.raises(ImportError):
        importlib.import_module(name)


def test_the_root_stays_easy_to_survey() -> None:
    """A person sees at once which packages there are: a new module belongs into one of them."""
    names = [
        path.name
        for path in COMPAT.iterdir()
        if path.name != "__pycache__" and (path.is_dir() or path.suffix == ".py")
    ]
    assert len(names) <= 19, sorted(names)


def test_errors_are_of_one_kind() -> None:
    """Every exception of the package is a CompatError, but for the outcomes named above."""
    kinds = {"CompatError", *OUTCOMES}
    classes = {
        node.name: {ast.unparse(base) for base in node.bases}
        for file in COMPAT.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    builtin = {"Exception", "BaseException", "RuntimeError", "ValueError", "OSError", "TypeError"}
    strangers = {name for name, bases in classes.items() if bases & builtin} - kinds
    assert not strangers


@pytest.mark.parametrize(
    "program",
    [
        "import compat, compat.catalog; compat.catalog.load()",
        "import compat.api",
        "import compat.commands.main as main; main.command_parser()",
        "import os, sys, pytest; out, sys.stdout = sys.stdout, open(os.devnull, 'w'); "
        "status = pytest.main(['suites', '--collect-only', '-qq', '-p', 'no:cacheprovider']); "
        "sys.stdout = out; assert status == 0, status",
    ],
    ids=["catalog", "api", "command", "collection"],
)
def test_no_heavy_library_is_imported_before_a_worker(program: str) -> None:
    ask = f"{program}; import json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", ask],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("contract/case.py", "", ""),
        (
            "contract/case.py",
            "from compat.report import text",
            "compat.contract is not allowed to import compat.report",
        ),
        (
            "models/whisper.py",
            "from compat.build import sources",
            "compat.models is not allowed to import compat.build",
        ),
        (
            "report/model.py",
            "from compat.catalog import Catalog",
            "compat.report is not allowed to import compat.catalog",
        ),
        (
            "report/text.py",
            "from compat.measure import request",
            "compat.report is not allowed to import compat.measure",
        ),
        (
            "judge/verdict.py",
            "from compat.build import artifacts",
            "compat.judge is not allowed to import compat.build",
        ),
        (
            "run/selection.py",
            "from compat.measure import protocol",
            "compat.run is not allowed to import compat.measure",
        ),
        (
            "judge/results.py",
            "from compat.judge import verdict",
            "No cycles are allowed in compat.judge",
        ),
    ],
    ids=["as-it-is", "contract", "models", "report", "report-measure", "judge", "run", "circle"],
)
def test_an_upward_import_or_a_circle_breaks_the_layers(
    tmp_path: Path, file: str, line: str, said: str
) -> None:
    linter = shutil.which("lint-imports", path=f"{Path(sys.executable).parent}{os.pathsep}")
    assert linter is not None, "install the extra `test`"
    hidden = shutil.ignore_patterns("__pycache__", "node_modules", "browser*")
    shutil.copytree(COMPAT, tmp_path / "compat", ignore=hidden)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(COMPAT / "runtimes" / "web" / "browser.py", tmp_path / "compat/runtimes/web")
    planted = tmp_path / "compat" / file
    planted.write_text(f"{planted.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    done = subprocess.run(
        [linter, "--no-logo", "--no-cache"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode != 0) == bool(said), done.stdout + done.stderr
    assert said in done.stdout


# Words of single families and tasks -------------------------------------------------------------


def words_of_a_file(path: Path) -> str:
    """Return the names and strings in a file's code, without comments and docstrings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)
    words = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""
        words += [
            str(value)
            for field in ("id", "attr", "arg", "name", "module", "value")
            if isinstance(value := getattr(node, field, None), str)
        ]
    return "\n".join(words)


def special_words(root: Path) -> list[str]:
    """Return where a suite, a runtime, the protocol or the report names a family or a task."""
    families = catalog.load().families
    names = {family.name for family in families} | {family.task for family in families}
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, sorted(names)))})\b", re.IGNORECASE)
    folders = ("suites", "compat/runtimes", "compat/measure", "compat/report")
    files = [file for folder in folders for file in (root / folder).rglob("*.*")]
    return [
        f"{file.relative_to(root).as_posix()}: {word}"
        for file in files
        if file.suffix in {".py", ".js", ".mjs"}
        # A port of one family is what that folder is for.
        and not {"node_modules", "browser", "whisper", "assets"} & set(file.parts)
        for word in pattern.findall(words_of_a_file(file))
    ]


def test_no_shared_file_names_a_family_or_a_task(tmp_path: Path) -> None:
    assert not special_words(ROOT)
    (tmp_path / "suites").mkdir()
    planted = tmp_path / "suites" / "test_planted.py"
    planted.write_text('"""Of whisper."""\n\nLIMIT = 1 if task == "asr" else 2  # whisper\n')
    assert special_words(tmp_path) == ["suites/test_planted.py: asr"]
