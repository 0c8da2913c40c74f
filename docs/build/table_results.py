"""Tables of measurements, from results files."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from table_form import table

from compat import catalog
from compat.contract.profile import CORE, QUICK
from compat.judge.results import Observation, Run
from compat.report import text
from compat.report.choosing import choose
from compat.report.findings import LATENCY, LOADS, MEMORY, NUMERICS, STRESS, TASK, THROUGHPUT
from compat.report.history import histories
from compat.report.measures import NOISE, NOISE_DB, Measure
from compat.run.selection import Selection

NATIVE = ("cpu-torch", "cpu-onnxruntime", "cpu-ctranslate2", "openvino-cpu")
"""Targets on a processor that the core profile runs without being asked."""
PAGES = ("webnn-chromium-cpu", "wasm-chromium", "wasm-firefox")
ADAPTERS = ("webgpu-firefox-software", "webgpu-chromium-software")
MARKS = {"strict": "", "relaxed": " ~", "failed": " ✕"}
ENDED = {"unsupported": "unsupported", "timeout": "timeout", "crashed": "crashed"}
METRICS = ("miss", "false_alarm", "confusion", "der_collar_250ms", "jer", "speakers_right", "cer")
"""Metrics that are shown beside the primary one."""


@dataclass(frozen=True)
class Case:
    """The observations of one case that count, on the machine that answered most of its checks."""

    id: str
    machine: str
    found: Mapping[str, Observation]
    """Observations by check."""
    profile: str

    @property
    def checkpoint(self) -> str:
        return self.id.split("/")[0]

    @property
    def target(self) -> str:
        return self.id.split("/")[1]

    @property
    def recipe(self) -> str:
        return self.id.split("/")[2]

    def values(self, check: str) -> Mapping[str, Any]:
        """Return the numbers of a check, an empty mapping if it was not measured."""
        return self.found[check].values if check in self.found else {}

    def outputs(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the numerics of each output, by the output's name."""
        numbers = self.values(NUMERICS).items()
        return {k: v for k, v in numbers if isinstance(v, Mapping) and "snr_db" in v}

    def worst(self) -> tuple[str, Mapping[str, Any]] | None:
        """Return the output with the lowest signal-to-noise ratio, and its numerics."""
        outputs = self.outputs()
        return min(outputs.items(), key=lambda one: one[1]["snr_db"], default=None)


def cases(runs: Sequence[Run], *targets: str) -> list[Case]:
    """Return the cases of some targets, in the order of their ids."""
    found: dict[tuple[str, str], dict[str, Observation]] = defaultdict(dict)
    profiles: dict[tuple[str, str], str] = {}
    for (machine, case, check), one in sorted(choose(runs).items()):
        if case.split("/")[1] in targets and one.observation.status != "skipped":
            found[case, machine][check] = one.observation
            profiles[case, machine] = one.run.header.profile
    best: dict[str, Case] = {}
    for (case, machine), checks in sorted(found.items()):
        if case not in best or len(checks) > len(best[case].found):
            best[case] = Case(case, machine, checks, profiles[case, machine])
    return list(best.values())


def accuracy(runs: Sequence[Run]) -> str:
    """Return the table of each checkpoint's scores by test set, natively on a processor."""
    head = ["checkpoint", "target, recipe", "test set", "metric (95 %)", "float64"]
    head += ["degradation (95 %)", "other metrics", "RTFx", "peak memory", "model"]
    return table(head, [row for one in cases(runs, *NATIVE) for row in _scores(one)])


def _scores(one: Case) -> Iterator[tuple[str, ...]]:
    if one.recipe not in ("fp32", "int8-dynamic"):
        return
    for name, scores in one.values(TASK).items():
        metric = text.primary_metric(scores) if isinstance(scores, Mapping) else ""
        if not metric or name == "pooled":
            continue
        yield (
            one.checkpoint,
            f"{one.target} {one.recipe}",
            name,
            f"{text.metric_name(metric)} {_with_interval(scores, metric, metric)}",
            text.quantity(metric, scores.get(f"reference_{metric}"), metric),
            _with_interval(scores, "degradation", metric),
            ", ".join(
                f"{text.metric_name(key)} {text.percent(scores[key])}"
                for key in METRICS
                if key in scores and key != metric
            ),
            _shown("rtfx", one.values(LATENCY).get("rtfx")),
            _shown("bytes", one.values(MEMORY).get("peak_bytes")),
            _shown("bytes", one.values(LOADS).get("model_bytes")),
        )


