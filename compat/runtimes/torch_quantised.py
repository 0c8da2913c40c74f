"""Libraries that quantise PyTorch modules: torchao and bitsandbytes.

Both quantise the weights of linear layers; everything else stays in float32. If a library is not
installed, only its own targets are absent.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from compat.build.schemes import FLOATS, replace_linears
from compat.build.torch_session import TorchSession
from compat.contract.case import Recipe, Target
from compat.contract.runtime import Probe
from compat.runtimes.pytorch import PyTorch

if TYPE_CHECKING:
    import torch

    from compat.contract.source import Source

GROUP = 32
"""Number of weights that share one scale in torchao's int4."""
BLOCK = 64
"""Number of weights that share one scale in bitsandbytes' nf4."""
OUTLIER = 6.0
"""Columns of activations with a larger absolute value are not rounded to 8 bits (LLM.int8())."""


def packs(scheme: str, linear: torch.nn.Linear) -> bool:
    """Return whether the kernels of a scheme take a layer; other layers stay in float32.

    On the CPU torchao packs 16 rows at a time (PyTorch's ``_convert_weight_to_int4pack_for_cpu``),
    and bitsandbytes asserts a multiple of 32. The layer with other sizes is the projection onto the
    vocabulary, which 4-bit recipes usually leave in float anyway.
    """
    rows, columns = linear.weight.shape
    if scheme == "int4-weights":
        return rows % 16 == 0 and columns % GROUP == 0
    return scheme != "nf4" or (rows % 32 == 0 and columns % BLOCK == 0)


# Oracles -----------------------------------------------------------------------------------------


def _with_weights(module: torch.nn.Module, scheme: str, rounded: Any) -> torch.nn.Module:
    """Replace the weights of the linear layers that a scheme takes by ``rounded(weight)``."""
    import torch

    for layer in module.modules():
        if isinstance(layer, torch.nn.Linear) and packs(scheme, layer):
            # A new tensor, as the weight may be tied to an embedding, which stays in float32.
            layer.weight = torch.nn.Parameter(rounded(layer.weight), requires_grad=False)
    return module


