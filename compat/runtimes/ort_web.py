"""ONNX Runtime in a browser's page: WebGPU, WebNN and WebAssembly, which are data.

The graphs, the state and what graphs hand to one another stay in the page, and so does the loop
of a decoder; see compat/runtimes/web/ for the page, its server and the driver of the browser.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from compat.case import Recipe, Target
from compat.graph import POSITION
from compat.runtimes.base import (
    Crash,
    Generated,
    Handle,
    Options,
    Placement,
    Probe,
    Runtime,
    Session,
    Unsupported,
    folder_bytes,
)
from compat.runtimes.web import browser as web

if TYPE_CHECKING:
    from argparse import Namespace

    from compat.runtimes.web.browser import Browser, Kind
    from compat.sources import Source

SOFTWARE = re.compile(r"swiftshader|llvmpipe|lavapipe|softpipe|basic render|software", re.I)
PLACED = re.compile(r"placed on \[(\w+)\]\. Number of nodes: (\d+)")
PARTITIONED = re.compile(
    r"number of nodes in the graph: (\d+).*number of nodes supported by WebNN: (\d+)"
)
FATAL = ("lstm",)
"""Operators by which a graph takes Chromium's WebNN down: it unrolls recurrences, and long ones
lose the context. A session whose graphs were lost so leaves them to WebAssembly, and says so."""
HOST = "CPUExecutionProvider"
"""How ONNX Runtime calls its own kernels in WebAssembly."""


@dataclass(frozen=True)
class Place:
    """What is particular to one target."""

    kind: Kind
    provider: Mapping[str, str]
    """Execution provider as ONNX Runtime's options for a page name it."""
    name: str
    """How the provider is called where nodes are placed."""
    recipes: tuple[str, ...]
    bundle: str = "ort.webgpu.min.mjs"
    software: bool = False
    """Whether its WebGPU adapter is a software renderer."""
    platforms: tuple[str, ...] = ("linux", "darwin", "win32")


WEBGPU = ("fp32", "fp16", "int8-weights", "int4-weights")
WEBNN = ("fp32", "fp16", "int8-dynamic", "int8-weights", "int4-weights")
WASM = ("fp32", "int8-dynamic", "int8-weights", "int4-weights")


def _webgpu(kind: Kind, software: bool) -> Place:
    return Place(kind, {"name": "webgpu"}, "WebGpuExecutionProvider", WEBGPU, software=software)


def _webnn(device: str, *platforms: str) -> Place:
    provider = {"name": "webnn", "deviceType": device}
    return Place("chrome", provider, "WebNNExecutionProvider", WEBNN, platforms=platforms)


PLACES: Mapping[str, Place] = {
    "webgpu-chromium": _webgpu("chrome", False),
    "webgpu-chromium-software": _webgpu("chrome", True),
    "webgpu-firefox": _webgpu("firefox", False),
    "webgpu-firefox-software": _webgpu("firefox", True),
    "webnn-chromium-cpu": _webnn("cpu", "linux", "darwin", "win32"),
    # On Linux Chromium takes both device types and computes on the processor.
    "webnn-chromium-gpu": _webnn("gpu", "darwin", "win32"),
    "webnn-chromium-npu": _webnn("npu", "darwin", "win32"),
    "wasm-chromium": Place("chrome", {"name": "wasm"}, HOST, WASM, "ort.wasm.min.mjs"),
    "wasm-firefox": Place("firefox", {"name": "wasm"}, HOST, WASM, "ort.wasm.min.mjs"),
}
BROWSERS: Mapping[Kind, tuple[str, str]] = {
    "chrome": ("chromium", f"install Chrome or Edge, or {web.INSTALL}"),
    "firefox": ("firefox", "install Firefox (Debian, Ubuntu: apt install firefox-esr)"),
}


def _target(name: str, place: Place) -> Target:
    column = name.split("-")[0]
    wasm = column == "wasm"
    # These compute on the processor, whose column has native runtimes: such a page is looked at
    # where it is asked for, WebNN's by its column too.
    asked = wasm or name == "webnn-chromium-cpu"
    return Target(
        name,
        "cpu" if wasm else column,
        "ort-web",
        place.provider.get("deviceType", place.provider["name"]),
        place.recipes,
        "emulator" if place.software else "device",
        on_host_cpu=wasm,
        is_host=place.provider.get("deviceType") == "cpu",
        on_request=asked,
        slow=asked or place.software,
        marks=(BROWSERS[place.kind][0], *([column] if asked else [])),
    )


