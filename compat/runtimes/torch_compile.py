"""PyTorch with its compiler: TorchInductor, and CUDA graphs on NVIDIA's and AMD's cards."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compat.build.schemes import FLOATS
from compat.build.torch_session import TorchSession
from compat.contract.case import Recipe, Target
from compat.contract.runtime import Options, Probe
from compat.contract.session import Unsupported
from compat.runtimes.pytorch import PyTorch

if TYPE_CHECKING:
    import torch

    from compat.contract.source import Source

MODES = {"cpu": "default", "cuda": "reduce-overhead"}
"""Mode of ``torch.compile`` by device. ``reduce-overhead`` records CUDA graphs, since decoding one
token launches hundreds of kernels."""
COMPILERS = ("c++", "g++", "clang++", "cl")


class TorchCompile(PyTorch):
    """PyTorch with each module compiled by TorchInductor as one graph, at its static shapes."""

    name = "torch-compile"
    session = "compat.runtimes.torch_compile:CompiledSession"
    targets = (
        Target(
            "cpu-torch-compile",
            "cpu",
            "torch-compile",
            "cpu",
            ("fp32", "bf16"),
            on_host_cpu=True,
            # Compiling takes half a minute for each graph.
            on_request=True,
        ),
        Target("cuda-torch-compile", "cuda", "torch-compile", "cuda", ("tf32", *FLOATS)),
        Target("rocm-torch-compile", "rocm", "torch-compile", "cuda", FLOATS),
    )

    def probe(self, target: Target) -> Probe:
        found = super().probe(target)
        if found.state != "here":
            return found
        if target.device == "cpu" and not any(map(shutil.which, COMPILERS)):
            remedy = {
                "Linux": "apt install g++ (or your system's package of it)",
                "Darwin": "xcode-select --install",
            }.get(platform.system(), "install Visual Studio's C++ build tools")
            return Probe("absent", "TorchInductor needs a C++ compiler", remedy, found.facts)
        if target.device != "cpu":
            import importlib.util

            if importlib.util.find_spec("triton") is None:
                return Probe(
                    "absent", "TorchInductor needs Triton", "pip install triton", found.facts
                )
        return found

    def compile(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> TorchSession:
        import torch

        for source in sources.values():
            if source.graph.shipped:
                raise Unsupported(f"{source.graph.name} is shipped compiled, there is no source")
        session = super().compile(sources, target, recipe, options)
        compiled: Any = torch.compile
        for name, module in session.modules.items():
            fast = compiled(module, fullgraph=True, dynamic=False, mode=MODES[target.device])
            session.modules[name] = fast if target.device == "cpu" else owning(fast)
        return session


class CompiledSession(TorchSession):
    """A session of compiled modules.

    Its notes name no attention kernels, as TorchInductor may generate its own.
    """

    def notes(self) -> Mapping[str, str]:
        recorded = self.device.type == "cuda"
        mode = MODES[self.device.type]
        return {"compiled": f"{mode}, {'with' if recorded else 'without'} CUDA graphs"}


def owning(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module that copies its outputs, as a CUDA graph overwrites them at its next run."""
    import torch

    class Owning(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recorded = module

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            return tuple(output.clone() for output in self.recorded(*inputs))

    return Owning()


RUNTIME = TorchCompile()
