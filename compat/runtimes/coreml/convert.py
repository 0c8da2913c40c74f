"""Conversion of graphs to Core ML packages, and compression of their weights.

coremltools is imported inside functions, as it exists for some systems only, and sessions use this
module without it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from compat.build.sources import example_tensors, open_source
from compat.runtimes.coreml.palettes import PALETTES, Palette

if TYPE_CHECKING:
    from compat.contract.source import Derived, Source
    from compat.runtimes.coreml.mil import Program, Weight


INPUT = "in_"
"""Prefix of the name of every input of a package, as Core ML reserves names such as ``state``."""
SMALLEST = 2048
"""Weights with fewer elements than this are not compressed."""
FEWEST = 4
"""Fewest channels in a group that shares a table. The tables of smaller groups can be larger than
the weights that they save."""


# Conversion --------------------------------------------------------------------------------------


def convert(
    folder: Path, reference: Mapping[str, str], graph: str, point: str, scheme: str
) -> None:
    """Job: write a graph as a package ``model.mlpackage``: float16, or with compressed weights."""
    import coremltools

    source = open_source(reference, graph)
    keep_log_softmax_exact()
    know_aliases()
    if scheme == "fp16":
        model = _converted(source, point)
    else:
        exact = package(source, point, "fp16").fetch() / "model.mlpackage"
        model = _compressed(coremltools.models.MLModel(str(exact), skip_model_load=True), scheme)
    model.save(str(folder / "model.mlpackage"))


def keep_log_softmax_exact() -> None:
    """Replace the conversion of ``log_softmax`` in coremltools, which loses small probabilities.

    coremltools takes the logarithm of a softmax. In float16 probabilities below 6e-8 are zero, and
    a score of -22 became -103 (coremltools #2728). The replacement subtracts the largest score and
    the logarithm of the sum of exponentials, which stays within float16. ``reduce_log_sum_exp``
    would not do so on the Neural Engine, which exponentiates the scores themselves (#2690).
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


def know_aliases() -> None:
    """Add the operator ``alias`` (another name of a tensor) to coremltools, which lacks it."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil import register_torch_op

    def alias(context: Any, node: Any) -> None:
        context.add(mb.identity(x=context[node.inputs[0]], name=node.name))

    register_torch_op(alias, override=True)


def package(source: Source, point: str, scheme: str) -> Derived:
    """Return the artifact with a graph's package; compressed ones start from the float16 one."""
    made_from = [] if scheme == "fp16" else [package(source, point, "fp16")]
    packages = ("coremltools", "torch", "transformers")
    return source.derive(convert, {"point": point, "scheme": scheme}, packages, made_from)


def _converted(source: Source, point: str) -> Any:
    import coremltools

    spec = source.graph
    outputs = [*spec.outputs, *(f"new_{name}" for name in spec.state)]
    with warnings.catch_warnings(), torch.no_grad():
        # coremltools warns of versions that it was not tested with, and the tracer of deprecation.
        warnings.simplefilter("ignore")
        examples = example_tensors(spec, point)
        # The export turns sizes into literals; with NumPy 2.4 the converter cannot fold their
        # computation. The result is traced, as the converter knows more operators in that form.
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
    # coremltools leaves a tensor in float16 if the group's size does not divide its channels, such
    # as Whisper's embedding of 51,865 words. Another pass compresses it with a smaller size.
    size = palette.channels + 1
    while sizes := {n for n in _group_sizes(model, palette.channels) if 0 < n < size}:
        size = max(sizes)
        model = once(granularity="per_grouped_channel", group_size=size)
    return once()


def _group_sizes(model: Any, most: int) -> set[int]:
    """Return the group sizes, at most ``most``, that divide an axis of an uncompressed weight."""
    from coremltools.optimize import coreml

    return {
        channels_together(length, most)
        for weight in coreml.get_weights_metadata(model, SMALLEST).values()
        if weight.val.ndim > 1
        and not any(child.op_type.startswith("constexpr_") for child in weight.child_ops)
        for length in weight.val.shape
    }


def channels_together(channels: int, most: int) -> int:
    """Return how many of a tensor's channels share a table: the largest size that divides them.

    The size is at most ``most``. It is 0 if no size from :data:`FEWEST` on divides the channels:
    all of them share one table then.
    """
    return max((size for size in range(FEWEST, most + 1) if channels % size == 0), default=0)


def stored_scheme(program: Program) -> str:
    """Return the scheme that most of a program's weights are stored in, such as ``int8-linear``."""
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
