"""Texts about a configuration for pages, tables and files, so that each number has one form."""

from __future__ import annotations

from datetime import date

from compat.report import evidence, text
from compat.report.model import Configuration

STALE_DAYS = 90
"""Days after which a measurement is marked as old; runtimes publish every one to three months."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def day(text_of_day: str) -> str:
    """Return a day as people write it: ``2026-11-28`` as ``28 Nov 2026``; empty if it is no day."""
    try:
        found = date.fromisoformat(text_of_day[:10])
    except ValueError:
        return ""
    return f"{found.day} {_MONTHS[found.month - 1]} {found.year}"


def age(one: Configuration, made: str) -> int | None:
    """Return the age in days of the oldest observation behind a rating; None where none is known.

    ``made`` is the day of the report, such as ``2026-11-28``.
    """
    try:
        return (date.fromisoformat(made) - date.fromisoformat(one.measured[0])).days
    except ValueError:
        return None


def is_old(one: Configuration, made: str) -> bool:
    """Whether a rating rests on an observation older than :data:`STALE_DAYS`."""
    days = age(one, made)
    return days is not None and days > STALE_DAYS


def measured(one: Configuration) -> str:
    """Return when a configuration was measured: a day, or the first and the last."""
    first, last = (day(part) for part in one.measured)
    return first if first == last else f"{first} to {last}"


def place(one: Configuration) -> str:
    """Return target and recipe, which say more than the name of the column."""
    return text.one_line(f"{one.target} · {one.recipe}", 80)


def speed(one: Configuration) -> str:
    """Return the speed, such as ``RTFx 12``: audio seconds processed in a second.

    Without a real-time factor it is the median time; empty where nothing was timed on a device.
    """
    f = one.figures
    if one.evidence != "device":
        return ""
    doubt = "" if f.latency_status in ("passed", "") else f" ({f.latency_status})"
    if f.rtfx is not None:
        return f"RTFx {text.quantity('rtfx', f.rtfx).removesuffix(' ×')}{doubt}"
    if f.rtf_upper is not None:
        return f"RTF ≤ {text.quantity('rtf', f.rtf_upper)}{doubt}"
    return f"{text.duration(f.median_s)}{doubt}" if f.median_s is not None else ""


def metric(one: Configuration) -> str:
    """Return the task metric as :func:`compat.report.text.task_metric` does; empty for none."""
    return text.task_metric(one) if one.figures.metric else ""


def memory(one: Configuration) -> str:
    """Return the peak memory of the device where it is known, else that of the process."""
    f = one.figures
    if f.device_peak_bytes is not None:
        return f"{text.data_size(f.device_peak_bytes)} on the device"
    return text.data_size(f.peak_bytes) if f.peak_bytes is not None else ""


def ran_on(one: Configuration) -> str:
    """Return in words where a configuration really ran, such as ``on an emulator``."""
    return evidence.KINDS[one.kind][1]


def limits(one: Configuration) -> str:
    """Return the first reason that limits a rating, and the number of others; empty for none."""
    more = f" (and {len(one.why) - 1} more)" if len(one.why) > 1 else ""
    return text.one_line(one.why[0], 200) + more if one.why else ""
