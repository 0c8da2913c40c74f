"""A catalog of one case that does nothing, so that what remains is the suite's own cost.

Its runtime imports ONNX Runtime and compiles nothing; its model answers without running a graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compat.contract.case import Family, Target, Variant
from compat.contract.graph import Graph, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.contract.runtime import GraphRuntime, Options, Probe
from compat.contract.session import Placement, Session, TensorSession
from compat.inputs.corpus import Corpus
from compat.models.base import Model
from compat.models.items import Items
from compat.models.tasks.agreement import Agreement

FAMILY = Family(
    name="trivial",
    task="asr",
    row="Trivial",
    headline="trivial",
    variants=(Variant("trivial", ("seeded",)),),
)


class TrivialModel(Model):
    task = Agreement(scored=False)

    def graphs(self) -> tuple[Graph, ...]:
        inputs = {"audio": Tensor(("batch", 1))}
        return (Graph("graph", inputs, ("answer",), {"b1": {"batch": 1}}, lambda: None),)

    def content(self) -> str:
        return "trivial"

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        (test_set, *_) = corpus.sets.values()
        return Items(timed=test_set.items(self.sample_rate, 1))

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        return [{"tokens": [len(item.audio)]} for item in items]

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        raise NotImplementedError


def load(variant: str, weights: str, checkpoint: str) -> TrivialModel:
    return TrivialModel()


class TrivialSession(TensorSession):
    def upload(self, array: np.ndarray, graph: str) -> np.ndarray:
        return array

    def download(self, native: np.ndarray) -> np.ndarray:
        return native

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        return (inputs["audio"],)

    def placement(self) -> Placement:
        return Placement({"cpu": 1.0}, "cpu", "by definition")

    def executed(self) -> Mapping[str, str]:
        return {"graph": "fp32"}

    def model_bytes(self) -> int:
        return 0


class TrivialRuntime(GraphRuntime):
    name = "trivial-runtime"
    packages = ("onnxruntime",)
    modules = ("onnxruntime",)
    targets = (Target("trivial-cpu", "cpu", "trivial-runtime", "cpu", ("fp32",), on_host_cpu=True),)

    def probe(self, target: Target) -> Probe:
        return Probe("here")

    def compile(self, sources: object, target: Target, recipe: object, options: Options) -> Session:
        return TrivialSession({graph.name: graph for graph in TrivialModel().graphs()})


RUNTIME = TrivialRuntime()
