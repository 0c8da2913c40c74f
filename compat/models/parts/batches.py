"""Batches: rows padded to the batch sizes that a graph was compiled for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from compat.contract.graph import Graph
from compat.contract.session import Session


def parts(rows: int, sizes: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """Yield the slices of rows that go through a graph at once, each with its batch size.

    The batch size is the smallest that holds all rows that are left, or else the largest.
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
        session: the session that has the compiled graph.
        graph: name of the graph. The first axis of its inputs is the batch, as a symbol or as a
            number. If the graph has points for several lengths, only those that the rows fit are
            used.
        feeds: at least one row for each input, all of one shape, without the batch axis.
        outputs: names of the outputs that are fetched; empty for all.
        inputs: number of the model's inputs (such as recordings) that the rows come from. The
            graph's large batches are used only if there are more inputs than the largest usual
            batch holds, so that many windows of one recording do not call for them.

    Returns:
        Outputs by name, each (rows, …).

    Raises:
        ValueError: there are no rows, or the graph has no point that the rows fit.
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
