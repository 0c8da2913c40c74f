"""Qualcomm's Hexagon NPU (HTP) through ONNX Runtime's QNN plug-in, and its emulator on a PC.

The graph is compiled as a whole into a context binary, which is written and loaded again, as a
product would ship it; that a node falls back to the processor is forbidden.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat import calibration, qnn_graph
from compat import corpus as corpora
from compat.case import Recipe, Target
from compat.runtimes.base import Options, Placement, Probe, Runtime, Session, Unsupported
from compat.runtimes.ort import OrtSession, Provider, nodes_by_provider

if TYPE_CHECKING:
    import torch

    from compat.sources import Source

PROVIDER = "QNNExecutionProvider"
INSTALL = "pip install onnxruntime==1.31.1 onnxruntime-qnn==2.7.0"
ACTIVATION_BITS = {"int8-a8w8": 8, "int8-a16w8": 16}
RECIPES = ("fp16", *ACTIVATION_BITS)
EMULATED: Mapping[str, str] = {"soc_model": "60", "htp_arch": "73"}
"""What the emulator is to be: a Snapdragon X Elite. Left to itself it finalises no float graph."""
OPTIONS: Mapping[str, str] = {
    "enable_htp_fp16_precision": "1",
    # Else the provider would leave the quantisation of inputs and outputs to the processor.
    "offload_graph_io_quantization": "0",
}
MASKED = {"int8-a8w8": 24.0, "int8-a16w8": 100.0}
"""How far below zero a masked score stays: exp(-24) is nothing in 16 bits, and a constant of
-10,000 would leave the numbers that matter within one step of 8."""
ROOM = {"int8-a8w8": 1.25, "int8-a16w8": 2.0}
"""How many times wider than recorded a range is made. Inputs that were not recorded exceed it
somewhere, and what is cut off there cannot be told from noise. Twice the range costs one bit: 16
have it to spare, 8 do not."""


class Qnn(Runtime):
    name = "qnn"
    packages = ("onnxruntime-qnn", "onnxruntime", "torch", "onnxscript")
    modules = ("onnxruntime", "onnxruntime_qnn")
    targets = (
        Target("qualcomm-htp", "qualcomm", "qnn", "NPU", RECIPES),
        Target(
            "qualcomm-emulator",
            "qualcomm",
            "qnn",
            "emulator",
            RECIPES,
            evidence="emulator",
            slow=True,
        ),
    )

    def probe(self, target: Target) -> Probe:
        facts: dict[str, Any] = {}
        try:
            import onnxruntime  # noqa: F401
            import onnxruntime_qnn  # noqa: F401
        except (ImportError, OSError) as error:
            return _not_imported(error)
        facts |= {name: metadata.version(name) for name in ("onnxruntime", "onnxruntime-qnn")}
        emulator = sys.platform == "linux" and platform.machine() == "x86_64"
        if target.device == "emulator" and not emulator:
            remedy = "run on x86-64 Linux, or on the NPU itself as qualcomm-htp"
            return Probe(
                "absent", "the emulator is part of the x86-64 Linux package", remedy, facts
            )
        try:
            found = devices(target)
        except Exception as error:
            reason = f"the QNN provider does not load: {error}"
            return Probe("broken", reason, f"{INSTALL} --force-reinstall", facts)
        if not found:
            remedy = "run on a Snapdragon (Windows on Arm, Linux), or as qualcomm-emulator"
            return Probe("absent", "the QNN provider finds no Hexagon NPU", remedy, facts)
        emulated = f"emulation of soc_model {EMULATED['soc_model']}, v{EMULATED['htp_arch']}"
        facts["device"] = emulated if target.device == "emulator" else found[0].device.vendor
        try:
            with tempfile.TemporaryDirectory(prefix="compat-") as folder:
                _compile_trifle(Path(folder), target)
        except Exception as error:
            reason = f"QNN does not compile a product of two matrices: {error}"
            return Probe("broken", reason, "update the NPU's driver, or onnxruntime-qnn", facts)
        return Probe("here", facts=facts)

    def compile(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> Session:
        return QnnSession(sources, target, recipe, options)


def _not_imported(error: Exception) -> Probe:
    for name in ("onnxruntime", "onnxruntime-qnn"):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            return Probe("absent", f"{name} is not installed", INSTALL + _libc())
    if int(version.split(".")[0]) < 2:
        # Before it was a plug-in it was a build of ONNX Runtime, in the same folder.
        reason = f"onnxruntime-qnn {version} overwrites onnxruntime and is no plug-in yet"
        remedy = f"pip uninstall onnxruntime onnxruntime-qnn && {INSTALL}"
        return Probe("broken", reason, remedy)
    return Probe(
        "broken", f"QNN does not import: {error}", INSTALL + " --force-reinstall" + _libc()
    )


def _libc() -> str:
    return " (needs glibc 2.35)" if sys.platform == "linux" else ""


@cache
def register() -> None:
    """Make the plug-in known to this process, once: ONNX Runtime refuses a second time.

    That it is known its devices do not say, where it finds none.
    """
    import onnxruntime
    import onnxruntime_qnn

    # Loaded after the emulator, libsndfile opens files to a handle of -1, and crashes.
    import soundfile  # noqa: F401

    onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())


def devices(target: Target) -> list[Any]:
    """Register the plug-in and return its devices for a target: the NPU's, or the emulator's."""
    import onnxruntime

    register()
    npu = onnxruntime.OrtHardwareDeviceType.NPU
    found = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]
    if target.device == "emulator":
        return found
    return [device for device in found if device.device.type == npu]


def open_session(
    path: Path, target: Target, context: Path | None = None, fallback: bool = False
) -> Any:
    """Open an ONNX file on the NPU.

    Args:
        path: the file, or one that names a compiled context.
        target: the NPU or its emulator.
        context: where to write the compiled context to, if it is wanted.
        fallback: whether operators that QNN does not know may be left to the processor.

    Raises:
        Exception: ONNX Runtime's own, where it does not compile or a node would be left over.
    """
    import onnxruntime
    import onnxruntime_qnn

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if not fallback:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if context is not None:
        options.add_session_config_entry("ep.context_enable", "1")
        options.add_session_config_entry("ep.context_embed_mode", "0")
        options.add_session_config_entry("ep.context_file_path", str(context))
    emulated = EMULATED if target.device == "emulator" else {}
    chosen = {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), **OPTIONS, **emulated}
    options.add_provider_for_devices(devices(target)[:1], chosen)
    # Else a provider that does not start is replaced by the processor, with a banner on standard
    # output: perfect results, and fast.
    return onnxruntime.InferenceSession(path, options, enable_fallback=0)


def left_over(path: Path, target: Target) -> Counter[str]:
    """Return the operators of a file that QNN would leave to the processor, with their number."""
    try:
        session = open_session(path, target, fallback=True)
    except Exception:
        return Counter()  # It fails for another reason, which the first error says.
    return Counter(
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name != PROVIDER
        for node in part.get_nodes()
    )


def _compile_trifle(folder: Path, target: Target) -> None:
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    weight = helper.make_tensor("w", TensorProto.FLOAT, (16, 16), np.eye(16, dtype=np.float32))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "trifle",
        [value("x", TensorProto.FLOAT, (1, 16))],
        [value("y", TensorProto.FLOAT, (1, 16))],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "trifle.onnx")
    session = open_session(folder / "trifle.onnx", target)
    ones = np.ones((1, 16), np.float32)
    (found,) = session.run(None, {"x": ones})
    np.testing.assert_allclose(found, ones, atol=1e-2)


# Graphs ------------------------------------------------------------------------------------------


def rewrite(folder: Path, reference: Mapping[str, str], graph: str, point: str) -> None:
    """Job: write a graph in the form that the NPU is given."""
    import onnx

    from compat.sources import open_source

    model = onnx.load(open_source(reference, graph).onnx(point))
    qnn_graph.rewrite(model)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data")


def written(source: Source, point: str) -> Path:
    """Return a graph as an ONNX file in the form that the NPU is given."""
    folder = source.derive(
        f"{__name__}:rewrite",
        {"point": point},
        (__name__, "compat.qnn_graph", "compat.sources", "compat.onnx_schemes"),
        ("torch", "transformers", "onnx", "onnxscript"),
    )
    return folder / "model.onnx"


# Quantisation ------------------------------------------------------------------------------------


def quantise(
    folder: Path,
    reference: Mapping[str, str],
    graph: str,
    point: str,
    scheme: str,
    corpus: str,
    recordings: str,
) -> None:
    """Job: quantise weights and activations with the ranges that recordings of a corpus give.

    ``recordings`` is the corpus's fingerprint, which makes another file of another corpus.
    """
    from compat.sources import ModelReference, open_source

    exported = written(open_source(reference, graph), point)
    recorded = calibration.record(ModelReference(**reference), graph, point, corpus)
    quantise_file(exported, folder, scheme, recorded.feeds)
    (folder / "calibration.txt").write_text(recorded.said, encoding="utf-8")


def quantise_file(
    exported: Path, folder: Path, scheme: str, feeds: Sequence[Mapping[str, np.ndarray]]
) -> None:
    """Write ``model.onnx`` into a folder: an exported file, quantised by what inputs lead to."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.execution_providers.qnn import (
        get_qnn_qdq_config,
        qnn_preprocess_model,
    )

    prepared, ranges = folder / "prepared.onnx", folder / "ranges.json"
    if not qnn_preprocess_model(exported, prepared):
        onnx.save(onnx.load(exported), prepared)
    model = onnx.load(prepared)
    soften_masks(model, MASKED[scheme])
    onnx.save(model, prepared)
    config = get_qnn_qdq_config(
        prepared,
        Feeds(()),
        activation_type=QuantType.QUInt16 if scheme == "int8-a16w8" else QuantType.QUInt8,
        weight_type=QuantType.QUInt8,
        # Filters differ in size by orders of magnitude. It reaches convolutions and Gemm; a MatMul
        # stays per tensor, as QNN takes no other.
        per_channel=True,
    )
    write_ranges(ranges, prepared, config.op_types_to_quantize, feeds, ROOM[scheme])
    quantize_static(
        prepared,
        folder / "model.onnx",
        op_types_to_quantize=config.op_types_to_quantize,
        per_channel=config.per_channel,
        activation_type=config.activation_type,
        weight_type=config.weight_type,
        use_external_data_format=config.use_external_data_format,
        extra_options=config.extra_options,
        calibration_cache_path=ranges,
    )
    prepared.unlink()
    ranges.unlink()


