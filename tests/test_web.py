"""Browsers: what their page may load, what they answer, and what is left when they die."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import pytest

from compat import catalog
from compat.build.reference import oracle_session
from compat.build.sources import sources
from compat.contract.case import Recipe
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.model_reference import ModelReference
from compat.contract.runtime import Options
from compat.contract.session import Crash, Session
from compat.inputs.corpus import DEFAULT, load
from compat.measure.request import CaseRequest
from compat.models.base import Model
from compat.run import selection
from compat.run.client import Crashed, TimedOut, Worker
from compat.runtimes.web import browser as web
from compat.runtimes.web import places
from compat.runtimes.web import runtime as ort_web
from compat.runtimes.web import session as web_session
from compat.runtimes.web.server import HEADERS, Server, decode, encode

pytestmark = pytest.mark.end_to_end

NANO = ModelReference("whisper", "whisper-nano", "trained", "checkpoints/whisper-nano")
CHEAPEST = "wasm-chromium"
RUNNING = (
    "webgpu-chromium-software",
    "webnn-chromium-cpu",
    "webgpu-firefox-software",
    "wasm-firefox",
)
HAVE = not web.lacking()[0]

# The server -----------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    """A server of one folder, beside which lies a secret."""
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "page"
    (folder / "inner").mkdir(parents=True)
    (folder / "page.html").write_text("the page")
    (folder / "inner" / "model.onnx").write_bytes(b"weights")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "outer").symlink_to(tmp_path)
    (folder / "in").symlink_to(folder / "inner" / "model.onnx")
    server = Server({"page": folder})
    yield server
    server.close()


def ask(
    server: Server, path: str, method: str = "GET", body: bytes = b"", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path, body or None, headers)
    answer = connection.getresponse()
    found = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return found


def below(server: Server, path: str) -> str:
    return "/" + server.url.split("/", 3)[3].removesuffix("page/") + path


def test_the_page_is_isolated(served: Server) -> None:
    for path in ("page/", "page/inner/model.onnx", "page/none"):
        _, _, headers = ask(served, below(served, path))
        assert headers.items() >= HEADERS.items()
    assert HEADERS["Cross-Origin-Opener-Policy"] == "same-origin"
    assert HEADERS["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert "default-src 'none'" in HEADERS["Content-Security-Policy"]


def test_files_of_the_folder_are_served(served: Server) -> None:
    assert ask(served, below(served, "page/"))[:2] == (200, b"the page")
    assert ask(served, below(served, "page/inner/model.onnx"))[:2] == (200, b"weights")
    assert ask(served, below(served, "page/in"))[:2] == (200, b"weights")


@pytest.mark.parametrize(
    "path",
    [
        "page/../secret",
        "page/%2e%2e/secret",
        "page/%2e%2e%2fsecret",
        "page/inner/../../secret",
        "page/out",
        "page/outer/secret",
        "page//etc/passwd",
        "page/%2fetc/passwd",
        "page/inner",
        "page/model.onnx%00.html",
        "../page/",
        "other/page.html",
        "",
    ],
)
def test_nothing_escapes_the_folder(served: Server, path: str) -> None:
    status, body, _ = ask(served, below(served, path))
    assert status in (403, 404)
    assert not body


def test_only_the_page_is_answered(served: Server) -> None:
    path = below(served, "page/")
    assert ask(served, "/page/")[0] == 403
    assert ask(served, "/wrong/page/")[0] == 403
    # A page elsewhere whose own name resolves to the loopback, and one that posts across origins.
    assert ask(served, path, Host="evil.example:80")[0] == 403
    assert ask(served, path, Host=f"localhost:{served.port}")[0] == 403
    origin = {"Origin": "http://evil.example"}
    assert ask(served, below(served, "page/exchange"), "POST", b"x", **origin)[0] == 403
    assert ask(served, below(served, "page/other"), "POST", b"x")[0] == 400


def test_it_listens_on_the_loopback_only(served: Server) -> None:
    (found,) = (
        one
        for one in psutil.Process().net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port == served.port
    )
    assert found.laddr.ip == "127.0.0.1"


def test_messages_keep_what_they_carry() -> None:
    arrays = [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.array([2**40], np.int64),
        np.zeros((0, 3), np.int32),
        np.array(7, np.uint8),
    ]
    header, found = decode(encode({"text": "Straße"}, arrays))
    assert header == {"text": "Straße"}
    for expected, array in zip(arrays, found, strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("change", [{"offset": 0}, {"offset": 10**6}, {"dtype": "O"}])
def test_malformed_messages_are_refused(change: dict[str, Any]) -> None:
    entry = {"dtype": "float32", "dims": [2], "bytes": 8, "offset": 256, **change}
    text = json.dumps({"tensors": [entry]}).encode()
    message = len(text).to_bytes(4, "little") + text
    with pytest.raises(ValueError, match=r"tensor|itemsize|object"):
        decode(message.ljust(264))


# What is said of browsers ---------------------------------------------------------------------


def adapter(**changes: Any) -> dict[str, Any]:
    facts = {"vendor": "nvidia", "architecture": "hopper", "model": "", "description": ""}
    return {**facts, "fallback": False, "features": ["shader-f16"], "limits": {}, **changes}


def seen(**changes: Any) -> dict[str, Any]:
    return {"version": "Test/1", "isolated": True, "webgpu": adapter(), "webnn": None, **changes}


@pytest.mark.parametrize(
    ("facts", "software"),
    [
        (adapter(), False),
        (adapter(vendor="google", architecture="swiftshader"), True),
        (adapter(vendor="mesa", description="llvmpipe (LLVM 15.0.6, 256 bits)"), True),
        (adapter(vendor="", architecture="", fallback=True), True),
    ],
)
def test_a_software_adapter_is_an_emulator(facts: dict[str, Any], software: bool) -> None:
    assert places.is_software(facts) == software
    device, emulator = (places.PLACES[f"webgpu-chromium{end}"] for end in ("", "-software"))
    # Where one is present the other is absent.
    assert bool(places.unfit(device, seen(webgpu=facts))) == software
    assert bool(places.unfit(emulator, seen(webgpu=facts))) != software


def test_what_a_browser_lacks_is_said() -> None:
    webnn = places.PLACES["webnn-chromium-cpu"]
    assert "no WebNN" in places.unfit(webnn, seen())
    refused = {"cpu": {"absent": "not supported on this platform"}}
    assert places.unfit(webnn, seen(webnn=refused)) == "not supported on this platform"
    assert not places.unfit(webnn, seen(webnn={"cpu": {"operators": 100, "inputs": []}}))
    assert "isolated" in places.unfit(webnn, seen(isolated=False))
    assert "no WebGPU" in places.unfit(places.PLACES["webgpu-firefox"], seen(webgpu=None))


def test_evidence_follows_the_adapter() -> None:
    evidence = {target.name: target.evidence for target in ort_web.RUNTIME.targets}
    assert evidence["webgpu-chromium"] == "device"
    assert evidence["webgpu-chromium-software"] == evidence["webgpu-firefox-software"] == "emulator"
    assert evidence["webnn-chromium-cpu"] == "device"


def test_placement_counts_what_a_partition_holds() -> None:
    whole = [
        "[V:onnxruntime:,session_state.cc:1295 Verify]  All nodes placed on "
        "[WebGpuExecutionProvider]. Number of nodes: 91"
    ]
    name = "WebGpuExecutionProvider"
    assert web_session.placed(whole, name) == {name: 91}
    split = [
        "[I:onnxruntime:, webnn_execution_provider.cc:155 GetCapability] number of partitions "
        "supported by WebNN: 2 number of nodes in the graph: 120 number of nodes supported by "
        "WebNN: 110",
        " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 10",
        " Node(s) placed on [WebNNExecutionProvider]. Number of nodes: 2",
    ]
    found = web_session.placed(split, "WebNNExecutionProvider")
    assert found == {"CPUExecutionProvider": 10, "WebNNExecutionProvider": 110}


def test_marks_select_a_browser() -> None:
    loaded = catalog.load()
    marked = {
        case.target.name
        for case in selection.Selection(marked=frozenset({"webgpu", "firefox"})).cases(loaded)
        if {"webgpu", "firefox"} <= set(case.marks)
    }
    assert marked == {"webgpu-firefox", "webgpu-firefox-software"}
    usual = {case.target.name for case in selection.Selection().cases(loaded)}
    # What computes on the processor is asked for, or a first look of the machine would wait.
    assert not {"wasm-chromium", "webnn-chromium-cpu"} & usual
    asked = selection.Selection(marked=frozenset({"wasm"})).cases(loaded)
    assert {"wasm-chromium", "wasm-firefox"} <= {case.target.name for case in asked}
    for chosen in (
        selection.Selection(marked=frozenset({"webnn"})),
        selection.Selection(targets=("webnn",)),
        selection.Selection(targets=("webnn-chromium-cpu",)),
    ):
        assert "webnn-chromium-cpu" in {case.target.name for case in chosen.cases(loaded)}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without Node.js and without browsers."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(web.MODULES, str(tmp_path / "node_modules"))
    monkeypatch.delenv(web.PATHS, raising=False)
    monkeypatch.setattr(web, "INSTALLED", {})
    web.node.cache_clear()
    yield tmp_path
    web.node.cache_clear()


def program(folder: Path, name: str, says: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {says}\n")
    path.chmod(0o755)


def probed(name: str) -> tuple[str, str, str]:
    target = next(one for one in ort_web.RUNTIME.targets if one.name == name)
    probe = ort_web.RUNTIME.probe(target)
    return probe.state, probe.reason, probe.remedy


def test_what_is_missing_is_absent_with_a_remedy(bare: Path) -> None:
    state, reason, remedy = probed("webgpu-chromium-software")
    assert state == "absent" and "Node.js" in reason and "make browsers" in remedy
    program(bare, "node", "v12.22.0")
    web.node.cache_clear()
    assert "Node.js" in probed("webgpu-chromium-software")[1]
    program(bare, "node", "v20.0.0")
    web.node.cache_clear()
    state, reason, remedy = probed("webgpu-chromium-software")
    assert state == "absent" and "make browsers" in remedy
    assert "onnxruntime-web is not installed" in reason
    for package in ("puppeteer-core", "onnxruntime-web"):
        (bare / "node_modules" / package).mkdir(parents=True)
        described = bare / "node_modules" / package / "package.json"
        described.write_text('{"version": "1.0.0"}')
    state, reason, remedy = probed("webgpu-firefox-software")
    assert state == "absent" and "no firefox" in reason and "--browser-path" in remedy


def test_a_browser_that_does_not_start_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not HAVE:
        pytest.skip(web.lacking()[1])
    program(tmp_path, "chromium", "no display")
    monkeypatch.setenv(web.PATHS, str(tmp_path / "chromium"))
    state, reason, _ = probed("webnn-chromium-cpu")
    assert state == "broken" and "does not start" in reason


def test_a_named_browser_replaces_those_that_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Set first, so that what use() leaves in the environment is taken back.
    monkeypatch.setenv(web.PATHS, "")
    monkeypatch.setenv(web.ARGUMENTS, "")
    web.use([str(tmp_path / "chrome"), str(tmp_path / "firefox-nightly")], False, ["--a", "--b"])
    assert [one.executable.name for one in web.browsers("chrome")] == ["chrome"]
    assert [one.executable.name for one in web.browsers("firefox")] == ["firefox-nightly"]
    assert json.loads(os.environ[web.ARGUMENTS]) == ["--a", "--b"]


# In a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder for temporary files of these tests alone, so that what is left there is theirs."""
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("temporary"))
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


