"""A tally of problems in reading: counted by kind, with a few examples of each in full.

One broken file is named. Ten thousand of one kind take four lines: three examples and a count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from compat.contract.errors import CompatError
from compat.contract.untrusted import clean, one_line

EXAMPLES = 3
"""Number of problems of one kind that are kept in full; the others are only counted."""

_LONGEST = 400
"""Most characters of one problem. Without a limit, a message could quote a whole file."""


class ResultsError(CompatError):
    """A results file or folder cannot be used; the message names it and the remedy."""

    def __init__(
        self, message: str, remedy: str = "", *, tally: str = "files that cannot be used"
    ) -> None:
        super().__init__(clean(message), clean(remedy))
        self.tally = tally
        """The kind under which the error is counted, a plural."""


@dataclass
class _Kind:
    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Problems:
    """A tally of problems, which never grows beyond a few lines for each kind."""

    _kinds: dict[str, _Kind] = field(default_factory=dict)

    def add(self, kind: str, sentence: str) -> None:
        """Count one problem; ``kind`` is a plural: *lines that are no sound JSON*."""
        found = self._kinds.setdefault(kind, _Kind())
        found.count += 1
        if len(found.examples) < EXAMPLES:
            found.examples.append(one_line(sentence, _LONGEST))

    def extend(self, other: Problems) -> None:
        """Add the problems of another tally."""
        for kind, more in other._kinds.items():
            found = self._kinds.setdefault(kind, _Kind())
            found.count += more.count
            found.examples = [*found.examples, *more.examples][:EXAMPLES]

    def lines(self, where: str = "") -> tuple[str, ...]:
        """Return every kind's examples, and how many more there are; ``where`` names the file."""
        shown: list[str] = []
        for kind, found in self._kinds.items():
            shown += found.examples
            rest = found.count - len(found.examples)
            if rest:
                shown.append(f"{f'{where}: ' if where else ''}and {rest:,} more {kind}")
        return tuple(one_line(line) for line in shown)

    def __bool__(self) -> bool:
        return bool(self._kinds)
