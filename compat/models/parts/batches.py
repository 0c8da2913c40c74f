"""Batches: rows padded to the batch sizes that a graph was compiled for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from compat.contract.graph import Graph
from compat.contract.session import Session


def parts(rows: int, sizes: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """Yield which rows go through a graph at once, and the size of the batch that takes them.

    That is the smallest size which holds all that are left, or the largest.
    """
    start = 0
    while start < rows:
        left = rows - start
        batch = min((size for size in sizes if size >= left), default=max(sizes))
        yield slice(start, min(start + batch, rows)), batch
        start += batch


def in_batches(
    session: Session,
    graph: str,
    feeds: Mapping[str, Sequence[np.ndarray] | np.ndarray],
    outputs: Sequence[str] = (),
    inputs: int = 1,
) -> dict[str, np.ndarray]:
    """Run rows through a graph, as many at once as it has points for.

    Args:
        session: what the graph is compiled in.
        graph: name of the graph. The first axis of its inputs is the batch, be it a symbol or a
            number; of points for several lengths, those take part that the rows fit.
        feeds: at least one row for each input, all of one shape, without the batch axis.
        outputs: names of the outputs that are fetched; none: all.
        inputs: how many inputs of the model the rows come from. Large batches take part where
            these are more than the usual sizes hold, and not for the windows of one recording.

    Returns:
        Outputs by name, each (rows, …).

    Raises:
        ValueError: there are no rows, or the graph has no point that they fit.
    """
    spec = session.graphs[graph]
    rows = min(len(arrays) for arrays in feeds.values())
    if not rows:
        raise ValueError(f"no rows for {graph}")
    points = _points(spec, {name: arrays[0].shape for name, arrays in feeds.items()})
    usual = [batch for batch in points if batch not in spec.large_batches]
    sizes = usual if usual and inputs <= max(usual) else list(points)
    fetched: dict[str, list[np.ndarray]] = {name: [] for name in outputs or spec.outputs}
    for part, batch in parts(rows, sizes):
        padded = {
            name: np.zeros((batch, *arrays[0].shape), spec.inputs[name].dtype)
            for name, arrays in feeds.items()
        }
        count = part.stop - part.start
        for name, arrays in feeds.items():
            padded[name][:count] = arrays[part]
        handles = session.run(graph, padded, points[batch], list(fetched))
        for name, arrays in fetched.items():
            arrays.append(handles[name].numpy()[:count].copy())
    return {name: np.concatenate(arrays) for name, arrays in fetched.items()}


def _points(graph: Graph, rows: Mapping[str, tuple[int, ...]]) -> dict[int, str]:
    """Return, by batch size, the first point whose inputs have the shapes of these rows."""
    points: dict[int, str] = {}
    for point, symbols in graph.points.items():
        shapes = {name: graph.inputs[name].at(symbols) for name in rows}
        batches = {shape[0] for shape in shapes.values()}
        if len(batches) == 1 and all(shapes[name][1:] == shape for name, shape in rows.items()):
            points.setdefault(batches.pop(), point)
    if not points:
        raise ValueError(f"{graph.name} has no point for rows of the shapes {dict(rows)}")
    return points
