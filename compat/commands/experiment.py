"""``compat experiment``: questions that no single case answers."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from compat.commands.command import Command
from compat.experiments import EXPERIMENTS
from compat.experiments.experiment import Experiment


def experiment(arguments: argparse.Namespace) -> int:
    """Run an experiment and print its answer."""
    chosen: Experiment = arguments.experiment
    answer = chosen.run(arguments, lambda text: print(text, file=sys.stderr))
    print(answer.json() if arguments.json else "\n".join(answer.lines))
    return 0


def _arguments(parser: argparse.ArgumentParser) -> None:
    parsers = parser.add_subparsers(required=True, metavar="NAME")
    for name in EXPERIMENTS:
        declared: Experiment = import_module(f"compat.experiments.{name}").EXPERIMENT
        own = parsers.add_parser(
            name,
            help=declared.question,
            description=declared.question[0].upper() + declared.question[1:],
            epilog=f"example:\n  {declared.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        own.set_defaults(experiment=declared)
        declared.add_arguments(own)
        own.add_argument("--json", action="store_true", help="print JSON")


COMMAND = Command(
    "answer a question that no single case answers",
    experiment,
    "example:\n  compat experiment browsers    is Firefox faster than Chrome on WebGPU?",
    _arguments,
)
