"""A results file of one case: what tests of results change a part of."""

from __future__ import annotations

from typing import Any

from compat.judge.results import SCHEMA_VERSION, CaseFacts, Header, Observation

CASE = "whisper-tiny@seeded/cpu-torch/fp32"


def header(**changes: Any) -> Header:
    fields: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "run": "20261120T120000Z-abcdef",
        "worker": "main",
        "started": "2026-11-20T12:00:00.000Z",
        "profile": "quick",
        "machine": "c4d1e09f77aa2b10",
        "facts": {"cpu": {"model": "x"}},
        "versions": {"compat": "0.1.0"},
        "commit": "",
        "arguments": (),
        "threads": 1,
        "parallel": False,
    }
    return Header(**{**fields, **changes})


def facts(name: str = CASE) -> CaseFacts:
    return CaseFacts(
        id=name,
        family="whisper",
        task="asr",
        row="Whisper",
        variant="whisper-tiny",
        weights="seeded",
        hardware="cpu",
        runtime="torch",
        target="cpu-torch",
        recipe="fp32",
        precision="fp32",
        evidence="device",
        on_host_cpu=True,
        published=True,
        headline=True,
        stand_in=False,
        timed=True,
    )


def observation(**changes: Any) -> Observation:
    fields = {"case": CASE, "check": "support.loads", "check_version": 1, "status": "passed"}
    return Observation(**{**fields, **changes})
