"""Batches: windows padded to the batch sizes that a graph was compiled for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compat.contract.session import Session


def in_batches(
    session: Session, graph: str, feeds: Mapping[str, Sequence[np.ndarray]], output: str
) -> np.ndarray:
    """Run rows through a graph, as many at once as it has points for; return an output's rows."""
    rows = len(next(iter(feeds.values())))
    points = {symbols["batch"]: name for name, symbols in session.graphs[graph].points.items()}
    sizes = sorted(points)
    parts = []
    start = 0
    while start < rows:
        batch = next((size for size in sizes if size >= rows - start), sizes[-1])
        count = min(batch, rows - start)
        padded: dict[str, Any] = {}
        for name, arrays in feeds.items():
            dtype = session.graphs[graph].inputs[name].dtype
            padded[name] = np.zeros((batch, *arrays[start].shape), dtype)
            padded[name][:count] = arrays[start : start + count]
        handles = session.run(graph, padded, points[batch], (output,))
        parts.append(handles[output].numpy()[:count].copy())
        start += count
    return np.concatenate(parts)