def _with_interval(values: Mapping[str, Any], key: str, metric: str) -> str:
    shown = text.quantity(key, values.get(key), metric)
    pair = text.interval(values.get(f"{key}_interval"))
    if pair is None:
        return shown
    low, high = (text.quantity(key, end, metric) for end in pair)
    return f"{shown} ({low} to {high})"


def _shown(key: str, value: Any) -> str:
    return "" if value is None else text.quantity(key, value)


def without_device(runs: Sequence[Run], target: str) -> str:
    """Return the table of models and recipes in an emulator or a conversion, without a device."""
    head = ["model", "recipe", "profile", "size", "task (reference)", "numerics"]
    head += ["simulation", "beyond strict limits"]
    return table(head, [_beside_simulation(one) for one in cases(runs, target)])


def _beside_simulation(one: Case) -> tuple[str, ...]:
    worst = one.worst()
    return (
        one.checkpoint,
        one.recipe,
        one.profile,
        _shown("bytes", one.values(LOADS).get("model_bytes")),
        ", ".join(_beside_reference(one)),
        f"{worst[0]} {_decibels(worst[1]['snr_db'])}" if worst else "",
        _decibels(worst[1].get("oracle_snr_db")) if worst else "",
        _shortcomings(one),
    )


def _beside_reference(one: Case) -> Iterator[str]:
    for name, scores in one.values(TASK).items():
        metric = text.primary_metric(scores) if isinstance(scores, Mapping) else ""
        if metric and name != "pooled":
            own, honest = scores.get(metric), scores.get(f"reference_{metric}")
            shown = text.quantity(metric, own, metric)
            yield f"{name} {shown} ({text.quantity(metric, honest, metric)})"


def _shortcomings(one: Case) -> str:
    """Return the checks of a case that missed a strict limit, failed ones first.

    For a case that did not run it is the status in which it ended.
    """
    loading = one.found.get(LOADS)
    if loading is not None and loading.level != "strict":
        return f"**{ENDED.get(loading.status, loading.status)}**"
    found: dict[str, list[str]] = defaultdict(list)
    for check in (TASK, NUMERICS, STRESS):
        level = one.found[check].level if check in one.found else ""
        if level in ("relaxed", "failed"):
            found[level].append(check.partition(".")[2])
    return "; ".join(
        f"{'**fails**' if level == 'failed' else level}: {', '.join(found[level])}"
        for level in ("failed", "relaxed")
        if level in found
    )


def _decibels(value: Any) -> str:
    return f"{value:.1f} dB" if isinstance(value, (int, float)) else ""


def browsers_seconds(runs: Sequence[Run]) -> str:
    """Return the table of a task's seconds in pages, beside the fastest accurate native run."""
    found = [one for one in cases(runs, *PAGES) if one.recipe == "fp32"]
    pages = {(one.checkpoint, one.target): one for one in found}
    natives = [one for one in cases(runs, *NATIVE) if _accurate(one)]
    rows = []
    for checkpoint in sorted({name for name, _ in pages}):
        times = [_median(pages.get((checkpoint, target))) for target in PAGES]
        native = [
            (median, one)
            for one in natives
            if one.checkpoint == checkpoint and (median := _median(one))
        ]
        if not any(times) or not native:
            continue
        fastest, one = min(native, key=lambda pair: pair[0])
        shown = [text.duration(seconds) if seconds else "" for seconds in times]
        ours = f"{text.duration(fastest)} ({one.target} {one.recipe})"
        rows.append((checkpoint, *shown, ours))
    return table(("model", *PAGES, "fastest native"), rows)


def _median(one: Case | None) -> float | None:
    found = one.found.get(LATENCY) if one else None
    return found.values.get("median_s") if found and found.status == "passed" else None


def _accurate(one: Case) -> bool:
    return all(
        one.found[check].level != "failed" for check in (TASK, NUMERICS) if check in one.found
    )


def browsers_recipes(runs: Sequence[Run]) -> str:
    """Return the table of the worst output's numerics, by model, recipe and page."""
    pages = ("webnn-chromium-cpu", "wasm-chromium", *ADAPTERS)
    found = {(one.checkpoint, one.recipe, one.target): one for one in cases(runs, *pages)}
    keys = sorted({(checkpoint, recipe) for checkpoint, recipe, _ in found})
    rows = [
        (checkpoint, recipe, *(_numerics(found.get((checkpoint, recipe, page))) for page in pages))
        for checkpoint, recipe in keys
    ]
    return table(("model", "recipe", *pages), [row for row in rows if any(row[2:])])


