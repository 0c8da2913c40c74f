"""The error that a person can do something about: a message and its remedy."""

from __future__ import annotations

from typing import ClassVar


class CompatError(Exception):
    """What was given, or is here, cannot be used.

    The command prints such an error without a traceback, as the message says what to correct. A
    subclass exists only where somebody tells it from the others; everything else is raised as it
    is.

    Args:
        message: what is wrong, and where: the file, the line, the option. A sentence with its full
            stop, or a clause without one: a colon follows it then.
        remedy: what to do about it; empty where the message says it.
    """

    kind: ClassVar[str] = "input"
    """How a stage of a worker ends that raises it (a key of :data:`compat.run.client.KINDS`). For
    most, nothing was learnt of the runtime."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        if not self.remedy:
            return self.message
        return f"{self.message}{'' if self.message.endswith('.') else ':'} {self.remedy}"
