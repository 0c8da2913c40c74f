"""OpenVINO: one file for its devices (CPU, GPU, NPU), which are data."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compat import calibration
from compat import corpus as corpora
from compat.case import Recipe, Target
from compat.graph import State
from compat.hardware.facts import machine_facts
from compat.runtimes.base import Options, Placement, Probe, Runtime, Session, folder_bytes
from compat.sources import ModelReference, Source, build_ahead, open_source

if TYPE_CHECKING:
    import torch

RECIPES = ("fp32", "fp16", "bf16", "int8-dynamic", "int8-weights", "int8-a8w8", "int4-weights")
INSTALL = "pip install openvino==2026.4.1 nncf==3.4.0"
HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
FORMS = ("openvino", "onnx")
"""Forms that it takes of a graph that its makers ship."""
GROUP = 32
"""Activations that share one scale when they are quantised at run time; 4-bit weights that do."""
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
ARITHMETIC = ("FullyConnected", "MatMul", "Convolution", "GroupConvolution", "MHA")
RECURRENT = ("LSTMSequence", "LSTMCell", "GRUSequence", "GRUCell", "RNNSequence", "RNNCell")
COARSE = 30.0
"""Decibels that values must keep when they are rounded to 8 bits of their range: an error of 3 %,
seven convolutions in a row, leaves nothing of the features of wav2vec2."""


def products() -> tuple[type[torch.nn.Module], ...]:
    """Return the layers that multiply by weights, recurrent ones left out."""
    import torch

    return (
        torch.nn.Linear,
        torch.nn.Conv1d,
        torch.nn.Conv2d,
        torch.nn.ConvTranspose1d,
    )


def round_weights(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate NNCF's int8 weights: asymmetric, one scale per output channel, of every layer.

    Convolutions, recurrent layers and embeddings too, which the general scheme leaves in float32
    (https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/weight-compression.html).
    Arithmetic is in float32.
    """
    import torch

    return _round_weights_of(module, (torch.nn.Embedding, torch.nn.RNNBase, *products()))


def _round_weights_of(
    module: torch.nn.Module, kinds: tuple[type[torch.nn.Module], ...]
) -> torch.nn.Module:
    import torch

    for layer in module.modules():
        if isinstance(layer, kinds):
            for name, weight in list(layer.named_parameters(recurse=False)):
                if name.startswith("weight"):
                    channel = 1 if isinstance(layer, torch.nn.ConvTranspose1d) else 0
                    # A new tensor: an output layer may be tied to an embedding.
                    rounded = torch.nn.Parameter(_rounded(weight, channel), requires_grad=False)
                    setattr(layer, name, rounded)
    return module


