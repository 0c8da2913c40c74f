"""List failures: each with its cause, its owner, and the other backends that share it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from compat.contract.errors import CompatError
from compat.contract.places import FIXTURES
from compat.judge.expectations import Expectation, Expectations, load
from compat.report import reasons, text
from compat.report.findings import FAILURES
from compat.report.model import Configuration, Record

OWNERS = {
    "ours": ("this project", "We can close it."),
    "vendor": ("the runtime's makers", "Upstream must close it."),
    "never": ("nobody", "It cannot be closed."),
    "": ("not assigned", "No known failure describes it yet."),
}
"""Maps the owner of a known failure to words for the owner, and to what follows from it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure of one configuration: the checks that ended alike for one cause."""

    configuration: Configuration
    case: str
    status: str
    cause: str
    """One sentence with the number that matters."""
    records: tuple[Record, ...]
    """The checks that ended this way."""
    owner: str
    reason: str
    """The reason that the known failure gives; empty where no known failure describes this one."""
    link: str
    expires: str
    elsewhere: str
    """Sentence on where the same checks fail: only here, everywhere, or on which other backends."""


@dataclass(frozen=True, slots=True)
class Unable:
    """Configurations of one target that cannot run, for one reason."""

    target: str
    reason: str
    configurations: tuple[Configuration, ...]


def fails(record: Record) -> bool:
    """Whether a check failed, or passed against a known failure."""
    one = record.observation
    by_error = record.status == "error" and one is not None and one.level == "failed"
    return record.status in FAILURES or record.status == "unexpected-pass" or by_error


def shipped() -> Expectations:
    """Return the known failures that come with compat; none where they cannot be read."""
    try:
        return load([FIXTURES / "expectations"])
    except CompatError:
        return Expectations()


def failures(
    configurations: Iterable[Configuration], known: Expectations
) -> tuple[list[Failure], list[Unable]]:
    """Return the failures, and the configurations that cannot run.

    Failures that can never be closed come last; before them, the order is that of statuses.
    """
    configurations = tuple(configurations)
    outcomes = _outcomes(configurations)
    found: list[Failure] = []
    unable: dict[tuple[str, str], list[Configuration]] = defaultdict(list)
    for one in configurations:
        alike: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
        for record in one.records:
            if fails(record):
                cause = reasons.sentence(record.status, record.reason, record.observation)
                alike[record.case.id, record.status, cause].append(record)
            elif record.status == "unsupported" and record.measured:
                why = reasons.clause(record.reason)
                if one not in unable[record.case.target, why]:
                    unable[record.case.target, why].append(one)
        for (case, status, cause), records in alike.items():
            entry = _entry(known, records)
            found.append(
                Failure(
                    one,
                    case,
                    status,
                    cause,
                    tuple(records),
                    entry.owner if entry else "",
                    entry.reason if entry else "",
                    entry.link if entry else "",
                    str(entry.expires or "") if entry else "",
                    elsewhere(records[0], outcomes),
                )
            )
    order = list(text.STATUSES)
    found.sort(key=lambda f: (f.owner == "never", order.index(f.status), f.configuration.id))
    return found, [Unable(*key, tuple(of)) for key, of in sorted(unable.items())]


def _entry(known: Expectations, records: Sequence[Record]) -> Expectation | None:
    """Return the known failure that describes some records; None where none does.

    It is the one that matched in the run, or one that explains the reason.
    """
    for record in records:
        expected = record.observation.expected if record.observation is not None else ""
        fitting = [e for e in known.entries if e.covers(record.case.id, record.check)]
        for entry in fitting:
            if entry.id == expected or entry.explains(record.reason):
                return entry
    return None


_Outcomes = dict[tuple[str, str, str, str], dict[str, bool]]
"""Maps variant, weights, precision and check to targets, each with whether the check passes."""


def _outcomes(configurations: Sequence[Configuration]) -> _Outcomes:
    found: _Outcomes = defaultdict(dict)
    for one in configurations:
        for record in one.records:
            bad = fails(record) and record.status != "unexpected-pass"
            if bad or record.status in ("passed", "unexpected-pass"):
                of = found[_key(record)]
                # A target passes if one of its machines or recipes does.
                target = record.case.target
                of[target] = of.get(target, False) or not bad
    return found


def _key(record: Record) -> tuple[str, str, str, str]:
    about = record.case
    return about.variant, about.weights, about.precision, record.check


def elsewhere(record: Record, outcomes: _Outcomes) -> str:
    """Say where else the same check of the same model and precision passes or fails."""
    others = {t: ok for t, ok in outcomes[_key(record)].items() if t != record.case.target}
    right = sorted(target for target, ok in others.items() if ok)
    wrong = sorted(target for target, ok in others.items() if not ok)
    if not others:
        return "tried on no other backend"
    if not wrong:
        return f"only here: {_named(right)} {'pass' if len(right) > 1 else 'passes'}"
    if not right:
        return f"everywhere: {_named(wrong)} too"
    return f"here and on {_named(wrong)}; {_named(right)} {'pass' if len(right) > 1 else 'passes'}"


def _named(targets: Sequence[str]) -> str:
    shown = [text.one_line(target, 40) for target in targets[:4]]
    more = f" and {len(targets) - 4} more" if len(targets) > 4 else ""
    return ", ".join(shown) + more