def target_of(name: str) -> Any:
    found = next(one for one in ort_web.RUNTIME.targets if one.name == name)
    if reason := web.lacking()[0]:
        pytest.skip(f"{reason}: {web.lacking()[1]}")
    if missing := places.missing(places.PLACES[name])[0]:
        pytest.skip(missing)
    return found


def open_session(name: str, recipe: str = "fp32") -> Session:
    target = target_of(name)
    opened = sources(NANO, catalog.open_model(NANO), 1)
    return ort_web.RUNTIME.compile(opened, target, Recipe(recipe), Options(1))


@pytest.fixture(scope="module")
def model() -> Model:
    return catalog.open_model(NANO)


@pytest.fixture(scope="module")
def items(model: Model) -> list[Item]:
    return load().sets["clean"].items(model.sample_rate, 4)


@pytest.fixture(scope="module", params=RUNNING)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    opened = open_session(request.param)
    yield opened
    opened.close()


def agrees(model: Model, session: Session, items: list[Item]) -> None:
    reference = oracle_session(model, "fp32")
    for item in items:
        (guide,) = model.run(reference, [item], Stopwatch())
        (found,) = model.run(session, [item], Stopwatch())
        assert found["tokens"] == guide["tokens"]
        assert found["level"] == pytest.approx(guide["level"], rel=1e-4)
        expected = model.trace(reference, item, guide)
        for name, array in model.trace(session, item, guide).items():
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(array, expected[name], atol=2e-4 * scale, err_msg=name)


