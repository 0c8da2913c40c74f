"""What an experiment declares."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Answer(Protocol):
    """What an experiment found."""

    @property
    def lines(self) -> Sequence[str]:
        """The answer for a terminal."""

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
