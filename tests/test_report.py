"""Merging, rendering and publishing results: what counts, what is shown, what cannot be broken."""

from __future__ import annotations

import html
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import forks
import msgspec
import numpy as np
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st
from made_reports import (
    CPU,
    GPU,
    LATENCY,
    LOADS,
    NUMERICS,
    STRESS,
    TASK,
    Page,
    case,
    full_report,
    gate,
    good,
    latency,
    nano,
    only,
    rated,
    report_of,
    run,
    scored,
    seen,
    site_of,
)
from rich.console import Console

from compat.catalog import Catalog
from compat.catalog import load as load_catalog
from compat.commands.main import main
from compat.contract import precision
from compat.contract.case import HARDWARE
from compat.contract.errors import CompatError
from compat.hardware.facts import machine_id
from compat.judge.results import (
    CaseFacts,
    Collection,
    Level,
    Limit,
    Line,
    Observation,
    Planned,
    ResultsError,
    Run,
    Started,
    Status,
    Writer,
    facts_of,
    read_all,
)
from compat.metrics import SCORER_VERSION
from compat.report import build, matrix_markdown, print_matrix, tables, text, write_site
from compat.report.charts import PALETTE, points
from compat.report.exports import data_json, summary_json
from compat.report.matrix import matrix
from compat.report.model import Report
from compat.report.publish import publish
from compat.run.selection import Selection

ROOT = Path(__file__).resolve().parents[1]


# --- merging ---------------------------------------------------------------------------------


def test_stand_in_and_seeded_headline_together_reach_high() -> None:
    one = rated(*good(case()), *good(nano()))
    assert (one.rating.label, one.rating.badges) == ("High", ("stand-in",))
    assert one.variant == "whisper-tiny@seeded"
    assert one.why == ()


def test_seeded_alone_stops_at_medium_and_says_why() -> None:
    one = rated(*good(case()))
    assert one.rating.label == "Medium"
    assert any("generated weights" in reason for reason in one.why)


def test_integer_stand_in_stops_at_medium() -> None:
    one = rated(*good(case(recipe="int8-dynamic")), *good(nano(recipe="int8-dynamic")))
    assert one.rating.label == "Medium"
    mixed = "fp16+int8-decoder"
    assert rated(*good(case(recipe=mixed)), *good(nano(recipe=mixed))).rating.label == "Medium"


def test_a_class_that_the_table_gains_is_capped_and_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    fp8 = precision.Precision("fp8", 8, True, "pentagon")
    monkeypatch.setattr(precision, "CLASSES", (*precision.CLASSES, fp8))
    lines = (*scored(case(recipe="fp8-e4m3")), *good(nano(recipe="fp8-e4m3")))
    assert rated(*lines).rating.label == "Medium"
    (point,) = points(report_of(run(*lines)).configurations)
    assert point["symbol"] == "pentagon"


def test_pretrained_headline_is_preferred_over_seeded_and_stand_in() -> None:
    real = case(weights="pretrained")
    one = rated(*good(case()), *good(nano()), *good(real))
    assert one.variant == "whisper-tiny@pretrained"
    assert (one.rating.label, one.rating.badges) == ("High", ())
    absent = seen(real, LOADS, "skipped", reason="no checkpoint")
    one = rated(*good(case()), *good(nano()), Planned(case=real, checks=(LOADS,)), absent)
    assert one.variant == "whisper-tiny@seeded"


def test_a_missing_task_metric_leaves_accuracy_unknown() -> None:
    lines = [one for one in good(nano()) if getattr(one, "check", "") != TASK]
    one = rated(*good(case()), *lines)
    assert gate(one, "accurate") == "unknown"
    assert one.rating.label == "Incomplete: None to High"


def test_a_headline_that_did_not_run_is_said_once() -> None:
    other = case(variant="whisper-base", headline=False)
    (reason,) = rated(*good(other), *good(nano())).why
    assert reason.startswith("the headline variant was not part of any run, so unknown: loads, ")
    assert reason.endswith("real time")


def test_on_a_device_a_small_size_alone_leaves_what_it_passes_unknown() -> None:
    one = rated(*good(nano()))
    assert one.rating.label == "Incomplete: None to High"
    assert one.rating.badges == ("stand-in", "small size")
    assert one.variant == "whisper-nano@trained"
    assert one.figures.rtf is None and one.figures.snr_db is None
    (reason,) = one.why
    assert reason.startswith("whisper-nano alone ran, a size that nobody published, so unknown: ")
    slow = [line for line in good(nano()) if getattr(line, "check", "") != LATENCY]
    slow.append(latency(nano(), 20.0, 21.0, level="failed", status="failed"))
    assert gate(rated(*slow), "real_time") == "unknown"


@pytest.mark.parametrize("check", [LOADS, NUMERICS, STRESS])
def test_on_a_device_the_failures_of_a_small_size_count(check: str) -> None:
    lines = [line for line in good(nano()) if getattr(line, "check", "") != check]
    one = rated(*lines, seen(nano(), check, "failed", "failed"))
    best = "Limited" if check == STRESS else "None"
    assert one.rating.ceiling == best
    assert gate(one, {LOADS: "loads", NUMERICS: "accurate"}.get(check, "robust")) == "failed"


@pytest.mark.parametrize("evidence", ["emulator", "conversion"])
def test_apart_from_a_device_a_small_size_decides_where_nothing_else_ran(evidence: str) -> None:
    tiny = case("npu-emulator", variant="tune-nano", published=False, headline=False)
    tiny = msgspec.structs.replace(tiny, evidence=evidence)
    one = rated(*good(tiny))
    word = {"emulator": "Emulated", "conversion": "Converted"}[evidence]
    assert (one.rating.label, gate(one, "loads")) == (word, "relaxed")
    assert "small size" in one.rating.badges
    assert any("tune-nano loads; no published size ran" in why for why in one.why)
    large = msgspec.structs.replace(case("npu-emulator"), evidence=evidence)
    skipped = Planned(case=large, checks=(LOADS,)), seen(large, LOADS, "skipped", reason="memory")
    assert rated(*good(tiny), *skipped).variant == "tune-nano@seeded"
    failed = seen(large, LOADS, "failed", "failed")
    both = rated(*good(tiny), skipped[0], failed)
    assert (both.variant, both.rating.ceiling) == ("whisper-tiny@seeded", "None")
    assert "small size" not in both.rating.badges


def test_what_a_small_size_cannot_is_unsupported() -> None:
    tiny = case("coreml-conversion", variant="tune-nano", published=False, headline=False)
    tiny = msgspec.structs.replace(tiny, evidence="conversion")
    unable = seen(tiny, LOADS, "unsupported", reason="no conversion of upsample_nearest2d")
    one = rated(Planned(case=tiny, checks=(LOADS,)), unable)
    assert one.rating.label == "Converted: unsupported"
    assert "upsample_nearest2d" in one.why[0]


def test_a_stand_in_that_ran_elsewhere_only_leaves_accuracy_unknown() -> None:
    report = report_of(run(*good(case(recipe="bf16")), *good(nano())))
    one = next(one for one in report.configurations if one.recipe == "bf16")
    assert one.rating.label == "Incomplete: None to High"
    assert "not part of any run" in one.why[0]


def test_accurate_is_the_worst_of_task_and_numerics() -> None:
    lines = [one for one in good(case()) if getattr(one, "check", "") != NUMERICS]
    one = rated(*lines, seen(case(), NUMERICS, level="relaxed"), *good(nano()))
    assert gate(one, "accurate") == "relaxed"
    one = rated(*lines, seen(case(), NUMERICS, "failed", "failed"), *good(nano()))
    assert one.rating.label == "None"


def test_stress_of_the_stand_in_counts() -> None:
    lines = [one for one in good(nano()) if getattr(one, "check", "") != STRESS]
    crash = seen(nano(), STRESS, "crashed", "failed", reason="signal 11 on 0.1 s")
    one = rated(*good(case()), *lines, crash)
    assert gate(one, "robust") == "failed"
    assert one.rating.label == "Limited"
    assert "signal 11" in one.why[0]


@pytest.mark.parametrize(
    ("status", "level"),
    [
        ("failed", None),
        ("timeout", None),
        ("crashed", None),
        ("out-of-memory", None),
        ("known-failure", None),
        ("error", "failed"),
    ],
)
def test_loading_that_fails_in_any_way_is_none_and_keeps_its_status(
    status: Status, level: Level | None
) -> None:
    about = case()
    found = seen(about, LOADS, status, level, reason="boom")
    one = rated(Planned(case=about, checks=(LOADS,)), found)
    assert one.rating.label == "None"
    assert one.records[0].status == status
    assert "boom" in one.why[0]


@pytest.mark.parametrize("level", [None, "failed"])
def test_an_emulator_that_is_too_slow_says_nothing_of_its_hardware(level: Level | None) -> None:
    about = case("qualcomm-emulator", "fp16", evidence="emulator")
    planned = Planned(case=about, checks=(LOADS,))
    one = rated(planned, seen(about, LOADS, "timeout", level, reason="450 s are over"))
    assert gate(one, "loads") == "unknown"
    assert one.rating.label == "Emulated: incomplete"
    assert any("450 s are over (of an emulator" in reason for reason in one.why)
    crashed = rated(planned, seen(about, LOADS, "crashed", level, reason="signal 11"))
    assert crashed.rating.label == "Emulated: failed"


def test_what_a_person_got_wrong_rates_no_hardware() -> None:
    """Corrupt audio, an unwritable cache, a broken probe: every check ends as loading did."""
    about = case()
    checks = (LOADS, NUMERICS, LATENCY, STRESS)
    errors = [seen(about, check, "error", reason="cannot read a.flac") for check in checks]
    one = rated(Planned(case=about, checks=checks), *errors, *good(nano()))
    assert gate(one, "loads") == gate(one, "accurate") == "unknown"
    assert one.rating.label == "Incomplete: None to High"
    assert "cannot read a.flac" in one.why[0]


