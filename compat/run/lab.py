"""A lab runs the suites on several hosts at once, one ordinary pytest each, and collects results.

Hosts are reached by ssh through execnet, the engine under pytest-xdist. Each host selects, times
and writes for itself; nothing is scheduled from here, so that a host which dies costs its own cases
only. Messages of a host are held to limits: its files get names of results files and no others.
"""

from __future__ import annotations

import re
import shlex
import threading
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from compat.contract.errors import CompatError
from compat.contract.untrusted import one_line
from compat.judge.result_files import MAX_FILE, MIB
from compat.run import lab_host

KEYS = ("ssh", "python", "folder", "arguments", "environment")
SSH = "-o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=4"
"""Options of ssh: no questions, and a host that falls silent is given up after a minute."""
MOST_FILES = 100
"""Results files of one host; each parallel process of pytest writes one."""
RAN = (0, 1, 5)
"""Exit statuses of a pytest that ran to its end: a failed check is a finding, not a fault."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.jsonl")


@dataclass(frozen=True)
class Host:
    """A machine of a lab."""

    name: str
    ssh: str = ""
    """Words after ``ssh`` on a command line; empty for this machine."""
    python: str = ""
    """The interpreter that has compat installed; empty for ``python3``, or on this machine for the
    running one."""
    folder: str = ""
    """Where pytest starts; empty: the home folder."""
    arguments: tuple[str, ...] = ()
    """Options of pytest and of the suites."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    """The outcome of the run on one host."""

    host: Host
    version: str = ""
    """Version of compat on the host; empty if the host was never reached."""
    status: int | None = None
    """Exit status of pytest; None if it never ended."""
    problem: str = ""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of each results file that came home."""

    @property
    def ran(self) -> bool:
        """Whether pytest ran to its end."""
        return not self.problem and self.status in RAN


Tell = Callable[[str, str], None]
"""Callback that gets the name of a host and a line of its output."""


