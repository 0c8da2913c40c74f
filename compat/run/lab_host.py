"""The far side of a lab: execnet runs this file on a host, where compat is installed.

It starts pytest, and sends its lines and its results home as they are written, so that a host that
dies later loses only what it had not yet written.
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
"""Seconds between two looks at the results that pytest wrote."""
ENDING_S = 30.0
"""Seconds that pytest gets to end its workers once it is to stop."""
PIECE = 2**20
"""Bytes of a results file that one message holds at most."""


def serve(channel: Channel) -> None:
    """Run the suites as the first message says, and send their lines and results.

    Messages: ``("host", version)``, ``("line", text)``, ``("data", name, offset, bytes)`` of a
    results file, and last ``("end", exit status of pytest)`` or ``("problem", text)``.
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
    # A lab that was started in the background was told to ignore Ctrl-C, by which pytest is ended.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A signal to this group reaches pytest, its workers and builders, and nobody else.
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
    """Wait a moment for a message; any message means stop, and so does a closed connection."""
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
        if line.startswith(b"results: "):  # It names a folder that is deleted in the end.
            continue
        try:
            channel.send(("line", line.decode("utf-8", "replace").rstrip()[:1000]))
        except OSError:  # Nobody listens any more; pytest must not block for it.
            continue


def _send(results: Path, sent: dict[str, int], channel: Channel) -> None:
    """Send what was added to results files since the last call; ``sent`` has the bytes of each."""
    for path in sorted(results.glob("*.jsonl")):
        with path.open("rb") as file:
            file.seek(sent.get(path.name, 0))
            while piece := file.read(PIECE):
                channel.send(("data", path.name, sent.get(path.name, 0), piece))
                sent[path.name] = sent.get(path.name, 0) + len(piece)


if __name__ == "__channelexec__":
    serve(channel)  # type: ignore[name-defined]  # noqa: F821 (execnet gives it)