def test_an_error_elsewhere_withholds_the_verdict() -> None:
    lines = [one for one in good(case()) if getattr(one, "check", "") != NUMERICS]
    one = rated(*lines, seen(case(), NUMERICS, "error", reason="corpus missing"))
    assert gate(one, "accurate") == "unknown"
    assert one.rating.label.startswith("Incomplete")


@pytest.mark.parametrize("reason", ["no such operator", "unsupported (executed bf16)"])
def test_proven_unsupported_is_not_failure_nor_absence(reason: str) -> None:
    about = case()
    one = rated(
        Planned(case=about, checks=(LOADS,)), seen(about, LOADS, "unsupported", reason=reason)
    )
    assert one.rating.label == "None (unsupported)"
    assert reason in one.why[0]


def test_absent_hardware_is_not_measured_and_names_the_remedy() -> None:
    about = case("cuda-torch")
    absent = seen(about, LOADS, "skipped", reason="no NVIDIA GPU", remedy="use a GPU runner")
    one = rated(Planned(case=about, checks=(LOADS, LATENCY)), absent)
    assert one.rating.label == "Not measured"
    assert any("no NVIDIA GPU" in reason for reason in one.why)
    assert any("use a GPU runner" in reason for reason in one.why)


def test_planned_but_not_run_and_cut_off_are_told_apart() -> None:
    about = case()
    one = rated(
        Planned(case=about, checks=(LOADS, NUMERICS, STRESS)),
        Started(case=about.id, check=LOADS, time="t"),
        seen(about, LOADS),
        Started(case=about.id, check=NUMERICS, time="t"),
    )
    assert {record.check: record.status for record in one.records} == {
        LOADS: "passed",
        NUMERICS: "cut-off",
        STRESS: "not-run",
    }


def unable(target: str = "cpu-torch") -> list[Line]:
    """A headline that does not load, as a real run writes it: every check ends alike."""
    large = case(target, variant="whisper-large", parameters=1543.0)
    checks = (LOADS, NUMERICS, LATENCY, "memory.peak", STRESS)
    said = {"reason": "8 GB were not enough"}
    ended = [seen(large, check, "out-of-memory", **said) for check in checks]
    return [Planned(case=large, checks=checks), *ended]


def small(target: str = "cpu-torch") -> CaseFacts:
    return case(target, variant="whisper-base", headline=False, parameters=72.6)


def test_where_only_a_smaller_variant_loads_it_is_judged_in_the_others_place() -> None:
    one = rated(*unable(), *good(small(), 0.4, 0.5), *good(nano()))
    assert one.rating.label == "Limited"
    states = {gate.key: gate.state for gate in one.gates}
    assert states["loads"] == "relaxed"
    assert [states[key] for key in ("accurate", "robust", "real_time")] == ["strict"] * 3
    assert one.variant == "whisper-base@seeded"
    assert one.figures.rtf_upper == pytest.approx(0.05)
    (reason,) = (why for why in one.why if "loads relaxed" in why)
    for said in ("whisper-base loads", "whisper-large does not", "8 GB", "judged on whisper-base"):
        assert said in reason
    by_case = {record.case.variant for record in one.records}
    assert by_case == {"whisper-large", "whisper-base", "whisper-nano"}


def test_a_smaller_variant_that_is_wrong_helps_nobody() -> None:
    lines = [one for one in good(small()) if getattr(one, "check", "") != NUMERICS]
    wrong = seen(small(), NUMERICS, "failed", "failed")
    assert rated(*unable(), *lines, wrong, *good(nano())).rating.label == "None"


def test_a_headline_that_runs_and_gives_nonsense_is_not_replaced() -> None:
    large = case(variant="whisper-large", parameters=1543.0)
    nan = {"reason": "NaN", "values": {"inputs": 8}}
    lines = [
        Planned(case=large, checks=(LOADS, NUMERICS)),
        *(seen(large, check, "failed", "failed", **nan) for check in (LOADS, NUMERICS)),
    ]
    one = rated(*lines, *good(small()), *good(nano()))
    assert one.rating.label == "None"
    assert one.variant == "whisper-large@seeded"


def test_a_smaller_variant_is_compared_with_itself_on_the_cpu() -> None:
    headline = case(variant="whisper-large", parameters=1543.0)
    report = report_of(
        run(
            *good(headline, 3.0, 3.1),
            *good(small(), 0.3, 0.4),
            *unable("cuda-torch"),
            *good(small("cuda-torch"), 0.05, 0.1),
        )
    )
    (one,) = report.cell("whisper", "cuda").configurations
    assert one.figures.speed_up == pytest.approx(0.3 / 0.1)


def test_noise_and_parallel_runs_leave_speed_unknown() -> None:
    lines = [one for one in good(case()) if getattr(one, "check", "") != LATENCY]
    for status in ("inconclusive", "skipped"):
        timing = seen(case(), LATENCY, status, reason="not timed (parallel)")  # type: ignore[arg-type]
        assert gate(rated(*lines, timing), "real_time") == "unknown"


def test_worthwhile_is_a_lower_bound_over_the_fastest_accurate_cpu() -> None:
    fast, slow, wrong = case(), case(recipe="int8-dynamic"), case(recipe="bf16")
    gpu = case("cuda-torch", "fp16")
    broken = [one for one in good(wrong, 0.01, 0.02) if getattr(one, "check", "") != NUMERICS]
    lines = [
        *good(fast, 0.30, 0.40),
        *good(slow, 0.6, 0.7),
        *broken,
        seen(wrong, NUMERICS, "failed", "failed"),
    ]

    def speed_up(low: float, high: float) -> tuple[str, float | None]:
        report = report_of(run(*lines, *good(gpu, low, high)))
        (one,) = report.cell("whisper", "cuda").configurations
        return gate(one, "worthwhile"), one.figures.speed_up

    assert speed_up(0.1, 0.19) == ("strict", pytest.approx(0.30 / 0.19))
    assert speed_up(0.1, 0.21)[0] == "relaxed"
    assert speed_up(0.1, 0.31)[0] == "failed"
    other_machine = report_of(run(*lines), run(*good(gpu), machine=GPU))
    (one,) = other_machine.cell("whisper", "cuda").configurations
    assert gate(one, "worthwhile") == "unknown"


def test_a_processor_that_others_used_is_no_yardstick() -> None:
    """It would have been faster alone; an accelerator beside others would not have been slower."""

    def crowded(about: CaseFacts, low: float, high: float) -> list[Line]:
        (*rest, timing) = good(about, low, high)
        assert isinstance(timing, Observation)
        values = {**timing.values, "others_busy": 1.0, "processors": 2}
        return [*rest, msgspec.structs.replace(timing, values=values)]

    gpu, cpu, other = case("cuda-torch", "fp16"), case(), case(recipe="bf16")

    def state(*lines: Line) -> str:
        (one,) = report_of(run(*lines)).cell("whisper", "cuda").configurations
        return gate(one, "worthwhile")

    assert state(*crowded(cpu, 0.3, 0.4), *good(gpu, 0.1, 0.2)) == "unknown"
    # A calm one that is slower than it serves, if nothing better is known.
    calm = good(other, 0.6, 0.7)
    assert state(*crowded(cpu, 0.3, 0.4), *calm, *good(gpu, 0.1, 0.39)) == "strict"
    assert state(*calm, *crowded(gpu, 0.1, 0.39)) == "strict"
    assert state(*calm, *good(gpu, 0.8, 0.9)) == "failed"
    assert state(*calm, *crowded(gpu, 0.8, 0.9)) == "unknown"


@pytest.mark.parametrize(
    ("unknown", "shown"), [((), "fp32"), ((STRESS,), "fp32"), ((STRESS, LATENCY), "bf16")]
)
def test_of_two_that_are_limited_a_cell_shows_what_fails_less(
    unknown: tuple[str, ...], shown: str
) -> None:
    """A quicker one that is wrong on hard inputs is not the better one, unless little is known."""

    def limited(
        recipe: str, low: float, left_out: tuple[str, ...], *more: Observation
    ) -> list[Line]:
        (plan, *rest) = good(case(recipe=recipe), low, low + 0.01)
        replaced = {*left_out, *(one.check for one in more)}
        kept = [o for o in rest if isinstance(o, Observation) and o.check not in replaced]
        return [plan, *kept, *more]

    relaxed = seen(case(recipe="fp32"), NUMERICS, level="relaxed")
    failed = seen(case(recipe="bf16"), STRESS, "failed", "failed")
    report = report_of(
        run(*limited("bf16", 0.1, (), failed), *limited("fp32", 0.3, unknown, relaxed))
    )
    cell = report.cell("whisper", "cpu")
    assert {one.rating.label for one in cell.configurations} == {"Limited"}
    assert cell.best is not None and cell.best.recipe == shown


def test_emulators_never_show_speed() -> None:
    about = case("qualcomm-emulator", "fp16", evidence="emulator")
    one = rated(*good(about))
    assert one.rating.label == "Emulated"
    assert gate(one, "real_time") == gate(one, "worthwhile") == "not-applicable"


def test_quick_never_replaces_core_but_newer_core_does() -> None:
    about = case()
    plan = Planned(case=about, checks=(LOADS,))

    def level(*runs: Run) -> str | None:
        observation = only(report_of(*runs)).records[0].observation
        assert observation is not None
        return observation.level

    core = run(plan, seen(about, LOADS, level="strict"))
    quick = run(
        plan, seen(about, LOADS, level="relaxed"), name="r2", profile="quick", started="2026-11-21"
    )
    newer = run(plan, seen(about, LOADS, level="relaxed"), name="r3", started="2026-11-22")
    parallel = run(plan, seen(about, LOADS, "skipped"), name="r4", started="2026-11-23")
    assert level(core, quick) == "strict"
    assert level(quick, core, newer) == "relaxed"
    assert level(core, parallel) == "strict"


