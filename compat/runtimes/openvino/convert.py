"""Compression and quantisation of graphs for OpenVINO, by NNCF."""

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
"""Decibels of signal over rounding that values must keep at 8 bits of their range. With less their
products stay in float32: an error of 3 % (30 dB), through seven convolutions in a row, destroys the
features of wav2vec2."""


def compress(folder: Path, reference: Mapping[str, str], graph: str, point: str, bits: int) -> None:
    """Job: write a graph as OpenVINO IR with compressed weights.

    With 8 bits weights are asymmetric, one scale per channel. With 4 bits they are symmetric, in
    groups of :data:`GROUP`. Embeddings, convolutions, the last layer, and weights that do not
    divide into groups have 8 bits there too.
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
    """Job: write a graph as OpenVINO IR with int8 weights and activations.

    ``calibration.txt`` beside it names the recordings that set the ranges of activations, and
    ``float32.txt`` the layers that stay in float32.

    Args:
        folder: where to write.
        reference: arguments of the model's reference.
        graph: name of the graph.
        point: name of the point.
        corpus: folder of the recordings; empty for the shipped corpus.
        recordings: digest of the recordings.
        narrow: use 7 of the 8 bits of each weight, so that no sum of two products overflows.
    """
    # Ranges are the extremes of all calls. NNCF's default is the mean of the calls' extremes, which
    # cuts off half of the calls. SmoothQuant is off: its scales per channel need more calls than
    # are recorded of a decoder's step.
    ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    advice = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.ENABLE if narrow else None,
        activations_range_estimator_params=ranges,
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1),
    )
    recorded = calibration.record(ModelReference(**reference), graph, point, corpus)
    model = openvino.Core().read_model(open_source(reference, graph).onnx(point))
    # Products of two activations (attention) stay in float32: one range for a whole cache cost
    # 6 dB.
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
        # Recurrent layers stay in float32: the plug-in executes them so in any case, and NNCF gives
        # all gates of a layer one scale, which left only noise of Resemblyzer's outputs.
        ignored_scope=nncf.IgnoredScope([*attention, *coarse], types=[*RECURRENT], validate=False),
    )
    openvino.save_model(quantised, folder / "model.xml", compress_to_fp16=False)
    (folder / "calibration.txt").write_text(recorded.said, encoding="utf-8")
    left = [f"{len(coarse)} products"] if coarse else []
    if any(node.get_type_name() in RECURRENT for node in model.get_ops()):
        left.append("recurrent layers")
    (folder / "float32.txt").write_text(" and ".join(left), encoding="utf-8")


def too_coarse(model: Any, feeds: Sequence[Mapping[str, np.ndarray]]) -> list[str]:
    """Return the names of the products by weights whose other input loses too much at 8 bits.

    One range serves a whole tensor, so that its largest value sets the step for all. Quiet speech
    as raw samples, or a tensor with few outliers, then keeps little. The measure is the power of
    the values over the power of their rounding, the median over all recordings; the limit is
    :data:`COARSE`.

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
    # Several products may share an input, which is measured once.
    inputs = {_place(node.input_value(0)): node.input_value(0) for node in products}
    results = [openvino.opset13.result(output) for output in inputs.values()]
    watched = openvino.Model(results, model.get_parameters(), "inputs of products")
    properties = {"INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.compile_model(watched, "CPU", properties).create_infer_request()
    power: list[list[float]] = [[] for _ in results]
    # The range always includes zero, as in NNCF's quantisers.
    low, high = np.zeros(len(results)), np.zeros(len(results))
    for feed in feeds:
        request.infer(dict(feed))
        for index in range(len(results)):
            values = request.get_output_tensor(index).data.astype(np.float64)
            # Rows of a batch are measured apart, as the last ones may be padding.
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
    """Return whether a value is a constant, or computed from constants alone."""
    node = output.get_node()
    if node.get_type_name() == "Constant":
        return True
    return bool(node.get_input_size()) and all(map(_constant, node.input_values()))
