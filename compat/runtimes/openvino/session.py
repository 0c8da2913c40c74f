"""Sessions of OpenVINO."""

from __future__ import annotations

import math
import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino.frontend import FrontEndManager

from compat.build.artifacts import folder_bytes
from compat.build.sources import build_ahead
from compat.contract.case import Recipe, Target
from compat.contract.graph import State
from compat.contract.precision import precision_of
from compat.contract.runtime import Options
from compat.contract.session import Placement, TensorSession
from compat.contract.source import Source
from compat.hardware.facts import machine_facts
from compat.inputs import corpus as corpora
from compat.runtimes.openvino import GROUP

HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
COMPRESS = "compat.runtimes.openvino.convert:compress"
QUANTISE = "compat.runtimes.openvino.convert:quantise"
FORMS = ("openvino", "onnx")
"""Forms of shipped files that OpenVINO takes, preferred first."""
EXECUTED = {
    "f32": "fp32",
    "f16": "fp16",
    "bf16": "bf16",
    "f64": "fp64",
    "i8": "int8",
    "u8": "int8",
    "i4": "int4",
    "u4": "int4",
}
WIDENING = ("Convert", "Subtract", "Multiply", "Reshape", "Transpose", "FakeQuantize")
"""Operators that turn stored integers into the float weights of a layer."""
ARITHMETIC = ("FullyConnected", "MatMul", "Convolution", "GroupConvolution", "MHA")


