"""Qualcomm's Hexagon NPU (HTP) through ONNX Runtime's QNN plug-in, and its emulator on a PC.

The graph is compiled as a whole into a context binary, which is written and loaded again, as a
product would ship it. No node may fall back to the processor.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from compat.contract.case import Target
from compat.contract.named import resolve
from compat.contract.runtime import GraphRuntime, Probe

INSTALL = "pip install onnxruntime==1.31.1 onnxruntime-qnn==2.7.0"
ACTIVATION_BITS = {"int8-a8w8": 8, "int8-a16w8": 16}
RECIPES = ("fp16", *ACTIVATION_BITS)
EMULATED: Mapping[str, str] = {"soc_model": "60", "htp_arch": "73"}
"""Options that make the emulator a Snapdragon X Elite. Without them it compiles no float graph."""
ORACLES = "compat.runtimes.qnn.oracles"


class Qnn(GraphRuntime):
    """QNN on Qualcomm's NPU, and in its emulator."""

    name = "qnn"
    packages = ("onnxruntime-qnn", "onnxruntime", "torch", "onnxscript")
    modules = ("onnxruntime", "onnxruntime_qnn")
    session = "compat.runtimes.qnn.session:QnnSession"
    oracles: ClassVar = {
        "int8-a8w8": f"{ORACLES}:round_to_8",
        "int8-a16w8": f"{ORACLES}:round_to_16",
    }
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
            found = resolve("compat.runtimes.qnn.session:devices")(target)
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


def _not_imported(error: Exception) -> Probe:
    for name in ("onnxruntime", "onnxruntime-qnn"):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            return Probe("absent", f"{name} is not installed", INSTALL + _libc())
    if int(version.split(".")[0]) < 2:
        # Before version 2 the package was a whole build of ONNX Runtime, in the same folder.
        reason = f"onnxruntime-qnn {version} overwrites onnxruntime and is no plug-in yet"
        remedy = f"pip uninstall onnxruntime onnxruntime-qnn && {INSTALL}"
        return Probe("broken", reason, remedy)
    return Probe(
        "broken", f"QNN does not import: {error}", INSTALL + " --force-reinstall" + _libc()
    )


def _libc() -> str:
    return " (needs glibc 2.35)" if sys.platform == "linux" else ""


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
    session = resolve("compat.runtimes.qnn.session:open_session")(folder / "trifle.onnx", target)
    ones = np.ones((1, 16), np.float32)
    (found,) = session.run(None, {"x": ones})
    np.testing.assert_allclose(found, ones, atol=1e-2)


RUNTIME = Qnn()
