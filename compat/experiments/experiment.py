"""What an experiment declares, and what one finds."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from compat.judge.experiments import Finding


class Answer(Protocol):
    """What an experiment found."""

    @property
    def lines(self) -> Sequence[str]:
        """The answer for a terminal."""

    @property
    def findings(self) -> Sequence[Finding]:
        """Every measure, as it is stored and held against claims."""

    def json(self) -> str:
        """Return everything as JSON."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """A question; the module that declares it gives its name."""

    question: str
    """For example ``is Firefox faster than Chrome on WebGPU?``"""
    run: Callable[[Any, Callable[[str], None]], Answer]
    """Answers it. Given the parsed arguments, and a callback that shows a line of progress."""
    add_arguments: Callable[[argparse.ArgumentParser], None]
    example: str
    """A command line, for example ``compat experiment browsers --rounds 20``."""


def no_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no arguments."""


def rounds_argument(default: int) -> Callable[[argparse.ArgumentParser], None]:
    """Return what declares ``--rounds``, of which an interval needs two."""

    def declare(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=_rounds, default=default, help="interleaved rounds")

    return declare


def _rounds(text: str) -> int:
    rounds = int(text)
    if rounds < 2:
        raise argparse.ArgumentTypeError("an interval needs at least two")
    return rounds
