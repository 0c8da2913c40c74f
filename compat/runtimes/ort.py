"""ONNX Runtime: one file for every execution provider, which are data."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.case import Recipe, Target
from compat.graph import State
from compat.runtimes.base import (
    Options,
    Placement,
    Probe,
    Runtime,
    Session,
    Unsupported,
    folder_bytes,
)

if TYPE_CHECKING:
    from compat.sources import Source

RECIPES = ("fp32", "fp16", "bf16", "int8-dynamic", "int8-weights")


@dataclass(frozen=True)
class Provider:
    """What is particular to one execution provider."""

    name: str
    memory: str
    """Where its tensors live, in ONNX Runtime's names of devices."""
    recipes: tuple[str, ...]
    remedy: str
    options: Mapping[str, str] = field(default_factory=dict)


PROVIDERS: Mapping[str, Provider] = {
    "cpu-onnxruntime": Provider(
        "CPUExecutionProvider",
        "cpu",
        RECIPES,
        "pip install onnxruntime==1.31.1",
    ),
    "cuda-onnxruntime": Provider(
        "CUDAExecutionProvider",
        "cuda",
        RECIPES,
        "pip uninstall onnxruntime && pip install onnxruntime-gpu (the two overwrite one another)",
        {"use_tf32": "0"},
    ),
    "rocm-onnxruntime": Provider(
        "MIGraphXExecutionProvider",
        "cpu",
        RECIPES,
        "pip uninstall onnxruntime && pip install onnxruntime-migraphx",
    ),
    "coreml-onnxruntime": Provider(
        "CoreMLExecutionProvider",
        "cpu",
        RECIPES,
        "pip install onnxruntime on an Apple-silicon Mac",
        {"ModelFormat": "MLProgram"},
    ),
}


