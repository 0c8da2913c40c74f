"""The builder: a process that makes one derived file (``python -m compat.build.builder``).

With ``--serve DESCRIPTOR [now]`` it is the nursery, which forks a builder for each connection.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import NoReturn

from compat.build import nursery
from compat.build.artifacts import run_job
from compat.processes import stop_with_parent


def build_requested() -> NoReturn:
    """Build the artifact that a line on standard input requests, and end this process.

    The process also ends as soon as standard input is closed: the process that asked has ended.
    """
    try:
        request = json.loads(sys.stdin.readline())
        stop_with_parent()
        from compat import catalog

        catalog.load()
        run_job(request)
    except BaseException as error:
        import traceback

        traceback.print_exc()
        # The cause is repeated as the last line, from which the asking process takes its message.
        cause = " ".join(str(error).split())
        print(f"{type(error).__name__}: {cause}"[:1000], file=sys.stderr, flush=True)
        os._exit(1)
    sys.stdout.flush()
    # Not a plain return: the thread that stop_with_parent started still waits on standard input,
    # and joining it would hang.
    os._exit(0)


def main() -> None:
    """Build one artifact, or serve a nursery."""
    if "--serve" not in sys.argv:
        build_requested()
    descriptor, *when = sys.argv[sys.argv.index("--serve") + 1 :]
    if "now" in when:
        nursery.preload()
    with socket.socket(fileno=int(descriptor)) as listener:
        nursery.serve(listener, build_requested, ready="now" in when)


if __name__ == "__main__":
    main()
