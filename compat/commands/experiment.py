"""``compat experiment``: questions that no single case answers."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

from compat.commands.command import Command
from compat.commands.printing import say
from compat.commands.sources import LOCAL
from compat.experiments import EXPERIMENTS
from compat.experiments.experiment import Experiment
from compat.experiments.saving import save, watched


def experiment(arguments: argparse.Namespace) -> int:
    """Run an experiment and print its answer."""
    chosen: Experiment = arguments.experiment
    answer, seen = watched(lambda: chosen.run(arguments, lambda text: print(text, file=sys.stderr)))
    print(answer.json() if arguments.json else "\n".join(answer.lines))
    if arguments.save:
        name = arguments.experiment_name
        say(f"saved: {os.path.relpath(save(name, answer, seen, arguments.save, sys.argv[1:]))}")
    return 0


def _arguments(parser: argparse.ArgumentParser) -> None:
    parsers = parser.add_subparsers(required=True, metavar="NAME")
    for name in EXPERIMENTS:
        declared: Experiment = import_module(f"compat.experiments.{name}").EXPERIMENT
        own = parsers.add_parser(
            name,
            help=declared.question.replace("%", "%%"),
            description=declared.question[0].upper() + declared.question[1:],
            epilog=f"example:\n  {declared.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        own.set_defaults(experiment=declared, experiment_name=name)
        declared.add_arguments(own)
        own.add_argument("--json", action="store_true", help="print JSON")
        own.add_argument(
            "--save",
            type=Path,
            nargs="?",
            const=LOCAL / "results",
            metavar="DIR",
            help="keep the answer beside results, where claims find it (default: "
            f"{LOCAL / 'results'})",
        )


COMMAND = Command(
    "answer a question that no single case answers",
    experiment,
    "examples:\n  compat experiment browsers         is Firefox faster than Chrome on WebGPU?\n"
    "  compat experiment pruning --save   what do zeros in place of weights gain?",
    _arguments,
)
