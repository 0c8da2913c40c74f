"""An out-of-tree catalog for the tests: a tiny model, and runtimes that each have one defect.

``toy`` is a sequence tagger of a few thousand parameters in the form of a speech recogniser: an
encoder graph, and an autoregressive step graph with a cache that is written at a position and a
recurrent state that is replaced. The runtimes wrap the real sessions of PyTorch and ONNX Runtime
(``faulty-…``, wrong answers) or compute nothing at all (``breaking-…``, dying processes).

Loaded with ``pytest --catalog tests/faulty_catalog.py``.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compat.build.schemes import apply_scheme
from compat.build.sources import GraphSource
from compat.build.torch_session import TorchSession
from compat.contract.case import Family, Recipe, Target, Variant
from compat.contract.graph import Graph, State, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.contract.runtime import GraphRuntime, Options, Probe
from compat.contract.session import Placement, Session, Steps, TensorSession
from compat.contract.source import Derived
from compat.inputs import generator
from compat.inputs import weights as checkpoints
from compat.inputs.corpus import Corpus, TestSet
from compat.metrics import NO_WORSE_SHARE, Metric
from compat.models.base import Model
from compat.models.items import Items
from compat.models.tasks.base import Task
from compat.runtimes.ort import PROVIDERS, OrtSession, Provider

if TYPE_CHECKING:
    import torch

sys.path.append(str(Path(__file__).parent))

# The model -------------------------------------------------------------------------------------

BANDS, FRAMES, WIDTH, WORDS, POSITIONS = 16, 100, 32, 12, 16
HOP = 320
WINDOW = FRAMES * HOP
TOKENS = 6
BATCHES = (1, 2)
LARGE_BATCHES = (4, 8, 16)
SIZES = (*BATCHES, *LARGE_BATCHES)
START = 1

FAMILY = Family(
    name="toy",
    task="tagging",
    row="Toy",
    headline="toy",
    variants=(
        Variant("toy", ("pretrained", "seeded"), core=True, parameters=0.01, checkpoint="toy/toy"),
        Variant("toy-stand-in", ("trained",), published=False, core=True, parameters=0.01),
    ),
)

SHAPES: Mapping[str, tuple[int, ...]] = {
    "embed.weight": (WORDS, WIDTH),
    **{
        f"{name}.{kind}": shape
        for name, (outputs, inputs) in {
            "enter": (WIDTH, BANDS),
            "middle": (WIDTH, WIDTH),
            "recur": (WIDTH, 2 * WIDTH),
            "query": (WIDTH, WIDTH),
            "key": (WIDTH, WIDTH),
            "value": (WIDTH, WIDTH),
            "cross": (WIDTH, WIDTH),
            "head": (WORDS, WIDTH),
        }.items()
        for kind, shape in (("weight", (outputs, inputs)), ("bias", (outputs,)))
    },
    "norm.weight": (WIDTH,),
    "norm.bias": (WIDTH,),
}
GAINS = generator.gains({"enter": 2.0, "recur": 1.5, "cross": 3.0, "query": 2.0, "head": 2.0})


def parameters() -> dict[str, np.ndarray]:
    """Return every parameter by name, from the project's generator."""
    values = {n: generator.seeded_tensor(n, s, GAINS(n) or 1.0) for n, s in SHAPES.items()}
    return {**values, "norm.weight": np.ones(WIDTH, np.float32)}


