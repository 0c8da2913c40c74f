"""The types of an experiment and of its answer."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from compat.judge.experiments import Finding


class Answer(Protocol):
    """The answer of an experiment."""

    @property
    def lines(self) -> Sequence[str]:
        """The answer for a terminal."""

    @property
    def findings(self) -> Sequence[Finding]:
        """Every measure, in the form in which it is stored and compared with claims."""

    def json(self) -> str:
        """Return everything as JSON."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """A question and the function that answers it; its name is that of its module."""

    question: str
    """The question, for example ``is Firefox faster than Chrome on WebGPU?``"""
    run: Callable[[Any, Callable[[str], None]], Answer]
    """Function that answers it, called with the parsed arguments and a callback that shows a line
    of progress."""
    add_arguments: Callable[[argparse.ArgumentParser], None]
    example: str
    """A command line, for example ``compat experiment browsers --rounds 20``."""


def no_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no arguments."""


def rounds_argument(default: int) -> Callable[[argparse.ArgumentParser], None]:
    """Return a function that declares ``--rounds``, at least two, as an interval needs."""

    def declare(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=_rounds, default=default, help="interleaved rounds")

    return declare


def _rounds(text: str) -> int:
    rounds = int(text)
    if rounds < 2:
        raise argparse.ArgumentTypeError("an interval needs at least two")
    return rounds
