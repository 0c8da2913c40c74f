"""Format numbers with units, name files and anchors, and make text safe to show."""

from __future__ import annotations

import hashlib
import math
import re
import shlex
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from compat.contract.untrusted import clean as clean
from compat.contract.untrusted import interval as interval
from compat.contract.untrusted import number as number
from compat.contract.untrusted import one_line as one_line
from compat.judge.rating import Rating
from compat.judge.results import CaseFacts, Limit, MetricFacts

if TYPE_CHECKING:
    from compat.report.model import Configuration, Figures

DASH = "–"

STATE_SYMBOLS = {
    "strict": "✓",
    "relaxed": "~",
    "failed": "✕",
    "unknown": "?",
    "not-applicable": DASH,
}

STATUSES = {
    "passed": ("✓", "The check ran and met at least its relaxed thresholds."),
    "failed": (
        "✕",
        "The check ran and missed its relaxed thresholds, or showed a fault, such as NaN or one "
        "answer for all inputs.",
    ),
    "error": (
        "!",
        "The check raised an error. That is no verdict on the hardware, unless the level says "
        "failed: then the case itself did not load.",
    ),
    "timeout": ("◷", "The worker was ended because it took longer than allowed."),
    "crashed": ("☠", "The worker process died, or the page or device that it drives."),
    "out-of-memory": ("▣", "Memory of the process or the device ran out."),
    "unsupported": (
        "⊘",
        "The runtime says that it cannot run this, or it executed another "
        "precision than the one asked for.",
    ),
    "known-failure": ("✕", "Failed as a recorded expectation says, which names who owns the gap."),
    "unexpected-pass": ("✓", "Passed although a recorded expectation says that it fails."),
    "skipped": (DASH, "Hardware, runtime or checkpoint is absent, or the check does not apply."),
    "inconclusive": ("≈", "Measured, but too noisy to decide."),
    "not-run": ("○", "Planned, but the run ended before it began."),
    "cut-off": ("◌", "Begun, but the run ended before the check did."),
    "stale": (
        "△",
        "Measured by an outdated version of the check or of the scorer, so that it no longer "
        "counts.",
    ),
}
"""Every status with its symbol and its meaning."""

RATINGS = {
    "high": ("●", "High", "Every gate that applies is strict."),
    "medium": (
        "◐",
        "Medium",
        "Loads, accurate and robust are strict, the rest at least relaxed; "
        "or the evidence allows no better.",
    ),
    "limited": ("◔", "Limited", "Loads and gives acceptable results, with what limits it named."),
    "none": ("✕", "None", "It does not load, or its results are wrong."),
    "unsupported": ("⊘", "None (unsupported)", "The runtime proved that it cannot run this."),
    "incomplete": ("◌", "Incomplete", "Some gate is not known; the range says what is possible."),
    "emulated": ("◇", "Emulated", "Ran on an emulator: support and accuracy, never speed."),
    "converted": ("▷", "Converted", "Converted, and the program executed apart from its hardware."),
    "stale": ("△", "Stale", "Only outdated measurements exist."),
    "not-measured": (DASH, "Not measured", "Nothing ran; this says nothing about the hardware."),
}
"""Appearance key of every rating with its symbol, name and meaning."""

BADGES = {
    "stand-in": (
        "Judged on a small trained checkpoint or on generated weights, because no published "
        "weights were at hand."
    ),
    "small size": (
        "Judged on a size that nobody published, because nothing of a published size ran there. "
        "On a device its wrong answers count, and what it passes stays unknown."
    ),
    "other limits": "Judged by thresholds that a person named, beside or instead of the shipped.",
    "own corpus": "Measured on a person's own recordings.",
    "own checkpoint": "Measured with weights that a person named, whatever they are called.",
}
"""Maps each badge to its meaning. A badge adds to a rating and does not repeat it."""


def appearance(rating: Rating | None) -> str:
    """Return the key of a rating in :data:`RATINGS`, which decides how it is shown."""
    if rating is None:
        return "not-measured"
    if rating.unsupported:
        return "unsupported"
    if rating.kind in ("emulated", "converted"):
        return "none" if rating.ceiling == "None" else rating.kind
    return rating.floor.lower() if rating.kind == "rated" else rating.kind