def round_activations(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate OpenVINO's dynamic int8: weights as above, inputs of linear layers in groups."""
    import torch

    def round_input(_: torch.nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        (values,) = arguments
        size = values.shape[-1]
        if size % GROUP:
            return arguments
        groups = values.reshape(*values.shape[:-1], size // GROUP, GROUP)
        scale = (groups.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-12)
        return (((groups / scale).round() * scale).reshape(values.shape),)

    rounded = round_weights(module)
    for layer in rounded.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(round_input)
    return rounded


def round_to_4_bits(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate NNCF's int4 weights: symmetric, in groups, of linear layers; the rest as int8.

    NNCF keeps the last linear layer of a graph at 8 bits too: this simulation errs a little more.
    """
    import torch

    from compat.runtimes.pytorch import round_blocks

    weights = {
        name: layer.weight
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear)
    }
    rounded = round_weights(module)
    for name, weight in weights.items():
        if weight.shape[1] % GROUP == 0:
            values = torch.nn.Parameter(round_blocks(weight, GROUP), requires_grad=False)
            rounded.get_submodule(name).weight = values
    return rounded


def round_tensors(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate full int8: weights per channel, inputs of every product by weights per tensor.

    Ranges are those of each input, where the artifact has one range for all, set by calibration,
    and leaves products that this does not suit in float32. Recurrent layers are in float32, too.
    """
    import torch

    def round_input(_: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        values, *rest = arguments
        # All axes are one channel: one scale for the tensor.
        return (_rounded(values.reshape(1, -1), 0).reshape(values.shape), *rest)

    rounded = _round_weights_of(module, (torch.nn.Embedding, *products()))
    for layer in rounded.modules():
        if isinstance(layer, products()):
            layer.register_forward_pre_hook(round_input)
    return rounded


def _rounded(weight: torch.Tensor, channel: int) -> torch.Tensor:
    """Round to 256 steps between the smallest and the largest value of each channel, and zero."""
    others = [axis for axis in range(weight.ndim) if axis != channel]
    low = weight.amin(others, keepdim=True).clamp(max=0)
    high = weight.amax(others, keepdim=True).clamp(min=0)
    scale = ((high - low) / 255).clamp(min=1e-12)
    zero = (-low / scale).round()
    return ((weight / scale).round() + zero).clamp(0, 255).sub(zero) * scale


class OpenVino(Runtime):
    name = "openvino"
    oracles: ClassVar = {
        "int8-weights": round_weights,
        "int8-dynamic": round_activations,
        "int8-a8w8": round_tensors,
        "int4-weights": round_to_4_bits,
    }
    packages = ("openvino", "nncf", "torch", "onnxscript")
    modules = ("openvino",)
    targets = (
        Target(
            "openvino-cpu",
            "openvino",
            "openvino",
            "CPU",
            RECIPES,
            on_host_cpu=True,
        ),
        Target("openvino-gpu", "openvino", "openvino", "GPU", RECIPES),
        Target("openvino-npu", "openvino", "openvino", "NPU", RECIPES),
    )

    def probe(self, target: Target) -> Probe:
        try:
            import openvino
        except ImportError as error:
            try:
                metadata.version("openvino")
            except metadata.PackageNotFoundError:
                return Probe("absent", "OpenVINO is not installed", INSTALL)
            return Probe("broken", f"OpenVINO does not import: {error}", f"{INSTALL} --force")
        core = openvino.Core()
        facts: dict[str, Any] = {"openvino": metadata.version("openvino")}
        found = [name for name in core.available_devices if name.split(".")[0] == target.device]
        if not found:
            remedy = {
                "GPU": "install Intel's compute runtime (intel-opencl-icd, level-zero)",
                "NPU": "install Intel's NPU driver (linux-npu-driver, or from Windows Update)",
            }.get(target.device, INSTALL)
            return Probe("absent", f"OpenVINO finds no {target.device} device", remedy, facts)
        facts["device"] = core.get_property(found[0], "FULL_DEVICE_NAME")
        facts["capabilities"] = sorted(core.get_property(found[0], "OPTIMIZATION_CAPABILITIES"))
        return Probe("here", facts=facts)

    def compile(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> Session:
        return OpenVinoSession(sources, target, recipe, options)


def compress(folder: Path, reference: Mapping[str, str], graph: str, point: str, bits: int) -> None:
    """Job: write a graph as OpenVINO IR with compressed weights.

    8 bits: asymmetric, one scale per channel. 4 bits: symmetric, in groups; embeddings,
    convolutions, the last layer and what cannot be grouped as with 8 bits.
    """
    import nncf
    import openvino

    source = open_source(reference, graph)
    model = openvino.Core().read_model(source.onnx(point))
    if bits == 8:
        compressed = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    else:
        ungrouped = nncf.AdvancedCompressionParameters(
            group_size_fallback_mode=nncf.GroupSizeFallbackMode.IGNORE
        )
        compressed = nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT4_SYM,
            group_size=GROUP,
            ratio=1.0,
            advanced_parameters=ungrouped,
        )
    openvino.save_model(compressed, folder / "model.xml", compress_to_fp16=False)


def quantise(
    folder: Path,
    reference: Mapping[str, str],
    graph: str,
    point: str,
    corpus: str,
    recordings: str,
    narrow: bool,
) -> None:
    """Job: write a graph as OpenVINO IR with int8 weights and activations, and whose ranges.

    ``corpus`` is the folder of recordings that activations are seen on, ``recordings`` its digest.
    ``narrow`` leaves a bit of each weight unused, so that no sum of two products overflows.
    """
    import nncf
    import openvino

    # Extremes of all calls, where the default is their mean, which cuts off half of them. And no
    # SmoothQuant: its scales per channel need more calls than a decoder's steps are recorded.
    ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    advice = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.ENABLE if narrow else None,
        activations_range_estimator_params=ranges,
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1),
    )
    recorded = calibration.record(ModelReference(**reference), graph, point, corpus)
    model = openvino.Core().read_model(open_source(reference, graph).onnx(point))
    # Attention, products of activations by one another: one range for all of a cache cost 6 dB.
    attention = [
        node.get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() == "MatMul"
        and not any(_constant(node.input_value(side)) for side in (0, 1))
    ]
    coarse = too_coarse(model, recorded.feeds)
    quantised = nncf.quantize(
        model,
        nncf.Dataset(recorded.feeds),
        subset_size=len(recorded.feeds),
        model_type=nncf.ModelType.TRANSFORMER,
        target_device=nncf.TargetDevice.CPU,
        advanced_parameters=advice,
        # Recurrent layers: the plug-in executes them in float32 whatever their weights are, and
        # NNCF gives all gates of a layer one scale, which left Resemblyzer noise.
        ignored_scope=nncf.IgnoredScope([*attention, *coarse], types=[*RECURRENT], validate=False),
    )
    openvino.save_model(quantised, folder / "model.xml", compress_to_fp16=False)
    (folder / "calibration.txt").write_text(recorded.said, encoding="utf-8")
    left = [f"{len(coarse)} products"] if coarse else []
    if any(node.get_type_name() in RECURRENT for node in model.get_ops()):
        left.append("recurrent layers")
    (folder / "float32.txt").write_text(" and ".join(left), encoding="utf-8")


def too_coarse(model: Any, feeds: Sequence[Mapping[str, np.ndarray]]) -> list[str]:
    """Return the products by weights of a model whose other input does not survive 8 bits.

    With one range for a whole tensor, values of very different size share a step that is the
    largest one's: raw samples of quiet speech, or what few outliers stand out of. Counted is the
    power of the values over that of rounding, the median over all recordings.

    Args:
        model: the float model.
        feeds: recorded inputs, one mapping per call.
    """
    import openvino

    products = [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() in ("MatMul", "Convolution", "GroupConvolution")
        and _constant(node.input_value(1))
    ]
    # Several products may share an input, which is looked at once.
    inputs = {_place(node.input_value(0)): node.input_value(0) for node in products}
    results = [openvino.opset13.result(output) for output in inputs.values()]
    watched = openvino.Model(results, model.get_parameters(), "inputs of products")
    properties = {"INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.compile_model(watched, "CPU", properties).create_infer_request()
    power: list[list[float]] = [[] for _ in results]
    # Zero is always representable.
    low, high = np.zeros(len(results)), np.zeros(len(results))
    for feed in feeds:
        request.infer(dict(feed))
        for index in range(len(results)):
            values = request.get_output_tensor(index).data.astype(np.float64)
            # Apart for each row of a batch, whose last ones may be padding.
            rows = np.square(values).reshape(len(values), -1).mean(axis=1)
            power[index] += rows[rows > 0].tolist()
            low[index] = min(low[index], values.min())
            high[index] = max(high[index], values.max())
    rounding = np.square((high - low) / 255) / 12
    usual = np.array([np.median(rows) if rows else np.inf for rows in power])
    kept = dict(zip(inputs, usual > rounding * 10 ** (COARSE / 10), strict=True))
    return [node.get_friendly_name() for node in products if not kept[_place(node.input_value(0))]]


def _place(output: Any) -> tuple[str, int]:
    return output.get_node().get_friendly_name(), output.get_index()


@cache
def saturates() -> bool:
    """Return whether sums of two products of bytes may overflow: on x86 that has no known VNNI."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return "vnni" not in machine_facts().get("cpu", {}).get("capabilities", ())


def _constant(output: Any) -> bool:
    """Tell whether a value is a constant, whatever conversions and reshapings it went through."""
    node = output.get_node()
    if node.get_type_name() == "Constant":
        return True
    return bool(node.get_input_size()) and all(map(_constant, node.input_values()))


class OpenVinoSession(Session):
    """One compiled model and one inference request per graph and point."""

    def __init__(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> None:
        import openvino

        super().__init__({name: source.graph for name, source in sources.items()})
        self.core = openvino.Core()
        self.sources = sources
        self.target = target
        self.recipe = recipe
        self.options = options
        self._compiled: dict[tuple[str, str], Any] = {}
        self._requests: dict[tuple[str, str], Any] = {}
        self._paths: dict[str, Path] = {}
        self._constants: dict[str, dict[str, Any]] = {}
        self._notes: dict[str, str] = {}
        if "int8-a8w8" not in recipe.schemes:  # Calibrated by itself at every point: none in vain.
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
        if not scheme.startswith("int"):
            return source.onnx(point, forms=FORMS)
        source.shipped(scheme, *FORMS)  # What is shipped is executed as it is, never compressed.
        packages = ("openvino", "nncf", "torch")
        if scheme != "int8-a8w8":
            bits = 4 if scheme.startswith("int4") else 8
            arguments = {"point": point, "bits": bits}
            folder = source.derive(f"{__name__}:compress", arguments, (__name__,), packages)
            return folder / "model.xml"
        named = self.options.corpus
        known = corpora.load(Path(named) if named else corpora.DEFAULT)
        narrow = self.target.device == "CPU" and saturates()
        folder = source.derive(
            f"{__name__}:quantise",
            {
                "point": point,
                "corpus": named,
                "recordings": known.fingerprint,
                "narrow": narrow,
            },
            (__name__, *calibration.MODULES),
            packages,
            fitted=True,
        )
        self._notes["calibration"] = (folder / "calibration.txt").read_text(encoding="utf-8")
        if left := (folder / "float32.txt").read_text(encoding="utf-8"):
            self._notes[f"{graph} in float32"] = left
        if narrow:
            self._notes["weights"] = "7 of 8 bits, as the processor has no VNNI"
        return folder / "model.xml"

    def _read(self, graph: str, point: str, path: Path) -> Any:
        """Read a shipped file with its open shapes set: without, some operators do not convert."""
        import openvino
        from openvino.frontend import FrontEndManager

        frontend = FrontEndManager().load_by_framework("onnx")
        model = frontend.load(str(path))
        for name, (shape, _) in self.graphs[graph].examples(point).items():
            place = model.get_place_by_tensor_name(name)
            model.set_partial_shape(place, openvino.PartialShape(shape))
        return frontend.convert(model)

    def _properties(self, scheme: str) -> dict[str, str]:
        # Without a hint the CPU plug-in runs float32 models in bfloat16 where the processor can.
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
        import openvino

        return openvino.Tensor(array, shared_memory=True)

    def download(self, native: Any) -> np.ndarray:
        array: np.ndarray = native.data
        return array

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        request = self._request(graph, point)
        for name, tensor in (*inputs.items(), *self._constants[graph].items()):
            request.set_tensor(name, tensor)
        request.infer()
        outputs = [request.get_output_tensor(i) for i in range(len(request.model_outputs))]
        spec = self.graphs[graph]
        for index, state in enumerate(spec.state.values(), len(spec.outputs)):
            if state.update == "replace":
                # The next run reads it while it writes the request's own output anew.
                outputs[index] = self.upload(outputs[index].data.copy(), graph)
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

    def _executed(self, graph: str, point: str) -> str:
        """Read from the runtime's own model in which precision its arithmetic nodes ran."""
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
        # With compressed weights sums are in float32; with full int8 most products are not.
        expected = ("int8",) if scheme == "int8-a8w8" else ("fp32", "int8", "int4")
        return scheme if scheme.startswith("int") and found in expected else found

    def model_bytes(self) -> int:
        return sum(folder_bytes(path.parent) for path in self._paths.values())

    def close(self) -> None:
        self._requests.clear()
        self._compiled.clear()


RUNTIME = OpenVino()
