"""ONNX Runtime, with a target for each execution provider; providers are data."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from compat.build.artifacts import folder_bytes
from compat.build.sources import build_ahead
from compat.contract.case import Recipe, Target
from compat.contract.graph import State
from compat.contract.precision import precision_of
from compat.contract.runtime import GraphRuntime, Options, Probe
from compat.contract.session import Placement, Session, TensorSession, Unsupported
from compat.contract.source import Source
from compat.hardware import facts as hardware

RECIPES = ("fp32", "fp16", "bf16", "int8-dynamic", "int8-weights", "int4-weights")


@dataclass(frozen=True)
class Provider:
    """The facts in which one execution provider differs from the others."""

    name: str
    memory: str
    """ONNX Runtime's name of the device that holds the provider's tensors: ``cpu`` or ``cuda``."""
    recipes: tuple[str, ...]
    remedy: str
    options: Mapping[str, str] = field(default_factory=dict)
    vendor: str = ""
    """Maker of the GPU that it needs, as in :func:`compat.hardware.facts.machine_facts`; empty if
    it needs none."""
    system: str = ""
    """The only operating system that has it; empty if all have."""
    on_request: bool = False


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
        vendor="nvidia",
    ),
    "cuda-onnxruntime-tensorrt": Provider(
        "TensorrtExecutionProvider",
        "cuda",
        ("fp32", "fp16"),
        "pip uninstall onnxruntime && pip install onnxruntime-gpu 'tensorrt-cu13<11'",
        vendor="nvidia",
        # TensorRT tries kernels for minutes when it compiles a graph.
        on_request=True,
    ),
    "rocm-onnxruntime": Provider(
        "MIGraphXExecutionProvider",
        "cpu",
        RECIPES,
        "pip uninstall onnxruntime && pip install onnxruntime-migraphx",
        vendor="amd",
    ),
    "coreml-onnxruntime": Provider(
        "CoreMLExecutionProvider",
        "cpu",
        RECIPES,
        "pip install onnxruntime on an Apple-silicon Mac",
        {"ModelFormat": "MLProgram"},
        system="Darwin",
    ),
}
LEAST = 0.02
"""A graph counts as unquantised if a scheme quantised at most this share of its weights. In
EnCodec's encoder int8 takes one product of matrices, 1.1 % of the weights, and leaves the
convolutions and the LSTM."""
BUILDS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-migraphx")
"""Distributions that install the same module, and overwrite one another."""
EXPORTERS = ("torch", "onnx", "onnxscript")
"""Modules that export graphs to ONNX."""


class OnnxRuntime(GraphRuntime):
    """ONNX Runtime, a target for each execution provider."""

    name = "onnxruntime"
    packages = (*BUILDS, "torch", "onnxscript")
    modules = ("onnxruntime",)
    targets = tuple(
        Target(
            name,
            name.split("-")[0],
            "onnxruntime",
            provider.memory,
            provider.recipes,
            on_host_cpu=provider.name == "CPUExecutionProvider",
            on_request=provider.on_request,
        )
        for name, provider in PROVIDERS.items()
    )

    def probe(self, target: Target) -> Probe:
        provider = PROVIDERS[target.name]
        builds = [name for name in BUILDS if _installed(name)]
        try:
            import onnxruntime
        except ImportError as error:
            if builds:
                return Probe("broken", f"ONNX Runtime does not import: {error}", provider.remedy)
            return Probe("absent", "ONNX Runtime is not installed", provider.remedy)
        facts: dict[str, Any] = {"onnxruntime": onnxruntime.__version__}
        missing = [name for name in EXPORTERS if find_spec(name) is None]
        if missing:
            reason = f"graphs are exported with {' and '.join(missing)}, not installed here"
            return Probe("absent", reason, 'pip install -e ".[onnxruntime]"', facts)
        both = ""
        if len(builds) > 1:
            both = f"{' and '.join(builds)} are installed together and overwrite one another"
            facts["conflict"] = both
        if provider.system and platform.system() != provider.system:
            reason = f"{provider.name} exists on {provider.system} only"
            return Probe("absent", reason, provider.remedy, facts)
        if provider.name not in onnxruntime.get_available_providers():
            reason = f"this build of ONNX Runtime has no {provider.name}"
            if both and provider.vendor:
                remedy = f"pip uninstall {' '.join(builds)}, then install the one that is wanted"
                return Probe("broken", f"{reason}: {both}", remedy, facts)
            return Probe("absent", reason, provider.remedy, facts)
        if refused := refusal(provider):
            gpus = hardware.machine_facts().get("gpus", ()) if provider.vendor else ()
            if provider.vendor and not any(gpu["vendor"] == provider.vendor for gpu in gpus):
                reason = f"{provider.name} finds no GPU of {provider.vendor}: {refused}"
                return Probe("absent", reason, "run on a machine with one", facts)
            remedy = f"install what the message names, or again: {provider.remedy}"
            return Probe("broken", f"{provider.name} does not start: {refused}", remedy, facts)
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


def refusal(provider: Provider) -> str:
    """Return why a provider does not start, in its loader's words; an empty text if it starts.

    ONNX Runtime lists every provider of its build, even one that cannot be loaded here. It then
    makes a session on the CPU instead, and only prints the reason: the printed text is read.
    """
    import onnx
    import onnxruntime

    kind = onnx.TensorProto.FLOAT
    ends = [onnx.helper.make_tensor_value_info(name, kind, [1]) for name in ("x", "y")]
    node = onnx.helper.make_node("Neg", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "probe", ends[:1], ends[1:])
    opset = onnx.helper.make_opsetid("", 18)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
    wanted = [(provider.name, dict(provider.options))]
    started, said = _heard(lambda: onnxruntime.InferenceSession(model, providers=wanted))
    if isinstance(started, Exception):
        return loader_message(str(started))
    if provider.name in started.get_providers():
        return ""
    return loader_message(said) or "it fell back to the CPU without a word"


def loader_message(said: str) -> str:
    """Return the first line of a printed text that speaks of an error, at most 2,000 characters."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", said)
    lines = [line.strip() for line in plain.splitlines() if line.strip(" *")]
    telling = [line for line in lines if re.search("error|fail", line, re.I) and "***" not in line]
    # The log puts time, source file and status code in front of the message: they are removed.
    line = re.sub(r"^.*?\[[A-Z]:onnxruntime\S* [^\]]*\] ", "", (telling or lines or [""])[0])
    return re.sub(r"^.*\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)[:2000]


def _heard(action: Callable[[], Any]) -> tuple[Any, str]:
    """Return what an action returned or raised, and everything that the process printed meanwhile.

    File descriptors are redirected, as native libraries print past Python's ``sys.stdout``.
    """
    streams = (sys.stdout, sys.stderr)
    kept = [os.dup(number) for number in (1, 2)]
    with tempfile.TemporaryFile() as file:
        for number, stream in enumerate(streams, 1):
            stream.flush()
            os.dup2(file.fileno(), number)
        try:
            result = action()
        except Exception as error:
            result = error
        finally:
            for number, stream in enumerate(streams, 1):
                stream.flush()
                os.dup2(kept[number - 1], number)
                os.close(kept[number - 1])
        file.seek(0)
        return result, file.read().decode(errors="replace")


class OrtSession(TensorSession):
    """A session with one inference session of ONNX Runtime per graph and point."""

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
        self._build_ahead()
        for graph in self.graphs.values():
            self._session(graph.name, next(iter(graph.points)))

    def _build_ahead(self) -> None:
        build_ahead(self.sources, self._file, self.options.batches)

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
        self._executes.setdefault(graph, "fp32" if leaves_floats(path, scheme) else scheme)
        try:
            with tempfile.TemporaryDirectory(prefix="compat-") as folder:
                optimised = Path(folder) / "optimised.onnx"
                if scheme == "fp16" and self.provider.name == "CPUExecutionProvider":
                    # Only the CPU provider can write the optimised graph; others refuse.
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
            # On the CPU the array from numpy() shares its memory with the value.
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

    def unquantised(self) -> Collection[str]:
        return [
            graph
            for graph, path in self._paths.items()
            if leaves_floats(path, self.recipe.for_graph(graph))
        ]

    def model_bytes(self) -> int:
        return sum(folder_bytes(path.parent) for path in self._paths.values())

    def close(self) -> None:
        self._compiled.clear()
        self._state.clear()


@cache
def leaves_floats(path: Path, scheme: str) -> bool:
    """Return whether an integer scheme left the weights of an ONNX file as floats.

    Quantised weights are stored as integers of at most 8 bits, packed or not. The file counts as
    left in floats if they are at most :data:`LEAST` of all weights.
    """
    if not precision_of(scheme).quantised:
        return False
    import onnx

    kinds = onnx.TensorProto
    integers = {kinds.INT8, kinds.UINT8, kinds.INT4, kinds.UINT4, kinds.INT2, kinds.UINT2}
    graph = onnx.load(path, load_external_data=False).graph
    sizes = {True: 0, False: 0}
    for one in graph.initializer:
        sizes[one.data_type in integers and math.prod(one.dims) > 1] += math.prod(one.dims)
    return sizes[True] <= LEAST * sum(sizes.values())


def arithmetic_precision(path: Path) -> str:
    """Return the precision in which an optimised graph multiplies by its weights: fp16 or fp32.

    If a provider has no float16 kernel for a node, ONNX Runtime silently casts its inputs and
    converts its weights to float32. The optimised graph shows it.
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
    """Return how many nodes of a session each provider executes."""
    counts: dict[str, int] = {}
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    return counts


RUNTIME = OnnxRuntime()