def round_to_16_levels(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate torchao's int4: 16 levels between the extremes of each group of weights."""

    def rounded(weight: torch.Tensor) -> torch.Tensor:
        groups = weight.reshape(weight.shape[0], -1, GROUP)
        low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
        scale = ((high - low) / 15).clamp(min=1e-6)
        return (((groups - low) / scale).round() * scale + low).reshape(weight.shape)

    return _with_weights(module, "int4-weights", rounded)


NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The 16 values of nf4, quantiles of a normal distribution (arXiv:2305.14314, appendix E)."""


def round_to_nf4(module: torch.nn.Module) -> torch.nn.Module:
    """Simulate nf4: each weight is the nearest of 16 values, times the largest of its block."""
    import torch

    def rounded(weight: torch.Tensor) -> torch.Tensor:
        values = torch.tensor(NF4)
        blocks = weight.reshape(-1, BLOCK)
        scale = blocks.abs().amax(1, keepdim=True).clamp(min=1e-12)
        middles = (values[1:] + values[:-1]) / 2
        nearest = values[torch.bucketize(blocks / scale, middles)] * scale
        return nearest.reshape(weight.shape)

    return _with_weights(module, "nf4", rounded)


# Runtimes ----------------------------------------------------------------------------------------


class Quantiser(PyTorch):
    """PyTorch with linear layers that a library quantises."""

    session = "compat.runtimes.torch_quantised:QuantisedSession"

    def probe(self, target: Target) -> Probe:
        install = f"pip install {self.name}"
        missing = Probe("absent", f"{self.name} is not installed", install)
        installed = find_spec(self.name) is not None
        if not installed and target.device == "cpu":
            return missing  # On a CPU nothing else can lack; importing PyTorch would take seconds.
        found = super().probe(target)
        if found.state != "here":
            return found
        if not installed:
            return replace(missing, facts=found.facts)
        try:
            import_module(self.name)
        except Exception as error:
            said = f"{self.name} does not import: {type(error).__name__}: {error}"
            return Probe("broken", said, f"{install} --force-reinstall", found.facts)
        version = metadata.version(self.name)
        return Probe("here", facts={**found.facts, self.name: version})

    def unsupported(self, target: Target, recipe: Recipe) -> str:
        # A component may stay in a float format. PyTorch's own limits do not apply to libraries,
        # which have kernels of their own.
        known = (*target.recipes, *FLOATS)
        lacking = [scheme for scheme in recipe.schemes if scheme not in known]
        return f"{target.name} has no {' and no '.join(lacking)}" if lacking else ""

    def open_module(self, source: Source, scheme: str, device: torch.device) -> torch.nn.Module:
        if scheme in FLOATS:
            return super().open_module(source, scheme, device)
        # Raises Unsupported for a graph that its makers ship, as shipped files are not quantised.
        source.shipped(scheme, "torchscript")
        return self.quantise(source.module(), scheme, device)

    @abstractmethod
    def quantise(
        self, module: torch.nn.Module, scheme: str, device: torch.device
    ) -> torch.nn.Module:
        """Quantise the linear layers of a float32 module, and put it on a device."""


class TorchAo(Quantiser):
    """torchao, whose tensor subclasses multiply with weights of 8 or 4 bits."""

    name = "torchao"
    packages = ("torchao", "torch", "transformers")
    modules = ("torch", "torchao")
    recipes: ClassVar = ("int8-weights", "int8-dynamic", "int4-weights")
    oracles: ClassVar = {"int4-weights": round_to_16_levels}
    targets = (
        Target("cpu-torchao", "cpu", "torchao", "cpu", recipes, on_host_cpu=True, on_request=True),
        Target("cuda-torchao", "cuda", "torchao", "cuda", recipes),
    )

    def quantise(
        self, module: torch.nn.Module, scheme: str, device: torch.device
    ) -> torch.nn.Module:
        import torch
        from torchao import quantization as ao

        # torchao's settings for TorchInductor would change float32's precision in this process.
        own: dict[str, Any] = {"set_inductor_config": False}
        config: Any
        if scheme == "int8-weights":
            config = ao.Int8WeightOnlyConfig(**own)
        elif scheme == "int8-dynamic":
            config = ao.Int8DynamicActivationInt8WeightConfig(**own)
        elif device.type == "cpu":
            from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

            config = PrototypeInt4WeightOnlyConfig(group_size=GROUP, **own)
        else:
            # On CUDA the 4-bit kernel multiplies in bfloat16.
            module = module.to(torch.bfloat16)
            packed = "tile_packed_to_4d"
            config = ao.Int4WeightOnlyConfig(group_size=GROUP, int4_packing_format=packed, **own)
        module = module.to(device)
        ao.quantize_(
            module,
            config,
            lambda layer, name: isinstance(layer, torch.nn.Linear) and packs(scheme, layer),
        )
        return module


class BitsAndBytes(Quantiser):
    """bitsandbytes: LLM.int8(), and the 4-bit type of QLoRA."""

    name = "bitsandbytes"
    packages = ("bitsandbytes", "torch", "transformers")
    modules = ("torch", "bitsandbytes")
    recipes: ClassVar = ("int8-dynamic", "nf4")
    oracles: ClassVar = {"nf4": round_to_nf4}
    targets = (
        Target(
            *("cpu-bitsandbytes", "cpu", "bitsandbytes", "cpu"),
            recipes,
            on_host_cpu=True,
            on_request=True,
        ),
        Target("cuda-bitsandbytes", "cuda", "bitsandbytes", "cuda", recipes),
    )

    def quantise(
        self, module: torch.nn.Module, scheme: str, device: torch.device
    ) -> torch.nn.Module:
        import bitsandbytes as bnb
        import torch

        def layer(linear: torch.nn.Linear) -> torch.nn.Module:
            if not packs(scheme, linear):
                return linear
            has_bias = linear.bias is not None
            made: torch.nn.Module
            if scheme == "nf4":
                made = bnb.nn.Linear4bit(
                    *(linear.in_features, linear.out_features, has_bias),
                    compute_dtype=torch.float32,
                    compress_statistics=False,
                    quant_type="nf4",
                )
                made.weight = bnb.nn.Params4bit(
                    *(linear.weight.data, False),
                    compress_statistics=False,
                    quant_type="nf4",
                    module=made,
                )
            else:
                made = bnb.nn.Linear8bitLt(
                    *(linear.in_features, linear.out_features, has_bias),
                    has_fp16_weights=False,
                    threshold=OUTLIER,
                )
                made.weight = bnb.nn.Int8Params(linear.weight.data, requires_grad=False)
            made.bias = linear.bias
            return made

        # bitsandbytes quantises weights when they are moved to the device.
        return replace_linears(module, layer).eval().requires_grad_(False).to(device)


class QuantisedSession(TorchSession):
    """A session of modules with linear layers of a quantisation library."""

    def _executed(self, graph: str) -> str:
        scheme = self.schemes[graph]
        layers = self.modules[graph].modules()
        return scheme if any(map(is_quantised, layers)) else super()._executed(graph)

    def model_bytes(self) -> int:
        # Tied parameters are one object and count once.
        parts = {
            id(part): part.numel() * part.element_size()
            for module in self.modules.values()
            for tensor in (*module.parameters(), *module.buffers())
            for part in stored(tensor)
        }
        return sum(parts.values())


def is_quantised(layer: torch.nn.Module) -> bool:
    """Return whether a library stores the weight of a layer quantised."""
    weight = getattr(layer, "weight", None)
    if hasattr(weight, "__tensor_flatten__"):
        return True
    kept_in_8_bits = (
        getattr(weight, "SCB", None) is not None
        or getattr(getattr(layer, "state", None), "SCB", None) is not None
    )
    return kept_in_8_bits or getattr(weight, "quant_state", None) is not None


def stored(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the tensors that a quantised tensor consists of: integers, and their scales."""
    flatten: Callable[[], Any] | None = getattr(tensor, "__tensor_flatten__", None)
    state = getattr(tensor, "quant_state", None)
    if flatten is not None:
        yield from (getattr(tensor, name) for name in flatten()[0])
        return
    yield tensor
    scales = getattr(tensor, "SCB", None) if state is None else state.absmax
    if scales is not None:
        yield scales


RUNTIMES = (TorchAo(), BitsAndBytes())
