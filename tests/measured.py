"""Results as a whole run writes them, with numbers that a test chooses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compat.hardware.facts import machine_id
from compat.judge.checks import VERSIONS
from compat.judge.results import (
    SCHEMA_VERSION,
    CaseFacts,
    Collection,
    Header,
    MetricFacts,
    Observation,
    Planned,
    Run,
    Writer,
)
from compat.metrics import SCORER_VERSION
from compat.report import build
from compat.report.model import Report

WER = {
    "wer": MetricFacts(unit="share", better="lower", primary=True),
    "degradation": MetricFacts(unit="points", better="lower"),
}
SI_SDR = {
    "si_sdr": MetricFacts(unit="dB", better="higher", primary=True),
    "degradation": MetricFacts(unit="dB", better="lower"),
}


def machine_facts(model: str) -> dict[str, Any]:
    return {
        "system": {"os": "Linux", "architecture": "x86_64"},
        "cpu": {"model": model, "logical_cores": 2},
    }


def case(target: str, recipe: str, weights: str = "pretrained", **changes: Any) -> CaseFacts:
    variant = changes.pop("variant", "whisper-nano" if weights == "trained" else "whisper-tiny")
    hardware = changes.pop("hardware", target.partition("-")[0])
    fields: dict[str, Any] = {
        "id": f"{variant}@{weights}/{target}/{recipe}",
        "family": "whisper",
        "task": "asr",
        "row": "Whisper",
        "variant": variant,
        "weights": weights,
        "hardware": hardware,
        "runtime": target.partition("-")[2],
        "target": target,
        "recipe": recipe,
        "precision": recipe.partition("-")[0],
        "evidence": "device",
        "on_host_cpu": True,
        "published": weights != "trained",
        "headline": weights != "trained",
        "stand_in": weights == "trained",
        "timed": True,
    }
    return CaseFacts(**{**fields, **changes})


def seen(about: CaseFacts, check: str, values: dict[str, Any], **more: Any) -> Observation:
    more.setdefault("status", "passed")
    if more["status"] == "passed":
        more.setdefault("level", "strict")
    return Observation(
        case=about.id, check=check, check_version=VERSIONS[check], values=values, threads=2, **more
    )


def whole(about: CaseFacts, **numbers: Any) -> list[Observation]:
    """Every check of a case.

    ``rtf`` (None: not timed), ``spread`` (half the interval, relative), ``memory`` (bytes),
    ``loss`` (of the metric), ``wer``, ``metrics``, ``accurate`` and ``robust`` (levels), and
    ``time`` (ISO 8601).
    """
    rtf, spread = numbers.get("rtf", 0.1), numbers.get("spread", 0.01)
    when = numbers.get("time", "2026-11-20T10:00:00Z")
    metrics = numbers.get("metrics", WER)
    metric = next(name for name, facts in metrics.items() if facts.primary)
    loss, wer = numbers.get("loss", 0.0), numbers.get("wer", 0.05)
    width = numbers.get("loss_spread", 0.002)
    scores = {
        metric: wer,
        f"{metric}_interval": [wer - 0.02, wer + 0.02],
        "degradation": loss,
        "degradation_interval": [loss - width, loss + width],
    }
    accurate, robust = numbers.get("accurate", "strict"), numbers.get("robust", "strict")
    found = [
        seen(about, "support.loads", {"model_bytes": 4e7, "cold": {"load_s": 1.0}}, time=when),
        seen(about, "accuracy.numerics", {"logits": {"snr_db": 90.0}}, level=accurate, time=when),
        seen(about, "robustness.stress", {"worse": 0}, level=robust, time=when),
        seen(about, "memory.peak", {"peak_bytes": numbers.get("memory", 4e8)}, time=when),
    ]
    if about.weights != "seeded":
        values = {"hard": scores}
        found.append(
            seen(about, "accuracy.task", values, level=accurate, metrics=metrics, time=when)
        )
    if rtf is not None:
        values = {
            "median_s": rtf * 10,
            "interval_s": [rtf * 10 * (1 - spread), rtf * 10 * (1 + spread)],
            "rtf": rtf,
            "rtf_lower": rtf * (1 - spread),
            "rtf_upper": rtf * (1 + spread),
        }
        status = numbers.get("timing", "passed")
        level = "strict" if status == "passed" else None
        found.append(seen(about, "latency.task", values, status=status, level=level, time=when))
    return found


def run(
    cases: dict[CaseFacts, list[Observation]] | list[tuple[CaseFacts, list[Observation]]],
    model: str = "First",
    name: str = "20261120T100000Z-aaaaaa",
    **header: Any,
) -> Run:
    pairs = list(cases.items()) if isinstance(cases, dict) else cases
    known = machine_facts(model)
    fields: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "run": name,
        "worker": "main",
        "started": "2026-11-20T09:00:00Z",
        "profile": "core",
        "machine": machine_id(known),
        "facts": known,
        "versions": {"compat": "0.1.0", "scorer": str(SCORER_VERSION)},
        "commit": "c0ffee",
        "arguments": (),
        "threads": 2,
        "parallel": False,
        "hashes": {"corpus": "f76e1b2bb41f33af"},
    }
    return Run(
        Path(f"{name}.main.jsonl"),
        Header(**{**fields, **header}),
        tuple(Planned(case=c, checks=tuple(o.check for o in found)) for c, found in pairs),
        (),
        tuple(one for _, found in pairs for one in found),
    )


def report(*runs: Run) -> Report:
    return build(Collection(tuple(runs)))


def write(folder: Path, *runs: Run) -> Path:
    """Write results files as a process does."""
    for one in runs:
        writer = Writer(folder, one.header)
        for line in (*one.planned, *one.observations):
            writer.write(line)
        writer.close()
    return folder