def test_agrees_with_the_reference(model: Model, items: list[Item], session: Session) -> None:
    agrees(model, session, items[:1])
    placement = session.placement()
    assert placement.share >= 0.95 and sum(placement.devices.values()) == pytest.approx(1.0)
    assert set(session.executed().values()) == {"fp32"}
    assert session.notes()["browser"]
    assert session.crossing_s > 0 and (session.device_peak_bytes() or 0) > 50_000_000


def test_state_can_be_kept_and_brought_back(
    model: Any, items: list[Item], session: Session
) -> None:
    mel = model.padded_mel([items[0].audio], 1)
    encoded = session.run("encoder", {"mel": mel}, "b1")

    def step(token: int, position: int) -> np.ndarray:
        feeds = {
            **encoded,
            "token": np.array([token], np.int32),
            "position": np.array([position], np.int32),
        }
        return session.run("decoder", feeds, "b1", ("logits",))["logits"].numpy()

    session.reset("decoder", "b1")
    first = [step(token, place) for place, token in enumerate(model.vocabulary.prompt)]
    place = len(first)
    kept = session.snapshot("decoder", "b1")
    expected = step(300, place)
    step(301, place + 1)
    session.reset("decoder", "b1")
    np.testing.assert_array_equal(first[0], step(model.vocabulary.prompt[0], 0))
    session.restore("decoder", "b1", kept)
    np.testing.assert_array_equal(expected, step(300, place))


