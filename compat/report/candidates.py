"""Candidates for a recommendation: the configurations of a model, their numbers and usability."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from compat.contract.errors import CompatError
from compat.judge.results import Observation
from compat.report import text
from compat.report.evidence import on_processor
from compat.report.findings import LATENCY, MEMORY, TASK
from compat.report.measures import Measure, loss_of, time_of
from compat.report.model import Configuration, Record, Report

CPU = "cpu"
REAL_TIME = 1.0
"""Highest real-time factor (seconds of work for a second of audio) that still is real time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that a configuration must keep; None, an empty value or False asks nothing."""

    hardware: tuple[str, ...] = ()
    """Names or patterns of columns and targets. ``cpu`` stands for every target that runs on the
    host's processor, whichever its column."""
    memory: float | None = None
    """Bytes; the limit of both the process's peak and the device's."""
    loss: float | None = None
    """How far the task metric may fall behind the reference's. In percentage points where the
    metric is a share (1 is one point of WER), else in the metric's own unit."""
    real_time: bool = False
    machine: str = ""
    """The beginning of a machine's id."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One configuration with one model, and the numbers that were measured of it."""

    configuration: Configuration
    subject: str
    """``variant@weights`` that was timed."""
    time: Measure | None
    time_status: str
    memory: float | None
    """Bytes; the larger of the process's and the device's."""
    loss: Measure | None
    loss_of: str
    """``variant@weights`` that the loss was measured on."""

    @property
    def name(self) -> str:
        return text.one_line(f"{self.configuration.target} {self.configuration.recipe}")

    @property
    def numbers(self) -> str:
        """Time, loss and memory in words, as far as they are known."""
        parts = []
        if self.time:
            name = "RTF " if self.time.key == "rtf" else ""
            parts.append(f"{name}{self.time.with_interval}")
        if self.loss:
            whose = f"{text.metric_name(self.loss.metric)} " if self.loss.metric else ""
            parts.append(f"{whose}lost {self.loss.with_interval}")
        if self.memory is not None:
            parts.append(f"{text.data_size(self.memory)} of memory")
        return ", ".join(parts)

    @property
    def states(self) -> dict[str, str]:
        return {gate.key: gate.state for gate in self.configuration.gates}

    @property
    def seconds(self) -> float:
        """The time that orders candidates, lower is better; infinite where nothing was timed."""
        return self.time.value if self.time else float("inf")

    @property
    def coordinates(self) -> tuple[float, float, float]:
        """Time, loss and memory, lower better; what is not known is infinite.

        A gain over the reference is chance, so it counts as a loss of 0.
        """
        infinity = float("inf")
        loss = infinity if self.loss is None else max(0.0, self.loss.value)
        return self.seconds, loss, infinity if self.memory is None else self.memory


def matching(report: Report, wanted: str) -> list[Configuration]:
    """Return the configurations of a row, family, variant or ``variant@weights``.

    Raises:
        CompatError: the report has none of that name.
    """
    if wanted in report.rows:
        return [one for one in report.configurations if one.row == wanted]
    word = wanted.casefold()
    named: dict[str, list[Configuration]] = defaultdict(list)
    for one in report.configurations:
        variants = {record.case.variant for record in one.records}
        subjects = {f"{r.case.variant}@{r.case.weights}" for r in one.records}
        for name in {name.casefold() for name in (one.row, one.family, *variants, *subjects)}:
            named[name].append(one)
    if word not in named:
        near = get_close_matches(word, named, 3, 0.5)
        rows = ", ".join(text.one_line(row) for row in report.rows)
        hint = f"Did you mean {', '.join(near)}?" if near else f"The rows are {rows}."
        raise CompatError(f"no results of a model or row called {text.one_line(wanted)}.", hint)
    return named[word]


def on_hardware(one: Configuration, limits: Limits) -> bool:
    """Whether a configuration runs on the hardware that was asked for."""
    words = limits.hardware
    names = {
        one.hardware,
        one.target,
        *([CPU] if any(on_processor(record.case) for record in one.records) else []),
    }
    return not words or any(fnmatchcase(name, word) for word in words for name in names)


