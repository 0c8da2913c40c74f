"""Tables of declarations in the code: options, commands, corpora, ratings, columns of queries."""

from __future__ import annotations

import argparse
import inspect
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import product
from typing import Any

from table_form import table

from compat.commands.main import command_parser
from compat.inputs import layouts
from compat.inputs import people as recorded
from compat.judge.rating import GATES, Caps, Gates, State, rate
from compat.measure import protocol
from compat.metrics.words import METRICS
from compat.report import text, words
from compat.report.gates import ASKED
from compat.report.relations import RELATIONS
from compat.run import plugin

_EVERYWHERE = ("-h", "--catalog")
"""Options that every command has."""


NUMBERS = {
    "compat.judge.rating.RULE_VERSION": "version of the rating rule",
    "compat.judge.results.SCHEMA_VERSION": "version of the results format",
    "compat.metrics.SCORER_VERSION": "version of the metrics' definitions",
    "compat.inputs.generator.GENERATOR_VERSION": "version of the generator of seeded weights",
    "compat.build.sources.OPSET": "ONNX operator set of the exports",
    "compat.measure.case_under_test.EPSILON": "ε of the error ratio",
    "compat.build.reference.BRIEF_NUMERICS": "inputs of numerics in a slow target's first look",
    "compat.build.reference.BRIEF_CONTRAST": "the same of generated weights, which have to differ",
    "compat.measure.case_under_test.LARGE": "millions of parameters with a reference in float32",
    "compat.metrics.bootstrap.RESAMPLES": "bootstrap resamples",
    "compat.metrics.timing.CACHED_SPEEDUP": "speed-up of repeats that is suspected",
    "compat.metrics.timing.UNSYNCHRONISED_SHARE": "share of the fetch that is suspected",
    "compat.metrics.timing.CROWDED": "processors that others may take from a case's threads",
    "compat.metrics.timing.LONG_ENOUGH": "seconds of rounds from which others are counted",
    "compat.contract.profile.QUICK.rounds": "timed rounds of a first look",
    "compat.contract.profile.CORE.rounds": "timed rounds of the core profile",
    "compat.contract.profile.FULL.rounds": "timed rounds of a whole run",
}
"""Numbers that the code fixes, by name, with their meaning."""


class _Group:
    """A stand-in for pytest's option group, which passes the plugin's options to argparse."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser

    def getgroup(self, *names: str) -> _Group:
        return self

    def addoption(self, *names: str, **facts: Any) -> None:
        self.parser.add_argument(*names, **facts)


def options() -> str:
    """Return the table of the suites' options. Defaults are shown if they are numbers."""
    parser = argparse.ArgumentParser(add_help=False)
    plugin.pytest_addoption(_Group(parser))  # type: ignore[arg-type]
    rows = []
    for action in parser._actions:
        name = f"{action.option_strings[0]} {action.metavar or ''}".strip()
        default = action.default
        number = f"{default:g}" if isinstance(default, (int, float)) and default else ""
        rows.append((f"`{name}`", number, _one_line(action.help)))
    return table(("option", "default", "what it does"), rows)