def test_steps_in_the_page_are_those_of_the_contract(
    model: Any, items: list[Item], session: Session
) -> None:
    """A forced decoder, a prompt that goes on by itself, and one that is stopped."""
    prompt = np.array(model.vocabulary.prompt, np.int32)[:, None]
    forced = np.concatenate([prompt, [[300], [301]]]).astype(np.int32)
    position = np.arange(len(forced), dtype=np.int32)[:, None]
    encoded = session.run("encoder", mel_of(model, items), "b1")
    carry = {"token": "next_token"}
    for options in (
        {"along": {"token": forced, "position": position}, "fetch": ("logits", "key_0")},
        {
            "along": {"token": prompt, "position": position},
            "carry": carry,
            "fetch": ("next_token", "logits"),
        },
        {"along": {"position": position}, "carry": carry, "stop": ("next_token", 0)},
    ):
        feeds = {**encoded, "token": prompt[0]}
        arguments = ("decoder", feeds, "b1", len(forced))
        within = session.steps(*arguments, **options)
        last = {name: handle.numpy() for name, handle in within.last.items()}
        expected = Session.steps(session, *arguments, **options)
        assert within.outputs.keys() == expected.outputs.keys()
        assert within.count == expected.count and within.first_s > 0
        for name, values in expected.outputs.items():
            np.testing.assert_allclose(within.outputs[name], values, atol=1e-6, err_msg=name)
        assert last.keys() == expected.last.keys()
        for name, handle in expected.last.items():
            np.testing.assert_allclose(last[name], handle.numpy(), atol=1e-6, err_msg=name)
        if "key_0" in within.outputs:
            assert (within.outputs["key_0"][0] != within.outputs["key_0"][-1]).any()
    answers = within.outputs["next_token"][:, 0]
    stopped = session.steps(*arguments, **{**options, "stop": ("next_token", int(answers[1]))})
    assert stopped.count == int(np.flatnonzero(answers == answers[1])[0]) + 1


@pytest.mark.parametrize("name", RUNNING)
def test_a_carried_output_is_read_before_it_is_written(name: str, sampler: Any) -> None:
    """Outputs have buffers of their own on a device, which no call may read and write at once."""
    target = target_of(name)
    opened = {"sampler": sampler.source}
    session = ort_web.RUNTIME.compile(opened, target, Recipe("fp32"), Options(1))
    try:
        for fetch in (("denoised", "difference"), ()):
            steps = session.steps(
                *("sampler", {"latent": sampler.latent}, "p", len(sampler.times)),
                along={"time": sampler.times},
                carry={"latent": "denoised"},
                fetch=fetch,
            )
            for output, values in steps.outputs.items():
                expected = sampler.expected[output]
                np.testing.assert_allclose(values, expected, atol=1e-5, err_msg=output)
        last = steps.last["denoised"].numpy()
        np.testing.assert_allclose(last, sampler.expected["denoised"][-1], atol=1e-5)
    finally:
        session.close()


