"""Checks and measurements, with which the suites are written.

A suite asks its :class:`Measurement` for stages and hands over what they found. The measurement
holds that against the thresholds and becomes one observation, whatever happens in between.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from compat.contract.case import Case
from compat.contract.digests import digest
from compat.contract.profile import Profile
from compat.contract.untrusted import clean
from compat.judge.checks import VERSIONS
from compat.judge.expectations import Expectation
from compat.judge.recommendations import Recommendation
from compat.judge.results import CaseFacts, Level, Limit, MetricFacts, Observation, Status, facts_of
from compat.judge.thresholds import Thresholds
from compat.judge.verdict import verdict
from compat.run.client import StageError, StageFailure, Worker
from compat.run.privacy import without_paths


@dataclass(frozen=True)
class Check:
    """A check of a suite, named ``suite.question``, and the cases that it can be asked of."""

    name: str
    version: int = 1
    applies: Callable[[Case], bool] = lambda case: True
    timed: bool = False
    """Whether it measures time, which parallel workers would falsify."""
    headline: bool = False
    """Whether only a headline variant or a stand-in is asked, unless the profile is full."""
    costly: bool = False
    """Whether it is left out in a first look (``quick``), and on a host's processor unless the
    profile is full."""
    lengthy: bool = False
    """Whether a first look leaves it out on a target that is slow."""
    rare: bool = False
    """Whether only the full profile makes it, and only of variants that decide a cell."""

    def asked(self, case: Case, profile: Profile) -> bool:
        """Return whether the check is made of a case under a profile."""
        dear = self.costly and (profile.first_look or case.target.on_host_cpu)
        dear |= self.lengthy and profile.first_look and case.target.slow
        left_out = not profile.whole and (dear or (self.headline and not in_full(case, profile)))
        left_out |= self.rare and not (profile.whole and _decides(case))
        return not left_out and self.applies(case)


def check(
    name: str,
    version: int | None = None,
    applies: Callable[[Case], bool] = lambda case: True,
    timed: bool = False,
    headline: bool = False,
    costly: bool = False,
    lengthy: bool = False,
    rare: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a test function of a suite to be a check.

    The versions of the project's own checks are in :mod:`compat.judge.checks`; ``version`` is that
    of an outside author's, 1 unless it is given.

    Raises:
        ValueError: the version is below 1, or not the one that the project's check has.
    """
    current = VERSIONS.get(name, 1 if version is None else version)
    if current < 1 or version not in (None, current):
        raise ValueError(
            f"version {version} of {name}: versions begin at 1, and those of the project's own "
            "checks are changed in compat/judge/checks.py."
        )

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        function.check = Check(  # type: ignore[attr-defined]
            name, current, applies, timed, headline, costly, lengthy, rare
        )
        return function

    return declare


def in_full(case: Case, profile: Profile) -> bool:
    """Return whether a case gets every check: its variant decides a cell or the profile is full."""
    return profile.whole or _decides(case)


def _decides(case: Case) -> bool:
    return case.variant.name in (case.family.headline, case.family.stand_in)