def write_checkpoint(folder: Path) -> Path:
    """Write the weights as a checkpoint folder, so that a case can be ``pretrained``."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "toy"}), encoding="utf-8")
    save_file(parameters(), folder / "model.safetensors")
    return folder


def load(variant: str, weights: str, checkpoint: str) -> ToyModel:
    """Load a variant: from a checkpoint folder where one is named, else from the generator."""
    return ToyModel(Path(checkpoint) if weights == "pretrained" else None, weights)


class ToyModel(Model):
    """Six tokens for each window of two seconds."""

    def __init__(self, folder: Path | None, weights: str) -> None:
        self.folder = folder
        self.weights = weights
        if folder:
            checkpoints.checkpoint_files(folder)

    def content(self) -> Any:
        content = checkpoints.checkpoint_fingerprint(self.folder) if self.folder else ""
        return [content, self.weights]

    def graphs(self) -> tuple[Graph, ...]:
        points = {f"b{batch}": {"batch": batch} for batch in SIZES}
        past = State(("batch", POSITIONS, WIDTH), update="write", axis=1)
        return (
            Graph(
                "encoder",
                {"features": Tensor(("batch", FRAMES, BANDS))},
                ("hidden", "level"),
                points,
                lambda: encoder_module(self.network),
                scalar="level",
                large_batches=LARGE_BATCHES,
            ),
            Graph(
                "decoder",
                {
                    "token": Tensor(("batch",), "int32"),
                    "position": Tensor((1,), "int32"),
                    "hidden": Tensor(("batch", FRAMES, WIDTH)),
                },
                ("next_token", "logits"),
                points,
                lambda: decoder_module(self.network),
                {"keys": past, "values": past, "carry": State(("batch", 1, WIDTH))},
                large_batches=LARGE_BATCHES,
            ),
        )

    @cached_property
    def network(self) -> torch.nn.ModuleDict:
        import torch
        from safetensors.numpy import load_file

        network = torch.nn.ModuleDict(
            {
                "embed": torch.nn.Embedding(WORDS, WIDTH),
                "norm": torch.nn.LayerNorm(WIDTH),
                **{
                    name.removesuffix(".weight"): torch.nn.Linear(shape[1], shape[0])
                    for name, shape in SHAPES.items()
                    if len(shape) == 2 and not name.startswith("embed")
                },
            }
        )
        found = load_file(self.folder / "model.safetensors") if self.folder else parameters()
        network.load_state_dict({name: torch.from_numpy(value) for name, value in found.items()})
        return network

    @property
    def task(self) -> Task:  # type: ignore[override]
        return Tagging()

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        test_set = next(iter(corpus.choose(("clean",)).values()))
        chosen = self.task.recordings(test_set, self.sample_rate, profile)
        if self.weights == "seeded":
            return Items({}, chosen[:6], chosen[:6])
        return Items({"clean": chosen}, chosen[:6], chosen[:4])

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        batch = next((size for size in SIZES if size >= len(items)), SIZES[-1])
        windows = [
            (index, item.audio[start : start + WINDOW])
            for index, item in enumerate(items)
            for start in range(0, max(1, len(item.audio)), WINDOW)
        ]
        tokens: list[list[int]] = [[] for _ in items]
        levels = [0.0] * len(items)
        for start in range(0, len(windows), batch):
            part = windows[start : start + batch]
            with stopwatch("features"):
                features = np.zeros((batch, FRAMES, BANDS), np.float32)
                for row, (_, samples) in enumerate(part):
                    features[row] = band_energies(samples)
            with stopwatch("encoder"):
                encoded = session.run("encoder", {"features": features}, f"b{batch}")
                session.synchronize()
            with stopwatch("decoder"):
                generated = session.steps(
                    "decoder",
                    {**encoded, "token": np.full(batch, START, np.int32)},
                    f"b{batch}",
                    TOKENS,
                    along={"position": np.arange(TOKENS, dtype=np.int32)[:, None]},
                    carry={"token": "next_token"},
                    fetch=("next_token",),
                ).outputs["next_token"]
            level = encoded["level"].numpy()
            for row, (index, _) in enumerate(part):
                tokens[index] += [int(token) for token in generated[:, row]]
                levels[index] += float(level[row])
        return [{"tokens": t, "level": v} for t, v in zip(tokens, levels, strict=True)]

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        features = band_energies(item.audio[:WINDOW])[None]
        encoded = session.run("encoder", {"features": features}, "b1")
        hidden = encoded["hidden"].numpy()[0].copy()
        forced = np.array([START, *guide["tokens"][: TOKENS - 1]], np.int32)[:, None]
        along = {"token": forced, "position": np.arange(len(forced), dtype=np.int32)[:, None]}
        steps = session.steps("decoder", encoded, "b1", len(forced), along=along, fetch=("logits",))
        return {"encoder": hidden, "logits": steps.outputs["logits"][:, 0]}


@dataclass(frozen=True)
class Tagging(Task):
    """Tokens for each window, held against the reference's."""

    name: ClassVar[str] = "tagging"
    fact: ClassVar[str] = ""
    counted: ClassVar[tuple[str, ...]] = ("tokens",)
    truths: ClassVar[tuple[str, ...]] = ("text",)
    sets: ClassVar[tuple[str, ...]] = ("clean",)
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("degradation", "share", "lower", primary=True),
        NO_WORSE_SHARE,
    )

    def recordings(self, test_set: TestSet, rate: int, profile: Profile) -> Sequence[Item]:
        return test_set.items(rate, profile.pick(12, 24, 24))

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        wrong = [different(p, r) for p, r in zip(predictions, references, strict=True)]
        total = sum(len(reference["tokens"]) for reference in references)
        return {
            "degradation": sum(wrong) / total,
            "no_worse_share": sum(not count for count in wrong) / len(wrong),
        }

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        return {"errors": float(different(prediction, reference)), "reference": 0.0}


