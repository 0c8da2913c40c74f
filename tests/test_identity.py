"""Names of derived files: they change with every module that takes part, and with no other."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compat import catalog
from compat.build import artifacts
from compat.build.artifacts import Artifact, ArtifactError
from compat.build.reference import Inputs
from compat.build.sources import sources
from compat.catalog import open_model
from compat.contract import digests
from compat.contract.cache import cache_folder
from compat.contract.case import Recipe
from compat.contract.model_reference import ModelReference
from compat.contract.runtime import Options
from compat.inputs.corpus import DEFAULT
from compat.runtimes.coreml.session import CoreMlSession
from compat.runtimes.openvino.session import OpenVinoSession
from compat.runtimes.qnn.session import QnnSession
from compat.runtimes.whisper.checkpoint import exported

NANO = ModelReference("whisper", "whisper-nano", "trained", "checkpoints/whisper-nano")
EXAMPLE = Path(__file__).resolve().parents[1] / "docs" / "example_catalog.py"


class Named(Exception):
    """An artifact was asked for; the message is its name."""


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Digests are kept for a process; here files change meanwhile."""
    caches = (digests.code_digest, digests.code_files, digests._file, digests._code)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give a module another file: a copy with something added."""

    def edited(module: str, added: str = "ADDED = 1") -> None:
        known = digests._file
        path = known(module)
        assert path is not None
        # A folder for it, so that a package stays one.
        copy = tmp_path / module / path.name
        copy.parent.mkdir()
        copy.write_text(f"{path.read_text(encoding='utf-8')}\n{added}\n", encoding="utf-8")
        monkeypatch.setattr(digests, "_file", lambda name: copy if name == module else known(name))
        digests.code_digest.cache_clear()
        digests.code_files.cache_clear()

    return edited


def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the name of one artifact of every kind, as sessions and protocols ask for it."""

    def refuse(artifact: Artifact) -> Path:
        raise Named(artifact.name)

    known = catalog.load()
    model: Any = open_model(NANO)
    opened = sources(NANO, model, 1)
    inputs = Inputs(NANO, str(DEFAULT), "quick", ())

    def open_session(kind: Any, target: str, recipe: str) -> Any:
        session = kind.__new__(kind)  # Opened without its runtime, which need not be installed.
        session.sources, session.recipe, session.options = opened, Recipe(recipe), Options(1)
        session.target = next(one for one in known.targets if one.name == target)
        session._packages = {}
        return session

    def openvino(recipe: str) -> object:
        return open_session(OpenVinoSession, "openvino-cpu", recipe)._path("decoder", "b1")

    def qnn(recipe: str) -> object:
        return open_session(QnnSession, "qualcomm-emulator", recipe)._file("decoder", "b1")

    def coreml(recipe: str) -> object:
        return open_session(CoreMlSession, "coreml-cpu", recipe)._open("decoder", "b1")

    asked: dict[str, Callable[[], object]] = {
        "export": lambda: opened["decoder"].onnx("b1"),
        "export-int8": lambda: opened["decoder"].onnx("b1", "int8-dynamic"),
        "openvino-compress": lambda: openvino("int8-weights"),
        "openvino-quantise": lambda: openvino("int8-a8w8"),
        "qnn-rewrite": lambda: qnn("fp16"),
        "qnn-quantise": lambda: qnn("int8-a16w8"),
        "coreml": lambda: coreml("fp16"),
        "coreml-int8": lambda: coreml("int8-linear"),
        "checkpoint": lambda: exported(opened["decoder"], model),
        "reference": inputs.fetch_reference,
        "oracle": lambda: inputs.fetch_oracle("int8-weights", "onnxruntime"),
        "own-oracle": lambda: inputs.fetch_oracle("int8-weights", "openvino"),
    }
    answers = {}
    with monkeypatch.context() as patch:
        patch.setattr(Artifact, "fetch", refuse)
        for kind, ask in asked.items():
            with pytest.raises(Named) as named:
                ask()
            answers[kind] = str(named.value)
    assert len(set(answers.values())) == len(answers)
    return answers


@pytest.fixture(scope="module")
def unchanged() -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        return names(patch)


EXPORTS = {"export", "export-int8"}
OPENVINO = {"openvino-compress", "openvino-quantise"}
QNN = {"qnn-rewrite", "qnn-quantise"}
COREML = {"coreml", "coreml-int8"}
REFERENCES = {"reference", "oracle", "own-oracle"}
ALL = EXPORTS | OPENVINO | QNN | COREML | REFERENCES | {"checkpoint"}


