"""A recipe that finds nothing to quantise says so, and never passes as what it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from types import SimpleNamespace
from typing import Any

import pytest
import toy_convolutions as toy

from compat import catalog
from compat.build.sources import GraphSource
from compat.contract.case import Recipe
from compat.contract.graph import Graph
from compat.contract.model_reference import ModelReference
from compat.contract.named import module_of, resolve
from compat.contract.precision import precision_of
from compat.contract.runtime import Options
from compat.contract.session import Session, Unsupported
from compat.inputs import corpus
from compat.measure.case_under_test import CaseUnderTest
from compat.measure.request import CaseRequest

REFERENCE = ModelReference("toy-convolutions", "toy-both", "seeded", "")

NOTHING = [
    ("cpu-torch", "int8-dynamic"),
    ("cpu-torch", "int8-weights"),
    ("cpu-torchao", "int8-weights"),
    ("cpu-bitsandbytes", "int8-dynamic"),
    ("cpu-onnxruntime", "int8-dynamic"),
    ("cpu-onnxruntime", "int8-weights"),
    ("cpu-onnxruntime", "int4-weights"),
    ("openvino-cpu", "int8-dynamic"),
]
"""Recipes for products of matrices alone."""
SOMETHING = [
    ("openvino-cpu", "int8-weights"),
    ("openvino-cpu", "int4-weights"),
    ("coreml-conversion", "int8-linear"),
]
"""Recipes that take convolutions, too."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Graph, str], Path]:
    """Return a function that makes the files of a graph as the builders do, each once."""
    from compat.build.schemes import float_module
    from compat.build.sources import OPSET, example_tensors

    root = tmp_path_factory.mktemp("files")
    one_at_a_time = RLock()

    def file(graph: Graph, scheme: str) -> Path:
        with one_at_a_time:
            folder = root / f"{graph.name}-{scheme}"
            return folder / "model.onnx" if folder.exists() else made(folder, graph, scheme)

    def made(folder: Path, graph: Graph, scheme: str) -> Path:
        import torch

        folder.mkdir()
        if scheme != "fp32":
            from compat.build.onnx_schemes import SCHEMES

            SCHEMES[scheme](file(graph, "fp32"), folder / "model.onnx")
            return folder / "model.onnx"
        program = torch.onnx.export(
            *(float_module(graph), example_tensors(graph, "b1")),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(str(folder / "model.onnx"))
        return folder / "model.onnx"

    return file


def source_of(
    graph: Graph, files: Callable[[Graph, str], Path], monkeypatch: pytest.MonkeyPatch
) -> GraphSource:
    """Return a source whose derived files are made here, by the jobs themselves."""

    class Here(GraphSource):
        def onnx(self, point: str, scheme: str = "fp32", forms: tuple[str, ...] = ()) -> Path:
            return files(self.graph, scheme)

        def exported(self, *arguments: Any) -> Any:
            return None

        def derive(self, job: Any, arguments: Any, *others: Any, **options: Any) -> Any:
            words = "-".join(map(str, arguments.values()))
            folder = files(self.graph, "fp32").parent.with_name(f"{self.graph.name}-{words}")
            named = job if isinstance(job, str) else f"{job.__module__}:{job.__name__}"
            module = import_module(module_of(named))

            def fetch() -> Path:
                if not folder.exists():
                    folder.mkdir()
                    monkeypatch.setattr(module, "open_source", lambda *_: self)
                    resolve(named)(folder, REFERENCE.arguments(), self.graph.name, **arguments)
                return folder

            return SimpleNamespace(fetch=fetch)

    return Here(REFERENCE, graph, "")


@pytest.fixture
def compiled(
    files: Callable[[Graph, str], Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], Session]]:
    """Return a function that compiles both graphs of the toy."""
    monkeypatch.setenv("COMPAT_CATALOG", toy.__file__)
    catalog.load.cache_clear()
    loaded = catalog.load()

    def compile(target_name: str, recipe: str) -> Session:
        target = next(one for one in loaded.targets if one.name == target_name)
        runtime = loaded.runtime(target.runtime)
        found = runtime.probe(target)
        if found.state != "here":
            pytest.skip(f"{found.reason} ({found.remedy})")
        graphs = toy.Bands(both=True).graphs()
        sources = {one.name: source_of(one, files, monkeypatch) for one in graphs}
        return runtime.compile(sources, target, Recipe(recipe), Options(1))

    yield compile
    catalog.load.cache_clear()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("target", "recipe"), NOTHING)
def test_convolutions_are_left_as_they_were(
    compiled: Callable[[str, str], Session], target: str, recipe: str
) -> None:
    session = compiled(target, recipe)
    assert list(session.unquantised()) == ["bands"]
    toy.Bands(both=True).run(session, corpus.load().sets["clean"].items(16_000, 1), toy.Stopwatch())
    executed = {name: precision_of(one).quantised for name, one in session.executed().items()}
    assert executed["head"] and (target.startswith("openvino") or not executed["bands"])
    session.close()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("target", "recipe"), SOMETHING)
def test_convolutions_are_quantised(
    compiled: Callable[[str, str], Session], target: str, recipe: str
) -> None:
    session = compiled(target, recipe)
    assert not session.unquantised()
    session.close()


@pytest.mark.parametrize("target", ["cpu-torch", "cpu-onnxruntime", "openvino-cpu"])
def test_floats_have_nothing_to_do_with_it(
    compiled: Callable[[str, str], Session], target: str
) -> None:
    session = compiled(target, "fp32")
    assert not session.unquantised()
    session.close()


@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="ONNX Runtime is not installed")
def test_pages_and_npus_read_the_same_file(files: Callable[[Graph, str], Path]) -> None:
    from compat.runtimes.ort import leaves_floats

    bands, head = toy.Bands(both=True).graphs()
    for scheme in ("int8-dynamic", "int8-weights", "int4-weights"):
        assert leaves_floats(files(bands, scheme), scheme)
        assert not leaves_floats(files(head, scheme), scheme)
    assert not leaves_floats(files(bands, "fp32"), "fp32")


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("COMPAT_CATALOG", toy.__file__)
    catalog.load.cache_clear()
    yield
    catalog.load.cache_clear()


def case(variant: str, recipe: str) -> CaseUnderTest:
    request = CaseRequest(f"{variant}@seeded/cpu-torch/{recipe}", corpus=str(corpus.DEFAULT))
    return CaseUnderTest(asdict(request))


def test_a_case_with_nothing_to_quantise_is_unsupported(toys: None) -> None:
    with pytest.raises(
        Unsupported, match="nothing to quantise: bands has no weights that int8-dyn"
    ):
        _ = case("toy-bands", "int8-dynamic").first_run
    assert case("toy-bands", "fp32").first_run["notes"] == {}


def test_a_case_with_something_to_quantise_says_what_was_left(toys: None) -> None:
    loaded = case("toy-both", "int8-dynamic").first_run
    assert loaded["executed"] == {"bands": "fp32", "head": "int8-dynamic"}
    assert loaded["notes"] == {"nothing to quantise": "bands"}
    # Asked of the convolutions alone, it is nothing again.
    with pytest.raises(Unsupported, match="nothing to quantise: bands"):
        _ = case("toy-both", "fp32+int8-dynamic-bands").first_run
