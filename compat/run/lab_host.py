"""The far side of a lab: execnet runs this file on a host, where compat is installed.

It starts pytest, and sends its lines and its results home as they are written: a host that dies
later loses what it had not begun to write, and no more.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from execnet.gateway_base import Channel

POLL_S = 0.5
"""Seconds between two looks at what pytest wrote."""
ENDING_S = 30.0
"""Seconds that pytest gets to end its workers once it is to stop."""
PIECE = 2**20
"""Bytes of a results file that one message holds at most."""


def serve(channel: Channel) -> None:
    """Run the suites as the first message says, and send what becomes of them.

    Messages: ``("host", version)``, ``("line", text)``, ``("data", name, offset, bytes)`` of a
    results file, and at the end ``("end", status)`` with that of pytest, or ``("problem", text)``.
    """
    request = channel.receive()
    try:
        os.chdir(Path(request["folder"] or "~").expanduser())
        os.environ.update(request["environment"])
        import compat
        from compat.run import invocation
    except (ImportError, OSError) as error:
        channel.send(("problem", f"{type(error).__name__}: {error}"))
        return
    channel.send(("host", compat.__version__))
    with tempfile.TemporaryDirectory(prefix="compat-lab-") as results:
        command = [sys.executable, "-m", "pytest", *invocation.suites()]
        command += ["-q", "-r", "", "--tb=no", "--no-header", "--no-summary", "--case-lines"]
        command += ["--benchmark-quiet", "-p", "no:cacheprovider", f"--results={results}"]
        status = _run([*command, *request["arguments"]], Path(results), channel)
    channel.send(("end", status))


def _run(command: list[str], results: Path, channel: Channel) -> int:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A signal for pytest is one for its workers and builders, and for nobody else.
        start_new_session=True,
    )
    reader = threading.Thread(target=_lines, args=(process.stdout, channel), daemon=True)
    reader.start()
    sent: dict[str, int] = {}
    try:
        while process.poll() is None and not _told_to_stop(channel):
            _send(results, sent, channel)
    finally:
        if process.poll() is None:
            _stop(process)
    reader.join(POLL_S)
    _send(results, sent, channel)
    return process.returncode


def _told_to_stop(channel: Channel) -> bool:
    """Wait for a message a moment; any is one to stop, and so is the end of the connection."""
    try:
        channel.receive(POLL_S)
    except channel.TimeoutError:
        return False
    except EOFError:
        pass
    return True


def _stop(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _lines(stream: Any, channel: Channel) -> None:
    for line in stream:
        if line.startswith(b"results: "):  # A folder that is gone when all has come home.
            continue
        try:
            channel.send(("line", line.decode("utf-8", "replace").rstrip()[:1000]))
        except OSError:  # Nobody listens any more; pytest must not block for it.
            continue


def _send(results: Path, sent: dict[str, int], channel: Channel) -> None:
    """Send what results files hold beyond what was sent of them."""
    for path in sorted(results.glob("*.jsonl")):
        with path.open("rb") as file:
            file.seek(sent.get(path.name, 0))
            while piece := file.read(PIECE):
                channel.send(("data", path.name, sent.get(path.name, 0), piece))
                sent[path.name] = sent.get(path.name, 0) + len(piece)


if __name__ == "__channelexec__":
    serve(channel)  # type: ignore[name-defined]  # noqa: F821 (execnet gives it)
