"""Write reasons: why a check ended as it did, in one sentence with the number that matters.

The full output of a runtime or a driver stays with its observation, as evidence. A reason quotes
only the first clause of the output that a person can read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from compat.judge.results import Limit, MetricFacts, Observation
from compat.report import text

LONGEST = 180
"""Most characters that are quoted from the output of a runtime or a driver."""

_ORDER = ("degradation", "rtf_upper", "share", "worse", "snr_db", "error_ratio", "worst_cosine")
"""Order of importance: of several missed limits the first of these is named, and the others are
counted."""

_SENTENCES = {
    "rtf_upper": "takes up to {value} times as long as the audio lasts ({limit} {asked})",
    "speed_up": "is at least {value} as fast ({limit} {asked})",
    "share": "ran {value} of the work on the target ({limit} {asked})",
    "worse": "answers {value} stress inputs worse than the reference ({limit} {asked})",
    "worst_snr_db": "keeps {value} between signal and error on the worst input ({limit} {asked})",
    "no_worse_share": "answers only {value} of the inputs as well as the reference "
    "({limit} {asked})",
    "changed": "changes {value} of the answers ({limit} {asked})",
    "changed_by_order": "changes {value} answers with the order of inputs ({limit} {asked})",
    "changed_in_batch": "changes {value} of the answers within a batch ({limit} {asked})",
    "snr_db": "keeps {value} between signal and error of {where} ({limit} {asked})",
    "error_ratio": "errs {value} as much in {where} as this precision has to ({limit} {asked})",
    "worst_cosine": "turns {where} of the worst input away, to a cosine of {value} "
    "({limit} {asked})",
}

_NOISE = (
    # Prefixes that runtimes put before the sentence with the cause.
    r"^.*?ERROR_MESSAGE:\s*",
    r"^\S*/\S+\.\w+:\d+\s.*?FAIL\s*:\s*",
    r"^\S*/\S+\.\w+:\d+\s+",
    r"^\[?ONNXRuntimeError\]?\s*:\s*\d+\s*:\s*\w+\s*:\s*",
)


def sentence(status: str, reason: str, one: Observation | None) -> str:
    """Return why a check ended as it did: the limit that it missed, or the cause of its end."""
    missed = _missed(one) if one is not None else []
    if one is not None and missed:
        more = f", and {len(missed) - 1} more limits" if len(missed) > 2 else ""
        more = ", and one more limit" if len(missed) == 2 else more
        return _limit(missed[0], one.values, one.metrics) + more
    if status == "timeout":
        return f"is too slow to end: {clause(reason)}"
    if status == "crashed":
        return f"ends the process: {clause(reason)}"
    if status == "out-of-memory":
        return f"needs more memory than there is: {clause(reason)}" if reason else "out of memory"
    return clause(reason) or status


@lru_cache(maxsize=1 << 12)
def clause(reason: str) -> str:
    """Return the readable clause of a reason, without logs, calls and source files."""
    shown = re.split(r"; it last printed|\(known: ", reason, maxsplit=1)[0]
    for noise in _NOISE:
        shown = re.sub(noise, "", shown, count=1, flags=re.S)
    shown = shown.strip().split("\n", 1)[0].replace(" (--time-limit)", "")
    return text.one_line(shown.strip(" .;:"), LONGEST)


def slower(speed_up: float, name: str, theirs: float, mine: float) -> str:
    """Return in words how much faster or slower a configuration is than this machine's CPU.

    ``speed_up`` is a lower bound. ``theirs`` and ``mine`` are the seconds of the CPU configuration
    called ``name``, and of the compared one.
    """
    times = f"{text.duration(mine)} against {text.duration(theirs)}"
    if speed_up >= 1:
        return f"at least {text.ratio(speed_up)} as fast as this machine's CPU ({name}: {times})"
    factor = text.ratio(1 / speed_up).removesuffix(" ×")
    return f"up to {factor} times slower than this machine's CPU ({name}: {times})"


def _missed(one: Observation) -> list[Limit]:
    """Return the missed limits that decided an observation, the most important first.

    They are the failed ones, or the merely relaxed ones where none failed.
    """
    for level in ("failed", "relaxed"):
        found = [limit for limit in one.limits if limit.level == level]
        if found:
            return sorted(found, key=lambda limit: _rank(_key(limit)))
    return []


def _rank(key: str) -> int:
    return _ORDER.index(key) if key in _ORDER else len(_ORDER)


def _key(one: Limit) -> str:
    return one.metric.replace("/", ".").rpartition(".")[2]


def _limit(one: Limit, values: Mapping[str, Any], declared: Mapping[str, MetricFacts]) -> str:
    """Return one missed limit in words: the measured value, and the limit."""
    found, strict, relaxed = text.limit(one, values, declared)
    found = text.quantity(_key(one), one.value, declared=declared) if one.interval else found
    failed = one.level == "failed"
    bound = re.sub(r"^.*?[≥≤] ", "", relaxed if failed else strict)
    most = one.direction == "at_most"
    asked = "at most" if most else "at least"
    asked = asked if failed else f"{asked} for strict"
    where = text.one_line(one.metric.replace("/", ".").rpartition(".")[0] or "the output", 40)
    key = _key(one)
    if key == "degradation":
        metric = _beside(one, values, declared)
        return f"{metric} {found} against the reference ({bound} {asked})"
    if key in _SENTENCES:
        form = _SENTENCES[key]
        return form.format(value=found, limit=bound, asked=asked, where=where)
    return f"{text.metric_name(key)} of {where} is {found} ({bound} {asked})"


def _beside(one: Limit, values: Mapping[str, Any], declared: Mapping[str, MetricFacts]) -> str:
    """Return the name of the task metric whose degradation is limited."""
    group: Any = values
    for part in one.metric.replace("/", ".").split(".")[:-1]:
        group = group.get(part) if isinstance(group, Mapping) else None
    key = text.primary_metric(group, declared) if isinstance(group, Mapping) else ""
    return text.metric_name(key) if key else "task metric"
