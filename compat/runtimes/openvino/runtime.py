"""OpenVINO as a runtime, with a target for each of its devices: CPU, GPU and NPU."""

from __future__ import annotations

from importlib import metadata
from typing import Any, ClassVar

from compat.contract.case import Target
from compat.contract.runtime import GraphRuntime, Probe

RECIPES = ("fp32", "fp16", "bf16", "int8-dynamic", "int8-weights", "int8-a8w8", "int4-weights")
ORACLES = "compat.runtimes.openvino.oracles"
INSTALL = "pip install openvino==2026.4.1 nncf==3.4.0"


class OpenVino(GraphRuntime):
    """OpenVINO on Intel's devices, and on other makers' CPUs."""

    name = "openvino"
    session = "compat.runtimes.openvino.session:OpenVinoSession"
    oracles: ClassVar = {
        "int8-weights": f"{ORACLES}:round_weights",
        "int8-dynamic": f"{ORACLES}:round_activations",
        "int8-a8w8": f"{ORACLES}:round_tensors",
        "int4-weights": f"{ORACLES}:round_to_4_bits",
    }
    packages = ("openvino", "nncf", "torch", "onnxscript")
    modules = ("openvino",)
    # OpenVINO makes two copies while it compiles: MusicGen's step of 1.7 GB took 6.8 to 8.4 GB.
    copies = 5.0
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


RUNTIME = OpenVino()
