"""Sessions of PyTorch: the runtime itself, and the reference and the oracles of all others."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.build.schemes import apply_scheme
from compat.contract.graph import State
from compat.contract.precision import precision_of
from compat.contract.session import Placement, TensorSession

if TYPE_CHECKING:
    import torch

    from compat.contract.source import Source


KERNEL = "aten::_scaled_dot_product_"
"""Prefix of the names of attention kernels."""


def open_module(source: Source, scheme: str, device: torch.device) -> torch.nn.Module:
    """Return a graph's module in a scheme, on a device.

    A graph that its makers ship as TorchScript is loaded from that file.

    Raises:
        Unsupported: PyTorch has no such scheme, or the makers ship the graph in other forms only.
    """
    import torch

    shipped = source.shipped(scheme, "torchscript")
    if shipped is None:
        return apply_scheme(source.module(), scheme, device)
    script: Any = torch.jit
    with warnings.catch_warnings():
        # PyTorch deprecates TorchScript for torch.export, but TorchScript is what is shipped.
        warnings.simplefilter("ignore", DeprecationWarning)
        loaded = script.load(shipped.path, map_location=device)
    module: torch.nn.Module = getattr(loaded, shipped.part) if shipped.part else loaded
    return module.eval()


class TorchSession(TensorSession):
    """A session of PyTorch modules on one device; states are written in place."""

    def __init__(
        self,
        graphs: Mapping[str, Any],
        modules: dict[str, torch.nn.Module],
        schemes: Mapping[str, str],
        device: torch.device,
    ) -> None:
        super().__init__(graphs)
        self.modules = modules
        self.schemes = schemes
        self.device = device
        self._seen: dict[str, dict[str, int]] = {}
        self._first: dict[str, list[torch.Tensor]] = {}

    def upload(self, array: np.ndarray, graph: str) -> torch.Tensor:
        import torch

        tensor = torch.from_numpy(array)
        if tensor.is_floating_point():
            return tensor.to(self.device, self._dtype(graph))
        return tensor.to(self.device)

    def download(self, native: torch.Tensor) -> np.ndarray:
        import torch

        if native.dtype == torch.bfloat16:
            native = native.float()
        array: np.ndarray = native.detach().cpu().numpy()
        return array

    def execute(
        self, graph: str, point: str, inputs: Mapping[str, torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        import torch

        spec = self.graphs[graph]
        dtype = self._dtype(graph)
        ordered = [
            value.to(dtype) if value.is_floating_point() else value
            for value in (inputs[name] for name in (*spec.inputs, *spec.state))
        ]
        with torch.inference_mode():
            outputs: tuple[torch.Tensor, ...] = self.modules[graph](*ordered)
        self._first.setdefault(graph, ordered)
        devices = self._seen.setdefault(graph, {})
        for output in outputs[:1]:
            devices[output.device.type] = devices.get(output.device.type, 0) + 1
        return outputs

    def write(self, state: State, buffer: Any, value: Any, position: int) -> Any:
        import torch

        with torch.inference_mode():
            buffer.narrow(state.axis, position, 1).copy_(value)
        return buffer

    def synchronize(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def device_peak_bytes(self) -> int | None:
        import torch

        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        if self.device.type == "mps":
            return int(torch.mps.driver_allocated_memory())
        return None

    def placement(self) -> Placement:
        counts: dict[str, int] = {}
        for module in self.modules.values():
            for tensor in (*module.parameters(), *module.buffers()):
                counts[tensor.device.type] = counts.get(tensor.device.type, 0) + 1
        for seen in self._seen.values():
            for device, count in seen.items():
                counts[device] = counts.get(device, 0) + count
        total = sum(counts.values())
        shares = {device: count / total for device, count in counts.items()}
        return Placement(shares, self.device.type, "device of every parameter and first output")

    def notes(self) -> Mapping[str, str]:
        """Return the names of the attention kernels that PyTorch chose, such as ``flash``."""
        kernels = {
            name
            for graph, inputs in self._first.items()
            for name in attention_kernels(self.modules[graph], inputs)
        }
        return {"attention": ", ".join(sorted(kernels))} if kernels else {}

    def executed(self) -> Mapping[str, str]:
        return {name: self._executed(name) for name in self._seen}

    def unquantised(self) -> Collection[str]:
        return [
            graph
            for graph, scheme in self.schemes.items()
            if precision_of(scheme).quantised and not precision_of(self._executed(graph)).quantised
        ]

    def _executed(self, graph: str) -> str:
        import torch

        module = self.modules[graph]
        kinds = {type(child).__name__ for child in module.modules()}
        if any("quantized.dynamic" in type(child).__module__ for child in module.modules()):
            return "int8-dynamic"
        if "Int8WeightLinear" in kinds:
            return "int8-weights"
        dtype = self._dtype(graph)
        if (
            dtype == torch.float32
            and self.device.type == "cuda"
            and torch.backends.cuda.matmul.fp32_precision == "tf32"
        ):
            return "tf32"
        return {
            torch.float64: "fp64",
            torch.float32: "fp32",
            torch.float16: "fp16",
            torch.bfloat16: "bf16",
        }[dtype]

    def _dtype(self, graph: str) -> torch.dtype:
        import torch

        module = self.modules[graph]
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                return tensor.dtype
        return torch.float32

    def model_bytes(self) -> int:
        import torch

        tensors: dict[int, int] = {}
        for module in self.modules.values():
            values = module.state_dict().values()
            for value in values:
                if isinstance(value, torch.Tensor):
                    tensors[_address(value)] = value.numel() * value.element_size()
                elif isinstance(value, tuple):  # Packed weight and bias of a quantised layer.
                    for part in value:
                        if isinstance(part, torch.Tensor):
                            tensors[_address(part)] = part.numel() * part.element_size()
        return sum(tensors.values())


def attention_kernels(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> set[str]:
    """Return the kernels of scaled dot-product attention that a module runs on these inputs.

    PyTorch chooses a kernel from shapes, types and device. The set is empty for models that compute
    attention from single operators.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    found: set[str] = set()

    # Only calls with "attention" in their name are profiled. Watching every operator (a dispatch
    # mode) would import PyTorch's compiler, which takes seconds even without any attention.
    class Listening(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if "attention" in getattr(function, "__name__", ""):
                with torch.autograd.profiler.profile() as profile:
                    result = function(*args, **(kwargs or {}))
                names = {event.name for event in profile.function_events}
                found.update(n.removeprefix(KERNEL) for n in names if n.startswith(KERNEL))
                return result
            return function(*args, **(kwargs or {}))

    with torch.inference_mode(), Listening():
        module(*inputs)
    return found


def _address(tensor: torch.Tensor) -> int:
    # Tied parameters share their storage and count once. Quantised tensors give no data pointer.
    return id(tensor) if tensor.is_quantized else tensor.data_ptr()
