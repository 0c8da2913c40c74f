"""Places where ONNX Runtime Web can run: browsers, and the devices that they reach."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compat.runtimes.web import browser as web

if TYPE_CHECKING:
    from compat.runtimes.web.browser import Browser, Kind

SOFTWARE = re.compile(r"swiftshader|llvmpipe|lavapipe|softpipe|basic render|software", re.I)
HOST = "CPUExecutionProvider"
"""ONNX Runtime's name of its own kernels, which run in WebAssembly here."""


@dataclass(frozen=True)
class Place:
    """The facts in which one target differs from the others."""

    kind: Kind
    provider: Mapping[str, str]
    """Execution provider, in ONNX Runtime Web's options."""
    name: str
    """Name of the provider in ONNX Runtime's log of node placements."""
    recipes: tuple[str, ...]
    bundle: str = "ort.webgpu.min.mjs"
    """File of ONNX Runtime Web that the page loads."""
    software: bool = False
    """Whether the target's WebGPU adapter is a software renderer."""
    platforms: tuple[str, ...] = ("linux", "darwin", "win32")
    """Values of ``sys.platform`` on which the target exists."""


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
    # On Linux Chromium accepts both device types, but computes on the processor.
    "webnn-chromium-gpu": _webnn("gpu", "darwin", "win32"),
    "webnn-chromium-npu": _webnn("npu", "darwin", "win32"),
    "wasm-chromium": Place("chrome", {"name": "wasm"}, HOST, WASM, "ort.wasm.min.mjs"),
    "wasm-firefox": Place("firefox", {"name": "wasm"}, HOST, WASM, "ort.wasm.min.mjs"),
}

BROWSERS: Mapping[Kind, tuple[str, str]] = {
    "chrome": ("chromium", f"install Chrome or Edge, or {web.INSTALL}"),
    "firefox": ("firefox", "install Firefox (Debian, Ubuntu: apt install firefox-esr)"),
}


def missing(place: Place) -> tuple[str, str]:
    """Return why no browser of this machine can serve a target, with the remedy.

    Both texts are empty if one may. No browser is started for this, so that starting one may still
    show another reason.
    """
    name, remedy = BROWSERS[place.kind]
    if next(web.browsers(place.kind), None) is None:
        return f"no {name} was found", f"{remedy}, or name one with --browser-path"
    if sys.platform not in place.platforms:
        device = place.provider["deviceType"]
        said = f"Chromium's WebNN computes on the processor here, whatever {device} is asked for"
        return said, "run on Windows (ONNX Runtime, DirectML) or macOS (Core ML)"
    if place.provider["name"] == "webgpu" and not place.software and not web.has_gpu():
        return "the machine has no GPU that a browser could use", remedy_for(place)
    return "", ""


def remedy_for(place: Place) -> str:
    """Return the remedy for a machine that lacks a target: what a person installs or uses."""
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
    """Start a browser, and return the facts that its page sees: adapters, WebNN and version.

    Raises:
        Crash: the browser does not start.
    """
    page = open_page(one, software)
    try:
        seen, _ = page.call("look")
        return {**seen, "version": page.version}
    finally:
        page.close()


def open_page(one: Browser, software: bool) -> web.Page:
    """Open the page in a browser, served together with the files of ONNX Runtime Web."""
    environment = {}
    if one.kind == "firefox" and not any(Path("/usr/share/vulkan/icd.d").glob("*.json")):
        # Without a Vulkan driver on the system, Firefox uses the one that Chromium contains.
        driver = web.vulkan_of_chromium()
        environment = {name: driver for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES") if driver}
    folders = {"page": PAGE, "ort": web.modules() / "onnxruntime-web" / "dist"}
    return web.Page(one, software, folders, environment)


PAGE = web.HERE


def unfit(place: Place, seen: Mapping[str, Any]) -> str:
    """Return why a browser cannot serve a target, or an empty text if it can.

    ``seen`` is the result of :func:`look`.
    """
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
    """Return whether an adapter computes on the processor, by its fallback flag or by its name."""
    return bool(adapter["fallback"] or SOFTWARE.search(adapter_name(adapter)))


def adapter_name(adapter: Mapping[str, Any]) -> str:
    """Return the name of an adapter: vendor, architecture, model and description, if known."""
    names = ("vendor", "architecture", "model", "description")
    return " ".join(str(adapter[name]) for name in names if adapter.get(name))


def browser_facts(place: Place, seen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a browser for results: version, and WebGPU adapter or WebNN operators.

    ``seen`` is the result of :func:`look`.
    """
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
