"""Progress of long runs: the stage that is running, the outcome of each case, the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from compat.contract.untrusted import clean, one_line

SYMBOLS = {
    "passed": "✓",
    "failed": "✗",
    "error": "!",
    "timeout": "⏱",
    "crashed": "☠",
    "out-of-memory": "▣",
    "unsupported": "–",
    "known-failure": "x",
    "unexpected-pass": "?",
    "skipped": "·",
    "inconclusive": "~",
}
COLOURS = {"passed": "green", "skipped": "light", "unsupported": "light", "inconclusive": "yellow"}


class Progress:
    """Prints one line per case, and on a terminal the stage that is running."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.plans: Mapping[str, Sequence[str]] = {}
        self.found: dict[str, list[tuple[str, str, str]]] = {}
        self.began: dict[str, float] = {}
        self.told: dict[str, str] = {}
        self.missing = False
        """Whether hardware that was required is absent."""
        self.done = 0
        self.busy_s = 0.0
        self.busy_cases = 0
        self.live = sys.stdout.isatty()

    @property
    def _writer(self) -> Any:
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        return reporter._tw

    def plan(self, plans: Mapping[str, Sequence[str]]) -> None:
        """Take the cases of this run and the checks of each."""
        self.plans = plans
        if plans:
            # Checks are ordered by case, so that pytest would print a file name before each.
            reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
            reporter.showfspath = False

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        """Take the plan from a parallel process: each collects all checks, the controller none."""
        plans: dict[str, list[str]] = {}
        for name in ids:
            check, _, rest = name.partition("[")
            plans.setdefault(rest.rpartition("]")[0], []).append(check)
        self.plan({case: checks for case, checks in plans.items() if case.count("/") == 2})

    def stage(self, case: str, stage: str) -> None:
        """Show the stage that is running; only on a terminal, where later output overwrites it."""
        self.began.setdefault(case, time.monotonic())
        if self.live:
            text = f"[{self.done + 1}/{len(self.plans)}] {one_line(f'{case}: {stage}')} … "
            text += self._left()
            self._writer.write("\r\x1b[K" + text[: self._writer.fullwidth - 1])

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """Count tests as usual, but print no letters for them."""
        if not dict(report.user_properties).get("case"):
            return None
        if report.when != "call":
            return ("", "", "") if report.passed else None
        return report.outcome if not hasattr(report, "wasxfail") else "xfailed", "", ""

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take the outcome of a check; print the case's line after its last check."""
        # A reason may quote a file's name or a runtime, which must not steer the terminal.
        said = {name: clean(value) for name, value in report.user_properties}
        case = said.get("case")
        if report.when != "call" or not case:
            return
        self.began.setdefault(case, time.monotonic() - report.duration)
        self.missing |= said.get("required") == "missing"
        self.found.setdefault(case, []).append((said["check"], said["status"], said["reason"]))
        if len(self.found[case]) == len(self.plans.get(case, ())):
            self._finish(case)

    def _finish(self, case: str) -> None:
        self.done += 1
        found = self.found[case]
        seconds = time.monotonic() - self.began[case]
        statuses = {status for _, status, _ in found}
        if not statuses <= {"skipped", "unsupported"}:
            self.busy_s += seconds
            self.busy_cases += 1
        writer = self._writer
        if self.live:
            writer.write("\r\x1b[K")
        writer.write(f"[{self.done:>{len(str(len(self.plans)))}}/{len(self.plans)}] {case} ")
        reasons: dict[str, str] = {}
        _, status, reason = found[0]
        alike = len({(status, reason) for _, status, reason in found}) == 1 and status == "error"
        if alike or statuses in ({"skipped"}, {"unsupported"}):
            first = self.told.setdefault(reason, case)
            said = f": {reason}" if first == case else f", as {first}"
            writer.write(status + said, **{COLOURS.get(status, "red"): True})
        else:
            for check, status, reason in found:
                colour = COLOURS.get(status, "red")
                suite, name = check.split(".")
                name = "latency" if suite == "latency" and name == "task" else name
                writer.write(f" {SYMBOLS.get(status, status)} {name}", **{colour: True})
                if status not in ("passed", "skipped"):
                    reasons.setdefault(reason, f"{check} {status}: {reason}")
        writer.line(f"  {seconds:.1f} s{self._left()}", light=True)
        for reason in reasons.values():
            writer.line("      " + reason[:400], light=True)

    def _left(self) -> str:
        left = len(self.plans) - self.done
        if not self.busy_cases or not left:
            return ""
        processes = getattr(self.config.option, "numprocesses", None) or 1
        minutes = self.busy_s / self.busy_cases * left / processes / 60
        return f", about {max(1, round(minutes))} min left" if minutes > 0.5 else ", < 1 min left"
