"""Jobs that make graphs for QNN: rewriting, and quantisation on recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorData, create_calibrator, save_tensors_data
from onnxruntime.quantization.execution_providers.qnn import (
    get_qnn_qdq_config,
    qnn_preprocess_model,
)

from compat.build import calibration
from compat.build.sources import open_source
from compat.contract.model_reference import ModelReference
from compat.runtimes.qnn import graph as qnn_graph
from compat.runtimes.qnn.oracles import MASKED

ROOM = {"int8-a8w8": 1.25, "int8-a16w8": 2.0}
"""Factor by which a recorded range is widened. New inputs exceed the recorded range somewhere, and
cutting them off there adds as much error as noise would. Doubling the range costs one bit, which
16-bit activations can spare and 8-bit ones cannot."""


# Graphs ------------------------------------------------------------------------------------------


def rewrite(folder: Path, reference: Mapping[str, str], graph: str, point: str) -> None:
    """Job: write a graph as ``model.onnx`` in the form that the NPU is given."""
    model = onnx.load(open_source(reference, graph).onnx(point))
    qnn_graph.rewrite(model)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data")


# Quantisation ------------------------------------------------------------------------------------


def quantise(
    folder: Path,
    reference: Mapping[str, str],
    graph: str,
    point: str,
    scheme: str,
    corpus: str,
    recordings: str,  # noqa: ARG001 (part of what the file is made of)
) -> None:
    """Job: quantise weights and activations, with ranges from recordings of a corpus.

    ``corpus`` is the corpus's folder, empty for the shipped one. ``recordings`` is the corpus's
    fingerprint, so that another corpus makes another artifact.
    """
    exported = qnn_graph.rewritten(open_source(reference, graph), point).fetch() / "model.onnx"
    recorded = calibration.record(ModelReference(**reference), graph, point, corpus)
    quantise_file(exported, folder, scheme, recorded.feeds)
    (folder / "calibration.txt").write_text(recorded.said, encoding="utf-8")


def quantise_file(
    exported: Path, folder: Path, scheme: str, feeds: Sequence[Mapping[str, np.ndarray]]
) -> None:
    """Quantise an exported file into ``model.onnx`` in a folder.

    Args:
        exported: the float ONNX file.
        folder: where to write.
        scheme: ``int8-a8w8`` or ``int8-a16w8``.
        feeds: inputs that set the ranges of activations, one mapping per call.
    """
    prepared, ranges = folder / "prepared.onnx", folder / "ranges.json"
    if not qnn_preprocess_model(exported, prepared):
        onnx.save(onnx.load(exported), prepared)
    model = onnx.load(prepared)
    soften_masks(model, MASKED[scheme])
    onnx.save(model, prepared)
    config = get_qnn_qdq_config(
        prepared,
        Feeds(()),
        activation_type=QuantType.QUInt16 if scheme == "int8-a16w8" else QuantType.QUInt8,
        weight_type=QuantType.QUInt8,
        # Filters differ in size by orders of magnitude. Per channel applies to convolutions and
        # Gemm; MatMul stays per tensor, as QNN takes no other.
        per_channel=True,
    )
    write_ranges(ranges, prepared, config.op_types_to_quantize, feeds, ROOM[scheme])
    quantize_static(
        prepared,
        folder / "model.onnx",
        op_types_to_quantize=config.op_types_to_quantize,
        per_channel=config.per_channel,
        activation_type=config.activation_type,
        weight_type=config.weight_type,
        use_external_data_format=config.use_external_data_format,
        extra_options=config.extra_options,
        calibration_cache_path=ranges,
    )
    prepared.unlink()
    ranges.unlink()


def write_ranges(
    path: Path,
    model: Path,
    operators: Sequence[str],
    feeds: Sequence[Mapping[str, np.ndarray]],
    room: float,
) -> None:
    """Write the range of every activation over some inputs, widened by a factor ``room``.

    The file is JSON, as ONNX Runtime's quantiser reads it.
    """
    augmented = path.with_name("augmented.onnx")
    calibrator = create_calibrator(model, operators, augmented_model_path=str(augmented))
    calibrator.collect_data(Feeds(feeds))
    ranges = calibrator.compute_data()
    for name in ranges:
        low, high = (np.asarray(end, np.float32) for end in ranges[name].range_value)
        # Both ends are scaled, so that the range of a never negative activation stays non-negative.
        ranges[name] = TensorData(lowest=low * np.float32(room), highest=high * np.float32(room))
    save_tensors_data(ranges, path)
    for file in path.parent.glob("augmented.onnx*"):
        file.unlink()


class Feeds:
    """Recorded inputs in the form of a ``CalibrationDataReader`` of ONNX Runtime."""

    def __init__(self, feeds: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        return next(self._feeds, None)


def soften_masks(model: Any, floor: float) -> None:
    """Raise the constants of masks, which are below -1,000, to ``-floor``.

    Masks are added to scores before a softmax or an argmax. Masked scores have no weight either
    way, but -10,000 would widen the range of the sum, and leave few steps for the other scores.
    """
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor)
            if values.size and values.min() < -1000:
                softened = np.where(values < -1000, np.float32(-floor), values)
                tensor.CopyFrom(onnx.numpy_helper.from_array(softened, tensor.name))