def symbol(rating: Rating | None) -> str:
    """Return the symbol that stands before a rating."""
    return RATINGS[appearance(rating)][0]


def head_and_note(rating: Rating | None) -> tuple[str, str]:
    """Split a rating's label into its word and what follows, for narrow cells."""
    if rating is None:
        return "Not measured", ""
    head, _, note = rating.label.replace(" (", ": ").rstrip(")").partition(": ")
    return head, note


def badges(rating: Rating | None) -> tuple[str, ...]:
    """Return the badges that the label of a rating does not contain already."""
    if rating is None or rating.kind == "not-measured":
        return ()
    return tuple(badge for badge in rating.badges if badge not in rating.label.lower())


@lru_cache(maxsize=1 << 16)
def slug(*parts: str) -> str:
    """Return a file name and HTML id for ``parts``: ASCII letters, digits, ``.``, ``_``, ``-``.

    Different inputs have different slugs: a part that had to be altered is followed by a hash of
    the original.
    """
    words = []
    for part in parts:
        # A space becomes an underscore, so an underscore must become something else.
        wanted = part.replace("_", "-_").replace(" ", "_")
        word = re.sub(r"[^a-z0-9._]+", "-", wanted.lower()).strip("-.")[:80]
        if word != wanted or not word:
            word = f"{word or 'x'}-{hashlib.sha256(part.encode(errors='replace')).hexdigest()[:8]}"
        words.append(word)
    return "--".join(words)


MOST_OF_A_NAME = 180
"""Most characters of a page's name; file systems allow 255 bytes with prefix and suffix."""


def page_name(*parts: str) -> str:
    """Return a slug that fits a file name; one that is too long is cut, and ends in a hash."""
    whole = slug(*parts)
    if len(whole) <= MOST_OF_A_NAME:
        return whole
    return f"{whole[: MOST_OF_A_NAME - 9]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def duration(seconds: float) -> str:
    """Return seconds in a fitting unit: µs, ms, s or min."""
    size = abs(seconds)
    if size and size < 1e-3:
        return f"{_significant(seconds * 1e6)} µs"
    if size < 1:
        return f"{_significant(seconds * 1e3)} ms"
    if size < 120:
        return f"{_significant(seconds)} s"
    return f"{_significant(seconds / 60)} min"


def data_size(count: float) -> str:
    """Return bytes in decimal units: 1 kB is 1000 bytes."""
    size = abs(count)
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{_significant(count / scale)} {unit}"
    return f"{count:.0f} B"


def percent(share: float) -> str:
    """Return a share (0 to 1) as a percentage that never rounds up to 100 % or down to 0 %."""
    value = share * 100
    if 99.9 < value < 100:
        return "99.9 %" if value < 99.99 else "> 99.9 %"
    if 0 < value < 0.05:
        return "< 0.1 %"
    return f"{_fixed(value, 1).removesuffix('.0')} %"


def points(share: float) -> str:
    """Return a difference of shares in percentage points, with its sign."""
    value = share * 100
    if value == 0:
        return "0 pp"
    if abs(value) < 0.005:
        return f"{'+' if value > 0 else '−'}< 0.01 pp"
    return f"{'+' if value > 0 else ''}{_fixed(value, 2)} pp".replace("-", "−")


def ratio(value: float) -> str:
    """Return a factor with the multiplication sign."""
    return f"{_significant(value)} ×"


_UNREADABLE = 1e9
"""Size from which numbers are written with a power of ten; more than nine digits are unreadable."""


def _fixed(value: float, places: int) -> str:
    return f"{value:.{places}f}" if abs(value) < _UNREADABLE else f"{value:.2e}"