def test_outputs_are_stale_when_their_graph_ran_again(
    model: Any, items: list[Item], session: Session
) -> None:
    mel = model.padded_mel([items[0].audio], 1)
    before = session.run("encoder", {"mel": mel}, "b1")["hidden"]
    session.run("encoder", {"mel": mel}, "b1")
    with pytest.raises(web.PageError, match="stale"):
        before.numpy()


@pytest.mark.parametrize(
    ("name", "line", "defect"),
    [
        (
            "webgpu-chromium-software",
            "(outer * shape.z + position.x)",
            "(outer * shape.z + position.x + 1u)",
        ),
        ("wasm-chromium", "(row * past + position) * inner", "(row * past + position + 1) * inner"),
        ("webnn-chromium-cpu", "(_, i) => i)", "(_, i) => i - 1)"),
    ],
)
def test_a_wrong_kernel_shows(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    model: Model,
    items: list[Item],
    name: str,
    line: str,
    defect: str,
) -> None:
    """Caches written one place too far: what the accuracy of every recurrent model rests on."""
    target_of(name)
    page = tmp_path / "page"
    page.mkdir()
    for file in ("page.html", "page.css", "page.js"):
        shutil.copy(web.HERE / file, page)
    code = (page / "page.js").read_text()
    assert code.count(line) == 1
    (page / "page.js").write_text(code.replace(line, defect))
    monkeypatch.setattr(places, "PAGE", page)
    session = open_session(name)
    try:
        with pytest.raises(AssertionError):
            agrees(model, session, items[:1])
    finally:
        session.close()


# What lasts ------------------------------------------------------------------------------------

LONG = {
    "webnn-chromium-cpu": (50, 500),
    "wasm-chromium": (50, 500),
    "webgpu-chromium-software": (5, 16),
}
"""Utterances and decoder steps in one page; a software adapter takes seconds for each."""


def resident(page: web.Page) -> int:
    """Bytes that the browser's processes hold now."""
    total = 0
    for one in family(page)[1:]:
        with contextlib.suppress(psutil.Error):
            total += one.memory_info().rss
    return total