def different(prediction: Prediction, reference: Prediction) -> int:
    """Count the tokens that differ, those that are missing or too many included."""
    ours, theirs = prediction["tokens"], reference["tokens"]
    return abs(len(ours) - len(theirs)) + sum(a != b for a, b in zip(ours, theirs, strict=False))


def band_energies(samples: np.ndarray) -> np.ndarray:
    """Return log energies (frames, bands), float32, of at most one window of audio."""
    padded = np.zeros(WINDOW, np.float32)
    padded[: len(samples)] = samples
    spectrum = np.abs(np.fft.rfft(padded.reshape(FRAMES, HOP), axis=1)[:, : BANDS * 10]) ** 2
    bands = spectrum.reshape(FRAMES, BANDS, 10).mean(axis=2)
    return (np.log10(np.maximum(bands, 1e-6)) / 4.0 + 0.5).astype(np.float32)


def encoder_module(network: Any) -> torch.nn.Module:
    """Map features (batch, frames, bands) to hidden (batch, frames, width) and level (batch,)."""
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.middle, self.norm = network.enter, network.middle, network.norm

        def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
            entered = self.enter(features)
            hidden = self.norm(entered + self.middle(torch.nn.functional.gelu(entered)))
            return hidden, hidden.abs().mean(dim=(1, 2))

    return Encoder()


def decoder_module(network: Any) -> torch.nn.Module:
    """Return one step: attention over its own past and over the encoder, and a recurrent state."""
    import torch

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("embed", "recur", "query", "key", "value", "cross", "head"):
                setattr(self, name, getattr(network, name))
            self.register_buffer("positions", torch.arange(POSITIONS, dtype=torch.int32))

        def forward(
            self,
            token: torch.Tensor,
            position: torch.Tensor,
            hidden: torch.Tensor,
            keys: torch.Tensor,
            values: torch.Tensor,
            carry: torch.Tensor,
        ) -> tuple[torch.Tensor, ...]:
            # Of rank 3 throughout, so that exporters make MatMul, which int8 schemes look for.
            entered = torch.cat((self.embed(token).unsqueeze(1), carry), dim=2)
            carried = torch.tanh(self.recur(entered))
            query, key, value = self.query(carried), self.key(carried), self.value(carried)
            mask = torch.where(self.positions < position, 0.0, -1e4).to(query.dtype)
            before = query @ keys.transpose(1, 2) / 6 + mask
            now = query @ key.transpose(1, 2) / 6
            share = torch.cat((before, now), dim=2).softmax(dim=2)
            own = share[..., :-1] @ values + share[..., -1:] * value
            heard = (query @ hidden.transpose(1, 2) / 6).softmax(dim=2) @ hidden
            logits = self.head(own + self.cross(heard))[:, 0]
            return logits.argmax(dim=1).to(torch.int32), logits, key, value, carried

    return Step()


