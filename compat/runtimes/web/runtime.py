"""ONNX Runtime in a browser's page, with a target for each browser and WebGPU, WebNN or WASM.

Graphs, states and the tensors that graphs hand to one another stay in the page, and so does the
loop of a decoder. The page, its server and the browser's driver are in this package, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from compat.contract.case import Recipe, Target
from compat.contract.runtime import GraphRuntime, Options, Probe
from compat.contract.session import Crash, Session
from compat.runtimes.web import browser as web
from compat.runtimes.web.places import (
    BROWSERS,
    PLACES,
    Place,
    browser_facts,
    look,
    missing,
    remedy_for,
    unfit,
)
from compat.runtimes.web.session import WebSession

if TYPE_CHECKING:
    from argparse import Namespace

    from compat.contract.source import Source


def _target(name: str, place: Place) -> Target:
    column = name.split("-", maxsplit=1)[0]
    wasm = column == "wasm"
    # WebAssembly and WebNN on the CPU compute on the processor, for which there are native
    # runtimes. They run only when asked for, by name or by the mark of their column.
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


class OrtWeb(GraphRuntime):
    """ONNX Runtime Web, a target for each browser and the device that it reaches."""

    name = "ort-web"
    packages = ("torch", "onnxscript")
    addressable = 2.0**32  # WebAssembly's pointers have 32 bits.
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
                return Probe("here", facts={**self.versions(), **browser_facts(place, seen)})
            refused.append(f"{seen['version']}: {reason}")
        # A browser that does not start is broken. One that lacks a device makes the target absent.
        broken = all("does not start" in said for said in refused)
        state: Literal["broken", "absent"] = "broken" if broken else "absent"
        return Probe(state, "; ".join(refused), remedy_for(place), self.versions())

    def unsupported(self, target: Target, recipe: Recipe) -> str:
        if "bf16" in recipe.schemes:
            return "browsers have no bfloat16"
        return super().unsupported(target, recipe)

    def compile(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> Session:
        return WebSession(sources, target, recipe, options)


RUNTIME = OrtWeb()