def test_a_noisy_timing_erases_no_settled_one() -> None:
    about = case()

    def status(*runs: Run) -> str:
        records = only(report_of(*runs)).records
        return next(record.status for record in records if record.check == LATENCY)

    settled = run(*good(about))
    noisy = seen(about, LATENCY, "inconclusive", reason="the machine was busy")
    later = run(noisy, name="r2", started="2026-11-22")
    assert status(settled, later) == "passed"
    quick = run(*good(about), name="r3", started="2026-11-23", profile="quick")
    assert status(later, quick) == "inconclusive", "a quick run never replaces a core one"
    full = run(noisy, name="r4", started="2026-11-24", profile="full")
    assert status(settled, full) == "passed", "a fuller run that settled nothing erases nothing"


OWN = ("corpus", "thresholds", "checkpoint:whisper-tiny")


def test_what_a_person_replaced_never_replaces_the_standard() -> None:
    about = case(weights="pretrained")
    standard = run(*good(about))
    strange = [seen(about, check, "failed", "failed") for check in (LOADS, TASK, NUMERICS)]
    for entry in OWN:
        own = run(*strange, name="r2", started="2026-11-25", profile="full", own=(entry,))
        assert only(report_of(standard, own)).rating.label == "High", entry
        assert only(report_of(standard, own)).rating.badges == ()
        alone = only(report_of(run(*good(about), own=(entry,))))
        assert len(alone.rating.badges) == 1, entry
    newer = run(*strange, name="r2", started="2026-11-25")
    assert only(report_of(standard, newer)).rating.label == "None", "newer and standard"


def test_an_own_checkpoint_touches_its_own_variant_only() -> None:
    named = {"own": ("checkpoint:whisper-tiny",)}
    assert rated(*good(case()), *good(nano()), **named).rating.badges == ("stand-in",)
    real = case(weights="pretrained")
    assert rated(*good(real), **named).rating.badges == ("own checkpoint",)
    assert rated(*good(real), own=("checkpoint:whisper-base",)).rating.badges == ()


def test_other_limits_and_own_corpora_show_everywhere(tmp_path: Path) -> None:
    report = report_of(run(*good(case(weights="pretrained")), own=OWN))
    pages = site_of(report, tmp_path / "site")
    slug = report.cell("whisper", "cpu").slug
    stream = io.StringIO()
    print_matrix(report, Console(file=stream, width=160))
    shown = {
        "matrix": matrix_markdown(report),
        "terminal": stream.getvalue(),
        "index": pages["index.html"].split('<ul class="legend"')[0],
        "cell": pages[f"cells/{slug}.html"],
        "badge": pages[f"badges/{slug}.svg"],
        "data": pages["summary.json"],
    }
    for place, source in shown.items():
        for words in ("own corpus", "other limits", "own checkpoint"):
            assert words in source, (place, words)


def test_scores_of_an_older_scorer_are_stale() -> None:
    real = case(weights="pretrained")
    lines = [one for one in good(real) if getattr(one, "check", "") != TASK]
    scores = {"hard": {"wer": 0.07, "wer_interval": [0.06, 0.08], "degradation": 0.0}}
    task = seen(real, TASK, values=scores)
    old = run(*lines, task, scorer=SCORER_VERSION - 1)
    one = only(report_of(old))
    assert gate(one, "accurate") == "unknown"
    (record,) = (record for record in one.records if record.check == TASK)
    assert record.status == "stale"
    assert "compat rescore" in record.reason
    assert gate(one, "loads") == "strict", "what has no score is as good as ever"
    again = run(*lines, task)
    assert only(report_of(old, again)).rating.label == "High"
    older = run(*lines, task, name="r9", started="2026-11-24", scorer=SCORER_VERSION - 1)
    assert only(report_of(older, again)).rating.label == "High", "newer, but scored by an older"
    kept = run(*lines, msgspec.structs.replace(task, scorer=SCORER_VERSION - 1))
    assert gate(only(report_of(kept)), "accurate") == "unknown"
    crashed = run(*lines, seen(real, TASK, "crashed"), scorer=SCORER_VERSION - 1)
    assert gate(only(report_of(crashed)), "accurate") == "failed", "a crash has no score"


def test_outdated_check_versions_are_stale() -> None:
    """What is current is the code's word, whatever else a collection holds."""
    about, other = case(), case(recipe="bf16")
    plans = [Planned(case=one, checks=(LOADS,)) for one in (about, other)]
    old_and_new = run(
        *plans, seen(about, LOADS, check_version=1), seen(other, LOADS, check_version=2)
    )
    report = build(Collection((old_and_new,)), current={LOADS: 2})
    by_recipe = {one.recipe: one for one in report.configurations}
    assert by_recipe["fp32"].rating.label == "Stale"
    assert "Measure it again" in by_recipe["fp32"].why[0]
    assert by_recipe["bf16"].rating.label != "Stale"
    assert report.problems == ()


# --- a results file is a stranger's word ------------------------------------------------------

SOME_FACTS: dict[str, Any] = {
    "system": {"os": "Linux", "architecture": "x86_64"},
    "cpu": {"model": "Some CPU", "logical_cores": 2},
}
MACHINE = machine_id(SOME_FACTS)
LATER = "2026-11-25T10:00:00Z"
SEGMENTS = case(
    variant="segments",
    weights="trained",
    family="segments",
    row="segments",
    headline=True,
    stand_in=False,
)
"""Of a family whose headline is trained and has no stand-in."""
ALONE = case(variant="alone", family="alone", row="alone", target="cuda-torch")
"""Of a family that has generated weights only."""
MEASURED = [*good(case()), *good(nano()), *good(SEGMENTS), *good(ALONE)]


def local(*lines: Line, **header: Any) -> Run:
    return run(*lines, **{"machine": MACHINE, "facts": SOME_FACTS, **header})


BEFORE = (
    local(*MEASURED, name="old", started="2026-11-19T10:00:00Z"),
    local(*MEASURED),
    run(*MEASURED, name="elsewhere", machine=GPU),
)


def failing(about: CaseFacts, **more: Any) -> list[Line]:
    """What an intruder says of a case: that nothing of it works."""
    checks = (LOADS, NUMERICS, LATENCY, STRESS)
    return [
        Planned(case=about, checks=checks),
        *(seen(about, check, "failed", "failed", **more) for check in checks),
    ]


def planted(*lines: Line, **header: Any) -> Run:
    return local(*lines, **{"name": "planted", "started": LATER, "profile": "full", **header})


def days(number: float) -> str:
    return (datetime.now(UTC) + timedelta(days=number)).isoformat()


NONSENSE = {
    "a version to come": planted(*failing(case(), check_version=10**9)),
    "no version": planted(*failing(case(), check_version=0)),
    "a negative version": planted(*failing(case(), check_version=-1)),
    "a run to come": planted(*failing(case()), started=days(2)),
    "a year to come": planted(*failing(case()), started="9999-12-31T23:59:59-23:59"),
    "a result to come": planted(*failing(case(), time=days(2))),
    "no date": planted(*failing(case()), started="~"),
    "a result at no date": planted(*failing(case(), time="~")),
    "an end before its run": planted(*failing(case(), time="2026-11-25T09:00:00Z")),
    "an end before its start": planted(
        *(Started(case=case().id, check=c, time="2026-11-25T11:00:00Z") for c in (LOADS, NUMERICS)),
        Planned(case=case(), checks=(LOADS,)),
        seen(case(), LOADS, "failed", "failed", time="2026-11-25T10:30:00Z"),
    ),
    "seconds below nothing": planted(*failing(case(), seconds=-1.0)),
    "threads below nothing": planted(*failing(case(), threads=-1)),
    "an empty batch": planted(*failing(case(), batch=0)),
    "a run on negative threads": replace(
        planted(*failing(case())), header=msgspec.structs.replace(planted().header, threads=-2)
    ),
    "a negative schema": replace(
        planted(*failing(case())), header=msgspec.structs.replace(planted().header, schema=-1)
    ),
    "another case's place": planted(*failing(case(id="aaa"))),
    "facts of another machine": planted(
        *failing(case()), facts={**SOME_FACTS, "memory_bytes": 2**40}
    ),
}
"""What cannot be true, or is not known here: it counts for nothing."""


def told(report: Report) -> dict[str, Any]:
    """Return everything that a report says of each configuration."""
    return {one.id: msgspec.to_builtins(one, enc_hook=str) for one in report.configurations}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_changes_nothing_and_is_named_everywhere(what: str, tmp_path: Path) -> None:
    report = report_of(*BEFORE, NONSENSE[what])
    assert told(report) == told(report_of(*BEFORE))
    assert {one.id: one.facts for one in report.machines}[MACHINE] == SOME_FACTS
    assert report.newest <= LATER
    (problem,) = report.problems
    assert problem.startswith("planted.main.jsonl: ")
    pages = site_of(report, tmp_path / "site")
    stream = io.StringIO()
    print_matrix(report, Console(file=stream, width=200))
    for shown in (pages["index.html"], matrix_markdown(report), stream.getvalue()):
        assert "planted.main.jsonl: " in shown
    assert json.loads(pages["summary.json"])["problems"] == [problem]


def test_a_score_to_come_counts_for_nothing() -> None:
    real = case(weights="pretrained")
    worse = seen(real, TASK, "failed", "failed", values={"hard": {"wer": 1.0}})
    for intruder in (
        planted(worse, scorer=SCORER_VERSION + 1),
        planted(msgspec.structs.replace(worse, scorer=10**9)),
        planted(msgspec.structs.replace(worse, scorer=-1)),
    ):
        report = report_of(local(*good(real)), intruder)
        assert only(report).rating.label == "High"
        assert "planted.main.jsonl: 1 observation " in report.problems[0]


def test_thousands_of_faults_are_one_line_of_a_kind() -> None:
    versions = [seen(case(), f"{LOADS}", check_version=2 + n) for n in range(3000)]
    (problem,) = report_of(*BEFORE, planted(*versions)).problems
    assert "3000 observations" in problem and len(problem) < 400


