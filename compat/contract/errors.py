"""The error that a person can act on: a message and its remedy."""

from __future__ import annotations

from typing import ClassVar


class CompatError(Exception):
    """An input, a file or a part of this machine cannot be used.

    The command prints such an error without a traceback, as the message says what to correct. A
    subclass exists only where some caller handles it in its own way.

    Args:
        message: the problem and its place: the file, the line, the option. Either a sentence with
            its full stop, or a clause without one, after which a colon and the remedy follow.
        remedy: the way to solve the problem; empty if the message says it.
    """

    kind: ClassVar[str] = "input"
    """Kind of failure of a stage that raises the error, a key of :data:`compat.run.client.KINDS`.
    ``input`` means that nothing was learnt of the runtime."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        if not self.remedy:
            return self.message
        return f"{self.message}{'' if self.message.endswith('.') else ':'} {self.remedy}"
