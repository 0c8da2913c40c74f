"""ONNX files of a graph, by scheme: the float32 export and what quantisation makes of it.

Runs in a builder process (see :mod:`compat.build.artifacts`), never in the process being measured.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from compat.build.sources import OPSET, example_tensors, open_source

BLOCK = 32
"""Values that share one scale in block-wise weight quantisation."""


def make(folder: Path, reference: Mapping[str, str], graph: str, point: str, scheme: str) -> None:
    """Write ``model.onnx`` (and its external weights) for one graph at one point."""
    if scheme == "fp32":
        export(folder, reference, graph, point)
        return
    source = open_source(reference, graph).onnx(point)
    SCHEMES[scheme](source, folder / "model.onnx")


def export(folder: Path, reference: Mapping[str, str], graph: str, point: str) -> None:
    """Export a graph with the torch.export based exporter, at a fixed opset."""
    import torch

    source = open_source(reference, graph)
    spec = source.graph
    names = [*spec.inputs, *spec.state]
    outputs = [*spec.outputs, *(f"new_{name}" for name in spec.state)]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter warns of its own deprecations; none concerns the exported graph.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            source.module(),
            example_tensors(spec, point),
            input_names=names,
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(folder / "model.onnx"), external_data=True)


def int8_dynamic(source: Path, target: Path) -> None:
    """Weights of 8 bits per channel and fixed, activations per tensor and measured at run time.

    Weights are stored unsigned, around 128: the same values, and the product of two unsigned bytes
    does not overflow. Between signed and unsigned ones it does on x86 processors without VNNI,
    whose instruction adds pairs of products in 16 bits and saturates (ONNX Runtime's guide to
    quantisation, "When and why do I need to try U8U8?").
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    # The quantiser rewrites Gemm to MatMul and would trip over the shapes noted for the former.
    model.graph.ClearField("value_info")
    quantize_dynamic(
        model,
        target,
        per_channel=True,
        weight_type=QuantType.QUInt8,
        op_types_to_quantize=["MatMul"],
        use_external_data_format=True,
        extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True},
    )


def block_weights(source: Path, target: Path, bits: int) -> None:
    """Weights of few bits in blocks, widened to float32 as they are used; arithmetic in float32."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    # Accuracy level 1 asks for float32 arithmetic; 4 would quantise the activations too.
    quantiser = MatMulNBitsQuantizer(
        onnx.load(source), bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=1
    )
    quantiser.process()
    quantiser.model.save_model_to_file(str(target), use_external_data_format=True)


def fp16(source: Path, target: Path) -> None:
    """Weights and arithmetic in float16; inputs and outputs stay float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    onnx.save(converted, target, save_as_external_data=True, location="model.onnx.data")


SCHEMES: Mapping[str, Callable[[Path, Path], None]] = {
    "int8-dynamic": int8_dynamic,
    "int8-weights": partial(block_weights, bits=8),
    "int4-weights": partial(block_weights, bits=4),
    "fp16": fp16,
}