# Wrong answers ---------------------------------------------------------------------------------


class IgnoresInput(TorchSession):
    """Answers every input as it answered the first."""

    first: Any = None

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        if graph == "encoder":
            inputs = {"features": inputs["features"] * 0 + 0.25}
        return super().execute(graph, point, inputs)


class RanOnProcessor(TorchSession):
    """Was to run on another device, and computed everything on the host's processor."""

    def placement(self) -> Placement:
        return Placement({"cpu": 1.0}, "gpu", "device of every tensor")


class HonestBfloat16(TorchSession):
    """Executes bfloat16 whatever is asked for, and says so."""


class LyingBfloat16(TorchSession):
    """Executes bfloat16 whatever is asked for, and reports what was asked for."""

    def executed(self) -> Mapping[str, str]:
        return dict.fromkeys(self._seen, "fp32")


class SometimesNaN(TorchSession):
    """Gives NaN for silence and every tenth utterance; ``graph`` is where it happens."""

    graph = "encoder"
    utterances = 4
    silent = False

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        if graph == "encoder":
            self.utterances += 1
            self.silent = bool((inputs["features"] == inputs["features"].flatten()[0]).all())
        outputs = super().execute(graph, point, inputs)
        # How many utterances there were before a stress input depends on how fast the machine is.
        if graph == self.graph and (self.silent or self.utterances % 10 == 0):
            return tuple(o * float("nan") if o.is_floating_point() else o * 0 for o in outputs)
        return outputs


class SometimesNaNInDecoder(SometimesNaN):
    """As above in the decoder alone, where choosing the largest logit hides it."""

    graph = "decoder"


class Truncates(TorchSession):
    """Returns one frame less than it computed."""

    def download(self, native: torch.Tensor) -> np.ndarray:
        array = super().download(native)
        return array[:, :-1] if array.ndim == 3 else array


class StopsEarly(TorchSession):
    """Ends every autoregressive decoding two tokens too early."""

    def steps(self, graph: str, feeds: Any, point: str, count: int, **options: Any) -> Steps:
        fewer = 2 if options.get("carry") else 0
        return super().steps(graph, feeds, point, count - fewer, **options)


class KeepsState(TorchSession):
    """Resets no state: each utterance starts with what the one before left."""

    def reset(self, graph: str, point: str) -> None:
        pass


class OutOfMemoryInLargeBatches(TorchSession):
    """Has memory for the usual batches alone."""

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        if self.graphs[graph].points[point]["batch"] in LARGE_BATCHES:
            raise MemoryError(f"failed to allocate memory for {graph} at {point}")
        return super().execute(graph, point, inputs)


class Slow(TorchSession):
    """Computes rightly but takes 4 ms for each graph, as a device that is worth measuring does."""

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        time.sleep(0.004)
        return super().execute(graph, point, inputs)


class UnseenFallback(Slow):
    """Computes everything on the host's processor, and says that it does so elsewhere."""

    def placement(self) -> Placement:
        return Placement({"gpu": 1.0}, "gpu", "what the driver says")


ELSEWHERE = "DmlExecutionProvider" if sys.platform != "win32" else "CoreMLExecutionProvider"
"""A provider that no build of ONNX Runtime for this system has: it falls back to the CPU."""


