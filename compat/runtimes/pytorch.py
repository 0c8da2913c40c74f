"""PyTorch, eager: one file for cpu, cuda, rocm and mps."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compat.case import Recipe, Target
from compat.graph import State
from compat.runtimes.base import Options, Placement, Probe, Runtime, Session, Unsupported

if TYPE_CHECKING:
    import torch

    from compat.sources import Source

FLOATS = ("fp32", "fp16", "bf16")
RECIPES = (*FLOATS, "int8-dynamic", "int8-weights")
INSTALL = "pip install torch==2.13.0"
KERNEL = "aten::_scaled_dot_product_"
"""What the names of attention kernels begin with."""


class PyTorch(Runtime):
    name = "torch"
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    modules: ClassVar[tuple[str, ...]] = ("torch",)
    targets: ClassVar[tuple[Target, ...]] = (
        Target(
            "cpu-torch",
            "cpu",
            "torch",
            "cpu",
            RECIPES,
            on_host_cpu=True,
            # Its int8 is deprecated: other runtimes show what 8 bits do on a processor.
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
            return _other_build(version, target)  # Known without the seconds of an import.
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
    ) -> Session:
        import torch

        torch.set_num_threads(options.threads)
        device = torch.device(target.device + (f":{options.device}" if options.device else ""))
        if device.type == "cuda":
            # Set on both sides: a library or an environment variable may have changed either.
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
        return self.session(graphs, modules, schemes, device)

    @property
    def session(self) -> type[TorchSession]:
        """What runs modules that are in their schemes and on their device."""
        return TorchSession

    def open_module(self, source: Source, scheme: str, device: torch.device) -> torch.nn.Module:
        """Return a graph's module in a scheme; a library of quantisation has other schemes."""
        return open_module(source, scheme, device)


def open_module(source: Source, scheme: str, device: torch.device) -> torch.nn.Module:
    """Return a graph's module in a scheme, or the TorchScript file in which it is shipped."""
    import torch

    shipped = source.shipped(scheme, "torchscript")
    if shipped is None:
        return apply_scheme(source.module(), scheme, device)
    script: Any = torch.jit
    with warnings.catch_warnings():
        # PyTorch would rather have an archive of torch.export, which is not what is shipped.
        warnings.simplefilter("ignore", DeprecationWarning)
        loaded = script.load(shipped.path, map_location=device)
    module: torch.nn.Module = getattr(loaded, shipped.part) if shipped.part else loaded
    return module.eval()


def apply_scheme(module: torch.nn.Module, scheme: str, device: torch.device) -> torch.nn.Module:
    """Convert a float32 module to a scheme and put it on a device."""
    import torch

    floats = {
        "fp64": torch.float64,
        "fp32": torch.float32,
        "tf32": torch.float32,
        "fp16": torch.float16,
        "bf16": torch.bfloat16,
    }
    if scheme in floats:
        return module.to(device, floats[scheme])
    if scheme == "int8-dynamic":
        quantization: Any = torch.ao.quantization
        layers = {torch.nn.Linear: quantization.per_channel_dynamic_qconfig}
        with warnings.catch_warnings():
            # Deprecated for torchao's, yet what PyTorch itself has for dynamic int8 on a CPU.
            warnings.simplefilter("ignore")
            quantised: torch.nn.Module = quantization.quantize_dynamic(module, layers)
        return quantised
    if scheme == "int8-weights":
        return replace_linears(module, int8_weight_linear).to(device)
    raise Unsupported(f"no PyTorch recipe for {scheme}")


def replace_linears(module: torch.nn.Module, make: Any) -> torch.nn.Module:
    """Replace every ``torch.nn.Linear`` below a module by what ``make(linear)`` returns."""
    import torch

    for name, child in module.named_children():
        if isinstance(child, torch.nn.Linear):
            setattr(module, name, make(child))
        else:
            replace_linears(child, make)
    return module


def quantise_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise a matrix (out, in) to int8, symmetric, one float32 scale (out, 1) per row."""
    import torch

    scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    return (weight / scale).round().clamp(-127, 127).to(torch.int8), scale


def round_blocks(weight: torch.Tensor, block: int) -> torch.Tensor:
    """Round a matrix (out, in) to 4 bits: symmetric, one scale for ``block`` values of a row.

    The largest value of a block, with its sign, is the step -8, so that none of the 16 is unused:
    llama.cpp's Q4_0, which ONNX Runtime and NNCF share.
    """
    import torch

    rows, columns = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -columns % block))
    blocks = padded.reshape(rows, -1, block)
    largest = blocks.gather(2, blocks.abs().argmax(2, keepdim=True))
    scale = -largest / 8
    scale = torch.where(scale.abs() < 1e-12, torch.full_like(scale, 1e-12), scale)
    rounded = (blocks / scale).round().clamp(-8, 7) * scale
    return rounded.reshape(rows, -1)[:, :columns]


def int8_weight_linear(linear: torch.nn.Linear) -> torch.nn.Module:
    """Return a linear layer whose weight is stored as int8 per row and used as float."""
    import torch

    class Int8WeightLinear(torch.nn.Module):
        weight: torch.Tensor
        scale: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            weight, scale = quantise_rows(linear.weight)
            self.register_buffer("weight", weight)
            self.register_buffer("scale", scale)
            self.bias = linear.bias

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            # Scaling the product's columns costs less than scaling the matrix's rows.
            weight = self.weight.to(values.dtype)
            product = torch.nn.functional.linear(values, weight) * self.scale.T[0]
            return product if self.bias is None else product + self.bias

    return Int8WeightLinear()


class TorchSession(Session):
    """Modules on a device; states are written in place."""

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
        """Name the attention kernels that PyTorch chose: flash, memory-efficient or plain."""
        kernels = {
            name
            for graph, inputs in self._first.items()
            for name in attention_kernels(self.modules[graph], inputs)
        }
        return {"attention": ", ".join(sorted(kernels))} if kernels else {}

    def executed(self) -> Mapping[str, str]:
        return {name: self._executed(name) for name in self._seen}

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


def _other_build(version: str, target: Target) -> Probe:
    """Say that this build of PyTorch cannot reach a GPU of a target's kind."""
    rocm = target.hardware == "rocm"
    index, build = ("rocm7.0", "HIP") if rocm else ("cu130", "CUDA")
    return Probe(
        "absent",
        f"PyTorch {version} is not a {build} build",
        f"install PyTorch's {index} build, see https://pytorch.org/get-started/locally/",
    )


def attention_kernels(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> set[str]:
    """Return the kernels of scaled dot-product attention that a module runs on these inputs.

    Which one it is PyTorch decides from shapes, types and device; models that spell attention out
    have none.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    found: set[str] = set()

    # Listening to every operator of a graph would import the compiler: seconds, for models without
    # any attention too.
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
    # Tied parameters share their storage and count once; quantised ones have none to ask for.
    return id(tensor) if tensor.is_quantized else tensor.data_ptr()


RUNTIME = PyTorch()