def candidates(one: Configuration, wanted: str) -> Iterable[Candidate]:
    """Yield a candidate for each model of a configuration that was asked for."""
    cases: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in one.records:
        cases[f"{record.case.variant}@{record.case.weights}"][record.check] = record
    word = wanted.casefold()
    own = [name for name in cases if word in (name.casefold(), name.partition("@")[0].casefold())]
    for name in own or [one.variant]:
        checks = cases.get(name, {})
        timing, memory = _seen(checks.get(LATENCY)), _seen(checks.get(MEMORY))
        loss, whose = _loss(one, name, cases)
        sizes = [
            size
            for key in ("peak_bytes", "device_peak_bytes")
            if memory and (size := text.number(memory.values.get(key))) is not None
        ]
        status = checks[LATENCY].status if LATENCY in checks else ""
        yield Candidate(one, name, time_of(timing), status, max(sizes, default=None), loss, whose)


def _seen(record: Record | None) -> Observation | None:
    return record.observation if record is not None and record.measured else None


def _loss(
    one: Configuration, name: str, cases: dict[str, dict[str, Record]]
) -> tuple[Measure | None, str]:
    """Return a model's loss and the model it was measured on: the same one, or its stand-in."""
    for other in (name, one.figures.metric_case):
        # Generated weights have no task metric, whatever a file says.
        if not other.endswith("@seeded"):
            loss = loss_of(_seen(cases.get(other, {}).get(TASK)))
            if loss is not None:
                return loss, other
    return None, ""


def points(limit: float, loss: Measure) -> float:
    """Convert a limit to the unit of a stored loss: 1 point of a share becomes 0.01."""
    share = not loss.metric or text.is_share(loss.metric, loss.declared or {})
    return limit / 100 if share else limit


def ran(one: Candidate) -> bool:
    """Whether a candidate has a current measurement."""
    return one.configuration.rating.kind not in ("not-measured", "stale")


def unusable(one: Candidate, limits: Limits) -> str:
    """Say why a candidate cannot be recommended; empty where it can."""
    configuration = one.configuration
    rating = configuration.rating
    if not ran(one):
        return f"{rating.label.lower()}: nothing current ran"
    if configuration.evidence != "device":
        return f"{configuration.evidence} evidence says nothing of its speed"
    if rating.unsupported:
        return f"unsupported: {text.one_line(rating.unsupported, 120)}"
    for gate in configuration.gates:
        if gate.key in _ESSENTIAL and gate.state in ("failed", "unknown"):
            said = _ESSENTIAL[gate.key][gate.state == "unknown"]
            return f"{said}: {text.one_line(gate.reason, 160)}"
    if one.time is None:
        noisy = one.time_status == "inconclusive"
        return "its time was too noisy to settle" if noisy else "it was never timed"
    return _beyond(one, limits)


_ESSENTIAL = {
    "loads": ("it does not load", "whether it loads is not known"),
    "accurate": ("its results are wrong", "its accuracy is not known"),
}
"""Gates that every candidate must pass, each with the words for failed and for unknown."""


def _beyond(one: Candidate, limits: Limits) -> str:
    """Say which limit a candidate does not keep; empty where it keeps all."""
    if limits.real_time and one.time is not None:
        if one.time.key != "rtf":
            return "its task has no real time"
        upper = one.time.interval[1] if one.time.interval else one.time.value
        if upper > REAL_TIME:
            return f"it is not real time: RTF up to {one.time.shown(upper)}"
    if limits.memory is not None:
        if one.memory is None:
            return "its memory was never measured"
        if one.memory > limits.memory:
            allowed = text.data_size(limits.memory)
            return f"it takes {text.data_size(one.memory)} of memory, over {allowed}"
    if limits.loss is not None:
        if one.loss is None:
            return "what it loses was never measured"
        allowed_loss = points(limits.loss, one.loss)
        if one.loss.value > allowed_loss:
            lost = f"{text.metric_name(one.loss.metric)} {one.loss.with_interval}"
            return f"it loses {lost}, over {one.loss.shown(allowed_loss).lstrip('+')}"
    return ""
