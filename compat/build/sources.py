"""Sources: the graphs of a model in the forms that runtimes accept, each built once and cached."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compat import catalog
from compat.build import artifacts
from compat.build.schemes import float_module
from compat.contract.graph import Graph, Shipped
from compat.contract.model_reference import ModelReference
from compat.contract.session import Unsupported
from compat.contract.source import Derived, Job, Source

if TYPE_CHECKING:
    import torch

    from compat.models.base import Model

OPSET = 18


@dataclass(frozen=True)
class GraphSource:
    """One graph of a model, which a runtime may take in any of its forms."""

    reference: ModelReference
    graph: Graph
    fingerprint: str
    """Hex digits that identify the model's weights and code."""
    threads: int = 0
    """Threads of builders; 0 lets the libraries choose."""

    def module(self) -> torch.nn.Module:
        """Build the float32 torch module, in evaluation mode, without gradients.

        The module is a copy, as graphs of one model share parameters, and a recipe may convert each
        graph differently.
        """
        return float_module(self.graph)

    def shipped(self, scheme: str, *forms: str) -> Shipped | None:
        """Return the graph's file as its makers ship it, in the first of ``forms`` that exists.

        None if the makers ship no file of this graph at all: it is exported then.

        Raises:
            Unsupported: the makers ship files, but none in these forms or in this scheme.
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
        """Return the path of this graph as an ONNX file: shipped, or exported at a static point.

        Args:
            point: name of the static shape point.
            scheme: ``fp32``, or a scheme that :mod:`compat.build.onnx` makes from that.
            forms: forms of a shipped file that the runtime takes, preferred first.

        Raises:
            Unsupported: the makers ship the graph, but in none of these forms.
        """
        return self.exported(point, scheme, forms).fetch() / "model.onnx"

    def exported(
        self, point: str, scheme: str = "fp32", forms: Sequence[str] = ("onnx",)
    ) -> Derived:
        """Return the artifact that :meth:`onnx` fetches, without building it."""
        if shipped := self.shipped(scheme, *forms):
            return self.derive(copy_shipped, {"file": shipped.path.name}, ())
        packages = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
        made_from = () if scheme == "fp32" else (self.exported(point),)
        return self.derive(
            "compat.build.onnx:make", {"point": point, "scheme": scheme}, packages, made_from
        )

    def derive(
        self,
        job: Job,
        arguments: Mapping[str, Any],
        packages: Sequence[str],
        made_from: Sequence[Derived] = (),
        fitted: bool = False,
    ) -> Derived:
        """Return the artifact that a runtime's job makes from this graph; ``fetch()`` builds it.

        See :meth:`compat.contract.source.Source.derive`. A graph may come from another model, its
        origin. Its artifacts are then shared with that model, unless they are ``fitted`` to the
        inputs that the graph sees in this one.
        """
        if self.graph.origin and not fitted:
            origin = sources(self.graph.origin, catalog.open_model(self.graph.origin), self.threads)
            return origin[self.graph.name].derive(job, arguments, packages, made_from)
        return artifacts.Artifact(
            job,
            {"reference": self.reference.arguments(), "graph": self.graph.name, **arguments},
            packages,
            {"model": self.fingerprint},
            made_from,
            self.threads,
        )


def sources(reference: ModelReference, model: Model, threads: int = 0) -> dict[str, GraphSource]:
    """Return the source of every graph of a model, by the graph's name."""
    fingerprint = model.fingerprint()
    return {
        graph.name: GraphSource(reference, graph, fingerprint, threads) for graph in model.graphs()
    }


def build_ahead(
    sources: Mapping[str, Source], file: Callable[[str, str], object], batches: bool
) -> None:
    """Build in parallel the files that a session is about to ask for.

    These are the files of every graph at its first point, and for small models also the files of
    other batches, which the session asks for later. A failure of such a later file is ignored here:
    it is raised when the session asks for the file.

    Args:
        sources: the sources of one model, by graph.
        file: fetches the file of a graph at a point.
        batches: whether several inputs will be run at once.
    """
    first = {name: next(iter(source.graph.points)) for name, source in sources.items()}
    fetches: list[Callable[[], object]] = [partial(file, *one) for one in first.items()]

    def later(name: str, point: str) -> None:
        with contextlib.suppress(Exception):
            file(name, point)

    small = all(catalog.is_small(source.reference) for source in sources.values())
    if small:
        fetches += [
            partial(later, name, point)
            for name, source in sources.items()
            if batches or source.graph.windowed
            for point in source.graph.other_batches(first[name])
        ]
    threads = max(source.threads for source in sources.values())
    artifacts.side_by_side(fetches, threads if small else 1)


def open_source(reference: Mapping[str, str], graph: str) -> GraphSource:
    """Return the source of one graph, inside a job, from the job's arguments."""
    opened = ModelReference(**reference)
    return sources(opened, catalog.open_model(opened))[graph]


def copy_shipped(folder: Path, reference: Mapping[str, str], graph: str, file: str) -> None:
    """Job: copy a shipped file into an artifact's folder, so that it is found as exports are."""
    files = open_source(reference, graph).graph.shipped.values()
    shipped = next(one for one in files if one.path.name == file)
    shutil.copyfile(shipped.path, folder / "model.onnx")


def example_tensors(graph: Graph, point: str) -> tuple[torch.Tensor, ...]:
    """Return example tensors for ``forward``: small pseudo-random floats, and ones as integers.

    Every input has a tensor of its own, as the exporter merges inputs that share a tensor object.
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
