"""Words that the suite's executions and libraries hear: how they are counted and shown."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compat import catalog
from compat.contract.item import Item

SCRIPT = Path(__file__).parents[1] / "fixtures/build/libraries.py"
SAID = ("The red door, and one door.", "Go North!")


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def counted(script: dict[str, Any], name: str, *texts: str) -> Any:
    items = [
        Item.from_audio(text, np.zeros(16_000, np.float32), facts={"text": text}) for text in SAID
    ]
    answers = dict(zip(SAID, texts, strict=True))
    return script["heard"](name, items, lambda item: answers[item.id])


def test_words_are_counted_as_the_suite_counts_them(script: dict[str, Any]) -> None:
    sound = counted(script, "sound", "the red door and 1 door", "go north")
    assert (sound.errors, sound.words) == (0, 8)
    other = counted(script, "other", "the bread door and one door", "go")
    assert (other.errors, other.rate) == (2, 2 / 8)
    assert other.differences(sound) == 2 == sound.differences(other)
    # Another error is no smaller distance, though the rate is the same.
    third = counted(script, "third", "the red door and one floor", "no north")
    assert third.errors == 2 and third.differences(other) == 4


def test_an_execution_is_held_against_the_library_that_answers_for_it(
    script: dict[str, Any],
) -> None:
    floats = counted(script, script["FLOATS"], "the red door and one door", "north")
    ours = counted(script, "cpu-torch/fp32", "the bread door and one door", "go")
    alone = counted(script, "cpu-torch/int8-dynamic", *SAID)
    made = script["table"]("two", {floats.name: floats}, [ours, alone], 2.0).splitlines()
    assert made[2:] == [
        "| faster-whisper float32 | 1 of 8 | 12.5 % | – | – | – |",
        "| cpu-torch/fp32 | 2 of 8 | 25.0 % | faster-whisper float32 | +1 | 2 |",
        "| cpu-torch/int8-dynamic | 0 of 8 | 0.0 % | – | – | – |",
    ]


def test_every_execution_is_a_case(script: dict[str, Any]) -> None:
    known = catalog.load()
    for name in script["EXECUTIONS"]:
        assert known.case(f"{script['VARIANT']}@pretrained/{name}").recipe.name in name


def test_noise_that_nobody_hears_moves_words_that_lie_on_an_edge(script: dict[str, Any]) -> None:
    silent = Item.from_audio("silent", np.zeros(16_000, np.float32), facts={"text": "no"})
    draws = [[script["with_noise"](silent, draw)] for draw in range(2)]
    (low, high) = sorted(float(one.audio[0]) for (one,) in draws)
    assert low < high
    assert all(np.abs(one.audio).max() < 2**-16 for (one,) in draws)

    def on_an_edge(item: Item) -> str:
        return "no" if item.audio[0] < high else "yes"

    found = {
        "edge": script["every"]("edge", draws, on_an_edge),
        "firm": script["every"]("firm", draws, lambda item: "no"),
    }
    assert script["noise_table"]("one", found).splitlines()[2:] == [
        "| edge | 0.5 | 0 | 1 |",
        "| firm | 0.0 | 0 | 0 |",
    ]
