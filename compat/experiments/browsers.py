"""The experiment ``browsers``: whether Firefox runs audio models on WebGPU faster than Chrome.

Both get the same model, the same audio and, where there is no GPU, the same software adapter. They
take turns, one round each, while the other browser is stopped. Only a GPU can decide the question;
a software adapter shows a direction.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import numpy as np

from compat import catalog
from compat.build.sources import sources
from compat.contract.case import Recipe
from compat.contract.errors import CompatError
from compat.contract.graph import Stopwatch
from compat.contract.model_reference import ModelReference
from compat.contract.runtime import Options
from compat.experiments.experiment import Experiment, rounds_argument
from compat.hardware.facts import available_cpus
from compat.inputs import corpus
from compat.inputs.features import mel_filterbank
from compat.judge.experiments import Finding
from compat.runtimes.web import browser as web
from compat.runtimes.web import places
from compat.runtimes.web import runtime as ort_web
from compat.runtimes.web import session as web_session

SHAPES = ((256, 1), (128, 2))
FRAMES = {False: 1000, True: 100}
DISPATCHES = {False: 20, True: 1}
"""Dispatches of the spectral transform in a round; the key says whether the adapter is software."""
RESAMPLES = 5_000
MODEL = ModelReference("whisper", "whisper-nano", "trained", "checkpoints/whisper-nano")
BOTH = ("chromium", "firefox")


@dataclass(frozen=True)
class Comparison:
    """One measure in both browsers."""

    measure: str
    chromium_ms: float
    firefox_ms: float
    firefox_faster: float
    """(chromium − firefox) ÷ chromium, of medians; the claim is 0.2."""
    low: float
    high: float
    rounds: int

    @property
    def words(self) -> str:
        """The result in words, with its interval."""
        less = self.firefox_faster >= 0
        ends = sorted(end if less else -end for end in (self.low, self.high))
        return (
            f"Firefox takes {abs(self.firefox_faster):.0%} {'less' if less else 'more'} time "
            f"(95 %: {ends[0]:.0%} to {ends[1]:.0%}, {self.rounds} rounds)"
        )


@dataclass(frozen=True)
class Outcome:
    """The experiment's answer: its comparisons, and what may be concluded."""

    adapters: dict[str, str]
    software: bool
    same: bool
    """Whether both computed the same tokens and the same spectrum."""
    comparisons: tuple[Comparison, ...]
    cold_ms: dict[str, float] = field(default_factory=dict)
    """Milliseconds of the first whole task in each browser, which compiles shaders."""

    @property
    def verdict(self) -> str:
        """The conclusion that the comparisons allow, in words."""
        if not self.same:
            return "no verdict: the two browsers did not compute the same"
        if self.software:
            return "no verdict: a software adapter shows a direction, only a GPU decides"
        whole = self.comparisons[0]
        if whole.low > 0:
            return f"Firefox is faster, by {whole.low:.0%} to {whole.high:.0%}"
        if whole.high < 0:
            return f"Chromium is faster, by {-whole.high:.0%} to {-whole.low:.0%} of its time"
        return "no difference beyond noise"

    @property
    def lines(self) -> list[str]:
        """The comparisons and the verdict, for a terminal."""
        compared = [
            f"{one.measure}: Chromium {one.chromium_ms:.1f} ms, "
            f"Firefox {one.firefox_ms:.1f} ms; {one.words}"
            for one in self.comparisons
        ]
        first = [f"first task of {name}: {ms:.0f} ms" for name, ms in self.cold_ms.items()]
        return [*compared, *first, self.verdict]

    @property
    def findings(self) -> list[Finding]:
        """All measures, each with a doubt if nothing may be concluded from it.

        They are the comparisons of browsers, each browser's first task over its later ones, and
        Firefox's time with one workgroup shape over that with the other.
        """
        doubt = ""
        if not self.same:
            doubt = "the two browsers did not compute the same"
        elif self.software:
            doubt = "a software adapter shows a direction, only a GPU decides"
        found = [
            Finding(
                measure=one.measure,
                value=one.firefox_faster,
                unit="share",
                interval=(one.low, one.high),
                timed=True,
                doubt=doubt,
                detail=f"Chromium {one.chromium_ms:.1f} ms, Firefox {one.firefox_ms:.1f} ms, "
                f"{one.rounds} rounds",
            )
            for one in self.comparisons
        ]
        whole = next((one for one in self.comparisons if one.measure == "whole task"), None)
        for name, ms in self.cold_ms.items() if whole else ():
            warm = getattr(whole, f"{name}_ms")
            found.append(
                Finding(
                    measure=f"first task over later ones, {name}",
                    value=ms / warm,
                    timed=True,
                    doubt=doubt or "one first task without an interval",
                    detail=f"with shaders to be compiled and without: {ms:.0f} ms over {warm:.0f}",
                )
            )
        shapes = [one for one in self.comparisons if one.measure.startswith("spectrum ")]
        if len(shapes) == len(SHAPES):
            # This quotient is one of medians alone: an interval would need the rounds of both.
            ours, theirs = (one.firefox_ms for one in shapes)
            said = doubt or "medians without an interval"
            found.append(
                Finding(
                    measure="firefox 128×2×1 over 256×1×1",
                    value=theirs / ours,
                    timed=True,
                    doubt=said,
                    detail=f"{theirs:.1f} ms over {ours:.1f} ms",
                )
            )
        return found

    def json(self) -> str:
        """Return everything as JSON."""
        return json.dumps({**asdict(self), "verdict": self.verdict}, indent=1)


