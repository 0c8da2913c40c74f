"""Several hosts at once: each runs for itself, results come home, and no host ends another."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat.commands.main import main
from compat.contract.errors import CompatError
from compat.judge.result_files import MAX_FILE
from compat.judge.results import read_all
from compat.run import lab
from compat.run.lab import Host, Outcome, read_hosts, run, take

ROOT = Path(__file__).resolve().parents[1]
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


ONE = ("--recipes=fp32", "--targets=cpu-torch", "--weights=seeded")
"""One case."""

pytestmark = pytest.mark.filterwarnings(
    # execnet leaves the pipes of a host that it does not reach to the garbage collector.
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


def silent(host: str, text: str) -> None:
    """Nobody listens."""


def suite(suites: Any, *arguments: str) -> tuple[str, ...]:
    """Return the options of one quick case of the toy, which is measured by PyTorch."""
    pytest.importorskip("torch")
    command = suites.command(Path("unused"), *ONE, *arguments)
    words = command[command.index("--quick") :]
    return tuple(word for word in words if not word.startswith("--results="))


def environment(suites: Any) -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "COMPAT_CACHE": str(suites.cache)}


# Hosts ---------------------------------------------------------------------------------------


def test_results_of_every_host_come_home_and_a_dead_one_costs_its_own(
    suites: Any, tmp_path: Path
) -> None:
    """One measures, one dies while pytest runs, one was never there."""
    dying = tmp_path / "python"
    dying.write_text(f'#!/bin/sh\nexec timeout -s KILL 4 {sys.executable} "$@"\n')
    dying.chmod(dying.stat().st_mode | stat.S_IEXEC)
    facts: dict[str, Any] = {"folder": str(ROOT), "environment": environment(suites)}
    hosts = [
        Host("whole", arguments=suite(suites, "-k", "loads"), **facts),
        Host("dying", python=str(dying), arguments=suite(suites), **facts),
        Host("absent", python=str(tmp_path / "no-python"), **facts),
    ]
    lines: list[tuple[str, str]] = []
    whole, dead, absent = run(
        hosts, tmp_path / "lab", lambda *line: lines.append(line), threading.Event()
    )
    assert whole.ran and whole.version and whole.status == 0
    assert any(host == "whole" and "loads" in text for host, text in lines)
    (measured,) = read_all([tmp_path / "lab" / "whole"]).runs
    assert [(one.check, one.status) for one in measured.observations] == [
        ("support.loads", "passed")
    ]
    assert not dead.ran and dead.status is None and "died" in dead.problem
    assert not absent.ran and absent.problem and not absent.sizes


def test_what_was_measured_before_a_host_stops_is_home(
    suites: Any, tmp_path: Path, ignored_interrupts: None
) -> None:
    """Results travel as they are written; Ctrl-C at home ends pytest there."""
    stop = threading.Event()
    arguments = suite(suites, "--iterations", "1000000")
    host = Host("slow", folder=str(ROOT), arguments=arguments, environment=environment(suites))
    watcher = threading.Thread(target=_set_when_begun, args=(tmp_path / "lab", stop), daemon=True)
    watcher.start()
    (outcome,) = run([host], tmp_path / "lab", silent, stop)
    assert outcome.status == 2, "pytest's word for an interruption"
    (measured,) = read_all([tmp_path / "lab"]).runs
    assert measured.planned and measured.started


@pytest.fixture
def ignored_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C, as what a shell starts in the background does."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def _set_when_begun(folder: Path, stop: threading.Event) -> None:
    for _ in range(600):
        if any(b'"started"' in path.read_bytes() for path in folder.rglob("*.jsonl")):
            break
        time.sleep(0.1)
    stop.set()


def test_the_command_shows_one_matrix_and_what_became_of_each(
    suites: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    words = ", ".join(f"'{word}'" for word in suite(suites))
    variables = ", ".join(f"{name} = '{value}'" for name, value in environment(suites).items())
    file = tmp_path / "hosts.toml"
    file.write_text(
        f"arguments = [{words}]\n"
        f"[hosts.good]\nfolder = '{ROOT}'\nenvironment = {{{variables}}}\n"
        f"[hosts.bad]\nfolder = '{tmp_path / 'nowhere'}'\n"
    )
    status = main(["lab", str(file), "--results", str(tmp_path / "lab"), "-k", "loads"])
    out = capsys.readouterr().out
    assert status == 3
    assert "✓ good: 1 passed." in out and "! bad: FileNotFoundError" in out
    assert "Toy" in out and "compat report" in out
    assert main(["lab", str(file), "--results", str(tmp_path / "two"), "--only", "no"]) == 3


# ssh -----------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Start an ssh server of this user's own; return what follows `ssh`."""
    if not Path(SSHD).exists() or shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh server here: apt install openssh-server")
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shutil.copy(tmp_path / "user.pub", tmp_path / "authorized_keys")
    settings = tmp_path / "sshd_config"
    settings.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path / 'host'}\nUsePAM no\n"
        f"AuthorizedKeysFile {tmp_path / 'authorized_keys'}\nStrictModes no\n"
        f"PidFile {tmp_path / 'sshd.pid'}\nPermitRootLogin yes\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(settings)], stderr=subprocess.PIPE)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        known = f"-o UserKnownHostsFile={tmp_path / 'known'} -o StrictHostKeyChecking=no"
        yield f"{getpass.getuser()}@127.0.0.1 -p {port} -i {tmp_path / 'user'} -q {known}"
    finally:
        process.terminate()
        process.wait()