class Memoises(Slow):
    """Computes each distinct input once and answers from memory afterwards."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.memory: dict[Any, Sequence[Any]] = {}

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        key = (graph, point, *(value.numpy().tobytes() for value in inputs.values()))
        if key not in self.memory:
            self.memory[key] = super().execute(graph, point, inputs)
        return tuple(output.clone() for output in self.memory[key])


class MemoisesSlowly(Memoises):
    """Takes longer for an input that it has not seen than a few rounds may take together.

    That is half a second, and even the shortest input goes through seven graphs.
    """

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        known = len(self.memory)
        outputs = super().execute(graph, point, inputs)
        if len(self.memory) > known:
            time.sleep(0.08)
        return outputs


class DoesNotWait(Slow):
    """Queues its work on a thread; its ``synchronize`` returns at once."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.queue = ThreadPoolExecutor(1)

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        work = super().execute
        count = len(self.graphs[graph].outputs) + len(self.graphs[graph].state)

        def compute() -> Sequence[Any]:
            return work(graph, point, {name: _value(given) for name, given in inputs.items()})

        done = self.queue.submit(compute)
        return [_Part(done, index) for index in range(count)]

    def write(self, state: State, buffer: Any, value: Any, position: int) -> Any:
        work = super().write
        return _Part(
            self.queue.submit(lambda: [work(state, _value(buffer), _value(value), position)]), 0
        )

    def download(self, native: Any) -> np.ndarray:
        return super().download(_value(native))

    def synchronize(self) -> None:
        pass


class _Part:
    """One output of work that may not be done yet."""

    def __init__(self, done: Future[Sequence[Any]], index: int) -> None:
        self.done, self.index = done, index

    def value(self) -> Any:
        return self.done.result()[self.index]


def _value(given: Any) -> Any:
    return given.value() if isinstance(given, _Part) else given


class Waits(DoesNotWait):
    """Queues its work on a thread too, and waits for it when asked to: nothing is wrong here."""

    def synchronize(self) -> None:
        self.queue.submit(lambda: None).result()


class SpoiltSource(GraphSource):
    """Gives a decoder that a job of this module makes in place of the honest one."""

    def onnx(self, point: str, scheme: str = "fp32", forms: Sequence[str] = ("onnx",)) -> Path:
        if self.graph.name != "decoder":
            return super().onnx(point, scheme)
        return self.spoilt(point, scheme).fetch() / "model.onnx"

    def spoilt(self, point: str, scheme: str) -> Derived:
        raise NotImplementedError


class AliasedInputs(SpoiltSource):
    """Its export was given one tensor object for two inputs."""

    def spoilt(self, point: str, scheme: str) -> Derived:
        packages = ("torch", "onnx", "onnxscript")
        return self.derive(export_aliased, {"point": point, "scheme": scheme}, packages)


class BrokenLayer(SpoiltSource):
    """The scales of one layer of its int8 artifact are off by a quarter."""

    def spoilt(self, point: str, scheme: str) -> Derived:
        arguments = {"point": point, "scheme": scheme}
        return self.derive(break_layer, arguments, ("onnx",), [self.exported(point, scheme)])


def export_aliased(
    folder: Path, reference: Mapping[str, str], graph: str, point: str, scheme: str
) -> None:
    """Job: export with the same example for every state that has one shape."""
    from compat.build import onnx as onnx_schemes

    honest = onnx_schemes.example_tensors

    def aliased(spec: Graph, at: str) -> tuple[torch.Tensor, ...]:
        examples = list(honest(spec, at))
        names = [*spec.inputs, *spec.state]
        if "values" in names:
            examples[names.index("values")] = examples[names.index("keys")]
        return tuple(examples)

    assert scheme == "fp32"
    onnx_schemes.example_tensors = aliased
    onnx_schemes.export(folder, reference, graph, point)


def break_layer(
    folder: Path, reference: Mapping[str, str], graph: str, point: str, scheme: str
) -> None:
    """Job: take the good int8 artifact and spoil the scales of its first quantised matrix."""
    import onnx

    from compat.build.sources import open_source

    model = onnx.load(open_source(reference, graph).onnx(point, scheme))
    scale = next(one for one in model.graph.initializer if one.name.endswith("_scale"))
    spoilt = onnx.numpy_helper.to_array(scale) * np.float32(1.25)
    scale.CopyFrom(onnx.numpy_helper.from_array(spoilt.astype(np.float32), scale.name))
    onnx.save(model, folder / "model.onnx")