class OnnxRuntime(Runtime):
    name = "onnxruntime"
    packages = ("onnxruntime", "onnxruntime-gpu", "torch", "onnxscript")
    modules = ("onnxruntime",)
    targets = tuple(
        Target(
            name,
            name.split("-")[0],
            "onnxruntime",
            provider.memory,
            provider.recipes,
            on_host_cpu=provider.name == "CPUExecutionProvider",
        )
        for name, provider in PROVIDERS.items()
    )

    def probe(self, target: Target) -> Probe:
        provider = PROVIDERS[target.name]
        try:
            import onnxruntime
        except ImportError as error:
            if _installed("onnxruntime") or _installed("onnxruntime-gpu"):
                return Probe("broken", f"ONNX Runtime does not import: {error}", provider.remedy)
            return Probe("absent", "ONNX Runtime is not installed", provider.remedy)
        facts = {"onnxruntime": onnxruntime.__version__}
        if provider.name not in onnxruntime.get_available_providers():
            reason = f"this build of ONNX Runtime has no {provider.name}"
            return Probe("absent", reason, provider.remedy, facts)
        return Probe("here", facts=facts)

    def unsupported(self, target: Target, recipe: Recipe) -> str:
        if "bf16" in recipe.schemes:
            return "ONNX Runtime has no bfloat16 kernels for these operators"
        return super().unsupported(target, recipe)

    def compile(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> Session:
        return OrtSession(sources, PROVIDERS[target.name], recipe, options)


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


class OrtSession(Session):
    """One inference session per graph and point, sharing nothing but the threads' number."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        provider: Provider,
        recipe: Recipe,
        options: Options,
    ) -> None:
        super().__init__({name: source.graph for name, source in sources.items()})
        self.sources = sources
        self.provider = provider
        self.recipe = recipe
        self.options = options
        self._compiled: dict[tuple[str, str], Any] = {}
        self._paths: dict[str, Path] = {}
        self._executes: dict[str, str] = {}
        self._constants: dict[str, dict[str, Any]] = {}
        for graph in self.graphs.values():
            self._session(graph.name, next(iter(graph.points)))

    def _session(self, graph: str, point: str) -> Any:
        if (graph, point) not in self._compiled:
            source, scheme = self.sources[graph], self.recipe.for_graph(graph)
            path = self._file(graph, point)
            self._paths.setdefault(graph, path)
            shipped = source.shipped(scheme, "onnx")
            self._constants[graph] = {
                name: self.upload(np.array(value, np.int64), graph)
                for name, value in (shipped.constants if shipped else {}).items()
            }
            self._compiled[graph, point] = self._compile(graph, point, path)
        return self._compiled[graph, point]

    def _file(self, graph: str, point: str) -> Path:
        """Return the ONNX file that a graph is executed from."""
        return self.sources[graph].onnx(point, self.recipe.for_graph(graph))

    def _compile(self, graph: str, point: str, path: Path) -> Any:
        import onnxruntime

        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = self.options.threads
        session_options.inter_op_num_threads = 1
        session_options.log_severity_level = 3
        session_options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        provider_options = dict(self.provider.options)
        if self.options.device:
            provider_options["device_id"] = self.options.device
        scheme = self.recipe.for_graph(graph)
        self._executes.setdefault(graph, scheme)
        try:
            with tempfile.TemporaryDirectory(prefix="compat-") as folder:
                optimised = Path(folder) / "optimised.onnx"
                if scheme == "fp16" and self.provider.name == "CPUExecutionProvider":
                    # Other providers refuse to write what they have compiled.
                    session_options.optimized_model_filepath = str(optimised)
                session = onnxruntime.InferenceSession(
                    path, session_options, providers=[(self.provider.name, provider_options)]
                )
                if optimised.is_file():
                    self._executes[graph] = arithmetic_precision(optimised)
        except Exception as error:
            if "NOT_IMPLEMENTED" in str(error) or "NotImplemented" in type(error).__name__:
                raise Unsupported(str(error)) from error
            raise
        return session

    def upload(self, array: np.ndarray, graph: str) -> Any:
        import onnxruntime

        return onnxruntime.OrtValue.ortvalue_from_numpy(array, self.provider.memory, self._index)

    @property
    def _index(self) -> int:
        return int(self.options.device or 0)

    def download(self, native: Any) -> np.ndarray:
        array: np.ndarray = native.numpy()
        return array

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        session = self._session(graph, point)
        inputs = {**inputs, **self._constants[graph]}
        if self.provider.memory == "cpu":
            outputs: Sequence[Any] = session.run_with_ort_values(None, inputs)
            return outputs
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for output in session.get_outputs():
            binding.bind_output(output.name, self.provider.memory, self._index)
        session.run_with_iobinding(binding)
        bound: Sequence[Any] = binding.get_outputs()
        return bound

    def write(self, state: State, buffer: Any, value: Any, position: int) -> Any:
        if self.provider.memory == "cpu":
            # On the CPU a value shares its memory with the array that numpy() gives.
            where = [slice(None)] * len(state.shape)
            where[state.axis] = slice(position, position + 1)
            buffer.numpy()[tuple(where)] = value.numpy()
            return buffer
        array = buffer.numpy()
        array[(slice(None),) * state.axis + (slice(position, position + 1),)] = value.numpy()
        buffer.update_inplace(array)
        return buffer

    def placement(self) -> Placement:
        counts: dict[str, int] = {}
        for session in self._compiled.values():
            for name, nodes in nodes_by_provider(session).items():
                counts[name] = counts.get(name, 0) + nodes
        total = sum(counts.values())
        shares = {name: count / total for name, count in counts.items()}
        return Placement(shares, self.provider.name, "node assignment of each session")

    def executed(self) -> Mapping[str, str]:
        return {name: self._executes[name] for name, _ in self._compiled}

    def model_bytes(self) -> int:
        return sum(folder_bytes(path.parent) for path in self._paths.values())

    def close(self) -> None:
        self._compiled.clear()
        self._state.clear()


def arithmetic_precision(path: Path) -> str:
    """Return the precision in which an optimised graph multiplies by its weights.

    Where a provider has no float16 kernels, ONNX Runtime casts around the nodes and turns their
    weights to float32, without a word: the optimised graph shows it.
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    weights = [
        kinds[name]
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm", "Conv", "FusedMatMul", "FusedGemm", "FusedConv")
        for name in node.input[1:2]
        if name in kinds
    ]
    half = sum(kind == onnx.TensorProto.FLOAT16 for kind in weights)
    return "fp16" if 2 * half > len(weights) else "fp32"


def nodes_by_provider(session: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    return counts


RUNTIME = OnnxRuntime()