def commands() -> str:
    """Return the table of commands, each with the options that only it has."""
    parser = command_parser()
    (choices,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    rows = [
        (
            f"`compat {chosen.dest}`",
            _one_line(chosen.help),
            ", ".join(_own(choices.choices[chosen.dest])),
        )
        for chosen in choices._choices_actions
    ]
    return table(("command", "what it does", "its options"), rows)


def _own(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if action.option_strings and action.option_strings[0] not in _EVERYWHERE:
            yield f"`{action.option_strings[0]}`"


def _one_line(said: str | None) -> str:
    return " ".join((said or "").replace("%%", "%").split())


def query_tables() -> str:
    """Return the table of the relations of ``compat query``, with their columns."""
    rows = [
        (f"`{name}`", f"{one.about}: {', '.join(f'`{column}`' for column in one.columns)}")
        for name, one in RELATIONS.items()
    ]
    return table(("table", "rows and columns"), rows)


def numbers() -> str:
    """Return the table of the numbers that the code fixes."""
    rows = [(f"`{name}`", str(pkgutil.resolve_name(name)), NUMBERS[name]) for name in NUMBERS]
    return table(("name", "value", "meaning"), rows)


def stages() -> str:
    """Return the table of a worker's stages, described by the first lines of their docstrings."""
    found = {**protocol.STAGES, **protocol.REPEATABLE}
    rows = [(f"`{name}`", _first_sentence(stage)) for name, stage in found.items()]
    return table(("stage", "what it does"), rows)


def _first_sentence(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").splitlines()[0]


def marks() -> str:
    """Return the table of marks, grouped: every case has a mark of each group."""
    rows = [
        (group if mark == next(iter(meanings)) else "", f"`{mark}`", meaning)
        for group, meanings in words.MARKS.items()
        for mark, meaning in meanings.items()
    ]
    return table(("group", "mark", "meaning"), rows)


def metrics() -> str:
    """Return the table of metrics. A source that is a file of this project is in backquotes."""
    rows = [
        (name, meaning, f"`{source}`" if source.endswith(".py") else source)
        for name, meaning, source in METRICS
    ]
    return table(("metric", "formula", "source"), rows)


def gates() -> str:
    """Return the table of gates: what each demands, where it applies and what it rests on."""
    rows = [(GATES[name], *asked) for name, asked in ASKED.items()]
    return table(("gate", "strict", "relaxed", "applies", "rests on"), rows)


STATES: tuple[State, ...] = ("strict", "relaxed", "failed", "unknown")
"""States of the gates that always apply. The other gates may also be ``not-applicable``."""
RATED = ("High", "Medium", "Limited", "None", "Incomplete")
"""First words of the names of ratings, in the order of the table."""


def rating_counts() -> str:
    """Return the table of how many combinations of gate states lead to each rating."""
    columns = [_ratings(Caps()), _ratings(Caps(weights="seeded"))]
    names = sorted({name for column in columns for name in column}, key=_place)
    rows = [(name, *(f"{column[name]:,}" for column in columns)) for name in names]
    return table(("rating", "where High may be reached", "where Medium is the most"), rows)


def _ratings(caps: Caps) -> Counter[str]:
    """Return the number of combinations of gate states for each rating.

    The gates for loading, accuracy and robustness always apply.
    """
    sometimes: tuple[State, ...] = (*STATES, "not-applicable")
    combinations = product(STATES, sometimes, STATES, STATES, sometimes, sometimes)
    return Counter(rate(Gates(*states), caps).label for states in combinations)


def _place(name: str) -> tuple[int, str]:
    return RATED.index(name.split(":", maxsplit=1)[0]), name


def corpus_forms() -> str:
    """Return the table of recognised corpus layouts, from the docstrings of their modules."""
    docs = (_module_sentence(f"{layouts.__name__}.{name}") for name in layouts.NAMES)
    rows = [tuple(doc.replace("``", "`").split(": ", 1)) for doc in docs]
    return table(("form", "the folder has"), rows)


def _module_sentence(name: str) -> str:
    return (import_module(name).__doc__ or "").splitlines()[0].removesuffix(".")


def statuses() -> str:
    """Return the table of the statuses of observations, with the report's symbols."""
    rows = [(f"`{name}`", symbol, said) for name, (symbol, said) in text.STATUSES.items()]
    return table(("status", "shown", "meaning"), rows)


def ratings() -> str:
    """Return the table of ratings, and of the badges beside them."""
    rows = [(name, symbol, said) for symbol, name, said in text.RATINGS.values()]
    rows += [(f"*{name}*", "", said) for name, said in text.BADGES.items()]
    return table(("rating", "shown", "meaning"), rows)


def people() -> str:
    """Return the table of packages with recordings of people, and their licences."""
    rows = [
        (f"`{one.distribution}` {one.version}", one.gives, one.licence)
        for one in recorded.read_table().package
    ]
    return table(("package", "recordings", "licence"), rows)
