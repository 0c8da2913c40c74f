"""``compat experiment``: measurements that answer questions beyond any single case."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from compat.commands.command import Command
from compat.commands.printing import say
from compat.commands.sources import LOCAL
from compat.experiments import EXPERIMENTS
from compat.experiments.experiment import Experiment
from compat.experiments.saving import save, stored_answer, watched
from compat.judge import claims
from compat.judge.experiments import Stored
from compat.judge.repeats import repeated


def experiment(arguments: argparse.Namespace) -> int:
    """Run an experiment and print its answer; if it is repeated, print whether verdicts agree."""
    found = [_once(arguments) for _ in range(arguments.repeat)]
    return 0 if len(found) == 1 else _agreement(arguments.experiment_name, found)


def _once(arguments: argparse.Namespace) -> Stored:
    chosen: Experiment = arguments.experiment
    answer, seen = watched(lambda: chosen.run(arguments, lambda text: print(text, file=sys.stderr)))
    print(answer.json() if arguments.json else "\n".join(answer.lines))
    stored = stored_answer(arguments.experiment_name, answer, seen, sys.argv[1:])
    if arguments.save:
        say(f"saved: {os.path.relpath(save(stored, arguments.save))}")
    return stored


def _agreement(name: str, found: Sequence[Stored]) -> int:
    """Print, for each claim that the experiment decides, whether all repetitions agree.

    Returns the exit status: 1 if they disagree on a claim, else 0.
    """
    checks = repeated(name, found, claims.load(claims.default_folder()))
    for one in checks:
        word = "the same" if one.agrees else "DIFFERENT"
        print(f"{one.claim} {one.measure}: {word} ({', '.join(one.verdicts)})")
    for number, stored in enumerate(found):
        if stored.busy:
            print(f"run {number + 1} decides nothing that is timed: {stored.busy}")
    if not checks:
        print(f"no claim rests on {name}: there is no verdict to agree on")
    return int(not all(one.agrees for one in checks))


def _repetitions(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least once")
    return number


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
            "--repeat",
            type=_repetitions,
            default=1,
            metavar="N",
            help="run it so often, and say whether the verdicts of claims agree; exit status 1 if "
            "they do not (with --save every answer is kept)",
        )
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
    "  compat experiment pruning --save   what do zeros in place of weights gain?\n"
    "  compat experiment pruning --repeat 3   does it give the same verdicts three times?",
    _arguments,
)
