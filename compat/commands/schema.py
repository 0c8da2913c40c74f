"""``compat schema``: the JSON Schema of a line of a results file."""

from __future__ import annotations

import argparse

from compat.commands.command import Command
from compat.judge import results


def schema(arguments: argparse.Namespace) -> int:  # noqa: ARG001 (as every command)
    """Print the schema of the results file."""
    print(results.schema())
    return 0


COMMAND = Command(
    "print the JSON Schema of a line of a results file",
    schema,
    "example:\n  compat schema > results.schema.json",
)
