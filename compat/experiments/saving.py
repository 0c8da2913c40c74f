"""Files of experiments' answers, with the same header as results."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from compat import __version__, catalog
from compat.contract.errors import CompatError
from compat.experiments.experiment import Answer
from compat.hardware import facts
from compat.inputs import corpus
from compat.judge.experiments import VERSIONS, Stored, file_name
from compat.judge.results import SCHEMA_VERSION, Header
from compat.measure import occupancy
from compat.metrics import SCORER_VERSION
from compat.metrics.timing import others_busy
from compat.run.run import COMMON_PACKAGES, git_commit, relative


def watched(run: Callable[[], Answer]) -> tuple[Answer, dict[str, Any]]:
    """Run an experiment; return its answer, and its start, seconds and the load by other processes.

    The latter are fields of :class:`Stored`, which can only be measured while it runs.
    """
    processors = occupancy.allowed()
    before, began = occupancy.reading(processors), time.monotonic()
    started = datetime.now(UTC)
    answer = run()
    others = others_busy(before, occupancy.reading(processors))
    return answer, {
        "started": started,
        "seconds": round(time.monotonic() - began, 3),
        "others": {name: float(value) for name, value in others.items()},
    }


def stored_answer(
    name: str, answer: Answer, seen: dict[str, Any], arguments: Sequence[str]
) -> Stored:
    """Return an answer with its header."""
    machine = facts.machine_facts()
    runtimes = catalog.load().runtimes
    packages = [package for runtime in runtimes for package in runtime.packages]
    own = {"compat": __version__, "scorer": str(SCORER_VERSION)}
    started: datetime = seen["started"]
    header = Header(
        schema=SCHEMA_VERSION,
        run=f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        worker="experiment",
        started=started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        profile="experiment",
        machine=facts.machine_id(machine),
        facts=machine,
        versions=own | facts.package_versions((*COMMON_PACKAGES, *packages)),
        commit=git_commit(),
        arguments=relative(arguments),
        threads=facts.available_cpus(),
        parallel=False,
        hashes={"corpus": corpus.load().fingerprint},
    )
    return Stored(
        experiment=name,
        version=VERSIONS[name],
        header=header,
        findings=tuple(answer.findings),
        others=seen["others"],
        seconds=seen["seconds"],
    )


def save(stored: Stored, folder: Path) -> Path:
    """Write an answer below a folder; return the file.

    Raises:
        CompatError: the file cannot be written.
    """
    path = folder / file_name(stored)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(stored), indent=1) + b"\n")
    except OSError as error:
        raise CompatError(f"cannot write {path}: {error.strerror}.") from error
    return path
