"""Schemes of ONNX files: what quantisation makes of a float32 export."""

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
    """Weights of 8 bits per channel and fixed, activations per tensor and measured at run time.

    Weights are stored unsigned, around 128: the same values, and the product of two unsigned bytes
    does not overflow. Between signed and unsigned ones it does on x86 processors without VNNI,
    whose instruction adds pairs of products in 16 bits and saturates (ONNX Runtime's guide to
    quantisation, "When and why do I need to try U8U8?").
    """
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
    # Accuracy level 1 asks for float32 arithmetic; 4 would quantise the activations too.
    quantiser = MatMulNBitsQuantizer(
        onnx.load(source), bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=1
    )
    quantiser.process()
    quantiser.model.save_model_to_file(str(target), use_external_data_format=True)


def fp16(source: Path, target: Path) -> None:
    """Weights and arithmetic in float16; inputs and outputs stay float32."""
    converted = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    onnx.save(converted, target, save_as_external_data=True, location="model.onnx.data")


SCHEMES: Mapping[str, Callable[[Path, Path], None]] = {
    "int8-dynamic": int8_dynamic,
    "int8-weights": partial(block_weights, bits=8),
    "int4-weights": partial(block_weights, bits=4),
    "fp16": fp16,
}
