"""Finding out what is here: every runtime is probed in a process of its own.

A driver that crashes or hangs when it is loaded is *broken*, and costs the probe, not the run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from compat import catalog
from compat.case import Target
from compat.environment import child_environment
from compat.runtimes.base import Probe

TIME_LIMIT = 300.0
"""Seconds until a runtime that does not answer is broken; a starved machine may take two minutes
to import one."""


class Prober:
    """Probes each runtime once and remembers the answer."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, Probe]] = {}

    def __call__(self, target: Target) -> Probe:
        """Return what was found of a target."""
        if target.runtime not in self._found:
            self._found[target.runtime] = probe_runtime(target.runtime)
        return self._found[target.runtime][target.name]

    def all(self, runtimes: Iterable[str]) -> dict[str, Probe]:
        """Probe several runtimes side by side; return the findings by target name."""
        missing = [name for name in dict.fromkeys(runtimes) if name not in self._found]
        with ThreadPoolExecutor() as pool:
            for name, found in zip(missing, pool.map(probe_runtime, missing), strict=True):
                self._found[name] = found
        return {name: probe for found in self._found.values() for name, probe in found.items()}


def probe_runtime(name: str) -> dict[str, Probe]:
    """Probe every target of a runtime in a fresh process."""
    targets = catalog.load().runtime(name).targets
    try:
        done = subprocess.run(
            [sys.executable, "-m", "compat.probing", name],
            capture_output=True,
            timeout=TIME_LIMIT,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        reason = f"{name} did not answer within {TIME_LIMIT:.0f} s when it was loaded"
        broken = Probe("broken", reason, "update the driver, or restart the machine")
        return {target.name: broken for target in targets}
    lines = done.stdout.decode(errors="replace").splitlines()
    try:
        answers: dict[str, dict[str, Any]] = json.loads(lines[-1])
        return {target: Probe(**answer) for target, answer in answers.items()}
    except (IndexError, ValueError, TypeError):
        said = " | ".join(done.stderr.decode(errors="replace").strip().splitlines()[-3:])
        reason = f"loading {name} ended the process (status {done.returncode}): {said}"
        broken = Probe("broken", reason, f"install {name} again, or update its driver")
        return {target.name: broken for target in targets}


def _main(name: str) -> None:
    runtime = catalog.load().runtime(name)
    answers = {}
    for target in runtime.targets:
        try:
            probe = runtime.probe(target)
        except Exception as error:
            remedy = f"install {name} again, or update its driver"
            probe = Probe("broken", f"{type(error).__name__}: {error}", remedy)
        answers[target.name] = {**asdict(probe), "facts": dict(probe.facts)}
    print("\n" + json.dumps(answers), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1])