class OrtWeb(Runtime):
    name = "ort-web"
    packages = ("torch", "onnxscript")
    targets = tuple(_target(name, place) for name, place in PLACES.items())

    def versions(self) -> Mapping[str, str]:
        installed = not web.lacking()[0]
        return {name: web.package_version(name) for name in web.PACKAGES if installed}

    def add_options(self, add: Callable[..., None]) -> None:
        add(
            "--browser-path",
            action="append",
            default=[],
            metavar="PATH",
            help="a Chrome, Edge, Chromium or Firefox to use, in place of those that are found",
        )
        add("--headed", action="store_true", help="show the pages of browsers while they work")
        add(
            "--browser-arg",
            action="append",
            default=[],
            metavar="ARG",
            help="one more argument for every browser: --browser-arg=--use-angle=vulkan",
        )

    def use(self, options: Namespace) -> None:
        web.use(options.browser_path, options.headed, options.browser_arg)

    def probe(self, target: Target) -> Probe:
        reason, remedy = web.lacking()
        if reason:
            return Probe("absent", reason, remedy)
        place = PLACES[target.name]
        reason, remedy = missing(place)
        if reason:
            return Probe("absent", reason, remedy, self.versions())
        refused = []
        for one in web.browsers(place.kind):
            try:
                seen = look(one, place.software or place.provider["name"] != "webgpu")
            except Crash as error:
                refused.append(f"{one.executable.name} does not start: {error}")
                continue
            reason = unfit(place, seen)
            if not reason:
                return Probe("here", facts={**self.versions(), **_said(place, seen)})
            refused.append(f"{seen['version']}: {reason}")
        # A browser that is there and does not start is broken; one that lacks a device is not.
        broken = all("does not start" in said for said in refused)
        state: Literal["broken", "absent"] = "broken" if broken else "absent"
        return Probe(state, "; ".join(refused), _remedy(place), self.versions())

    def unsupported(self, target: Target, recipe: Recipe) -> str:
        if "bf16" in recipe.schemes:
            return "browsers have no bfloat16"
        return super().unsupported(target, recipe)

    def compile(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> Session:
        return WebSession(sources, target, recipe, options)


def missing(place: Place) -> tuple[str, str]:
    """Say why no browser of this machine can serve a target, as far as none need be started."""
    name, remedy = BROWSERS[place.kind]
    if next(web.browsers(place.kind), None) is None:
        return f"no {name} was found", f"{remedy}, or name one with --browser-path"
    if sys.platform not in place.platforms:
        device = place.provider["deviceType"]
        said = f"Chromium's WebNN computes on the processor here, whatever {device} is asked for"
        return said, "run on Windows (ONNX Runtime, DirectML) or macOS (Core ML)"
    if place.provider["name"] == "webgpu" and not place.software and not web.has_gpu():
        return "the machine has no GPU that a browser could use", _remedy(place)
    return "", ""


def _remedy(place: Place) -> str:
    provider = place.provider["name"]
    if provider == "webnn":
        return f"{web.INSTALL}: its Chromium has WebNN; or Edge or Chrome with --browser-path"
    if provider != "webgpu":
        return BROWSERS[place.kind][1]
    if place.software and place.kind == "firefox":
        return "install a software Vulkan driver (Debian, Ubuntu: mesa-vulkan-drivers)"
    if place.software:
        return web.INSTALL
    return "use a machine with a GPU and its Vulkan, Metal or Direct3D 12 driver"


@cache
def look(one: Browser, software: bool) -> dict[str, Any]:
    """Start a browser and see what it has; raise :class:`Crash` if it does not start."""
    page = open_page(one, software)
    try:
        seen, _ = page.call("look")
        return {**seen, "version": page.version}
    finally:
        page.close()


def open_page(one: Browser, software: bool) -> web.Page:
    """Open the page, with the files of ONNX Runtime beside it."""
    environment = {}
    if one.kind == "firefox" and not any(Path("/usr/share/vulkan/icd.d").glob("*.json")):
        # Chromium brings a Vulkan driver along, which serves Firefox as well.
        driver = web.vulkan_of_chromium()
        environment = {name: driver for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES") if driver}
    folders = {"page": PAGE, "ort": web.modules() / "onnxruntime-web" / "dist"}
    return web.Page(one, software, folders, environment)


PAGE = web.HERE


def unfit(place: Place, seen: Mapping[str, Any]) -> str:
    """Return why a browser, as :func:`look` saw it, cannot serve a target, or nothing."""
    if not seen["isolated"]:
        return "the page is not isolated, so that WebAssembly has no threads"
    provider = place.provider["name"]
    if provider == "webnn":
        device = place.provider["deviceType"]
        contexts = seen["webnn"]
        if contexts is None:
            return "it has no WebNN"
        return str(contexts[device].get("absent", ""))
    if provider != "webgpu":
        return ""
    adapter = seen["webgpu"]
    if adapter is None:
        return "it has no WebGPU adapter"
    if is_software(adapter) and not place.software:
        return f"its WebGPU adapter is a software renderer ({adapter_name(adapter)})"
    if not is_software(adapter) and place.software:
        return f"its WebGPU adapter is a GPU ({adapter_name(adapter)})"
    return ""


def is_software(adapter: Mapping[str, Any]) -> bool:
    """Return whether an adapter computes on the processor: by its own word, or by its name."""
    return bool(adapter["fallback"] or SOFTWARE.search(adapter_name(adapter)))


def adapter_name(adapter: Mapping[str, Any]) -> str:
    """Return what a browser says of an adapter, in words."""
    names = ("vendor", "architecture", "model", "description")
    return " ".join(str(adapter[name]) for name in names if adapter.get(name))


def _said(place: Place, seen: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {"browser": seen["version"]}
    if place.provider["name"] == "webgpu":
        adapter = seen["webgpu"]
        facts["adapter"] = adapter_name(adapter)
        facts["fallback"] = adapter["fallback"]
        facts["shader-f16"] = "shader-f16" in adapter["features"]
        facts["limits"] = adapter["limits"]
    elif place.provider["name"] == "webnn":
        facts["operators"] = seen["webnn"][place.provider["deviceType"]]["operators"]
    return facts


@dataclass(frozen=True)
class Remote:
    """An output that a graph left in the page, or brought along where it was asked for."""

    key: str
    output: str
    run: int
    array: np.ndarray | None = None

    @property
    def handle(self) -> dict[str, Any]:
        return {"key": self.key, "output": self.output, "run": self.run}


class WebSession(Session):
    """Graphs in a page; every call crosses to it once."""

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
        return {**_said(self.place, self.seen), **withheld}

    def _compiled(self, graph: str, point: str) -> str:
        """Return the key of a graph at a point, compiled when it is first asked for."""
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
        """Return how a message names the feeds, and the arrays that travel with it."""
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
        # Without a wish the output that is cheapest to fetch comes along, and spares a crossing.
        wanted = list(fetch) if fetch else [spec.smallest_output]
        answer, fetched = self.page.call(
            "run",
            arrays,
            key=key,
            feeds=described,
            position=int(position[0]) if isinstance(position, np.ndarray) else 0,
            fetch=wanted,
        )
        brought = dict(zip(wanted, fetched, strict=True))
        return {
            name: Handle(self, Remote(key, name, answer["run"], brought.get(name)))
            for name in spec.outputs
            if not fetch or name in fetch
        }

    def loop(
        self,
        graph: str,
        feeds: Mapping[str, np.ndarray | Handle],
        point: str,
        prompt: np.ndarray,
        stop: int | None,
        max_steps: int,
    ) -> Generated:
        key, spec = self._compiled(graph, point), self.graphs[graph]
        still = [name for name in spec.inputs if name not in ("token", POSITION)]
        described, arrays = self._feeds(feeds, still, graph)
        answer, (tokens,) = self.page.call(
            "loop",
            [*arrays, np.ascontiguousarray(prompt, np.int32)],
            key=key,
            feeds=described,
            prompt=len(arrays),
            stop=stop,
            steps=max_steps,
        )
        return Generated(tokens, answer["first"] / 1000)

    def scan(
        self,
        graph: str,
        feeds: Mapping[str, np.ndarray | Handle],
        along: Mapping[str, np.ndarray],
        point: str,
        fetch: Sequence[str],
    ) -> dict[str, np.ndarray]:
        key, spec = self._compiled(graph, point), self.graphs[graph]
        still = [name for name in spec.inputs if name not in along]
        described, arrays = self._feeds(feeds, still, graph)
        sequences, rows = self._feeds(along, list(along), graph)
        _, found = self.page.call(
            "scan",
            [*arrays, *rows],
            key=key,
            feeds=described,
            along=[{**one, "tensor": len(arrays) + one["tensor"]} for one in sequences],
            fetch=list(fetch),
        )
        return dict(zip(fetch, found, strict=True))

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

    def upload(self, array: np.ndarray, graph: str) -> Any:
        raise TypeError("a page takes arrays with the call that uses them")

    def execute(self, graph: str, point: str, inputs: Mapping[str, Any]) -> Sequence[Any]:
        raise TypeError("a page runs graph and state in one call: use run()")

    def download(self, native: Remote) -> np.ndarray:
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
        return {graph: self.recipe.for_graph(graph) for graph, _ in self._points}

    def model_bytes(self) -> int:
        return sum(folder_bytes(path.parent) for path in self._paths.values())

    def device_peak_bytes(self) -> int | None:
        return self.page.memory()

    def close(self) -> None:
        self.page.close()


def placed(lines: Sequence[str], provider: str) -> dict[str, int]:
    """Return nodes by execution provider, from what ONNX Runtime logged of one graph.

    A provider that compiles whole parts (WebNN) counts each as one node; what it took of the graph
    is in a line of its own, and stands for it here.
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


RUNTIME = OrtWeb()
