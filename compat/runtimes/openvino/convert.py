"""Compression and quantisation for OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino

from compat.build import calibration
from compat.build.sources import open_source
from compat.contract.model_reference import ModelReference
from compat.runtimes.openvino import GROUP

RECURRENT = ("LSTMSequence", "LSTMCell", "GRUSequence", "GRUCell", "RNNSequence", "RNNCell")
COARSE = 30.0
"""Decibels that values must keep when they are rounded to 8 bits of their range: an error of 3 %,
seven convolutions in a row, leaves nothing of the features of wav2vec2."""


def compress(folder: Path, reference: Mapping[str, str], graph: str, point: str, bits: int) -> None:
    """Job: write a graph as OpenVINO IR with compressed weights.

    8 bits: asymmetric, one scale per channel. 4 bits: symmetric, in groups; embeddings,
    convolutions, the last layer and what cannot be grouped as with 8 bits.
    """
    source = open_source(reference, graph)
    model = openvino.Core().read_model(source.onnx(point))
    if bits == 8:
        compressed = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    else:
        ungrouped = nncf.AdvancedCompressionParameters(
            group_size_fallback_mode=nncf.GroupSizeFallbackMode.IGNORE
        )
        compressed = nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT4_SYM,
            group_size=GROUP,
            ratio=1.0,
            advanced_parameters=ungrouped,
        )
    openvino.save_model(compressed, folder / "model.xml", compress_to_fp16=False)


def quantise(
    folder: Path,
    reference: Mapping[str, str],
    graph: str,
    point: str,
    corpus: str,
    recordings: str,  # noqa: ARG001 (part of what the file is made of)
    narrow: bool,
) -> None:
    """Job: write a graph as OpenVINO IR with int8 weights and activations, and whose ranges.

    ``corpus`` is the folder of recordings that activations are seen on, ``recordings`` its digest.
    ``narrow`` leaves a bit of each weight unused, so that no sum of two products overflows.
    """
    # Extremes of all calls, where the default is their mean, which cuts off half of them. And no
    # SmoothQuant: its scales per channel need more calls than a decoder's steps are recorded.
    ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    advice = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.ENABLE if narrow else None,
        activations_range_estimator_params=ranges,
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1),
    )
    recorded = calibration.record(ModelReference(**reference), graph, point, corpus)
    model = openvino.Core().read_model(open_source(reference, graph).onnx(point))
    # Attention, products of activations by one another: one range for all of a cache cost 6 dB.
    attention = [
        node.get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() == "MatMul"
        and not any(_constant(node.input_value(side)) for side in (0, 1))
    ]
    coarse = too_coarse(model, recorded.feeds)
    quantised = nncf.quantize(
        model,
        nncf.Dataset(recorded.feeds),
        subset_size=len(recorded.feeds),
        model_type=nncf.ModelType.TRANSFORMER,
        target_device=nncf.TargetDevice.CPU,
        advanced_parameters=advice,
        # Recurrent layers: the plug-in executes them in float32 whatever their weights are, and
        # NNCF gives all gates of a layer one scale, which left Resemblyzer noise.
        ignored_scope=nncf.IgnoredScope([*attention, *coarse], types=[*RECURRENT], validate=False),
    )
    openvino.save_model(quantised, folder / "model.xml", compress_to_fp16=False)
    (folder / "calibration.txt").write_text(recorded.said, encoding="utf-8")
    left = [f"{len(coarse)} products"] if coarse else []
    if any(node.get_type_name() in RECURRENT for node in model.get_ops()):
        left.append("recurrent layers")
    (folder / "float32.txt").write_text(" and ".join(left), encoding="utf-8")


def too_coarse(model: Any, feeds: Sequence[Mapping[str, np.ndarray]]) -> list[str]:
    """Return the products by weights of a model whose other input does not survive 8 bits.

    With one range for a whole tensor, values of very different size share a step that is the
    largest one's: raw samples of quiet speech, or what few outliers stand out of. Counted is the
    power of the values over that of rounding, the median over all recordings.

    Args:
        model: the float model.
        feeds: recorded inputs, one mapping per call.
    """
    products = [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() in ("MatMul", "Convolution", "GroupConvolution")
        and _constant(node.input_value(1))
    ]
    # Several products may share an input, which is looked at once.
    inputs = {_place(node.input_value(0)): node.input_value(0) for node in products}
    results = [openvino.opset13.result(output) for output in inputs.values()]
    watched = openvino.Model(results, model.get_parameters(), "inputs of products")
    properties = {"INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.compile_model(watched, "CPU", properties).create_infer_request()
    power: list[list[float]] = [[] for _ in results]
    # Zero is always representable.
    low, high = np.zeros(len(results)), np.zeros(len(results))
    for feed in feeds:
        request.infer(dict(feed))
        for index in range(len(results)):
            values = request.get_output_tensor(index).data.astype(np.float64)
            # Apart for each row of a batch, whose last ones may be padding.
            rows = np.square(values).reshape(len(values), -1).mean(axis=1)
            power[index] += rows[rows > 0].tolist()
            low[index] = min(low[index], values.min())
            high[index] = max(high[index], values.max())
    rounding = np.square((high - low) / 255) / 12
    usual = np.array([np.median(rows) if rows else np.inf for rows in power])
    kept = dict(zip(inputs, usual > rounding * 10 ** (COARSE / 10), strict=True))
    return [node.get_friendly_name() for node in products if not kept[_place(node.input_value(0))]]


def _place(output: Any) -> tuple[str, int]:
    return output.get_node().get_friendly_name(), output.get_index()


def _constant(output: Any) -> bool:
    """Tell whether a value is a constant, whatever conversions and reshapings it went through."""
    node = output.get_node()
    if node.get_type_name() == "Constant":
        return True
    return bool(node.get_input_size()) and all(map(_constant, node.input_values()))