@pytest.mark.parametrize(
    ("module", "changed"),
    [
        # The exporter, and what opens sources for jobs. Core ML converts modules, not exports.
        ("compat.build.onnx", EXPORTS | OPENVINO | QNN),
        ("compat.build.sources", EXPORTS | OPENVINO | QNN | COREML),
        ("compat.build.onnx_schemes", EXPORTS | OPENVINO | QNN),
        ("compat.build.calibration", OPENVINO | QNN),
        ("compat.build.reference", REFERENCES),
        ("compat.build.oracles", {"oracle"}),
        ("compat.build.artifacts", ALL - {"checkpoint"}),
        ("compat.catalog", ALL),
        ("compat.runtimes.openvino.convert", OPENVINO),
        ("compat.runtimes.openvino.oracles", {"own-oracle"}),
        ("compat.runtimes.openvino", OPENVINO | {"own-oracle"}),
        ("compat.runtimes.qnn.convert", QNN),
        ("compat.runtimes.qnn.graph", QNN),
        ("compat.runtimes.coreml.convert", COREML),
        ("compat.runtimes.whisper.checkpoint", {"checkpoint"}),
        ("compat.models.whisper", ALL),
        ("compat.inputs.generator", ALL),
        ("compat.contract.graph", ALL),
        # Imported in a function of the module of the task.
        ("compat.metrics.wer", ALL),
        ("compat.metrics.diarization", set()),
        ("compat.models.wav2vec2", set()),
        ("compat.runtimes.openvino.session", set()),
        ("compat.runtimes.qnn.session", set()),
        ("compat.runtimes.ort", set()),
        ("compat.measure.protocol", set()),
        ("compat.run.run", set()),
        ("compat.judge.verdict", set()),
        ("compat.report.text", set()),
        ("compat.commands.main", set()),
    ],
)
def test_a_changed_module_renames_what_it_takes_part_in(
    unchanged: dict[str, str],
    edit: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    changed: set[str],
) -> None:
    edit(module)
    after = names(monkeypatch)
    assert {kind for kind in ALL if unchanged[kind] != after[kind]} == changed