STRANGE = case("cpu-strange", "int8-strange", "strange", "trained")
OTHERS = {
    "another machine's stand-ins": planted(
        *good(msgspec.structs.replace(STRANGE, family="segments")),
        *good(msgspec.structs.replace(STRANGE, family="alone")),
        machine="0a0b0c0d",
    ),
    "stand-ins of other targets": planted(
        *good(msgspec.structs.replace(STRANGE, family="segments")),
        Planned(
            case=case("cpu-strange", "fp32", "strange", "trained", family="alone"), checks=(TASK,)
        ),
    ),
    "a plan that measures nothing": planted(
        *(
            Planned(case=msgspec.structs.replace(about, **facts), checks=(LOADS,))
            for about in (case(), SEGMENTS, ALONE)
            for facts in ({"row": "moved"}, {"headline": False}, {"evidence": "emulator"})
        ),
    ),
    **{
        what: replace(
            planted(
                Planned(case=msgspec.structs.replace(case(), row="moved"), checks=(LOADS,)),
                Planned(case=msgspec.structs.replace(STRANGE, family="segments"), checks=(LOADS,)),
                Planned(case=msgspec.structs.replace(STRANGE, family="alone"), checks=(LOADS,)),
                name="r1",
                **header,
            ),
            path=Path("elsewhere") / "r1.jsonl",
        )
        for what, header in {
            "another process of a run": {"worker": "gw7"},
            "the first process of a run that was not parallel": {"worker": "gw0"},
            "a run by the name of another": {},
            "a run by the name and header of another": {
                "started": BEFORE[1].header.started,
                "profile": "core",
            },
        }.items()
    },
    "a skip that measures nothing": planted(
        Planned(case=case(row="moved"), checks=(LOADS,)), seen(case(), LOADS, "skipped")
    ),
    "a question of somebody else's": planted(
        Planned(case=case(row="moved"), checks=("mine.question",)),
        seen(STRANGE, "mine.question", check_version=10**9),
    ),
}
"""What is possible, and of cells of its own."""


@pytest.mark.parametrize("what", OTHERS)
def test_a_file_decides_no_cell_but_its_own(what: str) -> None:
    before = told(report_of(*BEFORE))
    after = told(report_of(*BEFORE, OTHERS[what]))
    for name, one in before.items():
        # A plan adds records to its own case, which no gate rests on.
        for key in (one.keys() & after[name].keys()) - {"records"}:
            assert after[name][key] == one[key], (name, key)


def test_a_newer_measurement_owns_its_check_and_no_more() -> None:
    newer = planted(seen(case(), STRESS, "crashed", "failed", reason="signal 11"), profile="core")
    before, after = (
        {one.id: one for one in report_of(*runs).configurations}
        for runs in (BEFORE, (*BEFORE, newer))
    )
    changed = {name for name in before if before[name].rating != after[name].rating}
    assert changed == {f"whisper/cpu-torch/fp32/{MACHINE}"}
    one = after[changed.pop()]
    assert {gate.key for gate in one.gates if gate.state == "failed"} == {"robust"}


def test_equal_moments_are_equal_however_they_are_written() -> None:
    """As text, 10:30 in Berlin is later than 10:00 in UTC."""
    about = case()
    plan = Planned(case=about, checks=(LOADS,))
    earlier = run(
        plan, seen(about, LOADS, "failed", "failed", time="2026-11-22T10:30:00+01:00"), name="b"
    )
    later = run(plan, seen(about, LOADS, time="2026-11-22T10:00:00Z"), name="a")
    assert only(report_of(earlier, later)).records[0].status == "passed"


def test_a_clock_that_is_an_hour_fast_is_no_nonsense() -> None:
    report = report_of(local(*good(case(), 0.2, 0.21), started=days(1 / 24)))
    assert report.problems == ()
    assert only(report).rating.label == "Medium"


def test_checks_of_an_outside_author_are_never_stale() -> None:
    question = "mine.question"
    plan = Planned(case=case(), checks=(question,))
    report = report_of(
        local(plan, seen(case(), question, check_version=3)),
        run(plan, seen(case(), question, check_version=7), name="r2", machine=GPU),
    )
    assert report.problems == ()
    records = [record for one in report.configurations for record in one.records]
    assert [record.status for record in records] == ["passed", "passed"]


def test_one_run_told_in_two_ways_is_believed_in_neither() -> None:
    """Where the two agree, or only one speaks, it is as good as ever."""
    real = local(*good(case()), *good(nano()))
    crash = seen(case(), STRESS, "crashed", "failed", reason="signal 11")
    lie = [crash if getattr(one, "check", "") == STRESS else one for one in good(case())]
    forged = replace(local(*lie, *good(SEGMENTS)), path=Path("in/r1.main.jsonl"))
    report = report_of(real, forged)
    by_row = {one.row: one for one in report.configurations}
    assert gate(by_row["whisper"], "robust") == "unknown"
    assert gate(by_row["whisper"], "loads") == gate(by_row["segments"], "robust") == "strict"
    (problem,) = report.problems
    assert "r1.main has different contents; of 1 checks" in problem
    assert "in/r1.main.jsonl" in problem
    assert told(report_of(forged, real)) == told(report)
    older = local(*good(case()), name="r0", started="2026-11-19")
    assert gate(report_of(older, real, forged).configurations[1], "robust") == "strict"


def test_the_same_run_with_another_header_is_named() -> None:
    for changes in ({"profile": "full"}, {"machine": GPU}, {"own": ("corpus",)}):
        (problem,) = report_of(local(*good(case())), local(*good(case()), **changes)).problems
        assert "different contents" in problem, changes
    (problem,) = report_of(local(*good(case())), local(Planned(case=STRANGE, checks=()))).problems
    assert "different contents" in problem
    lie = local(*good(case()), facts={"cpu": "another"}, started=LATER)
    assert report_of(local(*good(case())), lie).machines[0].facts == SOME_FACTS


def test_copies_of_a_file_are_no_contradiction() -> None:
    whole = local(*good(case()), *good(nano()))
    shorter = replace(whole, path=Path("a/r1.main.jsonl"), observations=whole.observations[:3])
    for copies in ((whole, shorter), (shorter, whole, whole)):
        report = report_of(*copies)
        assert report.problems == ()
        assert told(report) == told(report_of(whole))


def test_hostile_facts_stop_no_report() -> None:
    for cpu in ("x", 1, None, [], {"capabilities": 5}, {"capabilities": [1, "a"]}):
        facts = {"system": {}, "cpu": cpu, "memory_bytes": "inf", "gpus": "x"}
        report = report_of(*BEFORE, planted(*good(STRANGE), facts=facts))
        assert {one.id: one.facts for one in report.machines}[MACHINE] == SOME_FACTS


def test_observations_without_a_plan_are_reported_not_dropped() -> None:
    report = report_of(run(seen(case(), LOADS)))
    assert report.configurations == ()
    assert case().id in report.problems[0]


RUNS = (
    run(*good(case()), *good(nano())),
    run(*good(case(), 0.2, 0.21), name="r2", started="2026-11-21T10:00:00Z"),
    run(*good(case(), 0.1, 0.11), name="r3", profile="quick", started="2026-11-22T10:00:00Z"),
    run(*good(case()), *good(case("cuda-torch", "fp16")), name="r4", machine=GPU),
    run(*good(case()), name="r4", worker="gw1", machine=GPU, facts={"cpu": "Other"}),
    run(
        Planned(case=case(parameters=38.0), checks=("x.y",)),
        name="r5",
        started="2026-11-23T10:00:00Z",
    ),
)


@settings(max_examples=30, deadline=None)
@given(st.permutations(RUNS))
def test_the_order_of_files_never_shows(runs: list[Run]) -> None:
    assert data_json(report_of(*runs)) == data_json(report_of(*RUNS))


# --- text ------------------------------------------------------------------------------------


@given(st.floats(0, 1, allow_nan=False))
def test_percentages_never_round_to_all_or_nothing(share: float) -> None:
    shown = text.percent(share)
    assert (shown == "100 %") == (share * 100 >= 100)
    assert (shown == "0 %") == (share == 0)


@pytest.mark.parametrize("share", [0.99951, 0.9999, 0.999999, 1 - 1e-12])
def test_nearly_all_is_not_all(share: float) -> None:
    assert text.quantity("share", share) in ("99.9 %", "> 99.9 %")


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("median_s", 0.0123, "12.3 ms"),
        ("median_s", 2.5, "2.5 s"),
        ("load_s", 1e-5, "10 µs"),
        ("seconds", 600, "10 min"),
        ("peak_bytes", 740_000_000, "740 MB"),
        ("wer", 0.0721, "7.2 %"),
        ("wer", 1.35, "135 %"),
        ("degradation", 0.004, "+0.40 pp"),
        ("degradation", -0.00001, "\N{MINUS SIGN}< 0.01 pp"),
        ("snr_db", 51.96, "52.0 dB"),
        ("speed_up", 1.5, "1.5 ×"),
        ("cosine", 0.99999999, "0.999999"),
        ("x", None, "–"),
        ("x", float("nan"), "nan"),
        ("wer_interval", [0.05, 0.09], "5 % to 9 %"),
        ("tokens", 12345, "12,345"),
        ("share", True, "yes"),
        ("frame_error_rate", 0.0312, "3.1 %"),
        ("reference_der", 0.181, "18.1 %"),
        ("der_collar_250ms", 0.125, "12.5 %"),
        ("speakers_right", 0.75, "75 %"),
        ("miss_rate", 0.02, "2 %"),
        ("min_dcf_01", 0.2345, "0.2345"),
        ("worst_cosine", 0.99999999, "0.999999"),
        ("mean_cosine", -0.5, "-0.500000"),
        ("interval_coverage", 0.9921875, "99.2 %"),
        ("max_error", 0.5, "0.5"),
        ("oracle_snr_db", 24.6, "24.6 dB"),
        ("repeat_speed_up", 1.04, "1.04 ×"),
    ],
)
def test_units(key: str, value: object, shown: str) -> None:
    assert text.quantity(key, value) == shown


