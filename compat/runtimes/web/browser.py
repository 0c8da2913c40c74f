"""Browsers of this machine, and a page in one of them that this process drives."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from compat.contract.places import INSTALLED as IN_WHEEL
from compat.contract.session import Crash
from compat.runtimes.web.server import Server

HERE = Path(__file__).parent
MODULES = "COMPAT_NODE_MODULES"
"""Environment variable that names the folder with the npm packages, in place of the default."""
PATHS = "COMPAT_BROWSER_PATH"
HEADED = "COMPAT_BROWSER_HEADED"
ARGUMENTS = "COMPAT_BROWSER_ARGS"
"""Environment variables that carry ``--browser-path``, ``--headed`` and ``--browser-arg`` to every
process of a run: PATHS, HEADED and ARGUMENTS."""

PACKAGES = ("onnxruntime-web", "puppeteer-core")
OLDEST_NODE = 18
START_LIMIT = 60.0
"""Seconds that a browser may take to show the page."""
PREFIX = "compat-browser-"
NEEDS = "(needs Node.js 18 or newer with npm)"
INSTALL = (
    f"`make browsers` in a checkout, its node_modules named with ${MODULES} {NEEDS}"
    if IN_WHEEL
    else f"make browsers {NEEDS}"
)

Kind = Literal["chrome", "firefox"]

CHROMIUM_NAMES = (
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "chromium",
    "chromium-browser",
    "microsoft-edge",
    "microsoft-edge-stable",
)
FIREFOX_NAMES = ("firefox", "firefox-esr", "firefox-nightly", "firefox-developer-edition")
INSTALLED: Mapping[tuple[str, Kind], tuple[str, ...]] = {
    ("darwin", "chrome"): (
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
    ),
    ("darwin", "firefox"): (
        "/Applications/Firefox.app/Contents/MacOS/firefox",
        "/Applications/Firefox Nightly.app/Contents/MacOS/firefox",
    ),
    ("win32", "chrome"): (
        r"C:\Program Files\Google\Chrome\Application\chrome.exe",
        r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
    ),
    ("win32", "firefox"): (r"C:\Program Files\Mozilla Firefox\firefox.exe",),
}

SOFTWARE_FLAG = "--use-webgpu-adapter=swiftshader"
CHROMIUM_FLAGS = (
    "--enable-unsafe-webgpu",
    "--enable-features=WebMachineLearningNeuralNetwork,Vulkan",
    "--ignore-gpu-blocklist",
    # Browsers slow down hidden pages, which would spoil timings.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    # The browser itself sends nothing to the network, and no host name resolves.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
FIREFOX_PREFERENCES: Mapping[str, Any] = {
    "dom.webgpu.enabled": True,
    "gfx.webgpu.ignore-blocklist": True,
    "network.dns.disabled": True,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    # Scripts compute for seconds here, which Firefox would report as hanging.
    "dom.max_script_run_time": 0,
    "dom.ipc.processHangMonitor": False,
}


@dataclass(frozen=True, slots=True)
class Browser:
    """An executable that can show the page."""

    kind: Kind
    executable: Path
    packaged: bool = False
    """True for the Chromium inside the npm package, which cannot show a window."""


def use(paths: Sequence[str], headed: bool, arguments: Sequence[str]) -> None:
    """Set a person's options for this process and for every process that it starts."""
    if paths:
        os.environ[PATHS] = os.pathsep.join(str(Path(path).resolve()) for path in paths)
    if headed:
        os.environ[HEADED] = "1"
    if arguments:
        os.environ[ARGUMENTS] = json.dumps(list(arguments))