def test_words_rename_nothing(
    unchanged: dict[str, str], edit: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit("compat.build.onnx", '# Said better.\n"""And here."""')
    assert names(monkeypatch) == unchanged


# Which modules count ---------------------------------------------------------------------------


def write(folder: Path, **modules: str) -> None:
    """Write modules, their names with two underscores for a dot."""
    for name, text in modules.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_a_package_counts_its_own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path,
        family_of_others__init="",
        family_of_others__jobs="""
import json
from typing import TYPE_CHECKING
import family_of_others.plain, numpy as np
from . import relative
from .below.deep import (
    thing,
)
from compat.contract.graph import Graph

if TYPE_CHECKING:
    from . import typed
else:
    from . import untyped


class Job:
    def run(self):
        try:
            match self:
                case None:
                    from family_of_others import inside
        except ImportError:
            from .rescue import thing
""",
        family_of_others__plain="from family_of_others import further",
        family_of_others__below__deep="from ..above import thing\nother = thing",
        **{
            f"family_of_others__{name}": "thing = 1"
            for name in ("relative", "typed", "untyped", "inside", "rescue", "further", "above")
        },
        family_of_others__stranger="thing = 1",
    )
    (tmp_path / "family_of_others" / "init.py").rename(
        tmp_path / "family_of_others" / "__init__.py"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    files = digests.code_files("family_of_others.jobs")
    assert "family_of_others.jobs" not in sys.modules, "found, and not imported"
    own = {name.partition(".")[2] for name in files if name.startswith("family_of_others")}
    counted = ("plain", "relative", "untyped", "inside", "rescue", "further", "above")
    assert own == {"", "jobs", "below.deep", *counted}
    assert {"compat", "compat.contract", "compat.contract.graph"} <= set(files)
    assert {name.partition(".")[0] for name in files} == {"family_of_others", "compat"}


def test_a_catalog_file_counts_itself_and_files_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "own_catalog.py"
    text = EXAMPLE.read_text(encoding="utf-8").replace(
        "class NumPy", "import beside_it\n\n\nclass NumPy"
    )
    write(tmp_path, beside_it="thing = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(catalog.ENVIRONMENT, str(file))
    answers = []
    for catalog_text, helper in ((text, 1), (text, 2), (f"{text}\nADDED = 1\n", 2)):
        file.write_text(catalog_text, encoding="utf-8")
        write(tmp_path, beside_it=f"thing = {helper}")
        for cached in (catalog.load, digests.code_digest, digests.code_files, digests._code):
            cached.cache_clear()
        reference = ModelReference("loudness", "loudness-2", "trained")
        module: Any = catalog.load().family_module("loudness")
        source = sources(reference, open_model(reference))["detector"]
        answers.append(source.derive(module.write_weights, {}, ()).name)
    catalog.load.cache_clear()
    assert len(set(answers)) == 3


def test_a_file_among_installed_packages_has_none_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site-packages"
    write(folder, single_file="import another_one", another_one="")
    monkeypatch.syspath_prepend(str(folder))
    assert set(digests.code_files("single_file")) == {"single_file"}


def test_a_digest_is_the_same_wherever_the_file_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, one_place="thing = 1", other_place="thing = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert digests.code_digest("one_place") == digests.code_digest("other_place")
    with pytest.raises(ModuleNotFoundError, match="no Python file of the module nowhere_at_all"):
        digests.code_digest("nowhere_at_all")


def test_names_from_a_list_of_names_count_where_they_are_defined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An author who imports from ``compat.api`` depends on what he names, and not on all of it."""
    write(
        tmp_path,
        of_an_author="from compat.api import Graph, Transcription",
        of_another="from listed_here import thing, other",
        listed_here='from further import thing\nfrom beyond import other\n__all__ = ["thing"]',
        further="from at_last import thing",
        beyond="from at_last import thing\nother = thing",
        at_last="thing = 1",
        of_all="import compat.api",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    named = set(digests.code_files("of_an_author"))
    assert {"compat.contract.graph", "compat.models.tasks.asr", "compat.metrics.wer"} <= named
    assert "compat.api" not in named and not named & {
        "compat.models.tasks.diarization",
        "compat.build.sources",
        "compat.metrics.verification",
    }
    assert set(digests.code_files("of_another")) == {"of_another", "beyond", "at_last"}
    assert {"compat.api", "compat.build.sources"} <= set(digests.code_files("of_all"))


def test_parsed_code_is_kept_and_never_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    answers = []
    for value, reads in ((1, True), (1, False), (2, True)):
        write(tmp_path, kept_module=f"thing = {value}")
        os.utime(tmp_path / "kept_module.py", (0, 0))  # Neither time nor size tells them apart.
        for cached in (digests.code_digest, digests._code):
            cached.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(digests, "_parsed", digests._Parsed())
            if not reads:
                patch.setattr(digests, "_parse", lambda *_: pytest.fail("it was parsed again"))
            answers.append(digests.code_digest("kept_module"))
    assert answers[0] == answers[1] != answers[2]
    (tmp_path / "cache" / "code.json").write_text("[1, 2", encoding="utf-8")
    digests.code_digest.cache_clear()
    digests._code.cache_clear()
    monkeypatch.setattr(digests, "_parsed", digests._Parsed())
    assert digests.code_digest("kept_module") == answers[2], "a torn file is made anew"


# What a job starts from ------------------------------------------------------------------------

JOBS = """
from compat.build.artifacts import Artifact


def first(folder, size):
    (folder / "data.txt").write_text("1" * size)


def second(folder, size):
    start = Artifact(first, {"size": size}).fetch()
    (folder / "data.txt").write_text((start / "data.txt").read_text())
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    write(tmp_path, jobs_that_follow=JOBS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COMPAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(artifacts._BUILDING, "1")
    monkeypatch.delitem(sys.modules, "jobs_that_follow", raising=False)
    return importlib.import_module("jobs_that_follow")


def test_a_job_starts_from_what_its_identity_names_alone(jobs: Any) -> None:
    first = Artifact(jobs.first, {"size": 3})
    unnamed = Artifact(jobs.second, {"size": 3}, packages=("numpy", "no-such-package"))
    with pytest.raises(ArtifactError, match=rf"second starts from {first.name}.*`made_from`"):
        unnamed.fetch()
    with pytest.raises(ArtifactError, match="made_from"):
        Artifact(jobs.second, {"size": 3}, made_from=[Artifact(jobs.first, {"size": 4})]).fetch()
    second = Artifact(jobs.second, {"size": 3}, (), {"model": "1f"}, [first])
    assert (second.fetch() / "data.txt").read_text() == "111"
    facts = json.loads((second.fetch() / "artifact.json").read_text(encoding="utf-8"))
    assert facts["made_from"] == [first.name] and facts["inputs"] == {"model": "1f"}
    assert facts["job"] == "jobs_that_follow:second" and len(facts["code"]) == 16
    assert unnamed.identity["packages"][1] == "no-such-package absent"
    assert {entry.folder.name for entry in artifacts.entries()} == {first.name, second.name}


def test_what_it_starts_from_is_part_of_its_name(jobs: Any) -> None:
    starts = [(), (Artifact(jobs.first, {"size": 3}),), (Artifact(jobs.first, {"size": 4}),)]
    assert len({Artifact(jobs.second, {}, made_from=start).name for start in starts}) == 3
    assert not [*cache_folder().glob("*-*")], "nothing is built"