def write_ranges(
    path: Path,
    model: Path,
    operators: Sequence[str],
    feeds: Sequence[Mapping[str, np.ndarray]],
    room: float,
) -> None:
    """Write the range of every activation over inputs, widened, as ONNX Runtime reads them."""
    from onnxruntime.quantization.calibrate import (
        TensorData,
        create_calibrator,
        save_tensors_data,
    )

    augmented = path.with_name("augmented.onnx")
    calibrator = create_calibrator(model, operators, augmented_model_path=str(augmented))
    calibrator.collect_data(Feeds(feeds))
    ranges = calibrator.compute_data()
    for name in ranges:
        low, high = (np.asarray(end, np.float32) for end in ranges[name].range_value)
        # Both ends away from zero: what is never negative stays so.
        ranges[name] = TensorData(lowest=low * np.float32(room), highest=high * np.float32(room))
    save_tensors_data(ranges, path)
    for file in path.parent.glob("augmented.onnx*"):
        file.unlink()


class Feeds:
    """Recorded inputs, as ONNX Runtime's calibration reads them."""

    def __init__(self, feeds: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        return next(self._feeds, None)


def soften_masks(model: Any, floor: float) -> None:
    """Raise constants below -1,000 to ``-floor``: what they mask has no weight either way.

    They are added to scores before a softmax or a choice; the range of the sum would be theirs.
    """
    import onnx

    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor)
            if values.size and values.min() < -1000:
                softened = np.where(values < -1000, np.float32(-floor), values)
                tensor.CopyFrom(onnx.numpy_helper.from_array(softened, tensor.name))