def _significant(value: float, digits: int = 3) -> str:
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    magnitude = math.floor(math.log10(abs(value)))
    if not -4 <= magnitude < 7:
        return f"{value:.{digits - 1}e}"
    rounded = round(value, digits - 1 - magnitude)
    places = max(0, digits - 1 - magnitude)
    text = f"{rounded:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_ACRONYMS = {"wer", "der", "eer", "cer", "jer"}
_SHARES = {
    "top1",
    "top5",
    "recall",
    "precision",
    "f1",
    "miss",
    "missed",
    "miss_rate",
    "false_alarm",
    "false_alarm_rate",
    "confusion",
    "changed",
    "changed_in_batch",
    "speakers_right",
    "relative_spread",
}
_ENDS_OF_SHARES = ("share", "error_rate", "accuracy", "agreement", "coverage")

Declared = Mapping[str, MetricFacts]
"""Maps the name of a task metric to its unit and direction, as an observation declares them."""
NOTHING: Declared = {}


def is_share(key: str, declared: Declared = NOTHING) -> bool:
    """Whether a number called ``key`` is a share, which is shown in per cent.

    For metrics that are not declared, as in older files, the name decides.
    """
    if key in declared:
        return declared[key].unit == "share"
    named = key in _SHARES or key.endswith(_ENDS_OF_SHARES)
    return named or not _ACRONYMS.isdisjoint(key.split("_"))


def quantity(key: str, value: object, metric: str = "", declared: Declared = NOTHING) -> str:
    """Return one value with its unit: the declared unit, else the one that its name implies.

    ``metric`` is the task metric of a degradation, which has that metric's unit. Without it, a
    degradation is shown as one of a share.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return DASH
    if isinstance(value, list | tuple):
        pair = interval(value)
        name = key.removesuffix("_interval")
        if pair is not None and (key.endswith("_interval") or key.startswith("interval")):
            name = "seconds" if key == "interval_s" else name
            low, high = (quantity(name, end, metric, declared) for end in pair)
            return f"{low} to {high}"
        shown = ", ".join(quantity(key, item, metric, declared) for item in value[:12])
        return shown + (f", … ({len(value)} in all)" if len(value) > 12 else "") or "none"
    figure = number(value)
    if figure is None and isinstance(value, Mapping):
        return ", ".join(
            f"{one_line(k)}: {quantity(str(k), v, metric, declared)}" for k, v in value.items()
        )
    if figure is None:
        # A number too large to compute with may have thousands of digits.
        return one_line(value, 0 if isinstance(value, str) else 40)
    if key == "degradation":
        if not metric or is_share(metric, declared):
            return points(figure)
        return quantity(metric, figure, metric, declared)
    if key in declared and (form := _FORMS.get(declared[key].unit)):
        return form(figure)
    implied = _implied(key)
    # A declared metric is a share only if its unit says so, whatever its name.
    if implied is not None and not (implied is percent and key in declared):
        return implied(figure)
    whole = isinstance(value, int) and abs(figure) < 1e15
    return f"{value:,}" if whole else _significant(figure, 4)


@lru_cache(maxsize=1 << 12)
def _implied(key: str) -> Callable[[float], str] | None:
    """Return the function that formats a number by the unit in its name; None for plain numbers."""
    if key == "joules_per_minute":
        return lambda figure: f"{_significant(figure)} J/min"
    if key.endswith("watts"):
        return lambda figure: f"{_significant(figure)} W"
    if key.endswith("per_s"):
        return lambda figure: f"{_significant(figure)} /s"
    if key.endswith("_s") or key == "seconds":
        return duration
    if key.endswith("bytes"):
        return data_size
    if key.endswith(("_db", "si_sdr", "sdr")):
        return decibels
    if key in ("rtfx", "error_ratio") or key.endswith("speed_up"):
        return ratio
    if is_share(key):
        return percent
    return cosine if key.endswith("cosine") else None


def cosine(value: float) -> str:
    """Return a cosine with six digits, rounded down: most lie just below 1, and none becomes 1."""
    return "1" if value == 1 else _fixed(math.floor(value * 1e6) / 1e6, 6)


def decibels(value: float) -> str:
    """Return a level or a ratio of levels in decibels."""
    return f"{_fixed(value, 1)} dB"


_FORMS: Mapping[str, Callable[[float], str]] = {
    "share": percent,
    "points": points,
    "dB": decibels,
    "seconds": duration,
    "cosine": cosine,
    "ratio": ratio,
}
"""Maps a declared unit to the function that formats its numbers; other units have none."""


def metric_name(key: str) -> str:
    """Return a task metric's name as its field writes it."""
    spelled = {"si_sdr": "SI-SDR", "sdr": "SDR"}
    return spelled.get(key) or (
        key.upper() if key in _ACRONYMS else one_line(key).replace("_", " ")
    )


