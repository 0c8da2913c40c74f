"""``compat recommend``: the configuration to use, from evidence, and why not the others."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from compat.commands.command import Command
from compat.commands.printing import say, tell, told, width
from compat.commands.sources import add_sources, collect_known
from compat.contract.untrusted import one_line
from compat.hardware import facts
from compat.report import build, text
from compat.report import machines as naming
from compat.report.advice import Advice, advise
from compat.report.candidates import Candidate, Limits

SHOWN = 12
"""Number of losing candidates that are named one by one, unless ``--all`` is given."""

_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def recommend(arguments: argparse.Namespace) -> int:
    """Print which configuration to use; the exit status is 1 if the evidence has no answer."""
    collection = collect_known(arguments.sources)
    report = build(collection)
    tell(report.problems)
    limits = Limits(
        tuple(word.strip() for word in arguments.hardware.split(",") if word.strip()),
        arguments.max_memory,
        arguments.max_loss,
        arguments.realtime,
        arguments.machine,
    )
    here = facts.machine_id(facts.machine_facts())
    advice = advise(report, arguments.model, limits, here)
    if arguments.json:
        print(json.dumps(_plain(advice), indent=2))
    else:
        _print(advice, arguments.all, {m.id: m.facts for m in report.machines}, here)
    return 0 if advice.best else 1


def _print(advice: Advice, everything: bool, machines: dict[str, Any], here: str) -> None:
    best = advice.best
    if advice.machine:
        where = naming.name(machines.get(advice.machine, {}), advice.machine)
        where = f"this machine, {where}" if advice.machine == here else where
        if best is not None:
            told(f"{best.name}: {best.numbers}")
            where += f"; rated {best.configuration.rating.label}"
        told(f"for {advice.subject} on {where}", "  " if best else "", "")
    for note in advice.notes:
        told(note, "  ", "")
    if len(advice.usable) > 1:
        _table(advice, everything)
    if advice.lost:
        say("\nWhy not" if best else "\nWhat there is")
        shown = advice.lost if everything else advice.lost[:SHOWN]
        for one, reason in shown:
            told(f"{one.name}: {one_line(reason)}.", "  ")
        if len(advice.lost) > len(shown):
            say(f"  and {len(advice.lost) - len(shown)} more (--all tells them)")
    if advice.elsewhere:
        say("\nElsewhere, with times that cannot be compared with these")
    for machine, subject, count in advice.elsewhere[:SHOWN]:
        told(f"{subject} on {machine}: {count} (--machine {machine}, or name it)", "  ")


def _table(advice: Advice, everything: bool) -> None:
    """Print the candidates of the Pareto front, and the fastest of the others."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    fastest = advice.usable if everything else advice.usable[:SHOWN]
    shown = [one for one in advice.usable if one in fastest or one in advice.front]
    say("\nThe choice (◆: nothing else beats it in time, loss and memory at once)")
    table = Table(box=None, pad_edge=False)
    loss = next((one.loss for one in advice.usable if one.loss), None)
    lost = f"{text.metric_name(loss.metric)} lost" if loss and loss.metric else "lost"
    factor = any(one.time and one.time.key == "rtf" for one in advice.usable)
    for title in ("", "configuration", "RTF" if factor else "time", lost, "memory", "rating"):
        table.add_column(Text(title), overflow="fold")
    for one in shown:
        cells = (
            "◆" if one in advice.front else " ",
            one.name,
            one.time.shown() if one.time else text.DASH,
            one.loss.shown() if one.loss else text.DASH,
            text.data_size(one.memory) if one.memory is not None else text.DASH,
            one.configuration.rating.label,
        )
        table.add_row(*map(Text, cells))
    Console(highlight=False, width=width()).print(table)
    if len(advice.usable) > len(shown):
        say(f"and {len(advice.usable) - len(shown)} slower ones (--all)")


def _plain(advice: Advice) -> dict[str, Any]:
    def entry(one: Candidate) -> dict[str, Any]:
        return {
            "configuration": one.configuration.id,
            "target": one.configuration.target,
            "recipe": one.configuration.recipe,
            "rating": one.configuration.rating.label,
            "time": one.time and {"name": one.time.key, "value": one.time.value},
            "loss": one.loss
            and {"metric": one.loss.metric, "value": one.loss.value, "of": one.loss_of},
            "memory_bytes": one.memory,
            "on_front": one in advice.front,
        }

    return {
        "machine": advice.machine,
        "subject": advice.subject,
        "best": advice.best and entry(advice.best),
        "usable": [entry(one) for one in advice.usable],
        "lost": [{**entry(one), "why": reason} for one, reason in advice.lost],
        "notes": list(advice.notes),
    }


def _size(words: str) -> float:
    """Return bytes of ``500M``, ``1.5GB`` or ``2GiB``."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmg]?i?)b?", words.strip().lower())
    if not found or found[2] not in _UNITS:
        raise argparse.ArgumentTypeError(f"{words} is no size: write 500M, 1.5GB or 2GiB")
    return float(found[1]) * _UNITS[found[2]]


def _positive(words: str) -> float:
    try:
        value = float(words)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{words} is no number from 0 on")
    return value


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a row, a family or a variant: whisper")
    add_sources(parser)
    parser.add_argument(
        "--hardware",
        default="",
        metavar="LIST",
        help="columns or targets; cpu is all that runs on the host's processor",
    )
    parser.add_argument("--max-memory", type=_size, metavar="SIZE", help="at the peak: 500M, 2GiB")
    parser.add_argument(
        "--max-loss",
        "--max-wer-loss",
        type=_positive,
        metavar="POINTS",
        help="what the task metric may lose against the reference: percentage points of a rate "
        "(1 is 1 %%), else the metric's own unit",
    )
    parser.add_argument("--realtime", action="store_true", help="only what keeps up with audio")
    parser.add_argument("--machine", default="", metavar="ID", help="the beginning of its id")
    parser.add_argument("--all", action="store_true", help="tell of everything that lost")
    parser.add_argument("--json", action="store_true", help="print JSON")


COMMAND = Command(
    "say which configuration to use, from evidence, and why not the others",
    recommend,
    "examples:\n"
    "  compat recommend whisper --hardware cpu reports/results\n"
    "  compat recommend whisper --hardware cpu --max-memory 500M --max-wer-loss 1 --realtime\n"
    "  compat recommend 'Voice activity' --hardware openvino --json\n\n"
    "The answer is the fastest that keeps what is asked; of those as fast, the one that loses\n"
    "least. Without --max-loss what meets the strict limits of accuracy comes first. Times are\n"
    "compared on one machine and with one set of weights. The status is 1 where nothing fits.",
    _arguments,
)