def _numerics(one: Case | None) -> str:
    if one is None:
        return ""
    worst = one.worst()
    if worst is None:
        loading = one.found.get(LOADS)
        bad = loading is not None and loading.status not in ("passed", "inconclusive")
        return ENDED.get(loading.status, loading.status) if bad and loading else ""
    level = one.found[NUMERICS].level or ""
    return f"{worst[1]['snr_db']:.1f}{MARKS.get(level, '')}"


_Kind = tuple[str, str, Callable[[Measure], bool], bool]
_FOLLOWED: tuple[_Kind, ...] = (
    (LATENCY, "real-time factor", lambda one: one.key == "rtf", True),
    (THROUGHPUT, "best rate of a sweep", lambda one: True, True),
    (LOADS, "cold start", lambda one: "cold" in one.name, True),
    (MEMORY, "peak memory", lambda one: one.key == "peak_bytes", True),
    (NUMERICS, "signal to noise", lambda one: one.key == "snr_db", False),
    (TASK, "task metric, degradation", lambda one: True, False),
)


def noise(runs: Sequence[Run]) -> str:
    """Return the table of differences between successive runs of one case on one machine."""
    apart: dict[str, list[float]] = defaultdict(list)
    beyond: dict[str, int] = defaultdict(int)
    for history in histories(runs):
        for check, name, chosen, relative in _FOLLOWED:
            if history.check != check:
                continue
            values = [one for one in history.values if chosen(one)]
            for before, after in pairwise(values):
                low = min(abs(before.value), abs(after.value))
                difference = abs(before.value - after.value)
                if relative and not low:
                    continue
                apart[name].append(difference / low if relative else difference)
                beyond[name] += _differ(before, after, apart[name][-1])
    rows = []
    for check, name, _, relative in _FOLLOWED:
        found = sorted(apart[name])
        if not found:
            continue
        rows.append(
            (
                name,
                str(len(found)),
                *(_difference(check, relative, end) for end in _ends(found)),
                _from(check),
                text.percent(beyond[name] / len(found)),
            )
        )
    head = ("number", "pairs", "half of them differ by", "95 % of them", "counts from")
    return table((*head, "of the pairs are beyond"), rows)


def _ends(found: Sequence[float]) -> tuple[float, float]:
    return statistics.median(found), found[min(len(found) - 1, int(0.95 * len(found)))]


def _differ(before: Measure, after: Measure, difference: float) -> bool:
    first, second = before.interval, after.interval
    if first and second and first[0] <= second[1] and second[0] <= first[1]:
        return False
    return difference > before.noise


def _difference(check: str, relative: bool, value: float) -> str:
    if relative:
        return text.percent(value)
    return f"{value:.1f} dB" if check == NUMERICS else f"{100 * value:.1f} points"


def _from(check: str) -> str:
    if check == NUMERICS:
        return f"{NOISE_DB:g} dB"
    if check not in NOISE:
        return "intervals apart"
    return f"{NOISE[check]:.0%}".replace("%", " %") + (", apart" if check == LATENCY else "")


def costs(runs: Sequence[Run]) -> str:
    """Return the table of the seconds of each family's cases on a processor, the dearest first.

    The cases are those of the core profile. A case that was only published in a first look counts
    with that run, which has fewer inputs.
    """
    wanted = (CORE.name, QUICK.name)
    measured = {one.id: one for one in cases(runs, *NATIVE) if one.profile in wanted}
    selection = Selection(targets=NATIVE)
    known = [case for case in selection.cases(catalog.load()) if case.id in measured]
    of_family: dict[str, list[Case]] = defaultdict(list)
    for case in selection.worth(known):
        of_family[case.family.name].append(measured[case.id])
    dearest = sorted(of_family.items(), key=lambda one: -sum(map(_seconds, one[1])))
    rows = [
        (
            family,
            str(len(found)),
            " and ".join(sorted({one.profile for one in found})),
            f"{sum(map(_seconds, found)):.0f} s",
            f"{sum(one.values(LOADS).get('artifacts_s') or 0.0 for one in found):.0f} s",
            f"{sum(_seconds(one, LATENCY) for one in found):.0f} s",
            f"{(most := max(found, key=_seconds)).id}, {_seconds(most):.0f} s",
        )
        for family, found in dearest
    ]
    head = ["family", "cases", "profile", "in all", "waits for exports", "timing", "dearest case"]
    return table(head, rows)


def _seconds(one: Case, check: str = "") -> float:
    """Return the seconds that a case took, or one of its checks."""
    return sum(seen.seconds for name, seen in one.found.items() if check in ("", name))