def executed_scheme(path: Path) -> str:
    """Return in which precision the products of an ONNX file are executed by the NPU.

    It has no float32: what is not quantised is executed in float16.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    found: Counter[str] = Counter()
    names = {onnx.TensorProto.UINT8: "int8-a8w8", onnx.TensorProto.UINT16: "int8-a16w8"}
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM"):
            before = producers.get(node.input[0])
            if before is not None and before.op_type == "DequantizeLinear":
                found[names.get(kinds.get(before.input[2]), "?")] += 1
            else:
                found["fp16"] += 1
    return found.most_common(1)[0][0] if found else "fp16"


# Oracles -----------------------------------------------------------------------------------------


def _rounded(module: torch.nn.Module, bits: int) -> torch.nn.Module:
    """Simulate 8-bit weights, and activations of some bits after every operator, per tensor."""
    import torch
    from torch.overrides import TorchFunctionMode

    def grid(values: torch.Tensor, steps: int) -> torch.Tensor:
        # Asymmetric, zero always representable.
        low, high = values.min().clamp(max=0), values.max().clamp(min=0)
        scale = ((high - low) / steps).clamp(min=1e-12)
        zero = (-low / scale).round()
        return (((values / scale).round() + zero).clamp(0, steps) - zero) * scale

    def activation(value: Any, known: set[int]) -> Any:
        if isinstance(value, tuple):
            return tuple(activation(one, known) for one in value)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        if value.untyped_storage().data_ptr() in known or not value.numel():
            return value  # A view of what is rounded already.
        softened = torch.where(value < -1000, -MASKED[f"int8-a{bits}w8"], value)
        return grid(softened, 2**bits - 1)

    class Rounding(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
            return activation(function(*args, **(kwargs or {})), given)

    class Rounded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *tensors: torch.Tensor) -> Any:
            rounded = [activation(tensor, set()) for tensor in tensors]
            with Rounding():
                return self.inner(*rounded)

    for child in module.modules():
        if isinstance(child, (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.LSTM)):
            for name, weight in list(child.named_parameters(recurse=False)):
                if "weight" in name:
                    # A new tensor: the weight may be tied to an embedding.
                    rounded = torch.nn.Parameter(grid(weight, 255), requires_grad=False)
                    setattr(child, name, rounded)
    return Rounded()


def round_to_8(module: torch.nn.Module) -> torch.nn.Module:
    """Return a float32 module that errs as 8-bit activations and weights do."""
    return _rounded(module, 8)


def round_to_16(module: torch.nn.Module) -> torch.nn.Module:
    """Return a float32 module that errs as 16-bit activations and 8-bit weights do."""
    return _rounded(module, 16)


Qnn.oracles = {"int8-a8w8": round_to_8, "int8-a16w8": round_to_16}


# Sessions ----------------------------------------------------------------------------------------


class QnnSession(OrtSession):
    """One compiled context per graph and point."""

    def __init__(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> None:
        self.target = target
        self._folder = tempfile.TemporaryDirectory(prefix="compat-")
        self._nodes: Counter[str] = Counter()
        self._notes: dict[str, str] = {}
        super().__init__(sources, Provider(PROVIDER, "cpu", RECIPES, INSTALL), recipe, options)

    def _build_ahead(self) -> None:
        pass  # Every point is calibrated by itself, which takes long: none in vain.

    def _file(self, graph: str, point: str) -> Path:
        source, scheme = self.sources[graph], self.recipe.for_graph(graph)
        # What is shipped is executed as it is, never rewritten or quantised.
        if source.shipped("fp32" if scheme == "fp16" else scheme, "onnx"):
            return source.onnx(point)
        if scheme == "fp16":
            return written(source, point)
        named = self.options.corpus
        known = corpora.load(Path(named) if named else corpora.DEFAULT)
        folder = source.derive(
            f"{__name__}:quantise",
            {
                "point": point,
                "scheme": scheme,
                "corpus": named,
                "recordings": known.fingerprint,
            },
            (__name__, "compat.qnn_graph", *calibration.MODULES),
            ("torch", "transformers", "onnx", "onnxruntime"),
            fitted=True,
        )
        self._notes["calibration"] = (folder / "calibration.txt").read_text(encoding="utf-8")
        return folder / "model.onnx"

    def _compile(self, graph: str, point: str, path: Path) -> Any:
        folder = Path(self._folder.name) / f"{graph}-{point}"
        folder.mkdir()
        context = folder / "context.onnx"
        try:
            compiled = open_session(path, self.target, context)
        except Exception as error:
            if refused := left_over(path, self.target):
                said = ", ".join(f"{count} {name}" for name, count in refused.most_common())
                raise Unsupported(f"QNN cannot execute all of {graph}: not {said}") from error
            raise
        self._nodes += Counter(nodes_by_provider(compiled))
        del compiled
        self._executes.setdefault(graph, executed_scheme(path))
        self._notes["compiler"] = f"QAIRT {compiler_version(context)}"
        return open_session(context, self.target)

    def placement(self) -> Placement:
        counts = Counter(self._nodes)
        for session in self._compiled.values():
            # Of a context that was loaded all is one node, of the provider that compiled it.
            for name, nodes in nodes_by_provider(session).items():
                counts[name] += nodes if name != PROVIDER else 0
        total = sum(counts.values())
        shares = {name: count / total for name, count in counts.items()}
        return Placement(shares, PROVIDER, "node assignment at compilation, fallback forbidden")

    def notes(self) -> Mapping[str, str]:
        return self._notes

    def model_bytes(self) -> int:
        """Size of the context binaries of the first point."""
        return sum(
            path.stat().st_size
            for graph in self.graphs.values()
            for path in (
                Path(self._folder.name) / f"{graph.name}-{next(iter(graph.points))}"
            ).iterdir()
        )

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


def compiler_version(context: Path) -> str:
    """Return the version of the SDK that compiled a context, as its ONNX file says."""
    import onnx

    for node in onnx.load(context, load_external_data=False).graph.node:
        for attribute in node.attribute:
            if attribute.name == "ep_sdk_version":
                return str(attribute.s.decode())
    return "of unknown version"


RUNTIME = Qnn()