def read_hosts(path: Path) -> tuple[Host, ...]:
    """Read the hosts of a lab, see ``compat lab --help``.

    Raises:
        CompatError: the file cannot be read, or an entry is not valid.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CompatError(
            f"cannot read {path}: {error}.", "`compat lab --help` shows one."
        ) from error
    shared = _words(path, "the file", tree.pop("arguments", []))
    hosts = tree.pop("hosts", {})
    for name in tree:
        raise CompatError(f"{path} has {name!r}.", "It may have arguments and [hosts.NAME].")
    if not isinstance(hosts, dict) or not hosts:
        raise CompatError(f"{path} names no host.", 'Add a table [hosts.NAME] with ssh = "…".')
    return tuple(_host(path, name, facts, shared) for name, facts in hosts.items())


def _host(path: Path, name: str, facts: Any, shared: tuple[str, ...]) -> Host:
    where = f"host {one_line(name, 60)}"
    if not _NAME.fullmatch(name):
        raise CompatError(f"{path}: {where} has a name that no folder can have.", "Use letters.")
    if not isinstance(facts, dict):
        raise CompatError(f"{path}: {where} is no table.", f"Write [hosts.{name}].")
    for key in facts:
        if key not in KEYS:
            near = get_close_matches(key, KEYS, 1)
            hint = f"Did you mean {near[0]}?" if near else f"A host has {', '.join(KEYS)}."
            raise CompatError(f"{path}: {where} has {key!r}.", hint)
    words = {key: facts.get(key, "") for key in ("ssh", "python", "folder")}
    environment = facts.get("environment", {})
    texts = [*words.values(), *(environment.values() if isinstance(environment, dict) else [None])]
    if not all(isinstance(text, str) for text in texts):
        raise CompatError(f"{path}: a value of {where} is no text.", "Write it in quotes.")
    if any("//" in words[key] for key in ("ssh", "python")):
        raise CompatError(f"{path}: {where} has // in ssh or python.", "Write one slash.")
    arguments = (*shared, *_words(path, where, facts.get("arguments", [])))
    return Host(name, **words, arguments=arguments, environment=environment)


def _words(path: Path, where: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(shlex.split(value))
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise CompatError(f"{path}: arguments of {where} are no list of texts.")
    return tuple(value)


def run(hosts: Sequence[Host], folder: Path, tell: Tell, stop: threading.Event) -> list[Outcome]:
    """Run the suites on every host at once; return the outcome of each, in the same order.

    Args:
        hosts: the machines, each with a name of its own.
        folder: gets a folder of results for each host.
        tell: callback for every line of output of a host; it is called from several threads.
        stop: event that is set to end all hosts; results measured by then still come home.
    """
    outcomes = [Outcome(host) for host in hosts]
    threads = [
        threading.Thread(target=_one, args=(outcome, folder / outcome.host.name, tell, stop))
        for outcome in outcomes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            try:
                thread.join(0.5)
            except KeyboardInterrupt:
                stop.set()
    return outcomes


def _one(outcome: Outcome, folder: Path, tell: Tell, stop: threading.Event) -> None:
    """Run one host and record its outcome; its errors are recorded too and never end the others."""
    try:
        _drive(outcome, folder, tell, stop)
    except Exception as error:
        said = one_line(str(error).strip().splitlines()[-1] if str(error).strip() else "", 300)
        if isinstance(error, EOFError):
            said = "the connection broke: the host, its network or its process died"
        outcome.problem = said or type(error).__name__


def _drive(outcome: Outcome, folder: Path, tell: Tell, stop: threading.Event) -> None:
    import execnet

    host = outcome.host
    spec = f"ssh={SSH} {host.ssh}" if host.ssh else "popen"
    spec += f"//python={host.python}" if host.python else ""
    group = execnet.Group()
    try:
        try:
            gateway = group.makegateway(spec)
        except execnet.HostNotFound as error:
            python = host.python or "python3"
            raise CompatError(
                f"`ssh {host.ssh}` does not reach it or finds no {python} there; ssh said why above"
            ) from error
        channel = gateway.remote_exec(lab_host)
        channel.send(
            {
                "folder": host.folder,
                "arguments": list(host.arguments),
                "environment": dict(host.environment),
            }
        )
        stopping = False
        while outcome.status is None and not outcome.problem:
            if stop.is_set() and not stopping:
                stopping = True
                channel.send("stop")
            try:
                take(outcome, channel.receive(0.5), folder, tell)
            except channel.TimeoutError:
                continue
    finally:
        group.terminate(timeout=5.0)


def take(outcome: Outcome, message: Any, folder: Path, tell: Tell) -> None:
    """Take one message of a host, as :func:`compat.run.lab_host.serve` sends them.

    Raises:
        CompatError: no host sends such a message, or its file is beyond the limits or outside its
            folder.
    """
    match message:
        case ("line", str(text)):
            tell(outcome.host.name, one_line(text, 1000))
        case ("data", str(name), int(offset), bytes(piece)):
            _write(outcome, folder, name, offset, piece)
        case ("host", str(version)):
            outcome.version = one_line(version, 60)
        case ("end", int(status)):
            outcome.status = status
        case ("problem", str(text)):
            outcome.problem = one_line(text, 300)
        case _:
            raise CompatError(f"it sent what no host sends: {one_line(repr(message), 100)}")


def _write(outcome: Outcome, folder: Path, name: str, offset: int, piece: bytes) -> None:
    size = outcome.sizes.get(name, 0)
    if not _FILE.fullmatch(name) or (not size and len(outcome.sizes) >= MOST_FILES):
        raise CompatError(f"it sent a file that is none of results: {one_line(name, 100)}")
    if offset != size or size + len(piece) > MAX_FILE:
        raise CompatError(f"{name} arrived with a gap, or has more than {MAX_FILE // MIB} MiB")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("ab" if size else "wb") as file:
        file.write(piece)
    outcome.sizes[name] = size + len(piece)
