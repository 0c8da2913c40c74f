"""Sessions of ONNX Runtime Web in a browser's page."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.build.artifacts import folder_bytes
from compat.contract.case import Recipe, Target
from compat.contract.graph import POSITION
from compat.contract.runtime import Options
from compat.contract.session import (
    Crash,
    Handle,
    Placement,
    Session,
    Steps,
    Unsupported,
    fetched,
    prompt_steps,
)
from compat.runtimes.ort import leaves_floats
from compat.runtimes.web import browser as web
from compat.runtimes.web.places import PLACES, browser_facts, open_page, unfit

if TYPE_CHECKING:
    from compat.contract.source import Source

PLACED = re.compile(r"placed on \[(\w+)\]\. Number of nodes: (\d+)")
PARTITIONED = re.compile(
    r"number of nodes in the graph: (\d+).*number of nodes supported by WebNN: (\d+)"
)
FATAL = ("lstm",)
"""WebNN operators that can crash Chromium's WebNN: it unrolls recurrences, and long ones lose the
context. A session that lost its context is opened again with these left to WebAssembly, which its
notes say."""


@dataclass(frozen=True)
class Remote:
    """An output of a graph that stays in the page."""

    key: str
    """Key of the graph at a point."""
    output: str
    """Name of the output."""
    run: int
    """Number of the run, as the page counts."""
    array: np.ndarray | None = None
    """Copy of the output, if it came along with the answer."""

    @property
    def handle(self) -> dict[str, Any]:
        return {"key": self.key, "output": self.output, "run": self.run}


class WebSession(Session):
    """A session whose graphs run in a page. Each of its methods sends the page one message."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        target: Target,
        recipe: Recipe,
        options: Options,
    ) -> None:
        super().__init__({name: source.graph for name, source in sources.items()})
        self.sources = sources
        self.place = PLACES[target.name]
        self.recipe = recipe
        self._points: dict[tuple[str, str], str] = {}
        self._paths: dict[str, Path] = {}
        self._nodes: dict[str, dict[str, int]] = {}
        self.withheld: tuple[str, ...] = ()
        try:
            self._begin(target, options)
        except Crash as error:
            if "Context is lost" not in str(error):
                raise
            self.withheld = FATAL
            self._begin(target, options)

    def _begin(self, target: Target, options: Options) -> None:
        self.page = self._open(target, options)
        try:
            for graph in self.graphs.values():
                self._compiled(graph.name, next(iter(graph.points)))
        except BaseException:
            self.close()
            self._points.clear()
            raise

    def _open(self, target: Target, options: Options) -> web.Page:
        """Open the page in the first browser that serves the target, as the probe did."""
        refused = []
        for one in web.browsers(self.place.kind):
            software = self.place.software or self.place.provider["name"] != "webgpu"
            page = open_page(one, software)
            seen, _ = page.call("look")
            reason = unfit(self.place, seen)
            if not reason:
                self.seen = {**seen, "version": page.version}
                page.call(
                    "open",
                    bundle=self.place.bundle,
                    options=dict(self.place.provider),
                    threads=options.threads,
                    withheld=list(self.withheld),
                    title=f"{target.name} {self.recipe.name}",
                )
                return page
            page.close()
            refused.append(reason)
        raise Unsupported("; ".join(refused) or f"no {self.place.kind} was found")

    @property
    def crossing_s(self) -> float:
        return self.page.crossing_s

    def notes(self) -> Mapping[str, Any]:
        withheld = {"left to WebAssembly": ", ".join(self.withheld)} if self.withheld else {}
        return {**browser_facts(self.place, self.seen), **withheld}

    def _compiled(self, graph: str, point: str) -> str:
        """Return the key of a graph at a point; the first time the page compiles the graph.

        Raises:
            Unsupported: the adapter or ONNX Runtime Web lacks the precision or an operator.
        """
        key = f"{graph} {point}"
        if (graph, point) in self._points:
            return key
        source, spec, scheme = self.sources[graph], self.graphs[graph], self.recipe.for_graph(graph)
        if scheme == "fp16" and not self._has_fp16():
            raise Unsupported("the adapter has no shader-f16")
        path = source.onnx(point, scheme)
        shipped = source.shipped(scheme, "onnx")
        folder = self.page.server.mount(f"graph-{len(self._points)}", path.parent)
        files = sorted(p.name for p in path.parent.iterdir() if p.suffix not in (".onnx", ".json"))
        try:
            answer, _ = self.page.call(
                "compile",
                key=key,
                model=f"{folder}{path.name}",
                data=[{"path": name, "data": f"{folder}{name}"} for name in files],
                outputs=list(spec.outputs),
                states=[
                    {
                        "name": name,
                        "dims": list(state.at(spec.points[point])),
                        "dtype": state.dtype,
                        "initial": state.initial,
                        "update": state.update,
                        "axis": state.axis,
                    }
                    for name, state in spec.state.items()
                ],
                constants=dict(shipped.constants) if shipped else {},
                free={},
            )
        except web.PageError as error:
            if re.search("NOT_IMPLEMENTED|Could not find an implementation", str(error)):
                raise Unsupported(str(error)) from error
            raise
        self._paths.setdefault(graph, path)
        self._nodes[key] = placed(answer["lines"], self.place.name)
        self._points[graph, point] = key
        return key

    def _has_fp16(self) -> bool:
        if self.place.provider["name"] == "webgpu":
            return "shader-f16" in self.seen["webgpu"]["features"]
        if self.place.provider["name"] == "webnn":
            device = self.seen["webnn"][self.place.provider["deviceType"]]
            return "float16" in device["inputs"]
        return False

    def _feeds(
        self, feeds: Mapping[str, np.ndarray | Handle], names: Sequence[str], graph: str
    ) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
        """Return the description of feeds in a message, and the arrays that travel with it."""
        described: list[dict[str, Any]] = []
        arrays: list[np.ndarray] = []
        for name in names:
            value = feeds[name]
            if isinstance(value, Handle):
                described.append({"name": name, "handle": value.native.handle})
            else:
                described.append({"name": name, "tensor": len(arrays)})
                kind = self.graphs[graph].inputs[name].dtype
                arrays.append(np.ascontiguousarray(value, dtype=kind))
        return described, arrays

    def run(
        self,
        graph: str,
        feeds: Mapping[str, np.ndarray | Handle],
        point: str,
        fetch: Sequence[str] | None = None,
    ) -> dict[str, Handle]:
        key, spec = self._compiled(graph, point), self.graphs[graph]
        described, arrays = self._feeds(feeds, list(spec.inputs), graph)
        position = feeds.get(POSITION)
        # Without ``fetch`` the smallest output comes along, which may save another message.
        wanted = list(fetch) if fetch else [spec.smallest_output]
        answer, arrays = self.page.call(
            "run",
            arrays,
            key=key,
            feeds=described,
            position=int(position[0]) if isinstance(position, np.ndarray) else 0,
            fetch=wanted,
        )
        brought = dict(zip(wanted, arrays, strict=True))
        return {
            name: self._handle(Remote(key, name, answer["run"], brought.get(name)))
            for name in spec.outputs
            if not fetch or name in fetch
        }

    def steps(
        self,
        graph: str,
        feeds: Mapping[str, np.ndarray | Handle],
        point: str,
        count: int,
        *,
        along: Mapping[str, np.ndarray] | None = None,
        carry: Mapping[str, str] | None = None,
        stop: tuple[str, int] | None = None,
        fetch: Sequence[str] = (),
    ) -> Steps:
        along, carry = along or {}, carry or {}
        prompt = prompt_steps(count, along, carry)
        key, spec = self._compiled(graph, point), self.graphs[graph]
        wanted = fetched(fetch, stop)
        still, arrays = self._feeds(feeds, [n for n in spec.inputs if n not in along], graph)
        sequences, rows = self._feeds(along, list(along), graph)
        answer, outputs = self.page.call(
            "steps",
            [*arrays, *rows],
            key=key,
            feeds=still,
            count=count,
            prompt=prompt,
            along=[{**one, "tensor": len(arrays) + one["tensor"]} for one in sequences],
            carry=dict(carry),
            stop={"output": stop[0], "value": stop[1]} if stop else None,
            fetch=wanted,
        )
        return Steps(
            dict(zip(wanted, outputs, strict=True)),
            {name: self._handle(Remote(key, name, answer["run"])) for name in spec.outputs},
            answer["count"],
            answer["first"] / 1000,
        )

    def reset(self, graph: str, point: str) -> None:
        self.page.call("reset", key=self._compiled(graph, point))

    def snapshot(self, graph: str, point: str) -> dict[str, np.ndarray]:
        answer, arrays = self.page.call("snapshot", key=self._compiled(graph, point))
        return dict(zip(answer["names"], arrays, strict=True))

    def restore(self, graph: str, point: str, snapshot: Mapping[str, np.ndarray]) -> None:
        self.page.call(
            "restore",
            list(snapshot.values()),
            key=self._compiled(graph, point),
            names=list(snapshot),
        )

    def _handle(self, remote: Remote) -> Handle:
        return Handle(remote, self._fetched)

    def _fetched(self, native: Remote) -> np.ndarray:
        if native.array is not None:
            return native.array
        _, (array,) = self.page.call("fetch", handle=native.handle)
        return array

    def placement(self) -> Placement:
        counts: dict[str, int] = {}
        for nodes in self._nodes.values():
            for name, count in nodes.items():
                counts[name] = counts.get(name, 0) + count
        total = sum(counts.values())
        shares = {name: count / total for name, count in counts.items()} if total else {}
        return Placement(shares, self.place.name, "node placements that ONNX Runtime logs")

    def executed(self) -> Mapping[str, str]:
        left = self.unquantised()
        return {
            graph: "fp32" if graph in left else self.recipe.for_graph(graph)
            for graph, _ in self._points
        }

    def unquantised(self) -> Collection[str]:
        return [
            graph
            for graph, path in self._paths.items()
            if leaves_floats(path, self.recipe.for_graph(graph))
        ]

    def model_bytes(self) -> int:
        return sum(folder_bytes(path.parent) for path in self._paths.values())

    def device_peak_bytes(self) -> int | None:
        return self.page.memory()

    def close(self) -> None:
        self.page.close()


def placed(lines: Sequence[str], provider: str) -> dict[str, int]:
    """Return the number of nodes by execution provider, from ONNX Runtime's log of one graph.

    A provider that compiles whole parts of a graph (WebNN) counts each part as one node. Another
    line of the log says how many nodes it took, which is the number here.
    """
    counts: dict[str, int] = {}
    taken = 0
    for line in lines:
        if found := PLACED.search(line):
            counts[found[1]] = counts.get(found[1], 0) + int(found[2])
        if found := PARTITIONED.search(line):
            taken = int(found[2])
    if taken and provider in counts:
        counts[provider] = taken
    return counts