@given(st.lists(st.text(max_size=12), min_size=2, max_size=2, unique=True))
def test_slugs_are_safe_and_distinct(names: list[str]) -> None:
    slugs = [text.slug(name, "cpu") for name in names]
    assert slugs[0] != slugs[1]
    for slug in slugs:
        assert re.fullmatch(r"[a-z0-9_][a-z0-9._-]*", slug), slug


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=5), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        max_size=4,
    )
)
def test_any_values_can_be_shown(values: dict[str, Any]) -> None:
    for columns, rows in tables.tables(values):
        assert all(len(cells) == len(columns) for _, cells in rows)


def test_outputs_become_columns_and_the_rest_rows() -> None:
    values = {"encoder": {"snr_db": 51.0}, "logits": {"snr_db": 40.0}, "contrast_db": 44.0}
    assert tables.tables(values) == [
        (["encoder", "logits"], [("snr_db", ["51.0 dB", "40.0 dB"])]),
        (["value"], [("contrast_db", ["44.0 dB"])]),
    ]
    assert tables.tables({"stages": {"encode": 0.5}, "share": 0.9995}) == [
        (["value"], [("stages · encode", ["500 ms"]), ("share", ["99.9 %"])]),
    ]


def test_batches_are_columns_and_the_recommended_ones_are_marked() -> None:
    batches = {
        "4": {"items_per_s": 20.0},
        "16": {"items_per_s": 50.0},
        "24": {"status": "out-of-memory"},
    }
    recommended = {"precision": "fp16", "lowest_batch": 16, "batch": 24, "in_this_precision": True}
    (columns, rows), (_, rest) = tables.tables({"batches": batches, "recommended": recommended})
    assert columns == ["batch 4", "batch 16, recommended", "batch 24, recommended"]
    assert rows == [
        ("items_per_s", ["20 /s", "50 /s", "–"]),
        ("status", ["–", "–", "out-of-memory"]),
    ]
    assert ("precision", ["fp16"]) in rest
    # Without a recommendation, and with one that is none: nothing is marked.
    for words in ({}, {"recommended": "9" * 5000}, {"recommended": {"batch": "x"}}):
        (columns, _), *_ = tables.tables({"batches": batches, **words})
        assert columns == ["batch 4", "batch 16", "batch 24"]