def compare(measure: str, chromium: Sequence[float], firefox: Sequence[float]) -> Comparison:
    """Compare paired rounds: medians, and a bootstrap 95 % interval over rounds.

    Args:
        measure: name of the measure.
        chromium: milliseconds per round.
        firefox: milliseconds per round, in the same order.
    """
    one, two = np.asarray(chromium, float), np.asarray(firefox, float)
    if one.shape != two.shape or one.size < 2:
        raise ValueError("needs as many rounds of one browser as of the other, and at least two")
    drawn = np.random.default_rng(0).integers(0, one.size, (RESAMPLES, one.size))
    medians = np.median(one[drawn], axis=1), np.median(two[drawn], axis=1)
    low, high = np.percentile(1 - medians[1] / medians[0], (2.5, 97.5))
    faster = 1 - np.median(two) / np.median(one)
    return Comparison(
        measure,
        float(np.median(one)),
        float(np.median(two)),
        float(faster),
        float(low),
        float(high),
        one.size,
    )


def browsers(rounds: int, threads: int, said: Callable[[str], None]) -> Outcome:
    """Run the experiment.

    Args:
        rounds: interleaved rounds of each measure.
        threads: threads of WebAssembly, for nodes that the WebGPU provider leaves to it.
        said: called with a line of progress.

    Raises:
        CompatError: a browser or the package that drives it is missing.
    """
    with contextlib.ExitStack() as stack:
        opened = {name: stack.enter_context(_page(name, threads)) for name in BOTH}
        adapters = {name: places.adapter_name(one.seen["webgpu"]) for name, one in opened.items()}
        software = any(places.is_software(one.seen["webgpu"]) for one in opened.values())
        said("; ".join(f"{name}: {it or 'unnamed adapter'}" for name, it in adapters.items()))
        model: Any = catalog.open_model(MODEL)
        items = corpus.load().sets["clean"].items(model.sample_rate, 8)
        times: dict[str, dict[str, list[float]]] = {}
        tokens: dict[str, list[Any]] = {name: [] for name in BOTH}
        spectra: dict[str, Any] = {}
        cold: dict[str, float] = {}
        for number in range(rounds + 1):
            item = items[number % len(items)]
            # The browser that is first in one round is second in the next.
            for name in BOTH if number % 2 else BOTH[::-1]:
                with awake(opened, name):
                    for measure, ms, found in _round(opened[name], model, item, software):
                        if not number and measure == "whole task":
                            cold[name] = ms
                        if number:  # The first round compiles shaders.
                            times.setdefault(measure, {}).setdefault(name, []).append(ms)
                        if measure == "whole task":
                            tokens[name].append(found)
                        elif found is not None:
                            spectra[name] = found
            said(f"round {number} of {rounds}")
    same = tokens["chromium"] == tokens["firefox"] and bool(
        np.allclose(spectra["chromium"], spectra["firefox"], rtol=1e-3, atol=1e-3)
    )
    found = [compare(measure, t["chromium"], t["firefox"]) for measure, t in times.items()]
    return Outcome(adapters, software, same, tuple(found), cold)