class Faulty(GraphRuntime):
    """One target for each defect, and sound ones beside them."""

    name = "faulty"
    packages = ("torch", "onnxruntime")
    modules = ("torch",)
    in_torch: Mapping[str, type[TorchSession]] = {
        "faulty-ignores-input": IgnoresInput,
        "faulty-on-processor": RanOnProcessor,
        "faulty-unseen-fallback": UnseenFallback,
        "faulty-honest-bf16": HonestBfloat16,
        "faulty-lying-bf16": LyingBfloat16,
        "faulty-nan": SometimesNaN,
        "faulty-nan-decoder": SometimesNaNInDecoder,
        "faulty-truncates": Truncates,
        "faulty-stops-early": StopsEarly,
        "faulty-keeps-state": KeepsState,
        "faulty-memoises": Memoises,
        "memoises-slowly": MemoisesSlowly,
        "faulty-does-not-wait": DoesNotWait,
        "breaking-large-batches": OutOfMemoryInLargeBatches,
        "sound-slow": Slow,
        "sound-queue": Waits,
        **{f"sound-torch-{number}": TorchSession for number in range(1, 6)},
    }
    in_onnx: Mapping[str, type[GraphSource]] = {
        "faulty-aliased": AliasedInputs,
        "faulty-broken-layer": BrokenLayer,
        "faulty-fell-back": GraphSource,
        "sound-accelerator": GraphSource,
        **{f"sound-onnx-{number}": GraphSource for number in range(1, 6)},
    }
    targets = tuple(
        Target(
            name,
            "webgpu" if elsewhere else "cpu",
            "faulty",
            "gpu" if elsewhere else "cpu",
            ("int8-dynamic",) if name == "faulty-broken-layer" else ("fp32",),
            on_host_cpu=not elsewhere,
        )
        for name in (*in_torch, *in_onnx)
        for elsewhere in [name.endswith(("on-processor", "fallback", "fell-back", "accelerator"))]
    )

    def probe(self, target: Target) -> Probe:
        return Probe("here")

    def compile(
        self, sources: Mapping[str, GraphSource], target: Target, recipe: Recipe, options: Options
    ) -> Session:
        if target.name in self.in_onnx:
            kind = self.in_onnx[target.name]
            spoilt = {
                name: kind(source.reference, source.graph, source.fingerprint, source.threads)
                for name, source in sources.items()
            }
            provider = PROVIDERS["cpu-onnxruntime"]
            if target.name == "faulty-fell-back":
                provider = Provider(ELSEWHERE, "cpu", target.recipes, "")
            return OrtSession(spoilt, provider, recipe, options)
        import torch

        torch.set_num_threads(options.threads)
        session = self.in_torch[target.name]
        lowered = session in (HonestBfloat16, LyingBfloat16)
        device = torch.device("cpu")
        schemes = {name: "bf16" if lowered else recipe.for_graph(name) for name in sources}
        modules = {
            name: apply_scheme(source.module(), schemes[name], device)
            for name, source in sources.items()
        }
        return session({n: s.graph for n, s in sources.items()}, modules, schemes, device)


# Dying processes -------------------------------------------------------------------------------


