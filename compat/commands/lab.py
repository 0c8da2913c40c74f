"""``compat lab``: the suites on several machines at once, over ssh."""

from __future__ import annotations

import argparse
import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from compat import __version__
from compat.commands.command import Command
from compat.commands.printing import say, tell, told, warn
from compat.commands.sources import LOCAL
from compat.contract.errors import CompatError
from compat.judge.results import Collection, read_all
from compat.report import build, print_matrix
from compat.run.lab import Host, Outcome, read_hosts, run


def lab(arguments: argparse.Namespace) -> int:
    """Run the suites on every host, bring the results home, and show one matrix of them all."""
    from rich.console import Console

    hosts = _asked(read_hosts(arguments.hosts), arguments)
    started = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder: Path = arguments.results or LOCAL / "lab" / started
    wide = max(len(host.name) for host in hosts)

    def line(host: str, text: str) -> None:
        if not arguments.quiet and text:
            say(f"{host:<{wide}} │ {text}")

    stop = threading.Event()
    outcomes = run(hosts, folder, line, stop)
    collection = read_all([folder], predictions=False) if folder.is_dir() else Collection()
    report = build(collection)
    if report.rows:
        print_matrix(report, Console())
    tell(report.problems)
    say("")
    for outcome in outcomes:
        _told(outcome, collection)
    if collection.runs:
        say(f"results: {folder}")
        told(
            f"`compat report {folder}` makes the site, `compat publish {folder}` evidence of them."
        )
    if stop.is_set():
        warn("Interrupted: what was measured is kept.")
        return 130
    return 0 if all(outcome.ran for outcome in outcomes) else 3


def _asked(hosts: tuple[Host, ...], arguments: argparse.Namespace) -> list[Host]:
    """Return the hosts of ``--only``, or all; options of the command line follow their own."""
    names = [word for word in arguments.only.split(",") if word]
    known = {host.name: host for host in hosts}
    for name in names:
        if name not in known:
            raise CompatError(f"there is no host {name}.", f"There are {', '.join(known)}.")
    chosen = [known[name] for name in names] or list(hosts)
    rest = tuple(arguments.rest)
    return [replace(host, arguments=(*host.arguments, *rest)) for host in chosen]


def _told(outcome: Outcome, collection: Collection) -> None:
    """Print the outcome of a host, and the number of its observations that came home."""
    name = outcome.host.name
    statuses = Counter(
        str(one.status)
        for run in collection.runs
        if run.path.parent.name == name
        for one in run.observations
    )
    counts = ", ".join(f"{count} {status}" for status, count in statuses.most_common()) or "nothing"
    if outcome.problem:
        told(f"! {name}: {outcome.problem}. {counts} came home before.")
    elif not outcome.ran:
        told(f"! {name}: pytest ended with status {outcome.status}. {counts} came home.")
    else:
        told(f"✓ {name}: {counts}.")
    if outcome.version not in ("", __version__):
        told(f"its compat is {outcome.version}, this one {__version__}", "    ")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("hosts", type=Path, metavar="HOSTS.toml", help="the machines, see below")
    parser.add_argument("--only", default="", metavar="LIST", help="hosts of the file, by name")
    parser.add_argument("--results", type=Path, metavar="DIR", help="a folder for each host below")
    parser.add_argument("--quiet", action="store_true", help="not every line that hosts say")


COMMAND = Command(
    "measure on several machines at once, over ssh",
    lab,
    """\
HOSTS.toml has a table for each machine:

  arguments = "--quick"                 # options of pytest and the suites, for every host

  [hosts.workstation]
  ssh = "me@workstation -p 2222"        # what follows `ssh`; without it: this machine
  python = "audio-compat/.venv/bin/python"   # for which compat is installed there
  folder = "audio-compat"               # where pytest starts; without it: the home folder
  arguments = ["-m", "cuda", "--require", "cuda"]
  environment = {CUDA_VISIBLE_DEVICES = "0"}

examples:
  compat lab hosts.toml
  compat lab hosts.toml --only workstation --models whisper-tiny

Each host runs an ordinary pytest, and selects and times for itself. Results come home as they are
written, to DIR/HOST/: a host that dies costs what it had not measured, and no other host. Ctrl-C
ends them all and keeps what was measured. ssh asks no questions: use keys or an agent. The status
is 3 where a host could not be reached, died, or lacks hardware that `--require` names.""",
    _arguments,
    takes_rest=True,
)