def scores_of_every_task() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return per row the headline metric's name, and what the project's scorers really return."""
    from compat.metrics.activity import task_activity
    from compat.metrics.diarization import task_diarization
    from compat.metrics.segmentation import LocalErrors, task_segmentation
    from compat.metrics.verification import Trial, task_verification
    from compat.metrics.wer import task_wer

    speech = [[[0.0, 1.0, "a"], [1.0, 2.0, "b"]], [[0.5, 1.5, "a"]]]
    whole = [[(0.0, 2.0)], [(0.0, 2.0)]]
    decided = [np.array([True] * 150 + [False] * 50), np.array([False] * 40 + [True] * 160)]
    late = [[[0.1, 1.0, "x"], [1.0, 2.0, "y"]], [[0.5, 1.5, "x"]]]
    trials = [Trial(0, 1, True), Trial(2, 3, True), Trial(0, 2, False), Trial(1, 3, False)]
    voices = [[1.0, 0.1], [0.9, 0.2], [0.1, 1.0], [0.7, 0.6]]
    people = ["a", "a", "b", "b"]
    local = [LocalErrors(2, 1, 1, 40), LocalErrors(0, 1, 0, 30)]
    texts = ["red door", "go north"]
    return {
        "Wav2Vec2": ("WER", task_wer(texts, ["red door", "no north"], texts)),
        "Voice activity": (
            "frame error rate",
            task_activity(speech, decided, decided, whole, 0.01),
        ),
        "Speaker embedding": ("EER", task_verification(trials, voices, voices, people)),
        "Diarization": ("DER", task_diarization(speech, late, speech, whole)),
        "Speaker segmentation": ("DER", task_segmentation(local, local)),
    }


def test_every_task_leads_with_its_metric_and_reads_well(tmp_path: Path) -> None:
    """Cells of families with real weights, and of one whose stand-in speaks for it."""
    lines: list[Line] = []
    expected = {}
    for row, (name, scores) in scores_of_every_task().items():
        family = row.lower().replace(" ", "-")
        weights = "seeded" if row == "Diarization" else "pretrained"
        about = {"family": family, "row": row, "task": family}
        headline = case(variant=f"{family}-1", weights=weights, **about)
        scored = headline
        lines += [one for one in good(headline) if getattr(one, "check", "") != TASK]
        if weights == "seeded":
            scored = case(variant=f"{family}-small", weights="trained", **about)
            lines += [one for one in good(scored) if getattr(one, "check", "") != TASK]
        lines += [Planned(case=scored, checks=(TASK,)), seen(scored, TASK, values={"hard": scores})]
        first = next(iter(scores))
        own = "" if scored is headline else f", {family}-small@trained"
        value = text.quantity(first, scores[first])
        ends = scores[f"{first}_interval"]
        between = " to ".join(text.quantity(first, end) for end in ends or ())
        shown = f"{name} {value}{f' [{between}]' if ends else ''} (hard{own})"
        assert re.fullmatch(r"[A-Za-z ]+ [\d.]+ %( \[[\d.]+ % to [\d.]+ %\])? \(.*\)", shown), shown
        expected[row] = shown
    report = report_of(run(*lines))
    assert set(report.rows) == set(expected)
    pages = site_of(report, tmp_path / "site")
    for row, shown in expected.items():
        cell = report.cell(row, "cpu")
        (one,) = cell.configurations
        assert one.rating.label == "High", row
        assert text.task_metric(one) == shown
        assert shown in pages["index.html"]
        assert f">{shown}</td>" in pages[f"cells/{cell.slug}.html"]
        page = pages[f"configurations/{one.anchor}.html"]
        assert f"<dd>{shown}</dd>" in page
        escaped = re.sub(r"([@\[\]])", r"\\\1", shown)
        assert escaped in matrix_markdown(report)
        # Whatever becomes of the order of keys on the way.
        scores = dict(sorted(scores_of_every_task()[row][1].items()))
        ((_, rows),) = tables.tables({"hard": scores})
        values = {name: cells[0] for name, cells in rows}
        assert next(iter(values)) == one.figures.metric
        assert "pp" in values["degradation"]
        for key, value in values.items():
            if "cosine" in key:
                assert re.fullmatch(r"1|-?0\.\d{6}", value), (key, value)


def test_limits_have_the_units_of_what_they_limit() -> None:
    values = {"hard": {"si_sdr": 11.0, "si_sdr_interval": [10.0, 12.0], "degradation": 0.5}}
    about = {"strict": 0.2, "relaxed": 1.0, "direction": "at_most", "level": "relaxed"}
    limit = Limit(metric="hard.degradation", value=0.5, reason="", **about)  # type: ignore[arg-type]
    assert text.limit(limit, values) == ("0.5 dB", "≤ 0.2 dB", "≤ 1.0 dB")
    words = {"hard": {"wer": 0.07, "wer_interval": [0.06, 0.08]}}
    assert text.limit(limit, words)[0] == "+50.00 pp"


# --- rendering -------------------------------------------------------------------------------


def test_no_page_shows_the_stand_ins_word_error_rate_as_the_headlines(tmp_path: Path) -> None:
    report = report_of(run(*good(case()), *scored(nano())))
    (one,) = report.configurations
    assert one.figures.metric_case == "whisper-nano@trained"
    pages = site_of(report, tmp_path / "site")
    pages["matrix"] = matrix_markdown(report).replace("\\@", "@")
    found = Counter[str]()
    for name, source in pages.items():
        for match in re.finditer(r"WER \d[\d.]* %[^<|\"]{0,60}", source):
            found[name] += 1
            assert "(hard, whisper-nano@trained)" in match[0], (name, match[0])
    slug = report.cell("whisper", "cpu").slug
    assert {"matrix", "index.html", f"cells/{slug}.html"} <= set(found)


def test_published_weights_need_no_name_beside_their_metric() -> None:
    one = rated(*scored(case(weights="pretrained")))
    assert text.task_metric(one) == "WER 7.5 % [5 % to 10 %] (hard)"


def test_generated_weights_have_no_word_error_rate_whatever_a_file_says() -> None:
    lines = scored(case())
    assert rated(*lines).figures.metric == ""


def test_points_of_a_chart_can_be_told_apart() -> None:
    recipes = ("fp32", "bf16", "int8-dynamic", "int8-weights")
    targets = ("cpu-torch", "cpu-onnxruntime", "cpu-ctranslate2", "cpu-torch-compile")
    targets += ("openvino-cpu", "cuda-torch", "cuda-onnxruntime", "cuda-ctranslate2")
    lines = [one for t in targets for r in recipes for one in good(case(t, r))]
    other = {"family": "moonshine", "variant": "moonshine-tiny"}
    report = report_of(
        run(*lines, *good(case(**other))),
        run(*good(case()), machine=GPU),
    )
    drawn = points(report.configurations)
    assert len(drawn) == len(targets) * len(recipes) + 2
    for what in (("colour", "symbol"), ("name",), ("lines",)):
        looks = [tuple(str(one[key]) for key in what) for one in drawn]
        assert len(set(looks)) == len(looks), what
    by_target = {(one["lines"][-3], one["colour"]) for one in drawn}
    assert len(by_target) == len(targets), "one colour for a target, whatever its recipe"
    shapes = {(one["precision"], one["symbol"].split("-open")[0].split("-dot")[0]) for one in drawn}
    assert len(shapes) == len({one["precision"] for one in drawn})


def test_a_configuration_looks_the_same_on_every_page(tmp_path: Path) -> None:
    targets = ("cpu-torch", "cpu-onnxruntime", "openvino-cpu", "cuda-torch")
    report = report_of(run(*(one for target in targets for one in good(case(target)))))
    looks: dict[str, set[tuple[int, str]]] = {}
    pages = site_of(report, tmp_path / "site")
    for source in pages.values():
        for data in re.findall(r'id="data">(.*?)</script>', source, re.S):
            for one in json.loads(data).get("points", ()):
                looks.setdefault(one["id"], set()).add((one["colour"], one["symbol"]))
    assert len(looks) == len(targets)
    assert all(len(found) == 1 for found in looks.values()), looks


def test_colours_are_told_apart_by_every_eye_and_from_the_card() -> None:
    """Machado et al. 2009 (severity 1) for the three kinds of dichromacy; distances in OKLab."""
    eyes = np.array(
        [
            np.eye(3),
            [
                [0.152286, 1.052583, -0.204868],
                [0.114503, 0.786281, 0.099216],
                [-0.003882, -0.048116, 1.051998],
            ],
            [
                [0.367322, 0.860646, -0.227968],
                [0.280085, 0.672501, 0.047413],
                [-0.011820, 0.042940, 0.968881],
            ],
            [
                [1.255528, -0.076749, -0.178779],
                [-0.078411, 0.930809, 0.147602],
                [0.004733, 0.691367, 0.303900],
            ],
        ]
    )
    to_cones = np.array(
        [
            [0.41222147, 0.53633254, 0.05144599],
            [0.21190350, 0.68069955, 0.10739696],
            [0.08830246, 0.28171884, 0.62997870],
        ]
    )
    to_lab = np.array(
        [
            [0.21045426, 0.79361779, -0.00407205],
            [1.97799850, -2.42859221, 0.45059371],
            [0.02590404, 0.78277177, -0.80867577],
        ]
    )

    def linear(colour: str) -> np.ndarray:
        values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)

    style = (ROOT / "compat/report/assets/style.css").read_text()
    cards = re.search(r"--card: light-dark\((#\w+), (#\w+)\)", style)
    assert cards is not None
    for theme, card in enumerate(cards.groups()):
        colours = [linear(pair[theme]) for pair in PALETTE]
        light = [float(colour @ (0.2126, 0.7152, 0.0722)) for colour in (linear(card), *colours)]
        for one in light[1:]:
            low, high = sorted((light[0], one))
            assert (high + 0.05) / (low + 0.05) >= 3, "WCAG 1.4.11"
        for eye in eyes:
            seen_as = [to_lab @ np.cbrt(to_cones @ np.clip(eye @ one, 0, 1)) for one in colours]
            for a, b in combinations(seen_as, 2):
                assert np.linalg.norm(a - b) >= 0.08


def test_charts_say_what_their_whiskers_are(tmp_path: Path) -> None:
    about = case(weights="pretrained")
    rounds = {"median_s": 0.3, "interval_s": [0.29, 0.32], "rtf": 0.03, "rtf_upper": 0.032}
    lines = [one for one in scored(about) if getattr(one, "check", "") != LATENCY]
    values = {**rounds, "interval_coverage": 0.875}
    report = report_of(run(*lines, seen(about, LATENCY, values=values)))
    (point,) = points(report.configurations)
    assert point["speed"] == "RTF 0.03 (upper end 0.032 of an interval with 87.5 % coverage)"
    assert point["accuracy"] == (
        "degradation 0 pp of whisper-tiny@pretrained; WER 7.5 % [5 % to 10 %] (hard)"
    )
    name = f"models/{text.slug('whisper')}.html"
    caption = Page(site_of(report, tmp_path / "site")[name]).caption()
    assert "whiskers are 95 % intervals" not in caption
    for said in ("upper end", "six rounds", "stand-in", "bootstrap 95 %"):
        assert said in caption


def cases_of(command: str, catalog: Catalog) -> list[str]:
    """Return the cases that a printed command selects."""
    program, *options = shlex.split(command)
    assert program == "pytest"
    given = {options[i].removeprefix("--"): (options[i + 1],) for i in range(0, len(options), 2)}
    chosen = Selection(**given)
    chosen.check(catalog)
    return [one.id for one in chosen.cases(catalog)]


def test_the_printed_command_selects_exactly_its_case() -> None:
    catalog = load_catalog()
    every = list(catalog.cases())
    by_model = {(one.variant.name, one.weights): one for one in every}
    by_target = {(one.target.name, one.recipe.name): one for one in every}
    for one in (*by_model.values(), *by_target.values()):
        assert cases_of(text.reproduction(facts_of(one)), catalog) == [one.id]


def test_the_printed_command_collects_exactly_its_case(tmp_path: Path) -> None:
    about = facts_of(load_catalog().case("whisper-nano@trained/cpu-torch/int8-dynamic"))
    report = report_of(run(Planned(case=about, checks=(LOADS,)), seen(about, LOADS)))
    pages = site_of(report, tmp_path / "site")
    commands = [
        html.unescape(found)
        for name in (f"configurations/{only(report).anchor}.html", "methods.html")
        for found in re.findall(r"<code>(pytest --models[^<]*)</code>", pages[name])
    ]
    assert len(set(commands)) == 1
    words = shlex.split(commands[0])
    command = [sys.executable, "-m", *words, "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = forks.run(command, os.environ, ROOT, timeout=600)
    collected = {match[1] for match in re.finditer(r"::\w+\[(.*)\]", done.stdout)}
    assert collected == {about.id}, done.stdout + done.stderr


def test_a_command_from_a_hostile_file_stays_one_command() -> None:
    about = case(variant="x; rm -rf ~", recipe="$(id)\n`id`")
    assert shlex.split(text.reproduction(about)) == [
        *("pytest", "--models", "x; rm -rf ~", "--weights", "seeded"),
        *("--targets", "cpu-torch", "--recipes", "$(id)\n`id`"),
    ]


EVIL = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "' onmouseover='alert(4)",
    "{{ 7*7 }} {% raw %}",
    "a|b\n| c | d |\n# heading",
    "[link](javascript:alert(5)) ![i](http://evil.example/x.png)",
    "../../../../escape",
    "nul\x00 esc\x1b[31m bidi\u202egnp.exe \u2028 line",
    "日本語 🎵 ünïcödé",
]


def hostile(evil: str) -> Report:
    about = case(
        evil,
        evil,
        evil,
        family=evil,
        task=evil,
        row=evil,
        hardware=evil,
        runtime=evil,
        precision=evil,
    )
    limit = Limit(
        metric=evil,
        value=1.0,
        strict=1.0,
        relaxed=2.0,
        direction="at_most",
        level="strict",
        reason=evil,
    )
    observation = seen(
        about,
        LOADS,
        reason=evil,
        remedy=evil,
        executed=evil,
        expected=evil,
        values={evil: {evil: evil}, "executed": {evil: evil}},
        limits=(limit,),
        samples={evil: [1.0]},
    )
    timing = latency(about, 0.1, 0.2, executed=evil)
    task = seen(about, evil, values={"hard": {evil: 1, "degradation": "much"}})
    bad = run(
        Planned(case=about, checks=(LOADS, LATENCY, evil)),
        observation,
        timing,
        task,
        machine=evil,
        name=evil,
        worker=evil,
        profile=evil,
        facts={evil: {evil: evil}},
        problems=(evil,),
        hashes={evil: evil},
    )
    misdated = run(machine=evil, name=evil, worker="undated", started=evil)
    misplaced = run(
        Planned(case=case(id=evil), checks=()),
        seen(about, evil, time=evil),
        seen(about, evil, check_version=-1),
        name=evil,
        worker="misplaced",
        machine=evil,
    )
    return build(Collection((bad, misdated, misplaced), (evil,)))


@pytest.mark.parametrize("evil", EVIL)
def test_hostile_text_ends_escaped_and_inside_the_folder(evil: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    before = set(tmp_path.rglob("*"))
    pages = site_of(hostile(evil), tmp_path / "in" / "site")
    outside = [
        p
        for p in set(tmp_path.rglob("*")) - before
        if tmp_path / "in" / "site" not in (p, *p.parents)
    ]
    assert outside == []
    for name, source in pages.items():
        assert re.fullmatch(r"[A-Za-z0-9._/-]+", name), name
        if not name.endswith(".html"):
            continue
        page = Page(source)
        assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs), name
        assert not any(tag == "img" for tag, _ in page.tags), name
        scripts = [attrs for tag, attrs in page.tags if tag == "script"]
        assert all(
            (one.get("src") or "").endswith(".js") or one.get("type") == "application/json"
            for one in scripts
        ), name
        for control in "\x00\x1b\u202e":
            assert control not in source
        embedded = re.findall(r'type="application/json" id="data">(.*?)</script>', source, re.S)
        assert len(embedded) <= 1
        for data in embedded:
            json.loads(data)
            assert "<" not in data
    for name in ("data.json", "summary.json"):
        json.loads(pages[name])
    if evil.isprintable() and not evil.startswith("../"):
        assert any(evil in " ".join(Page(p).words) for n, p in pages.items() if "cells/" in n)


@pytest.mark.parametrize("evil", EVIL)
def test_hostile_text_breaks_neither_markdown_nor_terminal(evil: str) -> None:
    report = hostile(evil)
    lines = matrix_markdown(report).splitlines()
    table = [line for line in lines if line.startswith("|")]
    wide = [len(re.findall(r"(?<!\\)\|", line)) for line in table]
    assert wide == [len(matrix(report).columns) + 2] * 3
    body = "\n".join(lines)
    assert not re.search(r"<(?!br>)", body)
    assert "](" not in body.replace("\\](", "")
    assert not any(line.startswith("# heading") for line in lines)
    for width in (80, 160):
        stream = io.StringIO()
        print_matrix(report, Console(file=stream, width=width, force_terminal=False))
        assert "\x1b" not in stream.getvalue()
        assert "\x00" not in stream.getvalue()


def test_every_page_is_self_contained_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    pages = site_of(full_report(), tmp_path / "site")
    ids = {
        name: {a.get("id") for _, a in Page(source).tags}
        for name, source in pages.items()
        if name.endswith(".html")
    }
    for name, source in pages.items():
        addresses = re.findall(r"https?://[^\s\"'<)]*", source)
        spaces = {".svg": "http://www.w3.org/2000/svg", ".xml": "http://www.w3.org/2005/Atom"}
        allowed = spaces.get(Path(name).suffix)
        assert [one for one in addresses if one != allowed] == [], name
        if not name.endswith(".html"):
            continue
        for _tag, attrs in Page(source).tags:
            for key in ("href", "src"):
                link = attrs.get(key)
                if link is None or link.startswith("data:"):
                    continue
                path, _, anchor = link.partition("#")
                there = (
                    (tmp_path / "site" / name).parent / path if path else tmp_path / "site" / name
                )
                assert there.resolve().is_file(), (name, link)
                if anchor:
                    place = str(there.resolve().relative_to((tmp_path / "site").resolve()))
                    assert anchor in ids[place], (name, link)


def test_ids_are_unique_on_every_page(tmp_path: Path) -> None:
    for name, source in site_of(full_report(), tmp_path / "site").items():
        if name.endswith(".html"):
            ids = [attrs["id"] for _, attrs in Page(source).tags if "id" in attrs]
            assert len(ids) == len(set(ids)), name


def test_every_rating_links_the_observations_it_rests_on(tmp_path: Path) -> None:
    report = full_report()
    pages = site_of(report, tmp_path / "site")
    for cell in report.cells:
        for one in cell.configurations:
            if one.kind == "nothing":
                assert f"configurations/{one.anchor}.html" not in pages
                continue
            source = pages[f"configurations/{one.anchor}.html"]
            if one.rating.kind == "rated":
                anchors = [anchor for each in one.gates for anchor in each.evidence]
                assert anchors
            for anchor in (a for each in one.gates for a in each.evidence):
                assert f"#{anchor}" in source


def test_meaning_never_hangs_on_colour_alone(tmp_path: Path) -> None:
    report = full_report()
    pages = site_of(report, tmp_path / "site")
    looks: dict[str, str] = {}
    for cell in report.cells:
        key = text.appearance(cell.best.rating if cell.best else None)
        sign, word, _ = text.RATINGS[key]
        badge = pages[f"badges/{cell.slug}.svg"].replace("&amp;", "&")
        assert cell.label.split(":")[0] in badge
        anchor = re.search(
            rf'<a class="cell look-{key}" data-cell="{cell.slug}".*?</a>', pages["index.html"], re.S
        )
        if cell.hardware in matrix(report).empty:
            assert anchor is None
            continue
        assert anchor is not None
        assert sign in anchor[0]
        assert word.split()[0] in anchor[0]
        looks[key] = sign + word
    assert {"high", "none", "unsupported", "emulated"} <= set(looks)
    assert len(set(looks.values())) == len(looks)
    signs = [sign for sign, _, _ in text.RATINGS.values()]
    assert len(set(signs)) == len(signs)


def test_all_hardware_columns_and_unrun_plans_are_visible(tmp_path: Path) -> None:
    report = full_report()
    pages = site_of(report, tmp_path / "site")
    shown = matrix(report)
    assert {*shown.columns, *shown.empty} == set(HARDWARE)
    header = next(one for one in matrix_markdown(report).splitlines() if one.startswith("| "))
    for name in shown.columns:
        assert re.search(rf' role="columnheader" class="kind-\w+">{name}</th>', pages["index.html"])
        assert f"| {name}<br>" in header
    for name in shown.empty:
        assert f'href="coverage.html#hardware-{name}"' in pages["index.html"]
        assert f' id="hardware-{name}"' in pages["coverage.html"]
        assert f" {name}" in matrix_markdown(report).split("Nothing ran on")[1].splitlines()[0]
    rocm = pages[f"cells/{report.cell('whisper', 'rocm').slug}.html"]
    assert "not-run" in rocm
    assert "planned, but never begun" in rocm
    assert "no Apple silicon" in pages[f"cells/{report.cell('whisper', 'mps').slug}.html"]


def test_truncated_files_show_their_problem_everywhere(tmp_path: Path) -> None:
    header = run().header
    writer = Writer(tmp_path / "results", header)
    for line in good(case()):
        writer.write(line)
    writer.close()
    writer.path.write_bytes(writer.path.read_bytes()[:-25])
    report = build(read_all([tmp_path / "results"]))
    pages = site_of(report, tmp_path / "site")
    stream = io.StringIO()
    print_matrix(report, Console(file=stream, width=80))
    for shown in (
        pages["index.html"],
        pages["machines.html"],
        matrix_markdown(report),
        stream.getvalue(),
    ):
        assert writer.path.name in shown
    assert json.loads(pages["summary.json"])["problems"]


def test_an_empty_collection_renders_a_page_that_helps(tmp_path: Path) -> None:
    report = build(Collection())
    pages = site_of(report, tmp_path / "site")
    stream = io.StringIO()
    print_matrix(report, Console(file=stream, width=80))
    for shown in (pages["index.html"], matrix_markdown(report), stream.getvalue()):
        assert "pytest -m cpu" in shown
    assert json.loads(summary_json(report))["cells"] == []


def test_medium_and_limited_always_say_why() -> None:
    for one in report_of(*RUNS).configurations:
        assert one.rating.label == "High" or one.why


def test_figures_come_with_how_they_were_measured(tmp_path: Path) -> None:
    gpu = case("cuda-torch", "fp16")
    lines = [one for one in good(gpu) if getattr(one, "check", "") != LATENCY]
    report = report_of(run(*lines, latency(gpu, 0.1, 0.2, executed="fp16-tc", batch=4)))
    page = site_of(report, tmp_path / "site")[f"configurations/{only(report).anchor}.html"]
    words = " ".join(" ".join(Page(page).words).split())
    for shown in ("device evidence", "executed fp16-tc", "2 threads", "batch 4"):
        assert shown in words


def test_terminal_needs_no_colour_and_fits() -> None:
    for width in (80, 160):
        stream = io.StringIO()
        print_matrix(full_report(), Console(file=stream, width=width, no_color=True))
        shown = stream.getvalue()
        assert max(len(line) for line in shown.splitlines()) <= width
        for word in ("High", "None", "unsupported", "Emulated", "Not measured"):
            assert word in " ".join(shown.split())


def test_rendering_replaces_only_sites_and_survives_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "home"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(CompatError, match="is no site"):
        write_site(full_report(), precious)
    assert (precious / "thesis.txt").exists()

    folder = tmp_path / "site"
    write_site(build(Collection()), folder)
    old = (folder / "index.html").read_text()

    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("compat.report.exports.summary_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_site(full_report(), folder)
    assert (folder / "index.html").read_text() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "site"]
    write_site(full_report(), folder)
    assert (folder / "index.html").read_text() != old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "site"]


def test_importing_the_report_loads_no_heavy_library() -> None:
    code = (
        "import sys, compat.report, compat.report.publish;"
        "print([m for m in ('plotly', 'jinja2', 'rich', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- publishing ------------------------------------------------------------------------------


def write(folder: Path, source: Run) -> Path:
    writer = Writer(folder, source.header)
    for line in (*source.planned, *source.started, *source.observations):
        writer.write(line)
    writer.close()
    return writer.path


def test_publish_keeps_what_still_counts(tmp_path: Path) -> None:
    reports, local = tmp_path / "reports", tmp_path / "local"
    first = write(local, RUNS[0])
    result = publish([first], reports)
    assert result.published == (reports / "results" / CPU / "r1.main.jsonl.zst",)
    assert (reports / "MATRIX.md").read_text().startswith("# Compatibility matrix")
    notes = reports / "results" / CPU / "NOTES.md"
    notes.write_text("kept")

    newer = run(*good(case()), *good(nano()), name="r2", started="2026-11-25")
    result = publish([write(local, newer)], reports)
    assert [path.name for path in result.superseded] == ["r1.main.jsonl.zst"]
    assert notes.exists()

    quick = run(*good(case()), name="r3", profile="quick", started="2026-11-26")
    result = publish([write(local, quick), local], reports)
    assert {path.name for path in result.superseded} == {"r1.main.jsonl.zst", "r3.main.jsonl.zst"}
    names = sorted(path.name for path in (reports / "results").rglob("*.jsonl*"))
    assert names == ["r2.main.jsonl.zst"]
    assert build(read_all([reports / "results"])).configurations[0].rating.label == "High"


def lines_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, by its path there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def evidence(folder: Path) -> set[bytes]:
    """Return every results file that is published or archived below a folder, unpacked."""
    return {
        zstd.decompress(data) if name.endswith(".zst") else data
        for name, data in lines_of(folder).items()
        if ".jsonl" in name
    }


def test_superseded_evidence_is_archived_byte_for_byte(tmp_path: Path) -> None:
    reports, here = tmp_path / "reports", tmp_path / "here"
    first = write(here, local(*good(case())))
    data = first.read_bytes()
    publish([first], reports)
    newer = write(here, local(*good(case()), name="r2", started="2026-11-25"))
    result = publish([newer], reports)
    old = reports / "results" / MACHINE / "r1.main.jsonl.zst"
    place = reports / "archive" / MACHINE / "r1.main.jsonl.zst"
    assert (result.superseded, dict(result.archived)) == ((old,), {old: place})
    assert zstd.decompress(place.read_bytes()) == data
    assert not old.exists()
    before = lines_of(reports)
    # What is archived is offered again, and the archive is read by no report.
    result = publish([here], reports)
    assert (result.added, dict(result.archived)) == ((), {})
    assert lines_of(reports) == before
    assert len(read_all([reports / "results"]).runs) == 1


@pytest.mark.parametrize("what", NONSENSE)
def test_publish_refuses_nonsense_and_removes_nothing(what: str, tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    for one in BEFORE:
        publish([write(tmp_path / "real", one)], reports)
    before = lines_of(reports)
    assert len(evidence(reports)) == 3
    result = publish([write(tmp_path / "planted", NONSENSE[what])], reports)
    (said,) = result.rejected
    assert said.startswith("planted.main.jsonl: ") and said.count("planted") == 1
    assert (result.published, result.superseded, result.cells) == ((), (), ())
    assert lines_of(reports) == before


def test_whatever_comes_in_nothing_published_is_lost(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    for one in BEFORE[:2]:
        publish([write(tmp_path / "real", one)], reports)
    before = evidence(reports)
    assert len(before) == 2
    claims = [*failing(case()), *failing(nano()), *failing(SEGMENTS), *failing(ALONE)]
    result = publish([write(tmp_path / "planted", planted(*claims))], reports)
    assert [path.name for path in result.added] == ["planted.main.jsonl.zst"]
    assert before < evidence(reports)
    assert any("(was High: " in cell and "None: " in cell for cell in result.cells)


def test_a_longer_copy_begins_with_the_published_one(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    published = reports / "results" / MACHINE / "r1.main.jsonl.zst"
    plan, *rest = good(case())
    short = write(tmp_path / "a", local(plan, *rest[:2]))
    publish([short], reports)
    longer = write(tmp_path / "b", local(plan, *rest))
    result = publish([longer], reports)
    assert result.added == (published,)
    assert zstd.decompress(published.read_bytes()) == longer.read_bytes()
    # The shorter one again is nothing new.
    result = publish([short], reports)
    assert (result.added, result.rejected, result.published) == ((), (), (published,))
    assert zstd.decompress(published.read_bytes()) == longer.read_bytes()

    more = good(nano())
    lie = seen(case(), LOADS, "failed", "failed")
    header = {"profile": "full"}
    for folder, forged in {
        "line": local(plan, lie, *rest[1:], *more),
        "header": local(plan, *rest, *more, **header),
        "order": local(*more, plan, *rest),
    }.items():
        before = lines_of(reports)
        path = write(tmp_path / folder, forged)
        assert path.stat().st_size > longer.stat().st_size
        result = publish([path], reports)
        assert result.published == ()
        assert "begins with the earlier one" in result.rejected[0], folder
        assert lines_of(reports) == before, folder


def test_what_is_archived_is_contradicted_by_nothing_either(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    plan, *rest = good(nano())
    publish([write(tmp_path / "a", local(plan, *good(case())))], reports)
    publish([write(tmp_path / "b", local(*good(case()), name="r2", started=LATER))], reports)
    before = lines_of(reports)
    forged = write(tmp_path / "c", local(*good(case()), *good(nano()), profile="full"))
    assert "archived already" in publish([forged], reports).rejected[0]
    assert lines_of(reports) == before
    # One that grew after it was superseded is archived as it is now, in the same place.
    grown = write(tmp_path / "d", local(plan, *good(case()), *rest))
    publish([grown], reports)
    publish([write(tmp_path / "e", local(*MEASURED, name="r3", started=LATER))], reports)
    place = reports / "archive" / MACHINE / "r1.main.jsonl.zst"
    assert zstd.decompress(place.read_bytes()) == grown.read_bytes()


def test_an_archive_that_is_damaged_is_never_written_over(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    place = reports / "archive" / MACHINE / "r1.main.jsonl.zst"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"damaged")
    first = write(tmp_path / "a", local(*good(case())))
    publish([first], reports)
    publish([write(tmp_path / "b", local(*good(case()), name="r2", started=LATER))], reports)
    assert place.read_bytes() == b"damaged"
    assert (
        zstd.decompress((place.parent / "r1.main.2.jsonl.zst").read_bytes()) == first.read_bytes()
    )


def test_sources_that_contradict_one_another_are_all_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "a", local(*good(case())))
    other = write(tmp_path / "b", local(*good(case()), *good(nano()), profile="full"))
    result = publish([one, other], tmp_path / "reports")
    assert result.published == ()
    assert len(result.rejected) == 2
    elsewhere = write(tmp_path / "c", local(*good(case()), machine=GPU))
    result = publish([one, elsewhere], tmp_path / "reports")
    assert result.published == ()
    assert all("different contents" in said for said in result.rejected)


def test_publish_leaves_files_with_problems_where_they_are(tmp_path: Path) -> None:
    """They count for nothing, and who put them there decides what becomes of them."""
    reports = tmp_path / "reports"
    bad = write(reports / "results" / MACHINE, NONSENSE["a version to come"])
    data = bad.read_bytes()
    publish([write(tmp_path / "a", local(*good(case())))], reports)
    assert zstd.decompress(bad.with_name(f"{bad.name}.zst").read_bytes()) == data
    assert "planted.main.jsonl.zst" in (reports / "MATRIX.md").read_text(encoding="utf-8")


def test_a_dry_run_says_what_would_be_and_writes_nothing(tmp_path: Path) -> None:
    reports, here = tmp_path / "reports", tmp_path / "here"
    publish([write(here, local(*good(case())))], reports)
    before = lines_of(reports)
    slower = local(*good(case(), 8.0, 8.1), *good(nano()), name="r2", started=LATER)
    sources = [write(here, slower), write(here, NONSENSE["a version to come"])]
    said = publish(sources, reports, dry_run=True)
    assert lines_of(reports) == before
    assert publish(sources, reports) == said
    assert lines_of(reports) != before
    assert said.cells and said.archived and said.added and said.rejected
    assert not (tmp_path / "none").exists()
    publish(sources, tmp_path / "none", dry_run=True)
    assert not (tmp_path / "none").exists()


def test_the_command_says_what_it_adds_and_what_it_supersedes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("a"), local(*good(case())))
    write(Path("b"), local(*good(nano()), *good(case()), name="r2", started=LATER))
    write(Path("b"), NONSENSE["a version to come"])
    assert main(["publish", "a", "--dry-run"]) == 0
    assert capsys.readouterr().out == (
        f"would be published reports/results/{MACHINE}/r1.main.jsonl.zst\n"
        "cell whisper, cpu: Medium: whisper-tiny@seeded, cpu-torch fp32, Some, 2 cores "
        f"({MACHINE[:4]}) (was Not measured)\ndry run: nothing was changed\n"
    )
    assert not Path("reports").exists()
    assert main(["publish", "a"]) == 0
    assert main(["publish", "a", "b"]) == 3
    shown = capsys.readouterr()
    for line in (
        f"published reports/results/{MACHINE}/r2.main.jsonl.zst",
        f"superseded reports/results/{MACHINE}/r1.main.jsonl.zst: kept in "
        f"reports/archive/{MACHINE}/r1.main.jsonl.zst",
        "matrix: reports/MATRIX.md",
    ):
        assert line in shown.out.splitlines()
    assert "rejected planted.main.jsonl: " in shown.err


def test_publish_keeps_the_plan_of_another_worker(tmp_path: Path) -> None:
    plan, *rest = good(case())
    local = tmp_path / "local"
    write(local, run(plan, seen(case(), LOADS), worker="gw0"))
    write(local, run(*rest, worker="gw1", started="2026-11-21"))
    publish([local], tmp_path / "reports")
    report = build(read_all([tmp_path / "reports" / "results"]))
    assert report.problems == ()
    assert len(report.configurations) == 1


def test_publish_takes_what_a_person_replaced_only_when_told(tmp_path: Path) -> None:
    for number, entry in enumerate(OWN):
        local, reports = tmp_path / f"local{number}", tmp_path / f"reports{number}"
        path = write(local, run(*good(case(weights="pretrained")), own=(entry,)))
        result = publish([local], reports)
        assert result.published == ()
        (said,) = result.rejected
        assert path.name in said and entry in said and "--own" in said
        assert not any((reports / "results").iterdir())
        result = publish([local], reports, own=True)
        assert [one.name for one in result.published] == [f"{path.name}.zst"]
        (words,) = build(read_all([reports / "results"])).configurations[0].rating.badges
        assert f"*{words}*" in (reports / "MATRIX.md").read_text()


def test_publish_takes_files_as_they_were_written(tmp_path: Path) -> None:
    local = tmp_path / "local"
    here = write(local, run(*good(case())))
    other = write(local, run(*good(case()), name="r2", machine=GPU))
    here.write_bytes(here.read_bytes() + other.read_bytes())
    result = publish([here], tmp_path / "reports")
    assert result.published == ()
    assert "2 runs" in result.rejected[0]


def test_publish_rejects_what_is_broken_or_names_a_host(tmp_path: Path) -> None:
    local = tmp_path / "local"
    cut = write(local, run(*good(case()), name="cut"))
    cut.write_bytes(cut.read_bytes()[:-10])
    write(local, run(*good(case()), name="host", machine="alices-laptop"))
    write(local, run(*good(case()), name="up", machine="../../escape"))
    write(local, run(Planned(case=case(), checks=(LOADS,)), name="void"))
    (local / "headless.jsonl").write_text("{}\n")
    result = publish([local], tmp_path / "reports")
    assert result.published == ()
    named = " ".join(result.rejected)
    for name in ("cut.main", "host.main", "up.main", "void.main", "headless"):
        assert name in named
    assert list((tmp_path / "reports" / "results").iterdir()) == []
    assert not (tmp_path / "escape").exists()
    with pytest.raises(ResultsError, match="does not exist"):
        publish([tmp_path / "nowhere"], tmp_path / "reports")


def test_data_holds_the_samples_but_no_predictions() -> None:
    about = case()
    secret = seen(about, LOADS, predictions=["the spoken words"], samples={"seconds": [0.125]})
    data = data_json(report_of(run(Planned(case=about, checks=(LOADS,)), secret)))
    assert b"the spoken words" not in data
    assert b"0.125" in data
    assert msgspec.json.decode(data)["cells"][0]["configurations"][0]["rating"]["label"]