@cache
def node() -> str:
    """Return the path of Node.js, or an empty string if it is absent or too old."""
    found = shutil.which("node")
    if not found:
        return ""
    try:
        done = subprocess.run(
            [found, "--version"],
            capture_output=True,
            text=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        major = int(done.stdout.strip().lstrip("v").split(".")[0])
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ""
    return found if major >= OLDEST_NODE else ""


def modules() -> Path:
    """Return the folder of the npm packages, which may not exist."""
    return Path(os.environ.get(MODULES) or HERE / "node_modules").resolve()


def lacking() -> tuple[str, str]:
    """Return why no browser can be driven here and the remedy, or two empty strings."""
    if not node():
        return f"there is no Node.js {OLDEST_NODE} or newer", f"install Node.js, then {INSTALL}"
    for package in PACKAGES:
        if not (modules() / package / "package.json").is_file():
            return f"the npm package {package} is not installed", INSTALL
    return "", ""


def package_version(package: str) -> str:
    """Return the installed version of an npm package."""
    found = json.loads((modules() / package / "package.json").read_text(encoding="utf-8"))
    return str(found["version"])


def browsers(kind: Kind) -> Iterator[Browser]:
    """Yield the browsers of a kind: those that a person named, else all that this machine has."""
    named = [Path(path) for path in os.environ.get(PATHS, "").split(os.pathsep) if path]
    chosen = [path for path in named if kind_of(path) == kind]
    if chosen:
        yield from (Browser(kind, path) for path in chosen)
        return
    packaged = modules().parent / "browser" / "chromium"
    if kind == "chrome" and packaged.is_file():
        yield Browser(kind, packaged, True)
    names = CHROMIUM_NAMES if kind == "chrome" else FIREFOX_NAMES
    found = [*filter(None, map(shutil.which, names)), *INSTALLED.get((sys.platform, kind), ())]
    seen = set()
    for path in map(Path, found):
        if path.is_file() and path.resolve() not in seen:
            seen.add(path.resolve())
            yield Browser(kind, path)


def kind_of(executable: Path) -> Kind:
    """Return the kind of a browser, by the name of its executable."""
    name = executable.name.lower()
    return "firefox" if "firefox" in name or "nightly" in name else "chrome"


def vulkan_of_chromium() -> str:
    """Return the Vulkan driver file of a Chromium's software renderer, or an empty string."""
    for one in browsers("chrome"):
        for folder in (one.executable.resolve().parent, Path("/usr/lib/chromium")):
            if (folder / "vk_swiftshader_icd.json").is_file():
                return str(folder / "vk_swiftshader_icd.json")
    return ""


def has_gpu() -> bool:
    """Return whether a browser may find a GPU. Outside Linux this is assumed."""
    if not sys.platform.startswith("linux"):
        return True
    return any(Path("/dev").glob("dri/renderD*")) or any(Path("/dev").glob("nvidia[0-9]*"))


class Page:
    """A page in a browser of its own, which ends when this process ends, however that happens.

    A driver (Node.js) runs beside the browser. When its input closes, it ends the browser and
    removes the profile. It is in a process session of its own, so that a signal to this process's
    group does not kill the driver before it has done so.
    """

    def __init__(
        self,
        browser: Browser,
        software: bool,
        folders: Mapping[str, Path],
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        _sweep()
        self.browser = browser
        self.crossing_s = 0.0
        """Seconds spent so far on transferring calls and answers, without the page's own time."""
        self.inside_s = 0.0
        """Seconds that the page itself has spent so far on its calls."""
        self.version = ""
        self._gone = ""
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._browser_process = 0
        self.server = Server(folders)
        self.profile = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        try:
            self._start(software, dict(environment or {}), list(arguments))
        except BaseException:
            self.close()
            raise

    def _start(self, software: bool, environment: dict[str, str], arguments: list[str]) -> None:
        chrome = self.browser.kind == "chrome"
        flags = list(CHROMIUM_FLAGS) if chrome else []
        if chrome and software:
            flags.append(SOFTWARE_FLAG)
        if chrome and hasattr(os, "geteuid") and os.geteuid() == 0:
            flags.append("--no-sandbox")  # Chromium's sandbox refuses to run as root.
        flags += [*arguments, *json.loads(os.environ.get(ARGUMENTS, "[]"))]
        temporary = self.profile / "tmp"
        temporary.mkdir()
        job = {
            "browser": self.browser.kind,
            "executable": str(self.browser.executable),
            "modules": str(modules()),
            "args": flags,
            "preferences": dict(FIREFOX_PREFERENCES),
            "profile": str(self.profile),
            "url": self.server.url,
            "headed": bool(os.environ.get(HEADED)) and not self.browser.packaged,
            "shell": self.browser.packaged,
            # Files that the browser leaves in a home or temporary folder are removed with its
            # profile.
            "environment": {
                "HOME": str(self.profile),
                "XDG_CONFIG_HOME": str(self.profile),
                "XDG_CACHE_HOME": str(self.profile),
                "TMPDIR": str(temporary),
                **environment,
            },
            "timeout": START_LIMIT * 1000,
        }
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            [node(), str(HERE / "driver.mjs")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        deadline = time.monotonic() + START_LIMIT + 10
        while not self.version:
            self._watch()
            if time.monotonic() > deadline:
                raise Crash(f"the browser did not open the page within {START_LIMIT:.0f} s")
            time.sleep(0.02)

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as stream:
            for line in stream:
                event = json.loads(line)
                if event["event"] == "open":
                    self._browser_process = event["process"]
                    self.version = event["version"]
                elif not self._gone:
                    self._gone = event["message"]
        self._gone = self._gone or "the driver of the browser has ended"

    def _watch(self) -> None:
        if self._gone:
            raise Crash(self._gone)

    def call(
        self, call: str, arrays: Sequence[np.ndarray] = (), **fields: Any
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Make the page execute a call, and wait until its work has ended.

        Args:
            call: name of the page's function, such as ``run``.
            arrays: arrays that travel with the call.
            fields: further JSON values for the function.

        Returns:
            The page's answer, and the arrays in it.

        Raises:
            Crash: the browser, the tab or the GPU's device died.
            PageError: the page's code, or ONNX Runtime in it, raised an error.
        """
        started = time.perf_counter()
        answer, found = self.server.call({"call": call, **fields}, arrays, self._watch)
        self.inside_s += answer["ms"] / 1000
        self.crossing_s += time.perf_counter() - started - answer["ms"] / 1000
        if answer["lost"]:
            raise Crash(answer["lost"])
        if not answer["ok"]:
            print(answer["stack"], file=sys.stderr)
            raise PageError(answer["message"])
        return answer, found

    def memory(self) -> int:
        """Return the peak resident bytes of the browser's running processes, summed.

        Outside Linux it is the present size, since there the peak is not known.
        """
        import psutil

        total = 0
        with contextlib.suppress(psutil.Error):
            first = psutil.Process(self._browser_process)
            for one in (first, *first.children(recursive=True)):
                status = Path(f"/proc/{one.pid}/status")
                with contextlib.suppress(OSError, psutil.Error, StopIteration):
                    if status.is_file():
                        lines = status.read_text().splitlines()
                        peak = next(line for line in lines if line.startswith("VmHWM:"))
                        total += int(peak.split()[1]) * 1024
                    else:
                        total += int(one.memory_info().rss)
        return total

    def signal(self, number: int) -> None:
        """Send a signal by its number to every process of the browser."""
        os.killpg(self._browser_process, number)

    def close(self) -> None:
        """End the driver and the browser, remove the profile, and stop the server."""
        process, self._process = getattr(self, "_process", None), None
        if process is not None:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        # If the driver was killed, it could not end the browser.
        if self._browser_process and hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._browser_process, signal.SIGKILL)
        _remove(self.profile)
        self.server.close()


class PageError(RuntimeError):
    """The page raised an error, whose message this is."""


def _remove(profile: Path) -> None:
    for _ in range(20):
        shutil.rmtree(profile, ignore_errors=True)
        if not profile.exists():
            return
        time.sleep(0.05)


def _sweep() -> None:
    """Remove profiles of processes that were killed together with the driver that removes them."""
    import psutil

    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = left.name.removeprefix(PREFIX).split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