@pytest.mark.parametrize("name", LONG)
def test_a_long_run_neither_grows_nor_slows(name: str, model: Any, items: list[Item]) -> None:
    session: Any = open_session(name)
    utterances, steps = LONG[name]
    page, prompt = session.page, np.array(model.vocabulary.prompt, np.int32)[:, None]
    each = min(steps, model.dimensions.target_positions - len(prompt))
    count = len(prompt) - 1 + each
    seconds: list[list[float]] = [[], []]
    held, alive = [], []
    try:
        for number in range(utterances):
            before = page.inside_s
            model.run(session, [items[number % 2]], Stopwatch())
            seconds[number % 2].append(page.inside_s - before)
            held.append(resident(page))
            alive.append(page.call("census")[0]["count"])
        encoded = session.run("encoder", mel_of(model, items), "b1")
        per_step = []
        for _ in range(-(-steps // each)):
            before = page.inside_s
            made = session.steps(
                *("decoder", encoded, "b1", count),
                along={"token": prompt, "position": np.arange(count, dtype=np.int32)[:, None]},
                carry={"token": "next_token"},
                fetch=("next_token",),
            )
            assert made.outputs["next_token"].shape == (each, 1)
            per_step.append(page.inside_s - before)
            alive.append(page.call("census")[0]["count"])
            held.append(resident(page))
    finally:
        session.close()
    # The first utterances allocate what all others use.
    assert max(alive[4:]) <= alive[3], alive
    if utterances >= 50:
        # Medians of halves, with room for a machine that does other things too.
        assert held[-1] < held[9] + 40_000_000, [round(one / 1e6) for one in held]
        for times in (*seconds, per_step):
            half = len(times) // 2
            assert median(times[half:]) < 2 * median(times[1:half]) + 0.01, times


# What dies ------------------------------------------------------------------------------------


def left(pattern: str = f"{web.PREFIX}*") -> list[str]:
    return [path.name for path in Path(tempfile.gettempdir()).glob(pattern)]


def cleaned(processes: list[psutil.Process], profiles: str, seconds: float = 15.0) -> bool:
    """Wait until processes have ended and no profile of that name is left."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        alive = [
            one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE
        ]
        if not alive and not left(profiles):
            return True
        time.sleep(0.1)
    return False


def family(page: web.Page) -> list[psutil.Process]:
    assert page._process is not None
    first = psutil.Process(page._process.pid)
    return [first, *first.children(recursive=True)]


@pytest.fixture
def alone() -> Iterator[Session]:
    """A session of its own, which the test may break."""
    opened: Any = open_session(CHEAPEST)
    yield opened
    opened.close()
    assert cleaned([], opened.page.profile.name)


def mel_of(model: Any, items: list[Item]) -> dict[str, np.ndarray]:
    return {"mel": model.padded_mel([items[0].audio], 1)}


@pytest.mark.parametrize("victim", ["browser", "driver"])
def test_a_killed_browser_is_a_crash(
    alone: Any, model: Model, items: list[Item], victim: str
) -> None:
    processes = family(alone.page)
    assert len(processes) > 2
    killed = alone.page._browser_process if victim == "browser" else processes[0].pid
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(Crash):
        alone.run("encoder", mel_of(model, items), "b1")
    alone.close()
    assert cleaned(processes, alone.page.profile.name)


def test_a_crashed_tab_is_a_crash(alone: Any, model: Model, items: list[Item]) -> None:
    alive = [one for one in family(alone.page) if one.status() != psutil.STATUS_ZOMBIE]
    renderers = [one for one in alive if "--type=renderer" in one.cmdline()]
    assert renderers
    for one in renderers:
        one.kill()
    with pytest.raises(Crash):
        alone.run("encoder", mel_of(model, items), "b1")


def test_a_lost_device_is_a_crash() -> None:
    session: Any = open_session("webgpu-chromium-software")

    def lose() -> None:
        for _ in range(3):  # The page learns of it a moment after it was told to lose it.
            session.page.call("crash")

    with pytest.raises(Crash, match="device was lost"):
        lose()
    session.close()
    assert cleaned([], session.page.profile.name)


def test_an_error_in_the_page_is_an_error(alone: Any) -> None:
    with pytest.raises(web.PageError, match="Invalid rank"):
        alone.page.call(
            "run",
            [np.zeros((1, 2), np.float32)],
            key="encoder b1",
            feeds=[{"name": "mel", "tensor": 0}],
            position=0,
            fetch=[],
        )


@pytest.fixture
def worker() -> Iterator[Worker]:
    target_of(CHEAPEST)
    case = f"whisper-nano@trained/{CHEAPEST}/fp32"
    started = Worker(CaseRequest(case, str(DEFAULT), "quick", threads=1), 60, 8 << 30)
    yield started
    started.close()


def started(worker: Worker) -> list[psutil.Process]:
    worker.stage("loads")
    assert worker._process is not None
    return psutil.Process(worker._process.pid).children(recursive=True)


def profiles_of(worker: Worker) -> str:
    assert worker._process is not None
    return f"{web.PREFIX}{worker._process.pid}-*"


def test_a_hung_browser_costs_one_stage(worker: Worker) -> None:
    processes = started(worker)
    profiles = profiles_of(worker)
    worker.time_limit = 3
    for one in processes:
        if "--type=renderer" in one.cmdline():
            one.suspend()
    with pytest.raises(TimedOut):
        worker.stage("standard")
    assert cleaned(processes, profiles)
    worker.time_limit = 60
    assert worker.stage("placed")["share"] == 1.0


def test_a_dead_tab_costs_one_stage(worker: Worker) -> None:
    for one in started(worker):
        if "--type=renderer" in one.cmdline():
            one.kill()
    with pytest.raises(Crashed):
        worker.stage("standard")
    assert worker.stage("placed")["share"] == 1.0


def test_nothing_outlives_a_killed_worker(worker: Worker) -> None:
    processes = started(worker)
    assert worker._process is not None
    assert left(profiles_of(worker))
    worker._process.kill()
    assert cleaned(processes, profiles_of(worker))


def test_a_profile_whose_owner_is_gone_is_swept(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for owner in (ended.pid, os.getpid()):
        (tmp_path / f"{web.PREFIX}{owner}-x").mkdir()
    web._sweep()
    assert left() == [f"{web.PREFIX}{os.getpid()}-x"]
