"""ONNX files of a graph, by scheme: the float32 export, and quantised files made from it.

This code runs in a builder process (see :mod:`compat.build.artifacts`), never in the process that
is measured.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from compat.build.sources import OPSET, example_tensors, open_source


def make(folder: Path, reference: Mapping[str, str], graph: str, point: str, scheme: str) -> None:
    """Job: write ``model.onnx`` (and its external weights) for one graph at one point."""
    if scheme == "fp32":
        export(folder, reference, graph, point)
        return
    source = open_source(reference, graph).onnx(point)
    # Imported here, as runtimes that take only the float32 export do not need ONNX Runtime.
    from compat.build.onnx_schemes import SCHEMES

    SCHEMES[scheme](source, folder / "model.onnx")


def export(folder: Path, reference: Mapping[str, str], graph: str, point: str) -> None:
    """Export a graph with PyTorch's exporter based on ``torch.export``, at a fixed opset."""
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
