"""The rule that turns six gates into a rating: pure, versioned, no input or output.

``docs/rating.md`` explains it in prose. Anything not known is tried twice, as failed (the floor)
and as strict (the ceiling); a rating is given only where both agree.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, cast

from compat.contract.case import Evidence

RULE_VERSION = 3
"""Raised whenever the same gates, or the same observations, could give another rating."""

State = Literal["strict", "relaxed", "failed", "unknown", "not-applicable"]
Grade = Literal["None", "Limited", "Medium", "High"]
Kind = Literal["rated", "incomplete", "emulated", "converted", "not-measured", "stale"]
Weights = Literal["pretrained", "trained", "seeded"]

GRADES: tuple[Grade, ...] = ("None", "Limited", "Medium", "High")
"""Grades from worst to best."""

GATES: dict[str, str] = {
    "loads": "loads",
    "placed": "placed",
    "accurate": "accurate",
    "robust": "robust",
    "real_time": "real time",
    "worthwhile": "worthwhile",
}
"""Field of :class:`Gates` to the name that people read."""

_ALWAYS = ("loads", "accurate", "robust")


@dataclass(frozen=True, slots=True)
class Gates:
    """State of every gate of one configuration.

    Raises:
        ValueError: ``loads``, ``accurate`` or ``robust``, which always apply, is not applicable.
    """

    loads: State
    placed: State
    accurate: State
    robust: State
    real_time: State
    worthwhile: State

    def __post_init__(self) -> None:
        for name in _ALWAYS:
            if getattr(self, name) == "not-applicable":
                raise ValueError(f"the gate {name!r} applies to every configuration")

    def states(self) -> dict[str, State]:
        return {gate.name: cast(State, getattr(self, gate.name)) for gate in fields(self)}

    def with_unknown_as(self, state: State) -> Gates:
        """Return the gates with every unknown one in ``state``."""
        known = {name: state if old == "unknown" else old for name, old in self.states().items()}
        return Gates(**known)


@dataclass(frozen=True, slots=True)
class Caps:
    """The limits on a rating beside the gates: the quality and the presence of the evidence."""

    weights: Weights = "pretrained"
    """The weights behind the task metric: ``trained`` is the stand-in (with numerics of the
    published size), ``seeded`` means that no task metric exists."""
    quantised: bool = False
    """Whether any component of the recipe is quantised."""
    evidence: Evidence = "device"
    measured: bool = True
    """Whether anything at all ran."""
    stale: bool = False
    """Whether there is only an outdated measurement; counts if :attr:`measured` is False."""
    unsupported: str = ""
    """The runtime's own reason, where it proved that it cannot run this."""
    small: bool = False
    """Whether an unpublished size was judged, because no published size ran."""
    own: tuple[str, ...] = ()
    """Inputs that a person put in place of the shipped ones, in words; shown as badges."""

    @property
    def maximum(self) -> Grade:
        """The best grade that this evidence can carry."""
        if self.weights == "pretrained" or (self.weights == "trained" and not self.quantised):
            return "High"
        return "Medium"

    @property
    def maximum_reason(self) -> str:
        """Why the best grade is not High; empty where it is."""
        if self.maximum == "High":
            return ""
        if self.weights == "seeded":
            return "only generated weights were judged, and they cannot prove accuracy"
        return "an integer recipe needs the published weights for High, a stand-in was judged"


_NO_CAPS = Caps()


