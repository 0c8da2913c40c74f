"""Claims of published guides, read from data files, with the checks that decide them.

One file for each guide, ``fixtures/claims/*.toml``::

    [[claim]]
    id = "4.04"
    text = "..."                      # the claim as one sentence that can be checked
    source = "..."                    # which guide says so
    where = ["C", "A"]                # where it can be decided, see PLACES
    note = "..."                      # optional: how it was made checkable

    [[claim.check]]                   # one or several; all must hold
    what = "speed"                    # optional: which part of the claim
    place = "C"                       # optional: where this check decides; else the first place
    kind = "speed-up"                 # see KINDS
    slow = "*@*/cpu-torch/fp32"
    fast = "*@*/cpu-torch/bf16"
    claimed = { at_least = 1.5 }      # or at_most, or both; a word for a rating

A check is one of a few kinds with fixed arguments (:data:`KINDS`); nothing in a file is executed.
No entry holds a verdict: it follows from observations, stored answers of experiments, or
arithmetic, each time that it is asked for (``compat/report/claims.py``).

Patterns name cases as in ``whisper-*@*/cuda-torch/fp16``: variant, weights, target and recipe with
``*`` in them. If several cases match, one with published weights is taken before one with generated
weights, and that before a stand-in; among equals the first id is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from compat.contract.errors import CompatError
from compat.contract.places import FIXTURES
from compat.contract.untrusted import number
from compat.judge.checks import VERSIONS
from compat.judge.entries import Format
from compat.judge.experiments import VERSIONS as EXPERIMENTS

PLACES: Mapping[str, str] = MappingProxyType(
    {
        "C": "a measurement on a processor",
        "B": "a browser with a GPU",
        "L": "arithmetic",
        "G": "an NVIDIA GPU",
        "A": "Apple silicon",
        "Q": "a Qualcomm NPU",
        "R": "an AMD GPU",
        "W": "published weights",
    }
)
"""Where a claim can be decided, and what is needed there."""

KINDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = MappingProxyType(
    {
        # The rating of a cell, against a claimed word.
        "rating": (("row", "hardware"), ()),
        # No other column has a better rating than this one's in any row where both are rated.
        "best-rated": (("hardware",), ()),
        # Seconds of one case over those of another, on one machine.
        "speed-up": (("slow", "fast"), ()),
        # A number of an observation: a path such as hard.degradation.
        "number": (("case", "test", "path"), ("unit",)),
        # The number over that of another case, on one machine.
        "quotient": (("case", "over", "test", "path"), ()),
        # Share of a stage in the time of the whole task, over all cases that match.
        "stage-share": (("cases", "stage"), ()),
        # The batch of the highest throughput of a sweep.
        "best-batch": (("case",), ()),
        # Every case that matches passed a check; one at least.
        "passed": (("case", "test"), ()),
        # A finding of a stored answer.
        "experiment": (("name", "measure"), ("unit",)),
        # Numbers that the claim itself gives.
        "arithmetic": (("compute", "of"), ("over", "unit")),
    }
)
"""Kinds of checks, each with the arguments that it must and may have beside ``claimed``."""

COMPUTE = ("quotients", "products", "same")
"""Arithmetic of a check: each number divided by its partner, each multiplied by its partner, or
whether two lists are equal."""

Verdict = Literal["confirmed", "refuted", "inconclusive", "needs"]

FORMAT = Format(
    name="claim",
    table="claim",
    required=("id", "text", "source"),
    optional=("where", "note", "check"),
    if_absent="Restore the ones that come with compat.",
    if_broken="; the format is described at the top of compat/judge/claims.py.",
)


@dataclass(frozen=True, slots=True)
class Claimed:
    """The value that a claim states: the word of a rating, or one or two bounds of a number."""

    word: str = ""
    at_least: float | None = None
    at_most: float | None = None

    def judge(self, low: float, high: float) -> Verdict:
        """Compare a measured interval with the bounds.

        An interval inside them confirms, one outside refutes, one across a bound is inconclusive.
        """
        least = float("-inf") if self.at_least is None else self.at_least
        most = float("inf") if self.at_most is None else self.at_most
        if least <= low and high <= most:
            return "confirmed"
        if high < least or low > most:
            return "refuted"
        return "inconclusive"


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a claim: the kind and source of its number, and the value that is claimed."""

    kind: str
    arguments: Mapping[str, Any]
    claimed: Claimed
    place: str
    what: str = ""

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement of a guide."""

    id: str
    text: str
    source: str
    where: tuple[str, ...]
    checks: tuple[Check, ...]
    note: str
    origin: str
    """File and entry, for messages."""


# What an evaluation found --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """The result of one check on one machine."""

    verdict: Verdict
    measured: str
    """The number with its interval, or the word."""
    machine: str = ""
    date: str = ""
    evidence: tuple[str, ...] = ()
    """Ids of observations (``machine/run/case/check``) and answers (``machine/run/experiment``)."""
    anchors: tuple[str, ...] = ()
    """Anchors of the pages that show these observations."""
    expression: str = ""
    """Arithmetic that gave the number, if there is no observation."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One check of a claim, with its result on every machine."""

    what: str
    place: str
    claimed: str
    """The claimed value in words, with its unit."""
    verdict: Verdict
    found: tuple[Found, ...]
    command: str
    """Command line that repeats the measurement."""
    needs: str = ""
    """The hardware or measurement that would decide the check, if there is no result."""
    cell: tuple[str, str] | None = None
    """Row and hardware of the cell whose rating is claimed; None for other checks."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A claim with its verdict."""

    id: str
    text: str
    source: str
    where: tuple[str, ...]
    note: str
    verdict: Verdict
    label: str
    """The verdict in words: ``confirmed``, ``needs an NVIDIA GPU``."""
    parts: tuple[Part, ...]
    reason: str = ""
    """Why the claim is undecided, or why a rating differs from it."""

    @property
    def decided(self) -> bool:
        return self.verdict in ("confirmed", "refuted")


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict on a claim from those of its parts, which must all hold."""
    if "refuted" in verdicts:
        return "refuted"
    if set(verdicts) == {"confirmed"}:
        return "confirmed"
    return "needs" if set(verdicts) == {"needs"} else "inconclusive"


# Reading -------------------------------------------------------------------------------------


def default_folder() -> Path:
    """The claims that this project ships."""
    return FIXTURES / "claims"


def load(folder: Path) -> tuple[Claim, ...]:
    """Read every file of a folder, in the order of ids.

    Raises:
        CompatError: the folder has no TOML file, or an entry is not valid.
    """
    claims: dict[str, Claim] = {}
    paths = sorted(folder.glob("*.toml"))
    if not paths:
        raise CompatError(f"there are no claims in {folder}.", FORMAT.if_absent)
    for path in paths:
        for origin, row in FORMAT.entries(path, FORMAT.read(path)):
            claim = _claim(origin, row)
            if claim.id in claims:
                raise CompatError(f"{origin}: {claim.id} is in {claims[claim.id].origin} already.")
            claims[claim.id] = claim
    return tuple(claims[name] for name in sorted(claims))


def _claim(origin: str, row: Mapping[str, Any]) -> Claim:
    where = row.get("where")
    if not isinstance(where, list) or not where or not all(one in PLACES for one in where):
        raise CompatError(
            f"{origin}: where must be a list of places. Known are {', '.join(PLACES)}."
        )
    checks = row.get("check")
    if not isinstance(checks, list) or not checks:
        raise CompatError(f"{origin}: add [[claim.check]]; a claim without one is never decided.")
    return Claim(
        row["id"],
        row["text"].strip(),
        row["source"].strip(),
        tuple(where),
        tuple(_check(f"{origin}, check {n}", one, where) for n, one in enumerate(checks, 1)),
        str(row.get("note", "")).strip(),
        origin,
    )


def _check(origin: str, row: Any, where: Sequence[str]) -> Check:
    kind = row.get("kind") if isinstance(row, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise CompatError(f"{origin}: kind = {kind!r} is unknown. Known are {', '.join(KINDS)}.")
    required, optional = KINDS[kind]
    common = ("kind", "what", "place", "claimed")
    for key in row:
        if key not in (*common, *required, *optional):
            known = ", ".join((*common, *required, *optional))
            raise CompatError(f"{origin}: {kind} has no {key!r}. Known are {known}.")
    for key in required:
        if not row.get(key):
            raise CompatError(f"{origin}: {kind} needs {key}.")
    place = row.get("place", where[0])
    if place not in where:
        raise CompatError(f"{origin}: place = {place!r} is not one of where.")
    arguments = {key: row[key] for key in (*required, *optional) if key in row}
    for problem in _problems(kind, arguments):
        raise CompatError(f"{origin}: {problem}")
    return Check(kind, arguments, _claimed(origin, kind, row.get("claimed")), place, _text(row))


def _text(row: Mapping[str, Any]) -> str:
    return str(row.get("what", "")).strip()


def _claimed(origin: str, kind: str, given: Any) -> Claimed:
    if kind == "rating":
        if given not in ("High", "Medium", "Limited", "None"):
            raise CompatError(f"{origin}: claimed must be High, Medium, Limited or None.")
        return Claimed(word=given)
    if given is None and kind in ("passed", "best-rated"):
        return Claimed(at_least=1.0)
    ends = given if isinstance(given, dict) else {}
    least, most = (number(ends.get(key)) for key in ("at_least", "at_most"))
    sound = len(ends) == (least is not None) + (most is not None)
    if not ends or not sound or (least is not None and most is not None and least > most):
        raise CompatError(
            f"{origin}: claimed must be {{ at_least = … }}, {{ at_most = … }} or both."
        )
    return Claimed("", least, most)


def _problems(kind: str, given: Mapping[str, Any]) -> Iterator[str]:
    for key in ("slow", "fast", "case", "over"):
        if key in given and kind != "arithmetic" and not _is_pattern(given[key]):
            yield f"{key} = {given[key]!r} is no pattern of a case, as whisper-*@*/cuda-torch/fp16."
    for one in given.get("cases", ()):
        if not _is_pattern(one):
            yield f"cases has {one!r}, which is no pattern of a case."
    if "test" in given and given["test"] not in VERSIONS:
        yield f"test = {given['test']!r} is unknown. Known are {', '.join(VERSIONS)}."
    if kind == "experiment" and given["name"] not in EXPERIMENTS:
        yield f"no experiment is called {given['name']!r}. Known are {', '.join(EXPERIMENTS)}."
    if kind == "arithmetic":
        lists = [given["of"], given.get("over", [])]
        if given["compute"] not in COMPUTE:
            yield f"compute = {given['compute']!r}. Known are {', '.join(COMPUTE)}."
        elif not all(isinstance(x, list) and all(number(n) is not None for n in x) for x in lists):
            yield "of and over must be lists of numbers."
        elif len({*map(len, lists)}) != 1 or (given["compute"] == "quotients" and 0 in lists[1]):
            yield "of and over must have as many numbers, none over zero."


def _is_pattern(value: Any) -> bool:
    return isinstance(value, str) and value.count("/") == 2 and "@" in value.partition("/")[0]
