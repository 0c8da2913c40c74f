"""Sessions of QNN, on the NPU or its emulator."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime

# Imported first: if libsndfile is loaded after the emulator, it opens files to a handle of -1, and
# crashes.
import soundfile  # noqa: F401

from compat.contract.case import Recipe, Target
from compat.contract.runtime import Options
from compat.contract.session import Placement, Unsupported
from compat.inputs import corpus as corpora
from compat.runtimes.ort import OrtSession, Provider, nodes_by_provider
from compat.runtimes.qnn.graph import rewritten
from compat.runtimes.qnn.runtime import EMULATED, INSTALL, RECIPES

if TYPE_CHECKING:
    from compat.contract.source import Source

QUANTISE = "compat.runtimes.qnn.convert:quantise"
PROVIDER = "QNNExecutionProvider"

OPTIONS: Mapping[str, str] = {
    "enable_htp_fp16_precision": "1",
    # Otherwise the provider leaves the quantisation of inputs and outputs to the processor.
    "offload_graph_io_quantization": "0",
}


@cache
def register() -> None:
    """Register the plug-in with ONNX Runtime, once in a process: a second time is an error.

    The list of devices cannot tell whether the plug-in is registered, as it may find none.
    """
    import onnxruntime_qnn

    onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())


def devices(target: Target) -> list[Any]:
    """Register the plug-in and return its devices for a target: the NPU's, or the emulator's."""
    register()
    npu = onnxruntime.OrtHardwareDeviceType.NPU
    found = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]
    if target.device == "emulator":
        return found
    return [device for device in found if device.device.type == npu]


def open_session(
    path: Path, target: Target, context: Path | None = None, fallback: bool = False
) -> Any:
    """Return an inference session of an ONNX file on the NPU or its emulator.

    Args:
        path: the file, or one that names a compiled context.
        target: the NPU or its emulator.
        context: where to write the compiled context; None writes none.
        fallback: whether operators that QNN does not know may run on the processor.

    Raises:
        Exception: ONNX Runtime's own error if the file does not compile, or if a node would run on
            the processor without ``fallback``.
    """
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
    # Otherwise ONNX Runtime replaces a provider that does not start by the processor, with a banner
    # on standard output. The results would be perfect, fast, and not the NPU's.
    return onnxruntime.InferenceSession(path, options, enable_fallback=0)


def left_over(path: Path, target: Target) -> Counter[str]:
    """Return how many nodes of each operator of a file QNN would leave to the processor."""
    try:
        session = open_session(path, target, fallback=True)
    except Exception:
        return Counter()  # The file fails for another reason, which the caller's error tells.
    return Counter(
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name != PROVIDER
        for node in part.get_nodes()
    )


# Sessions ----------------------------------------------------------------------------------------


class QnnSession(OrtSession):
    """A session with one compiled context per graph and point."""

    def __init__(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> None:
        self.target = target
        self._sizes: dict[tuple[str, str], int] = {}
        self._nodes: Counter[str] = Counter()
        self._notes: dict[str, str] = {}
        super().__init__(sources, Provider(PROVIDER, "cpu", RECIPES, INSTALL), recipe, options)

    def _build_ahead(self) -> None:
        pass  # Every point is calibrated by itself, which takes long: none is built ahead.

    def _file(self, graph: str, point: str) -> Path:
        source, scheme = self.sources[graph], self.recipe.for_graph(graph)
        # Shipped files are executed as they are, never rewritten or quantised.
        if source.shipped("fp32" if scheme == "fp16" else scheme, "onnx"):
            return source.onnx(point)
        if scheme == "fp16":
            return rewritten(source, point).fetch() / "model.onnx"
        named = self.options.corpus
        known = corpora.load(Path(named) if named else corpora.DEFAULT)
        folder = source.derive(
            QUANTISE,
            {
                "point": point,
                "scheme": scheme,
                "corpus": named,
                "recordings": known.fingerprint,
            },
            ("torch", "transformers", "onnx", "onnxruntime"),
            made_from=[rewritten(source, point)],
            fitted=True,
        ).fetch()
        self._notes["calibration"] = (folder / "calibration.txt").read_text(encoding="utf-8")
        return folder / "model.onnx"

    def _compile(self, graph: str, point: str, path: Path) -> Any:
        # The folder is removed at once, as a worker has no time for it at its end. Windows does not
        # delete open files, which is ignored.
        with tempfile.TemporaryDirectory(prefix="compat-", ignore_cleanup_errors=True) as folder:
            context = Path(folder) / "context.onnx"
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
            self._sizes[graph, point] = sum(one.stat().st_size for one in Path(folder).iterdir())
            return open_session(context, self.target)

    def placement(self) -> Placement:
        counts = Counter(self._nodes)
        for session in self._compiled.values():
            # A loaded context is a single node of QNN's provider, which does not count here: its
            # nodes were counted at compilation.
            for name, nodes in nodes_by_provider(session).items():
                counts[name] += nodes if name != PROVIDER else 0
        total = sum(counts.values())
        shares = {name: count / total for name, count in counts.items()}
        return Placement(shares, PROVIDER, "node assignment at compilation, fallback forbidden")

    def notes(self) -> Mapping[str, str]:
        return self._notes

    def model_bytes(self) -> int:
        """Return the bytes of the context binaries of each graph's first point."""
        return sum(
            self._sizes[graph.name, next(iter(graph.points))] for graph in self.graphs.values()
        )


def compiler_version(context: Path) -> str:
    """Return the version of Qualcomm's SDK that compiled a context, as its ONNX file says."""
    for node in onnx.load(context, load_external_data=False).graph.node:
        for attribute in node.attribute:
            if attribute.name == "ep_sdk_version":
                return str(attribute.s.decode())
    return "of unknown version"


def executed_scheme(path: Path) -> str:
    """Return the scheme in which the NPU executes most products of an ONNX file.

    The NPU has no float32: products that are not quantised run in float16.
    """
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
