"""Core ML: prediction by compute unit on a Mac, conversion evidence everywhere else.

On a Mac a graph is predicted by Core ML on the unit that the target names. Elsewhere the same
package is made, and the program in it, with its weights as they are stored, is executed operator by
operator in PyTorch (:mod:`compat.mil`): what converted, how large it is, and how exact. Caches stay
on the host and go in and out as arrays: Core ML's own states crashed decoders with palettized
weights after a hundred predictions (coremltools #2716).
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.case import Recipe, Target
from compat.graph import State
from compat.runtimes.base import (
    Options,
    Placement,
    Probe,
    Runtime,
    Session,
    Unsupported,
    folder_bytes,
)

if TYPE_CHECKING:
    import torch

    from compat.mil import Program, Weight
    from compat.sources import Source

INSTALL = "pip install coremltools==9.0"


@dataclass(frozen=True, slots=True)
class Palette:
    """Tables of values by which weights are stored as indices."""

    bits: int
    """Of an index: a table has two to the power of them values."""
    channels: int = 0
    """Most output channels that share a table; 0 where one table serves the whole tensor."""


PALETTES = {
    "int8-palettized": Palette(8),
    "int8-palettized-6bit": Palette(6),
    "int8-palettized-6bit-group16": Palette(6, 16),
    "int4-palettized": Palette(4),
    "int4-palettized-group16": Palette(4, 16),
}
RECIPES = ("fp16", "int8-linear", *PALETTES)
UNITS = {"cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "ane": "CPU_AND_NE"}
INPUT = "in_"
"""Before the name of every input of a package: some names, such as ``state``, are reserved."""
SMALLEST = 2048
"""Elements that a tensor of weights has at least, to be compressed."""
FEWEST = 4
"""Channels that a group has at least: tables for fewer can be larger than what they index."""


class CoreMl(Runtime):
    name = "coreml"
    packages = ("coremltools", "torch")
    modules = ("coremltools",)
    targets = (
        *(
            Target(f"coreml-{unit}", "coreml", "coreml", unit, RECIPES, on_host_cpu=unit == "cpu")
            for unit in UNITS
        ),
        Target("coreml-conversion", "coreml", "coreml", "none", RECIPES, evidence="conversion"),
    )

    def probe(self, target: Target) -> Probe:
        mac = sys.platform == "darwin"
        if target.evidence == "device" and not mac:
            remedy = "run on a Mac; anywhere else use coreml-conversion"
            return Probe("absent", "Core ML exists on Apple's systems only", remedy)
        if target.evidence == "conversion" and mac:
            remedy = "use coreml-cpu, coreml-gpu and coreml-ane"
            return Probe("absent", "Core ML itself is here, and executes what is converted", remedy)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import coremltools
        except ImportError as error:
            try:
                metadata.version("coremltools")
            except metadata.PackageNotFoundError:
                return Probe("absent", "coremltools is not installed", INSTALL)
            return Probe("broken", f"coremltools does not import: {error}", f"{INSTALL} --force")
        facts = {"coremltools": coremltools.__version__}
        try:
            # Weights are written and read by a library of its own, which only some wheels have.
            import coremltools.libmilstoragepython
        except ImportError as error:
            reason = f"this build of coremltools cannot write weights: {error}"
            return Probe("broken", reason, f"{INSTALL} --only-binary :all: --force", facts)
        return Probe("here", facts=facts)

    def compile(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> Session:
        return CoreMlSession(sources, target, recipe, options)


# Conversion --------------------------------------------------------------------------------------


def convert(
    folder: Path, reference: Mapping[str, str], graph: str, point: str, scheme: str
) -> None:
    """Job: write a graph as a package with an ML program, float16 or with compressed weights."""
    import coremltools

    from compat.sources import open_source

    source = open_source(reference, graph)
    keep_log_softmax_exact()
    if scheme == "fp16":
        model = _converted(source, point)
    else:
        exact = _package(source, point, "fp16")
        model = _compressed(coremltools.models.MLModel(str(exact), skip_model_load=True), scheme)
    model.save(str(folder / "model.mlpackage"))


def keep_log_softmax_exact() -> None:
    """Teach coremltools another ``log_softmax``: its own is the logarithm of a softmax.

    In float16 probabilities below 6e-8 are zero, and a score of -22 became -103 (coremltools
    #2728). Differences from the largest score, less the logarithm of the sum of their exponentials,
    stay within float16; ``reduce_log_sum_exp`` would not on the Neural Engine, which takes the
    exponentials of the scores themselves (#2690).
    """
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil import register_torch_op

    def log_softmax(context: Any, node: Any) -> None:
        x, axis = (context[name] for name in node.inputs[:2])
        axes = [axis.val]
        below = mb.sub(x=x, y=mb.reduce_max(x=x, axes=axes, keep_dims=True))
        total = mb.reduce_sum(x=mb.exp(x=below), axes=axes, keep_dims=True)
        context.add(mb.sub(x=below, y=mb.log(x=total), name=node.name))

    register_torch_op(log_softmax, torch_alias=["_log_softmax"], override=True)


def _package(source: Source, point: str, scheme: str) -> Path:
    folder = source.derive(
        f"{__name__}:convert",
        {"point": point, "scheme": scheme},
        (__name__, "compat.sources"),
        ("coremltools", "torch", "transformers"),
    )
    return folder / "model.mlpackage"


def _converted(source: Source, point: str) -> Any:
    import coremltools
    import torch

    from compat.sources import example_tensors

    spec = source.graph
    outputs = [*spec.outputs, *(f"new_{name}" for name in spec.state)]
    with warnings.catch_warnings(), torch.no_grad():
        # Both warn of versions they were not tested with, and the tracer of its own end.
        warnings.simplefilter("ignore")
        examples = example_tensors(spec, point)
        # Exported first: sizes become literals, whose computation the converter cannot fold with
        # NumPy 2.4. Then traced: the converter knows more operators in that form.
        static = torch.export.export(source.module(), examples).module()
        return coremltools.convert(
            torch.jit.trace(static, examples, check_trace=False),  # type: ignore[no-untyped-call]
            inputs=[
                coremltools.TensorType(INPUT + name, shape, getattr(np, dtype))
                for name, (shape, dtype) in spec.examples(point).items()
            ],
            outputs=[coremltools.TensorType(name) for name in outputs],
            minimum_deployment_target=coremltools.target.macOS15,
            compute_precision=coremltools.precision.FLOAT16,
            convert_to="mlprogram",
            skip_model_load=True,
        )


def _compressed(model: Any, scheme: str) -> Any:
    from coremltools.optimize import coreml

    if scheme in PALETTES:
        return _palettized(model, PALETTES[scheme])
    grid = coreml.OpLinearQuantizerConfig(
        mode="linear_symmetric",
        dtype="int8",
        granularity="per_channel",
        weight_threshold=SMALLEST,
    )
    return coreml.linear_quantize_weights(model, coreml.OptimizationConfig(global_config=grid))


def _palettized(model: Any, palette: Palette) -> Any:
    """Return a model whose weights are indices into tables that k-means chose."""
    from coremltools.optimize import coreml

    def once(**granularity: Any) -> Any:
        config = coreml.OpPalettizerConfig(
            mode="kmeans", nbits=palette.bits, weight_threshold=SMALLEST, **granularity
        )
        return coreml.palettize_weights(model, coreml.OptimizationConfig(global_config=config))

    if not palette.channels:
        return once()
    # A tensor whose channels the size of a group does not divide is passed over and stays float16:
    # Whisper's embedding of 51,865 words. It is left to a smaller size, in another pass.
    size = palette.channels + 1
    while sizes := {n for n in _group_sizes(model, palette.channels) if 0 < n < size}:
        size = max(sizes)
        model = once(granularity="per_grouped_channel", group_size=size)
    return once()


def _group_sizes(model: Any, most: int) -> set[int]:
    """Return the sizes of groups that would suit an axis of a weight that is not compressed."""
    from coremltools.optimize import coreml

    return {
        channels_together(length, most)
        for weight in coreml.get_weights_metadata(model, SMALLEST).values()
        if weight.val.ndim > 1
        and not any(child.op_type.startswith("constexpr_") for child in weight.child_ops)
        for length in weight.val.shape
    }


def channels_together(channels: int, most: int) -> int:
    """Return how many of a tensor's channels share a table: the most that divide them evenly.

    It is 0 where fewer than ``FEWEST`` would: then all of them share one.
    """
    return max((size for size in range(FEWEST, most + 1) if channels % size == 0), default=0)


def stored_scheme(program: Program) -> str:
    """Return the scheme in which most of a program's weights are stored."""
    counts: Counter[str] = Counter()
    for weight in program.weights():
        if weight.elements > SMALLEST:
            counts[_scheme(weight)] += weight.elements
    return counts.most_common(1)[0][0] if counts else "fp16"


def _scheme(weight: Weight) -> str:
    if not weight.lookup:
        return {16: "fp16", 8: "int8-linear"}.get(weight.bits, f"fp{weight.bits}")
    for name, palette in PALETTES.items():
        grouped = bool(weight.channels) and weight.channels <= palette.channels
        if palette.bits == weight.bits and (grouped or weight.channels == palette.channels):
            return name
    return f"{weight.bits} bits, tables for {weight.channels or 'all'} channels"


# Oracles -----------------------------------------------------------------------------------------


def _each_weight(module: torch.nn.Module, change: Any) -> torch.nn.Module:
    """Change every matrix or kernel of a module that is large enough to be compressed.

    ``change`` is given its output channels first.
    """
    import torch

    for child in module.modules():
        axis = 1 if type(child).__name__.startswith("ConvTranspose") else 0
        for name, weight in list(child.named_parameters(recurse=False)):
            if weight.ndim > 1 and weight.numel() > SMALLEST:
                changed = change(weight.transpose(0, axis)).transpose(0, axis)
                setattr(child, name, torch.nn.Parameter(changed, requires_grad=False))
    return module


def _simulated(module: torch.nn.Module, palette: Palette) -> torch.nn.Module:
    import torch

    def change(weight: torch.Tensor) -> torch.Tensor:
        together = channels_together(len(weight), palette.channels) if palette.channels else 0
        tables = len(weight) // together if together else 1
        rows = weight.reshape(tables, -1)
        found = [_looked_up(part, palette.bits) for part in torch.split(rows, 64)]
        return torch.cat(found).reshape(weight.shape)

    return _each_weight(module, change)


def _looked_up(rows: torch.Tensor, bits: int) -> torch.Tensor:
    """Return rows of values, each replaced by the nearest of its row's table.

    Lloyd's algorithm in one dimension, for all rows at once, from where the part that errs most was
    split at its mean until there were enough: what lies far out has entries of its own.
    """
    import torch
    from torch.nn.functional import pad

    count = 2**bits
    values = rows.double().sort(dim=1).values
    last = values.shape[1]
    few = (values.diff(dim=1) != 0).sum(1, keepdim=True) < count
    total = pad(values.cumsum(1), (1, 0))
    squares = pad(values.square().cumsum(1), (1, 0))

    def means(bounds: torch.Tensor) -> torch.Tensor:
        return total.gather(1, bounds).diff(dim=1) / bounds.diff(dim=1).clamp(min=1)

    bounds = torch.tensor([[0, last]]).repeat(len(rows), 1)
    for _ in range(count - 1):
        centres = means(bounds)
        errors = squares.gather(1, bounds).diff(dim=1) - bounds.diff(dim=1) * centres.square()
        worst = errors.argmax(dim=1, keepdim=True)
        split = torch.searchsorted(values, centres.gather(1, worst))
        bounds = torch.cat((bounds, split), 1).sort(dim=1).values
    table = means(bounds)
    for _ in range(60):
        bounds = torch.searchsorted(values, (table[:, 1:] + table[:, :-1]) / 2)
        bounds = pad(pad(bounds, (1, 0)), (0, 1), value=last)
        table = torch.where(bounds.diff(dim=1) > 0, means(bounds), table)
    table = table.to(rows.dtype).sort(dim=1).values
    nearest = torch.searchsorted((table[:, 1:] + table[:, :-1]) / 2, rows.contiguous())
    return torch.where(few, rows, table.gather(1, nearest))


def palettize_8(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module whose weights have 256 values each, chosen by k-means."""
    return _simulated(module, PALETTES["int8-palettized"])


def palettize_6(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module whose weights have 64 values each, chosen by k-means."""
    return _simulated(module, PALETTES["int8-palettized-6bit"])


def palettize_4(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module whose weights have 16 values each, chosen by k-means."""
    return _simulated(module, PALETTES["int4-palettized"])


def palettize_6_in_groups(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module of which every 16 channels have 64 values of their own."""
    return _simulated(module, PALETTES["int8-palettized-6bit-group16"])


def palettize_4_in_groups(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module of which every 16 channels have 16 values of their own."""
    return _simulated(module, PALETTES["int4-palettized-group16"])


def round_rows(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module whose weights are rounded to int8, symmetric, one scale for each row."""
    from compat.runtimes.pytorch import quantise_rows

    def change(weight: torch.Tensor) -> torch.Tensor:
        rounded, scale = quantise_rows(weight.flatten(1))
        found: torch.Tensor = (rounded * scale).reshape(weight.shape)
        return found

    return _each_weight(module, change)


CoreMl.oracles = {
    "int8-linear": round_rows,
    "int8-palettized": palettize_8,
    "int8-palettized-6bit": palettize_6,
    "int8-palettized-6bit-group16": palettize_6_in_groups,
    "int4-palettized": palettize_4,
    "int4-palettized-group16": palettize_4_in_groups,
}


# Sessions ----------------------------------------------------------------------------------------


class CoreMlSession(Session):
    """One program per graph and point: predicted by Core ML, or executed as converted."""

    def __init__(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> None:
        super().__init__({name: source.graph for name, source in sources.items()})
        self.sources = sources
        self.target = target
        self.recipe = recipe
        self._packages: dict[tuple[str, str], Path] = {}
        self._programs: dict[tuple[str, str], Program] = {}
        self._models: dict[tuple[str, str], Any] = {}
        if target.evidence == "conversion":
            import torch

            torch.set_num_threads(options.threads)
        for graph in self.graphs.values():
            self._open(graph.name, next(iter(graph.points)))

    def _open(self, graph: str, point: str) -> None:
        from compat.mil import Program

        key = graph, point
        if key in self._packages:
            return
        source, scheme = self.sources[graph], self.recipe.for_graph(graph)
        source.shipped(scheme, "coreml")  # Nobody ships any: what is shipped is never converted.
        self._packages[key] = _package(source, point, scheme)
        program = self._programs[key] = Program(self._packages[key])
        if self.target.evidence == "conversion":
            if program.unknown:
                unknown = ", ".join(program.unknown)
                raise Unsupported(f"{graph} converts, but is not checked: no operator {unknown}")
        else:
            self._models[key] = _loaded(self._packages[key], self.target)

    def upload(self, array: np.ndarray, graph: str) -> np.ndarray:
        return array

    def download(self, native: np.ndarray) -> np.ndarray:
        return native

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[np.ndarray]:
        self._open(graph, point)
        feeds = {INPUT + name: value for name, value in inputs.items()}
        if self.target.evidence == "conversion":
            return self._programs[graph, point].run(feeds)
        predicted = self._models[graph, point].predict(feeds)
        spec = self.graphs[graph]
        names = (*spec.outputs, *(f"new_{name}" for name in spec.state))
        return [np.asarray(predicted[name]) for name in names]

    def write(self, state: State, buffer: Any, value: Any, position: int) -> Any:
        buffer[(slice(None),) * state.axis + (slice(position, position + 1),)] = value
        return buffer

    def placement(self) -> Placement:
        if self.target.evidence == "conversion":
            raise Unsupported("a conversion is placed nowhere: no Core ML runs it")
        costs: Counter[str] = Counter()
        for model in self._models.values():
            costs += _anticipated(model, self.target)
        total = sum(costs.values())
        shares = {unit: cost / total for unit, cost in costs.items()}
        return Placement(shares, self.target.device, "estimated cost by unit in the compute plan")

    def executed(self) -> Mapping[str, str]:
        return {graph: stored_scheme(program) for (graph, _), program in self._programs.items()}

    def notes(self) -> Mapping[str, str]:
        return {"compiler": f"coremltools {metadata.version('coremltools')}, macOS 15 program"}

    def model_bytes(self) -> int:
        """Size of the packages of the first point of each graph."""
        return sum(
            folder_bytes(self._packages[graph.name, next(iter(graph.points))])
            for graph in self.graphs.values()
        )

    def close(self) -> None:
        self._programs.clear()
        self._models.clear()


# On a Mac. None of this could be run where it was written: see docs/hardware.md.


def _loaded(package: Path, target: Target) -> Any:
    import coremltools

    units = coremltools.ComputeUnit[UNITS[target.device]]
    return coremltools.models.MLModel(str(package), compute_units=units)


def _anticipated(model: Any, target: Target) -> Counter[str]:
    """Return the estimated cost of a model by the unit that Core ML anticipates for it."""
    import coremltools
    from coremltools.models.compute_plan import MLComputePlan

    names = {
        "MLCPUComputeDevice": "cpu",
        "MLGPUComputeDevice": "gpu",
        "MLNeuralEngineComputeDevice": "ane",
    }
    units = coremltools.ComputeUnit[UNITS[target.device]]
    plan = MLComputePlan.load_from_path(model.get_compiled_model_path(), units)
    costs: Counter[str] = Counter()
    for operation in plan.model_structure.program.functions["main"].block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
        if usage is not None and cost is not None:
            device = type(usage.preferred_compute_device).__name__
            costs[names.get(device, device)] += cost.weight
    return costs


RUNTIME = CoreMl()
