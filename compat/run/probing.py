"""Probes of the targets on this machine: every runtime is probed in a process of its own.

A driver that crashes or hangs when it is loaded ends its probe only, not the run. Its targets are
then *broken*.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

from compat import catalog
from compat.contract.case import Target
from compat.contract.runtime import Probe
from compat.processes import child_environment
from compat.run.privacy import without_paths

TIME_LIMIT = 300.0
"""Seconds after which a runtime that does not answer counts as broken. A starved machine may take
two minutes to import one."""


class Prober:
    """Probes each target once and remembers the answer."""

    def __init__(self) -> None:
        self._found: dict[str, Probe] = {}

    def __call__(self, target: Target) -> Probe:
        """Return the probe of a target; all targets of its runtime are probed with it."""
        if target.name not in self._found:
            self._found |= probe_runtime(target.runtime)
        return self._found[target.name]

    def all(self, targets: Iterable[Target]) -> dict[str, Probe]:
        """Probe targets, runtimes in parallel; return every known probe by target name."""
        missing: dict[str, list[str]] = {}
        for target in {one.name: one for one in targets}.values():
            if target.name not in self._found:
                missing.setdefault(target.runtime, []).append(target.name)
        with ThreadPoolExecutor() as pool:
            for found in pool.map(probe_runtime, missing, missing.values()):
                self._found |= found
        return dict(self._found)


def probe_runtime(name: str, only: Collection[str] = ()) -> dict[str, Probe]:
    """Probe targets of a runtime in a fresh process: all of them, unless some are named."""
    targets = [one for one in catalog.load().runtime(name).targets if not only or one.name in only]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "compat.run.probing", name, *only],
            capture_output=True,
            timeout=TIME_LIMIT,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        reason = f"{name} did not answer within {TIME_LIMIT:.0f} s when it was loaded"
        broken = Probe("broken", reason, "update the driver, or restart the machine")
        return {target.name: _clean(broken) for target in targets}
    try:
        answers: dict[str, dict[str, Any]] = json.loads(done.stdout)
        return {target: _clean(Probe(**answer)) for target, answer in answers.items()}
    except (ValueError, TypeError):
        said = " | ".join(done.stderr.decode(errors="replace").strip().splitlines()[-3:])
        reason = f"loading {name} ended the process (status {done.returncode})"
        reason += f": {said}" if said else ""
        broken = Probe("broken", reason, f"install {name} again, or update its driver")
        return {target.name: _clean(broken) for target in targets}


def _clean(probe: Probe) -> Probe:
    """Cut the paths of this machine from a runtime's messages, because results are published."""
    facts = {
        name: without_paths(fact) if isinstance(fact, str) else fact
        for name, fact in probe.facts.items()
    }
    return replace(
        probe,
        reason=without_paths(probe.reason)[:400],
        remedy=without_paths(probe.remedy),
        facts=facts,
    )


def _main(name: str, *only: str) -> None:
    # Vendor libraries print, some of them when the process ends; that goes to standard error.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    runtime = catalog.load().runtime(name)
    answers = {}
    for target in runtime.targets:
        if only and target.name not in only:
            continue
        try:
            probe = runtime.probe(target)
        except Exception as error:
            remedy = f"install {name} again, or update its driver"
            probe = Probe("broken", f"{type(error).__name__}: {error}", remedy)
        answers[target.name] = {**asdict(probe), "facts": dict(probe.facts)}
    print(json.dumps(answers), file=answer, flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