class OpenVinoSession(TensorSession):
    """A session with one compiled model and one inference request per graph and point."""

    def __init__(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> None:
        super().__init__({name: source.graph for name, source in sources.items()})
        self.core = openvino.Core()
        self.sources = sources
        self.target = target
        self.recipe = recipe
        self.options = options
        self._compiled: dict[tuple[str, str], Any] = {}
        self._requests: dict[tuple[str, str], Any] = {}
        self._outputs: dict[tuple[str, str], list[Any]] = {}
        self._paths: dict[str, Path] = {}
        self._constants: dict[str, dict[str, Any]] = {}
        self._notes: dict[str, str] = {}
        # Every point of int8-a8w8 is calibrated by itself, which takes long: none is built ahead.
        if "int8-a8w8" not in recipe.schemes:
            build_ahead(sources, self._path, options.batches)
        for graph in self.graphs.values():
            self._request(graph.name, next(iter(graph.points)))

    def _request(self, graph: str, point: str) -> Any:
        key = graph, point
        if key not in self._requests:
            scheme = self.recipe.for_graph(graph)
            path = self._path(graph, point)
            self._paths.setdefault(graph, path)
            shipped = self.sources[graph].shipped("fp32", *FORMS)
            self._compiled[key] = self.core.compile_model(
                self._read(graph, point, path) if shipped else str(path),
                self._device,
                self._properties(scheme),
            )
            self._constants[graph] = {
                name: self.upload(np.array(value, np.int64), graph)
                for name, value in (shipped.constants if shipped else {}).items()
            }
            self._requests[key] = self._compiled[key].create_infer_request()
        return self._requests[key]

    @property
    def _device(self) -> str:
        return self.target.device + (f".{self.options.device}" if self.options.device else "")

    def _path(self, graph: str, point: str) -> Path:
        source, scheme = self.sources[graph], self.recipe.for_graph(graph)
        if not precision_of(scheme).quantised:
            return source.onnx(point, forms=FORMS)
        # Raises Unsupported for a graph that its makers ship, as shipped files are not compressed.
        source.shipped(scheme, *FORMS)
        made_from = [source.exported(point)]
        if scheme != "int8-a8w8":
            arguments = {"point": point, "bits": precision_of(scheme).bits}
            compressed = source.derive(COMPRESS, arguments, ("openvino", "nncf"), made_from)
            return compressed.fetch() / "model.xml"
        named = self.options.corpus
        known = corpora.load(Path(named) if named else corpora.DEFAULT)
        narrow = self.target.device == "CPU" and saturates()
        folder = source.derive(
            QUANTISE,
            {
                "point": point,
                "corpus": named,
                "recordings": known.fingerprint,
                "narrow": narrow,
            },
            ("openvino", "nncf", "torch", "transformers"),
            made_from,
            fitted=True,
        ).fetch()
        self._notes["calibration"] = (folder / "calibration.txt").read_text(encoding="utf-8")
        if left := (folder / "float32.txt").read_text(encoding="utf-8"):
            self._notes[f"{graph} in float32"] = left
        if narrow:
            self._notes["weights"] = "7 of 8 bits, as the processor has no VNNI"
        return folder / "model.xml"

    def _read(self, graph: str, point: str, path: Path) -> Any:
        """Read a shipped ONNX file with its free shapes set, as some operators need to convert."""
        frontend = FrontEndManager().load_by_framework("onnx")
        model = frontend.load(str(path))
        for name, (shape, _) in self.graphs[graph].examples(point).items():
            place = model.get_place_by_tensor_name(name)
            model.set_partial_shape(place, openvino.PartialShape(shape))
        return frontend.convert(model)

    def _properties(self, scheme: str) -> dict[str, str]:
        # Without this hint the CPU plug-in runs float32 models in bfloat16 if the processor can.
        properties = {
            "INFERENCE_PRECISION_HINT": HINTS.get(scheme, "f32"),
            "PERFORMANCE_HINT": "LATENCY",
        }
        if self.target.device == "CPU":
            properties["INFERENCE_NUM_THREADS"] = str(self.options.threads)
            properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = (
                str(GROUP) if scheme == "int8-dynamic" else "0"
            )
        return properties

    def upload(self, array: np.ndarray, graph: str) -> Any:
        return openvino.Tensor(array, shared_memory=True)

    def download(self, native: Any) -> np.ndarray:
        # A request writes its next outputs into the same memory, and `data` is a view of it.
        array: np.ndarray = native.data.copy()
        return array

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        request = self._request(graph, point)
        own = {id(tensor) for tensor in self._outputs.get((graph, point), ())}
        # An input may be the request's own output (a state, a carried value), which it would read
        # while writing it. All such inputs are copied before any is set, since setting one may free
        # an output's memory.
        inputs = {
            name: self.upload(tensor.data.copy(), graph) if id(tensor) in own else tensor
            for name, tensor in inputs.items()
        }
        for name, tensor in (*inputs.items(), *self._constants[graph].items()):
            request.set_tensor(name, tensor)
        request.infer()
        outputs = [request.get_output_tensor(i) for i in range(len(request.model_outputs))]
        self._outputs[graph, point] = outputs
        return outputs

    def write(self, state: State, buffer: Any, value: Any, position: int) -> Any:
        where = (slice(None),) * state.axis + (slice(position, position + 1),)
        buffer.data[where] = value.data
        return buffer

    def placement(self) -> Placement:
        counts: dict[str, int] = {}
        for compiled in self._compiled.values():
            for device in compiled.get_property("EXECUTION_DEVICES"):
                name = device.split(".")[0].strip("()")
                counts[name] = counts.get(name, 0) + 1
        total = sum(counts.values())
        shares = {name: count / total for name, count in counts.items()}
        return Placement(shares, self.target.device, "execution devices of each compiled model")

    def notes(self) -> Mapping[str, str]:
        return self._notes

    def executed(self) -> Mapping[str, str]:
        return {graph: self._executed(graph, point) for graph, point in self._compiled}

    def unquantised(self) -> Collection[str]:
        left = []
        for graph, path in self._paths.items():
            scheme = self.recipe.for_graph(graph)
            if precision_of(scheme).quantised:
                layers = quantised_layers(self.core.read_model(path))
                # Dynamic quantisation rounds the inputs of matrix products only.
                if not ({"MatMul"} & layers if scheme == "int8-dynamic" else layers):
                    left.append(graph)
        return left

    def _executed(self, graph: str, point: str) -> str:
        """Return the scheme that a graph's arithmetic ran in, as the runtime's own model shows."""
        scheme = self.recipe.for_graph(graph)
        counts: dict[str, int] = {}
        for node in self._compiled[graph, point].get_runtime_model().get_ops():
            facts = node.get_rt_info()
            if "layerType" in facts and str(facts["layerType"].astype(str)) in ARITHMETIC:
                precision = str(facts["runtimePrecision"].astype(str))
                counts[precision] = counts.get(precision, 0) + 1
        if not counts:
            return scheme
        found = EXECUTED.get(max(counts, key=counts.__getitem__), "?")
        # With compressed weights products run in float32 too; with full int8 most run in int8.
        expected = ("int8",) if scheme == "int8-a8w8" else ("fp32", "int8", "int4")
        return scheme if precision_of(scheme).quantised and found in expected else found

    def model_bytes(self) -> int:
        return sum(folder_bytes(path.parent) for path in self._paths.values())

    def close(self) -> None:
        self._outputs.clear()
        self._requests.clear()
        self._compiled.clear()


def quantised_layers(model: Any) -> set[str]:
    """Return the types of a model's operators whose weights are integers of at most 8 bits.

    Between a stored constant and its operator there may be the operators of :data:`WIDENING`:
    conversions, zero points and scales.
    """

    def stored(output: Any) -> Iterator[Any]:
        node = output.get_node()
        if node.get_type_name() == "Constant":
            yield node
        elif node.get_type_name() in WIDENING:
            for value in node.input_values():
                yield from stored(value)

    return {
        node.get_type_name()
        for node in model.get_ops()
        if node.get_type_name() not in WIDENING
        and any(
            constant.get_element_type().bitwidth <= 8
            and constant.get_element_type().is_integral_number()
            and math.prod(constant.shape) > 1
            for value in node.input_values()
            for constant in stored(value)
        )
    }


@cache
def saturates() -> bool:
    """Return whether sums of two products of bytes may overflow: on x86 without (known) VNNI.

    There Whisper-nano's logits have 21.5 dB with all 8 bits of a weight, and 27.1 dB with 7.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return "vnni" not in machine_facts().get("cpu", {}).get("capabilities", ())
