"""``compat cache``: the cache of exports and references."""

from __future__ import annotations

import argparse
import json

from compat.build import artifacts
from compat.commands.command import Command
from compat.commands.printing import say
from compat.contract.cache import cache_folder


def cache(arguments: argparse.Namespace) -> int:
    """Show or clear the cache."""
    if arguments.action == "clear":
        freed = artifacts.clear(arguments.match)
        say(f"freed {freed / 1e6:.0f} MB in {cache_folder()}")
        return 0
    total = 0
    for entry in artifacts.entries():
        if arguments.match and arguments.match not in json.dumps([entry.job, entry.arguments]):
            continue
        total += entry.bytes
        job, _, words = artifacts.described(entry.job, entry.arguments).partition(" ")
        say(f"{entry.bytes / 1e6:9.1f} MB  {job:24} {words}")
    say(f"{total / 1e6:9.1f} MB in {cache_folder()}")
    return 0


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("show", "clear"), nargs="?", default="show")
    parser.add_argument("match", nargs="?", default="", help="only artifacts that mention this")


COMMAND = Command(
    "show or clear the cache of exports and references",
    cache,
    "example:\n  compat cache clear whisper-tiny",
    _arguments,
)