@dataclass(frozen=True, slots=True)
class Rating:
    """A grade, or the range in which the grade lies."""

    kind: Kind
    floor: Grade
    """The grade if every unknown gate failed."""
    ceiling: Grade
    """The grade if every unknown gate were strict."""
    missing: tuple[str, ...] = ()
    """Names of the gates that are not known."""
    limited_by: tuple[str, ...] = ()
    """Names of the known gates that are not strict."""
    cap: str = ""
    """Why the evidence allows no better than Medium, where that lowered the grade."""
    unsupported: str = ""
    """The runtime's reason, where it proved that it cannot run this."""
    badges: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The rating in words, such as ``High`` or ``Incomplete: None to Medium``."""
        match self.kind:
            case "rated":
                return "None (unsupported)" if self.unsupported else self.floor
            case "incomplete":
                return f"Incomplete: {self.floor} to {self.ceiling}"
            case "not-measured":
                return "Not measured"
            case "stale":
                return "Stale"
        word = self.kind.capitalize()
        if self.unsupported:
            return f"{word}: unsupported"
        if self.ceiling == "None":
            return f"{word}: failed"
        return f"{word}: incomplete" if self.floor == "None" else word


def rate(gates: Gates, caps: Caps = _NO_CAPS) -> Rating:
    """Return the rating of one configuration."""
    if caps.evidence != "device":
        gates = replace(gates, real_time="not-applicable", worthwhile="not-applicable")
    if caps.evidence == "conversion":
        gates = replace(gates, placed="not-applicable")
    states = gates.states()
    floor = _grade(gates.with_unknown_as("failed"))
    ceiling = _grade(gates.with_unknown_as("strict"))
    capped = GRADES.index(ceiling) > GRADES.index(caps.maximum)
    floor, ceiling = _at_most(floor, caps.maximum), _at_most(ceiling, caps.maximum)
    badges: tuple[str, ...] = () if caps.weights == "pretrained" else ("stand-in",)
    badges += ("small size",) if caps.small else ()
    badges += {"device": (), "emulator": ("emulated",), "conversion": ("converted",)}[caps.evidence]
    badges += caps.own

    if not caps.measured:
        kind: Kind = "stale" if caps.stale else "not-measured"
        return Rating(kind, "None", "High", tuple(GATES.values()), badges=badges)
    if caps.unsupported:
        floor = ceiling = "None"
    if caps.evidence == "emulator":
        kind = "emulated"
    elif caps.evidence == "conversion":
        kind = "converted"
    else:
        kind = "rated" if floor == ceiling else "incomplete"
    return Rating(
        kind,
        floor,
        ceiling,
        missing=tuple(GATES[name] for name, state in states.items() if state == "unknown"),
        limited_by=tuple(
            GATES[name] for name, state in states.items() if state in ("relaxed", "failed")
        ),
        cap=caps.maximum_reason if capped else "",
        unsupported=caps.unsupported,
        badges=badges,
    )


def preference(rating: Rating) -> tuple[int, int, bool, int, bool]:
    """Return a sort key: of several configurations a cell shows the one with the smallest key.

    Configurations that work on real silicon come first, then those that may work, then those that
    work on an emulator or convert; failures come before outdated and unmeasured ones. If two have
    the same floor, a decided rating comes before one that may still be better. Emulators and
    conversions have no grade to be decided. Published weights come before a stand-in.
    """
    works = rating.floor != "None"
    fails = rating.ceiling == "None"
    match rating.kind:
        case "rated" | "incomplete":
            place = 0 if works else 4 if fails else 1
        case "emulated":
            place = 5 if fails else 2
        case "converted":
            place = 6 if fails else 3
        case "stale":
            place = 7
        case "not-measured":
            place = 8
    open_ended = rating.kind == "incomplete" and rating.floor != rating.ceiling
    grades = -GRADES.index(rating.floor), open_ended, -GRADES.index(rating.ceiling)
    return place, *grades, "stand-in" in rating.badges


def _grade(gates: Gates) -> Grade:
    """The rule itself; every gate is strict, relaxed, failed or not applicable."""
    if "failed" in (gates.loads, gates.accurate):
        return "None"
    states = gates.states()
    if all(state in ("strict", "not-applicable") for state in states.values()):
        return "High"
    essential = all(states[name] == "strict" for name in _ALWAYS)
    if essential and "failed" not in (gates.placed, gates.real_time, gates.worthwhile):
        return "Medium"
    return "Limited"


def _at_most(grade: Grade, maximum: Grade) -> Grade:
    return min(grade, maximum, key=GRADES.index)
