"""Tables of what the code declares: options, commands, columns of queries, recordings."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from table_form import table

from compat.commands.main import command_parser
from compat.inputs import people as recorded
from compat.report.relations import RELATIONS
from compat.run import plugin

_EVERYWHERE = ("-h", "--catalog")
"""Options that every command has."""


class _Group:
    """Takes what the plugin tells pytest, as argparse takes it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser

    def getgroup(self, *names: str) -> _Group:
        return self

    def addoption(self, *names: str, **facts: Any) -> None:
        self.parser.add_argument(*names, **facts)


def options() -> str:
    """Return the options of the suites, with defaults that are numbers."""
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
    """Return the commands with the options that are their own."""
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


def _one_line(text: str | None) -> str:
    return " ".join((text or "").replace("%%", "%").split())


def query_tables() -> str:
    """Return the tables of ``compat query`` with their columns."""
    rows = [
        (f"`{name}`", f"{one.about}: {', '.join(f'`{column}`' for column in one.columns)}")
        for name, one in RELATIONS.items()
    ]
    return table(("table", "rows and columns"), rows)


def people() -> str:
    """Return the packages with recordings of people, and their licences."""
    rows = [
        (f"`{one.distribution}` {one.version}", one.gives, one.licence)
        for one in recorded.read_table().package
    ]
    return table(("package", "recordings", "licence"), rows)
