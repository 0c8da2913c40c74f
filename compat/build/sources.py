"""Sources: a model's graphs in the forms that runtimes accept, each built once and cached."""

from __future__ import annotations

import contextlib
import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compat import catalog
from compat.build import artifacts
from compat.contract import digests
from compat.contract.graph import Graph, Shipped
from compat.contract.model_reference import ModelReference
from compat.contract.session import Unsupported
from compat.contract.source import Source

if TYPE_CHECKING:
    import torch

    from compat.models.base import Model

OPSET = 18
SMALL = 50.0
"""Millions of parameters below which memory is no object, in float64 and twice."""


def distribution_versions(*names: str) -> tuple[str, ...]:
    """Return ``name==version`` for each distribution that is installed."""
    found = []
    for name in names:
        try:
            found.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} absent")
    return tuple(found)


@dataclass(frozen=True)
class GraphSource:
    """One graph of a model, ready to be taken by a runtime."""

    reference: ModelReference
    graph: Graph
    fingerprint: str
    """Identifies weights and the code of the model."""
    threads: int = 0

    def module(self) -> torch.nn.Module:
        """Build the float32 torch module, in evaluation mode, without gradients.

        It is a copy: graphs of one model share parameters, which each recipe converts its way.
        """
        import torch

        # With gradients, wherever it is called: without, what a library takes apart comes back as
        # buffers and not as parameters, and other weights would be generated.
        with torch.enable_grad():
            module = self.graph.module()
        return copy.deepcopy(module).eval().requires_grad_(False)

    def shipped(self, scheme: str, *forms: str) -> Shipped | None:
        """Return the file that the makers ship in the first of these forms that they ship.

        None if they ship no file at all, so that the graph is to be exported.

        Raises:
            Unsupported: they ship files, but none of these forms, or none in this scheme.
        """
        files = self.graph.shipped
        if not files:
            return None
        found = [files[form] for form in forms if form in files]
        if not found or scheme != "fp32":
            raise Unsupported(
                f"its makers ship no {scheme} {' or '.join(forms)} file of {self.graph.name}, "
                f"only fp32 {' and '.join(files)}"
            )
        return found[0]

    def onnx(self, point: str, scheme: str = "fp32", forms: Sequence[str] = ("onnx",)) -> Path:
        """Return the path of this graph as an ONNX file at a static point, or as it is shipped.

        Args:
            point: name of the static shape point.
            scheme: ``fp32``, or a scheme that :mod:`compat.build.onnx` makes of it.
            forms: of a graph that its makers ship, which forms will do, preferred first.

        Raises:
            Unsupported: its makers ship it, but not so.
        """
        if shipped := self.shipped(scheme, *forms):
            arguments = {"file": shipped.path.name}
            return self.derive(f"{__name__}:copy_shipped", arguments, (), ()) / "model.onnx"
        folder = self.derive(
            "compat.build.onnx:make",
            {"point": point, "scheme": scheme},
            ("compat.build.sources", "compat.build.onnx"),
            ("torch", "transformers", "onnx", "onnxscript", "onnxruntime"),
        )
        return folder / "model.onnx"

    def derive(
        self,
        job: str,
        arguments: Mapping[str, Any],
        modules: Sequence[str],
        distributions: Sequence[str],
        fitted: bool = False,
    ) -> Path:
        """Return the folder of something made from this graph by a runtime's own job.

        The job is called as ``function(folder, reference=…, graph=…, **arguments)``. What is not
        ``fitted`` to the inputs that the graph sees in this model is made of its origin, if any.
        """
        if self.graph.origin and not fitted:
            origin = sources(self.graph.origin, catalog.open_model(self.graph.origin), self.threads)
            return origin[self.graph.name].derive(job, arguments, modules, distributions)
        return artifacts.fetch(
            job,
            {
                "reference": self.reference.arguments(),
                "graph": self.graph.name,
                **arguments,
            },
            (
                self.fingerprint,
                digests.module_digest(*modules),
                *distribution_versions(*distributions),
            ),
            self.threads,
        )


def sources(reference: ModelReference, model: Model, threads: int = 0) -> dict[str, GraphSource]:
    """Return the sources of every graph of a model."""
    fingerprint = model.fingerprint()
    return {
        graph.name: GraphSource(reference, graph, fingerprint, threads) for graph in model.graphs()
    }


def build_ahead(
    sources: Mapping[str, Source], file: Callable[[str, str], object], batches: bool
) -> None:
    """Have the files that a session is about to ask for built at once, a processor each.

    They are those of every graph at its first point. Of small models those for other batches too,
    where they are asked for later; what fails of these fails then.

    Args:
        sources: those of one model.
        file: fetches the file of a graph at a point.
        batches: whether inputs will be run several at once.
    """
    first = {name: next(iter(source.graph.points)) for name, source in sources.items()}
    wanted: list[Callable[[], object]] = [partial(file, *one) for one in first.items()]

    def later(name: str, point: str) -> None:
        with contextlib.suppress(Exception):
            file(name, point)

    small = all(catalog.parameters(source.reference) < SMALL for source in sources.values())
    if small:
        wanted += [
            partial(later, name, point)
            for name, source in sources.items()
            if batches or source.graph.windowed
            for point in source.graph.other_batches(first[name])
        ]
    threads = max(source.threads for source in sources.values())
    artifacts.side_by_side(wanted, threads if small else 1)


def open_source(reference: Mapping[str, str], graph: str) -> GraphSource:
    """Open one graph inside a job, from the job's arguments."""
    opened = ModelReference(**reference)
    return sources(opened, catalog.open_model(opened))[graph]


def copy_shipped(folder: Path, reference: Mapping[str, str], graph: str, file: str) -> None:
    """Job: copy a shipped file, to lie alone in its folder as exported ones do."""
    files = open_source(reference, graph).graph.shipped.values()
    shipped = next(found for found in files if found.path.name == file)
    shutil.copyfile(shipped.path, folder / "model.onnx")


def example_tensors(graph: Graph, point: str) -> tuple[torch.Tensor, ...]:
    """Return distinct example tensors for ``forward``, small pseudo-random numbers.

    Distinct matters: the exporter takes one tensor object given for two inputs as one input.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    examples = []
    for shape, dtype in graph.examples(point).values():
        kind = getattr(torch, dtype)
        if kind.is_floating_point:
            examples.append(torch.randn(shape, generator=generator, dtype=kind) * 0.1)
        else:
            examples.append(torch.ones(shape, dtype=kind))
    return tuple(examples)