def task_metric(one: Configuration) -> str:
    """Return the task metric with its interval and test set, and with its model if it is another.

    For example ``WER 7.5 % [5 % to 10 %] (hard, whisper-nano@trained)``.
    """
    figures = one.figures
    if not figures.metric:
        return DASH
    value = quantity(figures.metric, figures.metric_value, declared=figures.declared)
    shown = f"{metric_name(figures.metric)} {value}"
    if figures.metric_interval is not None:
        low, high = (
            quantity(figures.metric, end, declared=figures.declared)
            for end in figures.metric_interval
        )
        shown += f" [{low} to {high}]"
    other = figures.metric_case if figures.metric_case != one.variant else ""
    where = ", ".join(part for part in (figures.metric_set, other) if part)
    return one_line(f"{shown} ({where})" if where else shown)


def detail(one: Configuration) -> str:
    """Return the line below the rating in a cell of the matrix: variant, runtime and recipe."""
    return one_line(f"{one.variant.partition('@')[0]}, {one.runtime} {one.recipe}")


def reproduction(case: CaseFacts) -> str:
    """Return the command that measures exactly one case of the catalog.

    It is quoted for a shell, because a results file may hold any text as the name of a case.
    """
    options = {
        "models": case.variant,
        "weights": case.weights,
        "targets": case.target,
        "recipes": case.recipe,
    }
    words = (f"--{name} {shlex.quote(clean(value))}" for name, value in options.items())
    return " ".join(("pytest", *words))


def limit(
    one: Limit, values: Mapping[str, Any], declared: Declared = NOTHING
) -> tuple[str, str, str]:
    """Return the value that was checked against a limit, and the limit's strict and relaxed ends.

    All three have units. ``values`` are the observation's, where a degradation finds the metric
    whose unit it has.
    """
    *path, key = one.metric.replace("/", ".").split(".")
    group: Any = values
    for part in path:
        group = group.get(part) if isinstance(group, Mapping) else None
    metric = primary_metric(group, declared) if isinstance(group, Mapping) else ""
    found, strict, relaxed = (
        quantity(key, v, metric, declared) for v in (one.value, one.strict, one.relaxed)
    )
    word = "≥" if one.direction == "at_least" else "≤"
    if one.interval is not None:
        low, high = (quantity(key, end, metric, declared) for end in one.interval)
        best, worst = ("lower", "upper") if one.direction == "at_most" else ("upper", "lower")
        found = f"{found} ({low} to {high})"
        return found, f"{worst} end {word} {strict}", f"{best} end {word} {relaxed}"
    return found, f"{word} {strict}", f"{word} {relaxed}"


def primary_metric(scores: Mapping[str, Any], declared: Declared = NOTHING) -> str:
    """Return the name of the task metric among some scores: the one that is declared primary.

    Where none is declared it is the first with an interval, else the first number; empty for none.
    """
    for key, facts in declared.items():
        if facts.primary and key in scores:
            return key
    for key in scores:
        if f"{key}_interval" in scores and key != "degradation":
            return str(key)
    for key, value in scores.items():
        if number(value) is not None and "degradation" not in str(key):
            return str(key)
    return ""


def latency(figures: Figures) -> str:
    """Return the median task time, or the status of the timing where there is none."""
    if figures.median_s is None:
        return figures.latency_status or DASH
    shown = duration(figures.median_s)
    return shown if figures.latency_status == "passed" else f"{shown} ({figures.latency_status})"
