"""The declaration of a command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


def _none(parser: argparse.ArgumentParser) -> None:
    """Declare no arguments."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of ``compat``; the module that declares it gives its name."""

    help: str
    """One clause, for example ``list the cases of the catalog``."""
    run: Callable[[argparse.Namespace], int]
    """Performs the command with its parsed arguments; returns the exit status."""
    epilog: str
    """Examples, at the end of the command's help."""
    add_arguments: Callable[[argparse.ArgumentParser], None] = _none
    takes_rest: bool = False
    """Whether words that its parser does not know are its own too, as ``arguments.rest``."""
