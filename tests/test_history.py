"""Histories, the steps in them, and the feed: noise is no regression."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from measured import case, run, whole

from compat.judge.results import Run
from compat.report.feed import MOST, atom, events
from compat.report.history import History, histories, turns
from compat.report.steps import SHORTEST, places, steps

FP32 = case("cpu-torch", "fp32")
RNG = np.random.default_rng(20_261_129)


def at(day: int, name: str = "", versions=None, about=FP32, head=None, **numbers) -> Run:
    date = f"2026-{9 + day // 28:02}-{1 + day % 28:02}T"
    more = {"versions": {"torch": "2.13", "scorer": "2", **(versions or {})}, **(head or {})}
    more.setdefault("commit", f"{day:06x}")
    return run(
        {about: whole(about, time=f"{date}10:00:00Z", **numbers)},
        name=name or f"{day:03}-aaaaaa",
        started=f"{date}09:00:00Z",
        **more,
    )


def of(runs: list[Run], name: str = "rtf") -> History:
    (found,) = [h for h in histories(runs) if h.name == name]
    return found


def test_a_history_is_in_order_and_says_what_counts() -> None:
    runs = [at(day, rtf=0.1 + day / 100) for day in (3, 1, 2)]
    history = of(runs)
    assert [point.measure.value for point in history.points] == pytest.approx([0.11, 0.12, 0.13])
    assert [point.counts for point in history.points] == [False, False, True]


@pytest.mark.parametrize(
    "other",
    [
        {"head": {"profile": "quick"}},
        {"head": {"own": ("corpus",)}},
        {"about": case("cpu-torch", "int8-dynamic")},
    ],
)
def test_what_was_measured_otherwise_is_a_history_of_its_own(other: dict) -> None:
    found = [h for h in histories([at(1), at(2), at(3, **other)]) if h.name == "rtf"]
    assert sorted(len(history.points) for history in found) == [1, 2]


def test_a_time_that_was_too_noisy_stands_in_the_history_without_a_number() -> None:
    history = of([at(1), at(2, timing="inconclusive"), at(3)])
    assert [bool(point.measure) for point in history.points] == [True, False, True]
    assert not turns(history)


def parsed(feed: str) -> ElementTree.Element:
    return ElementTree.fromstring(feed.encode())  # noqa: S314 (this project wrote it)


def levels(*parts: tuple[int, float], noise: float = 0.05) -> list[Run]:
    """Runs at several levels, each with as much noise as shared machines have."""
    values = [
        level * float(np.exp(RNG.normal(0, noise))) for runs, level in parts for _ in range(runs)
    ]
    return [at(day, rtf=value) for day, value in enumerate(values)]


def test_a_step_names_its_first_run_and_what_changed_there() -> None:
    runs = levels((6, 0.1), (5, 0.2))
    runs[6:] = [
        at(6 + i, rtf=r.observations[-1].values["rtf"], versions={"torch": "2.14"})
        for i, r in enumerate(runs[6:])
    ]
    (step,) = steps(of(runs))
    assert (step.kind, step.runs, step.after.run) == ("worse", (6, 5), "006-aaaaaa.main")
    assert step.new.value / step.old.value == pytest.approx(2, rel=0.15)
    assert "as long, mean of 6 and of 5 runs" in step.sentence
    (event,) = [e for e in events(histories(runs)) if e.kind == "worse"]
    assert event.versions == ("torch 2.13 → 2.14", "commit 000005 → 000006")


def test_a_gain_and_a_bump_are_found() -> None:
    assert [step.kind for step in steps(of(levels((8, 0.2), (8, 0.1))))] == ["better"]
    found = steps(of(levels((10, 0.1), (6, 0.2), (10, 0.1))))
    assert [(step.kind, step.runs) for step in found] == [("worse", (10, 6)), ("better", (6, 10))]


@pytest.mark.parametrize(
    "parts",
    [
        ((12, 0.1),),
        # One run alone is an outlier.
        ((11, 0.1), (1, 0.4)),
        ((6, 0.1), (1, 0.4), (6, 0.1)),
        # Too short to tell.
        ((2, 0.1), (SHORTEST - 3, 0.2)),
        # A step that matters to nobody.
        ((10, 0.1), (10, 0.103)),
    ],
)
def test_what_is_no_step(parts: tuple) -> None:
    assert steps(of(levels(*parts, noise=0.004))) == ()


def test_numbers_that_repeat_exactly_step_where_they_move() -> None:
    runs = [at(day, loss=0.0 if day < 3 else 0.02) for day in range(6)]
    (step,) = steps(of(runs, "hard.degradation"))
    assert step.kind == "worse" and "+2.00 pp" in step.sentence
    still = [at(day, loss=0.0 if day < 3 else 0.0005) for day in range(6)]
    assert steps(of(still, "hard.degradation")) == ()


@pytest.mark.parametrize(("runs", "most"), [(8, 0.02), (16, 0.02)])
@pytest.mark.parametrize("kind", ["normal", "heavy"])
def test_steady_histories_raise_few_alarms(runs: int, most: float, kind: str) -> None:
    """The stated rate is 0.5 %: of 300 histories more than 2 % would be chance once in 10,000."""
    shape = (300, runs)
    drawn = RNG.standard_normal(shape) if kind == "normal" else RNG.standard_t(3, shape)
    alarms = sum(bool(places(list(row), 0.0)) for row in drawn)
    assert alarms <= most * 300
    # And the same noise hides no step of ten deviations.
    moved = drawn[:60].copy()
    moved[:, runs // 2 :] += 10 * np.sqrt(1 if kind == "normal" else 3)
    assert sum(bool(places(list(row), 0.0)) for row in moved) >= 54


def test_a_check_that_begins_to_fail_is_an_event() -> None:
    from test_compare import failing

    runs = [at(1), failing(at(2), "accuracy.numerics", "failed", "NaN in logits"), at(3)]
    found = [
        event for event in events(histories(runs)) if event.history.check == "accuracy.numerics"
    ]
    assert [event.kind for event in found] == ["newly passing", "newly failing"]
    assert found[1].regression and "NaN in logits" in found[1].sentence


def test_the_feed_is_sound_atom_whatever_results_say() -> None:
    evil = case("cpu-torch", "fp32-\x00\x1b]<&'\ufffe")
    runs = [
        at(
            day,
            about=evil,
            rtf=0.1 if day < 5 else 0.3,
            versions={"torch<": "]]>" if day > 4 else ""},
        )
        for day in range(10)
    ]
    found = events(histories(runs))
    text = atom(found, "https://example.org/matrix/")
    feed = parsed(text)
    names = {"a": "http://www.w3.org/2005/Atom"}
    (entry,) = feed.findall("a:entry", names)
    for element in (feed, entry):
        for part in ("id", "title", "updated"):
            assert element.find(f"a:{part}", names).text
    assert entry.find("a:title", names).text.startswith("worse: whisper-tiny@pretrained/cpu-torch")
    assert "as long" in entry.find("a:summary", names).text
    # Making it again gives the same ids, so that no reader shows an entry twice.
    assert atom(events(histories(runs)), "https://example.org/matrix/") == text
    assert len(parsed(atom(found * 300, "x")).findall("a:entry", names)) == MOST
    assert "<entry>" not in atom((), "x")