class Nothing(TensorSession):
    """Returns zeros of the right shapes; imports nothing but NumPy. ``happen`` is the fault."""

    def __init__(self, graphs: Mapping[str, Graph], happen: Callable[[str], None]) -> None:
        super().__init__(graphs)
        self.happen = happen

    def upload(self, array: np.ndarray, graph: str) -> np.ndarray:
        return array

    def download(self, native: np.ndarray) -> np.ndarray:
        return native

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        self.happen("execute")
        batch = self.graphs[graph].points[point]["batch"]
        if graph == "encoder":
            return np.zeros((batch, FRAMES, WIDTH), np.float32), np.zeros(batch, np.float32)
        slice_ = np.zeros((batch, 1, WIDTH), np.float32)
        token, logits = np.zeros(batch, np.int32), np.zeros((batch, WORDS), np.float32)
        return token, logits, slice_, slice_, slice_

    def write(self, state: State, buffer: Any, value: Any, position: int) -> Any:
        return buffer

    def placement(self) -> Placement:
        self.happen("placement")
        return Placement({"cpu": 1.0}, "cpu", "there is nothing else")

    def executed(self) -> Mapping[str, str]:
        return dict.fromkeys(self.graphs, "fp32")

    def model_bytes(self) -> int:
        self.happen("model_bytes")
        return 0


def segmentation_fault(when: str) -> None:
    if when == "placement":
        ctypes.string_at(0)


def abort(when: str) -> None:
    if when == "placement":
        print("the driver lost its device", flush=True)
        os.abort()


def hang(when: str) -> None:
    if when == "placement":
        while True:
            time.sleep(1.0)


def hang_in_library(when: str) -> None:
    """Hang inside a library call that keeps the interpreter's lock."""
    if when == "placement":
        ctypes.PyDLL(None).sleep(600)


def exhaust(when: str) -> None:
    if when == "placement":
        held = []
        while True:
            held.append(np.ones(1 << 24, np.uint8))
            time.sleep(0.01)


def fail_to_allocate(when: str) -> None:
    if when == "placement":
        raise MemoryError("failed to allocate memory for 40 GiB")


def chatter(when: str) -> None:
    """Print what vendor libraries print, some of it past Python's own standard output."""
    print('{"id": 1, "ok": true, "value": "forged"}', flush=True)
    os.write(1, f"\x00\xff {when} \n{{".encode("latin-1"))
    sys.stdout.write("no newline at the end")


def die_later(when: str) -> None:
    """Die when nothing is asked, as after a fault that a driver reports late."""
    if when == "model_bytes":
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGBUS)).start()


def fail(when: str) -> None:
    if when == "placement":
        raise ValueError("no kernel for operator Frobnicate")


def detach(when: str) -> None:
    """Have a helper work for 0.8 s whose own parent is gone."""
    if when == "placement":
        work = "import time\nwhile time.process_time() < 0.8: sum(range(1000))"
        start = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]])"
        # The pipe is closed when the helper has ended.
        subprocess.run([sys.executable, "-c", start, work], check=True, capture_output=True)


def nothing(when: str) -> None:
    pass


class Breaking(GraphRuntime):
    """One target for each way in which a process can fail."""

    name = "breaking"
    packages = ()
    faults: Mapping[str, Callable[[str], None]] = {
        "sound-nothing": nothing,
        "detaching-nothing": detach,
        "breaking-segfault": segmentation_fault,
        "breaking-abort": abort,
        "breaking-hang": hang,
        "breaking-hang-in-library": hang_in_library,
        "breaking-memory": exhaust,
        "breaking-allocation": fail_to_allocate,
        "breaking-chatter": chatter,
        "breaking-later": die_later,
        "breaking-exception": fail,
    }
    targets = tuple(Target(name, "webgpu", "breaking", "gpu", ("fp32",)) for name in faults)

    def probe(self, target: Target) -> Probe:
        return Probe("here")

    def compile(
        self,
        sources: Mapping[str, GraphSource],
        target: Target,
        recipe: Recipe,
        options: Options,
    ) -> Session:
        graphs = {name: source.graph for name, source in sources.items()}
        return Nothing(graphs, self.faults[target.name])


class SlowImport(Breaking):
    """Sound, but its package takes a second to be imported."""

    name = "slow"
    modules = ("slow_import",)
    faults: Mapping[str, Callable[[str], None]] = {"slow-import": nothing}
    targets = (Target("slow-import", "cpu", "slow", "cpu", ("fp32",)),)


RUNTIMES = (Faulty(), Breaking(), SlowImport())