def test_over_ssh(suites: Any, server: str, tmp_path: Path) -> None:
    """Two hosts, one server: neither needs anything of the other but ssh and compat."""
    hosts = [
        Host(name, server, sys.executable, str(ROOT), arguments, environment(suites))
        for name, arguments in (
            ("first", suite(suites, "-k", "loads")),
            ("second", suite(suites, "-k", "numerics")),
        )
    ]
    outcomes = run(hosts, tmp_path / "lab", silent, threading.Event())
    assert [(one.problem, one.status) for one in outcomes] == [("", 0), ("", 0)]
    runs = read_all([tmp_path / "lab"]).runs
    checks = {run.path.parent.name: [o.check for o in run.observations] for run in runs}
    assert checks == {"first": ["support.loads"], "second": ["accuracy.numerics"]}


def test_a_host_that_ssh_does_not_reach_is_named(tmp_path: Path) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("no ssh here")
    (outcome,) = run([Host("gone", "127.0.0.1 -p 1")], tmp_path, silent, threading.Event())
    assert "does not reach it" in outcome.problem and not list(tmp_path.iterdir())


# What a host sends ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        ("data", "../escape.jsonl", 0, b"x"),
        ("data", "/etc/cron.d/x.jsonl", 0, b"x"),
        ("data", ".hidden.jsonl", 0, b"x"),
        ("data", "program.sh", 0, b"x"),
        ("data", "a\n.jsonl", 0, b"x"),
        ("data", "later.jsonl", 5, b"x"),
        ("data", "text.jsonl", 0, "x"),
        ("run", "rm"),
        None,
        7,
    ],
)
def test_what_no_host_sends_ends_that_host(message: Any, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "host"
    with pytest.raises(CompatError):
        take(Outcome(Host("host")), message, folder, silent)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_what_a_host_sends_has_limits(tmp_path: Path, monkeypatch: Any) -> None:
    outcome = Outcome(Host("host"))
    monkeypatch.setattr(lab, "MAX_FILE", 8)
    take(outcome, ("data", "a.jsonl", 0, b"12345678"), tmp_path, silent)
    with pytest.raises(CompatError, match="more than"):
        take(outcome, ("data", "a.jsonl", 8, b"9"), tmp_path, silent)
    monkeypatch.setattr(lab, "MOST_FILES", 1)
    with pytest.raises(CompatError, match="none of results"):
        take(outcome, ("data", "b.jsonl", 0, b"1"), tmp_path, silent)
    assert (tmp_path / "a.jsonl").read_bytes() == b"12345678" and MAX_FILE > 8


def test_no_line_of_a_host_steers_the_terminal(tmp_path: Path) -> None:
    told: list[str] = []
    take(
        Outcome(Host("host")),
        ("line", "\x1b[2J" + "x" * 5000),
        tmp_path,
        lambda _, text: told.append(text),
    )
    assert "\x1b" not in told[0] and len(told[0]) <= 1000


# The file of hosts ---------------------------------------------------------------------------


def test_hosts_are_read(tmp_path: Path) -> None:
    file = tmp_path / "hosts.toml"
    file.write_text(
        'arguments = "--quick"\n[hosts.a]\nssh = "me@a"\narguments = ["-m", "cuda"]\n[hosts.b]\n'
    )
    a, b = read_hosts(file)
    assert a == Host("a", "me@a", arguments=("--quick", "-m", "cuda"))
    assert b == Host("b", arguments=("--quick",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no host"),
        ("[hosts]\n", "names no host"),
        ("hosts = 3\n", "names no host"),
        ("[hosts.a\n", "cannot read"),
        ("[machines.a]\n", "machines"),
        ("[hosts.a]\nshh = 'x'\n", "shh"),
        ("[hosts.a]\nssh = 3\n", "no text"),
        ("[hosts.a]\nenvironment = 3\n", "no text"),
        ("[hosts.a]\nenvironment = {A = 1}\n", "no text"),
        ("[hosts.a]\narguments = 3\n", "no list of texts"),
        ("[hosts.a]\nssh = 'a//env:X=1'\n", "//"),
        ("[hosts.'../a']\n", "no folder"),
        ("[hosts]\na = 1\n", "no table"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "hosts.toml"
    file.write_text(text)
    with pytest.raises(CompatError, match=said) as error:
        read_hosts(file)
    assert str(file) in str(error.value)
    with pytest.raises(CompatError, match="cannot read"):
        read_hosts(tmp_path / "none.toml")
