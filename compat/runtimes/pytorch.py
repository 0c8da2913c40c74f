"""PyTorch in eager mode, on CPUs and on the GPUs of NVIDIA (cuda), AMD (rocm) and Apple (mps)."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

from compat.build.schemes import FLOATS
from compat.build.torch_session import TorchSession, open_module
from compat.contract.case import Recipe, Target
from compat.contract.named import resolve
from compat.contract.runtime import GraphRuntime, Options, Probe

if TYPE_CHECKING:
    import torch

    from compat.contract.source import Source
RECIPES = (*FLOATS, "int8-dynamic", "int8-weights")
INSTALL = "pip install torch==2.13.0"


class PyTorch(GraphRuntime):
    """PyTorch without its compiler, a target for each device."""

    name = "torch"
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    modules: ClassVar[tuple[str, ...]] = ("torch",)
    session = "compat.build.torch_session:TorchSession"
    """Path of the session's class. It is given modules in their schemes and on their device."""
    oracles: ClassVar = {"int8-dynamic": "compat.build.oracles:round_activations_to_7_bits"}
    targets: ClassVar[tuple[Target, ...]] = (
        Target(
            "cpu-torch",
            "cpu",
            "torch",
            "cpu",
            RECIPES,
            on_host_cpu=True,
            # PyTorch's own int8 is deprecated, and other runtimes measure int8 on a processor.
            core=("fp32",),
        ),
        Target("cuda-torch", "cuda", "torch", "cuda", ("tf32", *RECIPES)),
        Target("rocm-torch", "rocm", "torch", "cuda", RECIPES),
        Target("mps-torch", "mps", "torch", "mps", RECIPES),
    )

    def probe(self, target: Target) -> Probe:
        try:
            version = metadata.version("torch")
        except metadata.PackageNotFoundError:
            version = ""
        if target.device == "cuda" and version.endswith("+cpu"):
            return _other_build(version, target)  # An import, which takes seconds, is not needed.
        try:
            import torch
        except ImportError as error:
            if not version:
                return Probe("absent", "PyTorch is not installed", INSTALL)
            return Probe("broken", f"PyTorch does not import: {error}", f"{INSTALL} --force")
        facts: dict[str, Any] = {"torch": torch.__version__}
        if target.device == "cpu":
            facts["capability"] = torch.backends.cpu.get_cpu_capability()
            return Probe("here", facts=facts)
        if target.device == "mps":
            if platform.system() != "Darwin":
                return Probe("absent", "Metal exists only on macOS", "run on an Apple-silicon Mac")
            if not torch.backends.mps.is_available():
                return Probe("absent", "PyTorch finds no Metal device", "needs macOS 14 or newer")
            return Probe("here", facts=facts)
        hip = torch.version.hip is not None
        wanted = target.hardware == "rocm"
        if wanted != hip or (not wanted and torch.version.cuda is None):
            return _other_build(torch.__version__, target)
        if not torch.cuda.is_available():
            build, tool = ("HIP", "rocm-smi") if wanted else ("CUDA", "nvidia-smi")
            return Probe(
                "absent", f"PyTorch finds no {build} device", f"check the driver with `{tool}`"
            )
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "device": properties.name,
            "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "toolkit": torch.version.hip or torch.version.cuda,
            "bf16": torch.cuda.is_bf16_supported(),
        }
        return Probe("here", facts=facts)

    def unsupported(self, target: Target, recipe: Recipe) -> str:
        if "tf32" in recipe.schemes and target.hardware != "cuda":
            return "tf32 is a format of NVIDIA's tensor cores"
        if "int8-dynamic" in recipe.schemes and target.device != "cpu":
            return "PyTorch's dynamic int8 kernels exist for the CPU only"
        return super().unsupported(target, recipe)

    def compile(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> TorchSession:
        import torch

        torch.set_num_threads(options.threads)
        device = torch.device(target.device + (f":{options.device}" if options.device else ""))
        if device.type == "cuda":
            # Set for tf32 and for ieee alike: a library or a variable may have changed the default.
            precision = "tf32" if "tf32" in recipe.schemes else "ieee"
            torch.backends.cuda.matmul.fp32_precision = precision
            cudnn: Any = torch.backends.cudnn
            cudnn.conv.fp32_precision = precision
        schemes = {name: recipe.for_graph(name) for name in sources}
        modules = {
            name: self.open_module(source, schemes[name], device)
            for name, source in sources.items()
        }
        graphs = {name: source.graph for name, source in sources.items()}
        session: TorchSession = resolve(self.session)(graphs, modules, schemes, device)
        return session

    def open_module(self, source: Source, scheme: str, device: torch.device) -> torch.nn.Module:
        """Return a graph's module in a scheme, on a device.

        Subclasses for quantisation libraries override this, as they have other schemes.
        """
        return open_module(source, scheme, device)


def _other_build(version: str, target: Target) -> Probe:
    """Return the probe for a build of PyTorch that cannot use GPUs of the target's kind."""
    rocm = target.hardware == "rocm"
    index, build = ("rocm7.0", "HIP") if rocm else ("cu130", "CUDA")
    return Probe(
        "absent",
        f"PyTorch {version} is not a {build} build",
        f"install PyTorch's {index} build, see https://pytorch.org/get-started/locally/",
    )


RUNTIME = PyTorch()
