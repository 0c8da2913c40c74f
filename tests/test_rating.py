"""The rating rule, tried on every combination of gates and evidence."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product
from typing import cast

import pytest

from compat.contract.case import Evidence
from compat.judge.rating import GRADES, Caps, Gates, Rating, State, Weights, preference, rate

ALWAYS: tuple[State, ...] = ("strict", "relaxed", "failed", "unknown")
SOMETIMES: tuple[State, ...] = (*ALWAYS, "not-applicable")
EVERY_GATES = [
    Gates(*states) for states in product(ALWAYS, SOMETIMES, ALWAYS, ALWAYS, SOMETIMES, SOMETIMES)
]
WEIGHTS: tuple[Weights, ...] = ("pretrained", "trained", "seeded")
DEVICE_CAPS = [Caps(weights=w, quantised=q) for w, q in product(WEIGHTS, (False, True))]
ORDER: dict[State, int] = {"failed": 0, "unknown": 1, "relaxed": 2, "strict": 3}
STRICT = Gates("strict", "strict", "strict", "strict", "strict", "strict")
EVERY = [
    (gates, caps, rate(gates, caps))
    for caps in (Caps(), Caps(weights="seeded"))  # the two maxima; the golden counts try all caps
    for gates in EVERY_GATES
]


def rank(grade: str) -> int:
    return [str(one) for one in GRADES].index(grade)


def test_floor_never_exceeds_ceiling_nor_the_cap() -> None:
    for gates, caps, result in EVERY:
        assert rank(result.floor) <= rank(result.ceiling) <= rank(caps.maximum), (gates, caps)


def test_without_unknown_gates_nothing_is_incomplete() -> None:
    for gates, caps, result in EVERY:
        unknown = "unknown" in gates.states().values()
        assert unknown or result.kind == "rated", (gates, caps)
        assert (result.missing != ()) == unknown


def test_none_only_where_loading_or_accuracy_failed() -> None:
    for gates, _caps, result in EVERY:
        failed = "failed" in (gates.loads, gates.accurate)
        assert (result.label == "None") == failed, gates


def test_limited_takes_everything_that_loads_and_is_accurate() -> None:
    """The categories leave no gap: the worst that loads and is accurate is Limited."""
    for loads, accurate in product(("strict", "relaxed"), repeat=2):
        gates = Gates(
            cast(State, loads), "failed", cast(State, accurate), "failed", "failed", "failed"
        )
        assert rate(gates).label == "Limited"


def test_definitions_of_high_and_medium() -> None:
    for gates, caps, result in EVERY:
        states = gates.states()
        all_strict = set(states.values()) <= {"strict", "not-applicable"}
        assert (result.label == "High") == (all_strict and caps.maximum == "High")
        essential = {gates.loads, gates.accurate, gates.robust} == {"strict"}
        others = {gates.placed, gates.real_time, gates.worthwhile}
        if essential and others <= {"strict", "relaxed", "not-applicable"}:
            assert result.floor in ("High", "Medium")
        if result.label == "Medium":
            assert essential
            assert "failed" not in others


@pytest.mark.parametrize("field", [*STRICT.states()])
def test_rating_is_monotone_in_every_gate(field: str) -> None:
    for gates, caps, result in EVERY:
        now = gates.states()[field]
        if now not in ORDER:
            continue
        for better, place in ORDER.items():
            if place <= ORDER[now]:
                continue
            risen = rate(replace(gates, **{field: better}), caps)
            # The floor takes unknown for the worst and the ceiling for the best, so that learning
            # "relaxed" can lower a ceiling: only known states and the floor are compared there.
            assert rank(risen.floor) >= rank(result.floor), (gates, field, better)
            if "unknown" not in (now, better):
                assert rank(risen.ceiling) >= rank(result.ceiling), (gates, field, better)


@pytest.mark.parametrize("field", [*STRICT.states()])
def test_learning_a_gate_never_leaves_the_range(field: str) -> None:
    for gates, caps, result in EVERY:
        if gates.states()[field] != "unknown":
            continue
        for learnt in ("strict", "relaxed", "failed"):
            known = rate(replace(gates, **{field: cast(State, learnt)}), caps)
            assert rank(result.floor) <= rank(known.floor)
            assert rank(known.ceiling) <= rank(result.ceiling)


def test_golden_counts() -> None:
    """A change of the rule shows here first, and must raise ``RULE_VERSION``."""
    counts = {
        (caps.weights, caps.quantised): Counter(rate(gates, caps).label for gates in EVERY_GATES)
        for caps in DEVICE_CAPS
    }
    high = Counter(GOLDEN["High"])
    medium = Counter(GOLDEN["Medium"])
    assert sum(high.values()) == sum(medium.values()) == 4**3 * 5**3
    assert counts == {
        ("pretrained", False): high,
        ("pretrained", True): high,
        ("trained", False): high,
        ("trained", True): medium,
        ("seeded", False): medium,
        ("seeded", True): medium,
    }


GOLDEN = {
    "High": {
        "High": 8,  # three gates that are strict or not applicable
        "Medium": 19,  # 27 with relaxed ones, less the 8
        "Limited": 1872,
        "None": 3500,
        "Incomplete: Limited to High": 46,
        "Incomplete: Limited to Medium": 55,
        "Incomplete: None to High": 162,
        "Incomplete: None to Medium": 222,
        "Incomplete: None to Limited": 2116,
    },
    "Medium": {
        "Medium": 27,
        "Limited": 1872,
        "None": 3500,
        "Incomplete: Limited to Medium": 101,
        "Incomplete: None to Medium": 384,
        "Incomplete: None to Limited": 2116,
    },
}
"""Where High may be reached, and where the evidence allows Medium at most."""


def test_integer_stand_ins_and_seeded_rows_stop_at_medium() -> None:
    assert rate(STRICT, Caps(weights="trained")).label == "High"
    assert rate(STRICT, Caps(weights="trained")).badges == ("stand-in",)
    for caps in (Caps(weights="trained", quantised=True), Caps(weights="seeded")):
        result = rate(STRICT, caps)
        assert (result.label, result.badges) == ("Medium", ("stand-in",))
        assert result.cap
    assert rate(STRICT, Caps(quantised=True)).label == "High"
    assert rate(replace(STRICT, robust="failed"), Caps(weights="seeded")).cap == ""


@pytest.mark.parametrize(
    ("evidence", "word"), [("emulator", "Emulated"), ("conversion", "Converted")]
)
def test_emulators_and_conversions_are_never_rated_for_speed(evidence: Evidence, word: str) -> None:
    for gates in EVERY_GATES:
        caps = Caps(evidence=evidence)
        result = rate(gates, caps)
        assert result.label.startswith(word)
        assert result.label not in GRADES
        assert not {"real time", "worthwhile"} & {*result.missing, *result.limited_by}
        no_speed = replace(gates, real_time="failed", worthwhile="failed")
        assert rate(no_speed, caps) == result
        if evidence == "conversion":
            assert rate(replace(gates, placed="failed"), caps) == result
        if "failed" in (gates.loads, gates.accurate):
            assert result.label == f"{word}: failed"
        elif "unknown" in (gates.loads, gates.accurate):
            assert result.label == f"{word}: incomplete"


@pytest.mark.parametrize("evidence", ["device", "emulator", "conversion"])
def test_unsupported_and_not_measured_and_stale_are_told_apart(evidence: Evidence) -> None:
    unsupported = rate(STRICT, Caps(evidence=evidence, unsupported="no such operator"))
    assert (unsupported.floor, unsupported.ceiling) == ("None", "None")
    assert "unsupported" in unsupported.label
    assert rate(STRICT, Caps(evidence=evidence, measured=False)).label == "Not measured"
    assert rate(STRICT, Caps(evidence=evidence, measured=False, stale=True)).label == "Stale"


def test_gates_that_always_apply_cannot_be_waived() -> None:
    with pytest.raises(ValueError, match="accurate"):
        replace(STRICT, accurate="not-applicable")


def test_preference_puts_what_works_first() -> None:
    def first(*ratings: Rating) -> str:
        return min(ratings, key=preference).label

    failing = rate(replace(STRICT, accurate="failed"))
    maybe = rate(replace(STRICT, accurate="unknown"))
    limited = rate(replace(STRICT, robust="failed"))
    emulated = rate(STRICT, Caps(evidence="emulator"))
    absent = rate(STRICT, Caps(measured=False))
    assert first(rate(STRICT), limited) == "High"
    assert first(limited, maybe) == "Limited"
    # What is decided before what may be better, and what is at least better before both.
    at_least_limited = rate(replace(STRICT, robust="unknown"))
    assert (at_least_limited.floor, at_least_limited.ceiling) == ("Limited", "High")
    assert first(at_least_limited, limited) == "Limited"
    assert first(rate(replace(STRICT, placed="relaxed")), at_least_limited) == "Medium"
    # An emulator's grade is never shown: what may be better there is.
    coarse = rate(replace(STRICT, accurate="relaxed"), Caps(evidence="emulator"))
    exact = rate(replace(STRICT, robust="unknown"), Caps(evidence="emulator"))
    assert min((coarse, exact), key=preference) is exact
    assert first(maybe, emulated) == maybe.label
    assert first(emulated, failing) == "Emulated"
    assert first(failing, absent) == "None"
