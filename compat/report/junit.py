"""Write a report as JUnit XML, which every CI shows: one suite a machine, one test a check."""

from __future__ import annotations

from collections import defaultdict
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from compat.contract.untrusted import one_line
from compat.report.model import Record, Report

FAILURES = ("failed", "crashed", "timeout", "out-of-memory", "unexpected-pass")
"""Statuses that count as failures. Known failures and unsupported cases count as skipped."""
LONGEST = 2_000
"""Most characters of one reason."""


def junit(report: Report) -> str:
    """Return every check of a report as JUnit XML; checks that never began count as skipped."""
    root = Element("testsuites", name="audio-compat")
    by_machine: dict[str, list[Record]] = defaultdict(list)
    for one in report.configurations:
        by_machine[one.machine] += one.records
    total: dict[str, int] = defaultdict(int)
    for machine, records in sorted(by_machine.items()):
        suite = SubElement(root, "testsuite", name=_text(machine))
        counted: dict[str, int] = defaultdict(int)
        for record in sorted(records, key=lambda record: (record.case.id, record.check)):
            kind = _case(suite, record)
            counted["tests"] += 1
            if kind:
                counted[kind] += 1
        for name in ("tests", "failures", "errors", "skipped"):
            suite.set(name, str(counted[name]))
            total[name] += counted[name]
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(total[name]))
    indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _case(suite: Element, record: Record) -> str:
    """Add a check to a suite; return the name of its count, such as ``failures``.

    The name is empty where the check passed.
    """
    seen = record.observation
    seconds = seen.seconds if seen else 0.0
    case = SubElement(
        suite,
        "testcase",
        classname=_text(record.case.id),
        name=_text(record.check),
        time=f"{seconds:.3f}",
    )
    if record.status == "passed":
        return ""
    if record.status in FAILURES:
        tag, count = "failure", "failures"
    elif record.status == "error":
        tag, count = "error", "errors"
    else:
        tag, count = "skipped", "skipped"
    said = _text(f"{record.status}: {record.reason}" if record.reason else record.status)
    SubElement(case, tag, message=said, type=record.status)
    return count


def _text(words: str) -> str:
    """Return words that XML can hold, on one line."""
    return one_line(words, LONGEST).translate({0xFFFE: 0xFFFD, 0xFFFF: 0xFFFD})