class Finding(Exception):
    """A check ended with another status than passed; the message is its reason."""

    def __init__(self, status: Status, reason: str, remedy: str = "", fatal: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.remedy = remedy
        self.fatal = fatal
        """Whether the test fails whatever the status: the hardware was required."""


@dataclass
class Measurement:
    """Collects the results of one check of one case and turns them into an observation."""

    case: Case
    check: Check
    worker: Worker
    thresholds: Thresholds
    iterations: int
    warmup: int
    profile: Profile
    chosen: bool
    """Whether a person chose the number of rounds; otherwise the profile did."""
    found_file: Path
    """File to which inputs that break a case are added."""
    recommendation: Recommendation | None
    """Precision and batch that a guide recommends for this variant on this hardware."""
    found: dict[str, Any] = field(default_factory=dict)
    level: Level | None = None
    limits: tuple[Limit, ...] = ()
    started: float = field(default_factory=time.perf_counter)

    @property
    def facts(self) -> CaseFacts:
        return facts_of(self.case)

    def stage(self, name: str, **arguments: Any) -> Any:
        """Return the result of a stage of the protocol; see :mod:`compat.measure.protocol`.

        The stage ``loads`` comes first: a case that does not load, or executes another precision,
        gives no other results either.

        Raises:
            StageFailure: one of the stages failed.
        """
        self.worker.stage("loads")
        return self.worker.stage(name, **arguments)

    def note(self, **found: Any) -> None:
        """Keep fields of the observation: ``values``, ``metrics``, ``samples``, ``batch``."""
        self.found |= found

    def judge(self, values: Mapping[str, Any], faults: Sequence[str] = ()) -> None:
        """Hold values against the thresholds.

        Raises:
            Finding: with status ``failed``, if there are faults or a relaxed limit is missed;
                ``inconclusive``, if it was missed while other processes had the processors.
        """
        self.note(values=dict(values))
        self.level, self.limits, reason = self.thresholds.judge(self.check.name, self.facts, values)
        if faults:
            self.level = "failed"
            raise Finding("failed", "; ".join((*faults, *([reason] if reason else []))))
        if self.level is None:
            # No value has a limit here, so that the check passes by having come this far.
            self.level = "strict"
        status, reason, remedy = verdict(self.level, reason, values, self.worker.request.threads)
        if status != "passed":
            raise Finding(status, reason, remedy)
        self.note(reason=reason)

    def observation(
        self, error: BaseException | None, expectation: Expectation | None, executed: str
    ) -> Observation:
        """Return the observation of this check; ``error`` ended it, None if it ended well."""
        status, reason, remedy = outcome(error)
        level = self.level if status == "passed" else None
        # An error is a verdict on the runtime only where it comes out of a stage of the case: bad
        # input, a broken driver, a cache that is full or a fault of the suite leave it unjudged.
        if status == "failed" or isinstance(error, StageError):
            level = "failed"
        if expectation is not None:
            if status == "passed":
                status = "unexpected-pass"
                reason = f"expected to fail: {expectation.reason}"
            elif status not in ("skipped", "inconclusive"):
                status = "known-failure"
                reason = f"{reason} (known: {expectation.reason})"
        return Observation(
            case=self.case.id,
            check=self.check.name,
            check_version=self.check.version,
            status=status,
            level=level,
            reason=without_paths(clean(reason or self.found.get("reason", ""))),
            remedy=without_paths(clean(remedy)),
            executed=executed,
            values=self.found.get("values", {}),
            metrics={
                name: MetricFacts(**facts) for name, facts in self.found.get("metrics", {}).items()
            },
            limits=self.limits,
            samples=self.found.get("samples", {}),
            predictions=self.found.get("predictions", []),
            threads=self.worker.request.threads,
            batch=self.found.get("batch", 1),
            time=now(),
            seconds=round(time.perf_counter() - self.started, 4),
            expected=expectation.id if expectation is not None else "",
        )


def outcome(error: BaseException | None) -> tuple[Status, str, str]:
    """Return status, reason and remedy for the way in which a check ended."""
    if error is None:
        return "passed", "", ""
    if isinstance(error, Finding):
        return error.status, str(error), error.remedy
    if isinstance(error, StageFailure):
        status: Status = error.status  # type: ignore[assignment]
        return status, str(error), ""
    if isinstance(error, AssertionError):
        return "failed", str(error), ""
    return "error", f"{type(error).__name__}: {error}", ""


def now() -> str:
    """Return the time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def remember(measurement: Measurement, entry: dict[str, Any]) -> None:
    """Append a stress input to this machine's list, unless it is there already."""
    path = measurement.found_file
    name = f"found-{digest(entry)[:8]}"
    text = path.read_text(encoding="utf-8") if path.is_file() else _HEAD
    if name in text:
        return
    lines = [f'name = "{name}"', *(f"{key} = {json.dumps(value)}" for key, value in entry.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(
        path, text + f"\n# Found on {measurement.case.id}\n[[input]]\n" + "\n".join(lines) + "\n"
    )


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


_HEAD = """\
# Inputs on which a case failed when the suite searched beyond fixtures/stress.toml. Every run on
# this machine tries them; move one that matters to everybody to that file.
"""
