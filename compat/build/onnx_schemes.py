"""Quantisation schemes of ONNX files: each function turns a float32 export into another file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16

BLOCK = 32
"""Values that share one scale in block-wise weight quantisation."""


def int8_dynamic(source: Path, target: Path) -> None:
    """Quantise weights to 8 bits per channel; activations are quantised per tensor at run time.

    Weights are stored unsigned, around 128. The values are the same as signed ones, but products of
    two unsigned bytes do not overflow. Products of a signed and an unsigned byte do on x86
    processors without VNNI, whose instruction adds pairs of products in 16 bits and saturates (ONNX
    Runtime's guide to quantisation, "When and why do I need to try U8U8?").
    """
    model = onnx.load(source)
    # The quantiser rewrites Gemm to MatMul, and fails on the shapes that are noted for Gemm.
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
    """Quantise weights to 4 or 8 bits in blocks of :data:`BLOCK`; arithmetic stays in float32."""
    # Accuracy level 1 asks for float32 arithmetic; 4 would quantise the activations too.
    quantiser = MatMulNBitsQuantizer(
        onnx.load(source), bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=1
    )
    quantiser.process()
    quantiser.model.save_model_to_file(str(target), use_external_data_format=True)


def fp16(source: Path, target: Path) -> None:
    """Convert weights and arithmetic to float16; inputs and outputs stay float32."""
    converted = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    onnx.save(converted, target, save_as_external_data=True, location="model.onnx.data")


SCHEMES: Mapping[str, Callable[[Path, Path], None]] = {
    "int8-dynamic": int8_dynamic,
    "int8-weights": partial(block_weights, bits=8),
    "int4-weights": partial(block_weights, bits=4),
    "fp16": fp16,
}