@contextlib.contextmanager
def _page(name: str, threads: int) -> Iterator[web_session.WebSession]:
    """Open the model in one browser, on a GPU if both have one, else on one software adapter."""
    reason, remedy = web.lacking()
    if reason:
        raise CompatError(reason, remedy)
    ending = "" if web.has_gpu() else "-software"
    place = places.PLACES[f"webgpu-{name}{ending}"]
    reason, remedy = places.missing(place)
    if reason:
        raise CompatError(reason, remedy)
    target = next(t for t in ort_web.RUNTIME.targets if t.name == f"webgpu-{name}{ending}")
    driver = web.vulkan_of_chromium() if ending and name == "firefox" else ""
    before = {key: os.environ.get(key) for key in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")}
    if driver:
        os.environ.update(dict.fromkeys(before, driver))
    try:
        session = web_session.WebSession(
            sources(MODEL, catalog.open_model(MODEL), threads),
            target,
            Recipe("fp32"),
            Options(threads),
        )
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
    try:
        yield session
    finally:
        session.close()


@contextlib.contextmanager
def awake(opened: Mapping[Any, web_session.WebSession], name: Any) -> Iterator[None]:
    """Stop every browser except the one that is open under ``name``, while the block runs."""
    others = [one.page for other, one in opened.items() if other != name]
    for page in others:
        page.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for page in others:
            page.signal(signal.SIGCONT)


def _round(
    session: web_session.WebSession, model: Any, item: Any, software: bool
) -> Iterator[tuple[str, float, Any]]:
    """Yield each measure with its milliseconds in the page and the result that was computed."""
    before = session.page.inside_s
    (prediction,) = model.run(session, [item], Stopwatch())
    yield "whole task", (session.page.inside_s - before) * 1000, prediction["tokens"]
    mel = model.padded_mel([item.audio[: model.dimensions.window]], 1)
    times = []
    for _ in range(3):
        before = session.page.inside_s
        session.run("encoder", {"mel": mel}, "b1")
        times.append((session.page.inside_s - before) * 1000)
    yield "encoder", median(times), None
    audio = np.zeros(512 + 160 * (FRAMES[software] - 1), np.float32)
    audio[: min(len(item.audio), audio.size)] = item.audio[: audio.size]
    hann = np.zeros(512, np.float32)
    hann[:400] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    filters = np.zeros((80, 257), np.float32)
    filters[:, :201] = mel_filterbank(80).T
    for shape in SHAPES:
        answer, (mel,) = session.page.call(
            "spectrum", [audio, hann, filters], shape=list(shape), dispatches=DISPATCHES[software]
        )
        yield f"spectrum {shape[0]}×{shape[1]}×1", answer["each"], mel


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Outcome:
    return browsers(arguments.rounds, available_cpus(), said)


EXPERIMENT = Experiment(
    "is Firefox faster than Chrome on WebGPU?",
    _run,
    rounds_argument(10),
    "compat experiment browsers --rounds 20",
)
