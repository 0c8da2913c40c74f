"""Code that experiments share: it opens models, times contenders in turns, and makes findings."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from compat import catalog
from compat.build.sources import GraphSource, sources
from compat.build.translation import translated
from compat.contract.case import Case, Recipe, Target
from compat.contract.errors import CompatError
from compat.contract.execution import Execution
from compat.contract.model_reference import ModelReference
from compat.contract.runtime import GraphRuntime, Options, Runtime
from compat.contract.session import Session
from compat.hardware.facts import available_cpus
from compat.inputs import corpus, people
from compat.inputs.checkpoints import find_checkpoint
from compat.judge.experiments import Finding
from compat.metrics.timing import CONFIDENCE, median_interval
from compat.report.claim_words import shown

Contender = Callable[[int], Any]
"""Function that does its work once, called with the number of the round, so that inputs may differ
between rounds."""


@dataclass(frozen=True)
class Measured:
    """An answer made of findings alone."""

    findings: tuple[Finding, ...]

    @property
    def lines(self) -> list[str]:
        """A line for each finding, with its detail."""
        return [
            f"{one.measure}: {shown(one.value, one.interval, one.unit)}"
            + (f"; {one.detail}" if one.detail else "")
            + (f" [{one.doubt}]" if one.doubt else "")
            for one in self.findings
        ]

    def json(self) -> str:
        return json.dumps(msgspec.to_builtins(self.findings), indent=1)


def in_turns(
    contenders: Mapping[str, Contender], rounds: int, said: Callable[[str], None]
) -> dict[str, list[float]]:
    """Time contenders one after the other, round by round; return seconds by name.

    The first round warms up and does not count. The order is reversed from round to round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds + 1):
        for name in names if number % 2 else names[::-1]:
            began = time.perf_counter()
            contenders[name](number)
            if number:
                seconds[name].append(time.perf_counter() - began)
        said(f"round {number} of {rounds}")
    return seconds


def quotient(
    measure: str,
    over: Sequence[float],
    under: Sequence[float],
    detail: str = "",
    unit: str = "ratio",
    form: Callable[[float], float] = lambda ratio: ratio,
) -> Finding:
    """Return the median over rounds of one contender's seconds over another's, with its interval.

    Args:
        measure: name of the measure.
        over: seconds by round of one contender, the numerator.
        under: seconds of the other contender in the same rounds, the denominator.
        detail: words that say what was compared.
        unit: see :class:`Finding`.
        form: turns each ratio into the number that is claimed, for instance a share that is saved.
    """
    centre = median_interval([form(a / b) for a, b in zip(over, under, strict=True)])
    middles = f"{median(over) * 1e3:.3g} ms over {median(under) * 1e3:.3g} ms"
    said = f"{len(over)} rounds in turns, {middles}"
    return Finding(
        measure=measure,
        value=centre.value,
        unit=unit,
        interval=(centre.low, centre.high),
        timed=True,
        doubt=too_few(len(over)),
        detail="; ".join(filter(None, (detail, said))),
        samples={"over_s": list(over), "under_s": list(under)},
    )


def too_few(rounds: int) -> str:
    """Return the reason why so few rounds decide nothing; empty if their interval covers 95 %."""
    coverage = median_interval(range(rounds)).coverage
    return (
        "" if coverage >= CONFIDENCE else f"the interval of {rounds} rounds covers {coverage:.0%}"
    )


def saved(ratio: float) -> float:
    """Turn a ratio of times into the share of time that is saved."""
    return 1 - ratio


def yes(measure: str, found: bool, detail: str = "") -> Finding:
    """Return a finding whose value is true (1) or false (0)."""
    return Finding(measure=measure, value=float(found), unit="yes", detail=detail)


def count(measure: str, found: float, detail: str = "") -> Finding:
    """Return a finding that counts something."""
    return Finding(measure=measure, value=float(found), unit="count", detail=detail)


def opened(case_id: str, threads: int = 0) -> tuple[Any, Session]:
    """Open a case in this process, on a runtime of graphs; return its model and its session.

    Raises:
        CompatError: the case's checkpoint or runtime is absent.
    """
    model, runtime, arguments = _prepared(case_id, threads)
    assert isinstance(runtime, GraphRuntime)
    return model, runtime.compile(*arguments)


def ready(case_id: str, threads: int = 0) -> tuple[Any, Execution]:
    """Open a case in this process, on any runtime or port; return its model and its execution.

    Raises:
        CompatError: the case's checkpoint or runtime is absent.
    """
    model, runtime, arguments = _prepared(case_id, threads)
    return model, runtime.open(model, *arguments)


def _prepared(
    case_id: str, threads: int
) -> tuple[Any, Runtime, tuple[Mapping[str, GraphSource], Target, Recipe, Options]]:
    """Return a case's model and runtime, and what the runtime is given to open it."""
    reference, model = model_of(case_id)
    case = catalog.load().case(case_id)
    runtime = _runtime_of(case)
    threads = threads or available_cpus()
    found = sources(reference, model, threads)
    return model, runtime, (found, case.target, case.recipe, Options(threads))


def _runtime_of(case: Case) -> Runtime:
    runtime = catalog.load().runtime(case.target.runtime)
    probe = runtime.probe(case.target)
    if probe.state != "here":
        raise CompatError(f"{case.target.name} is {probe.state}: {probe.reason}", probe.remedy)
    return runtime


def model_of(case_id: str) -> tuple[ModelReference, Any]:
    """Return the reference and the host side of a case's model.

    Raises:
        CheckpointError: the model's published checkpoint is not here.
    """
    case = catalog.load().case(case_id)
    checkpoint: str | Path = ""
    if case.weights == "trained":
        checkpoint = case.variant.trained
    elif case.weights == "pretrained":
        checkpoint = translated(str(find_checkpoint(case.variant.checkpoint)))
    reference = ModelReference(case.family.name, case.variant.name, case.weights, str(checkpoint))
    return reference, catalog.open_model(reference)


def recordings(name: str, rate: int, limit: int | None = None) -> list[Any]:
    """Return recordings of a shipped test set, or of one that was fetched.

    Raises:
        CompatError: the test set was not fetched.
    """
    known = corpus.load()
    sets = {**known.sets, **known.special}
    if name not in sets:
        raise CompatError(f"the recordings of {name!r} are not here.", people.REMEDY)
    return list(sets[name].items(rate, limit))
