"""Relations of results: the tables of runs, machines, cases, observations and cells.

No column has the name of an SQL keyword: hence ``case_id`` and ``check_name``. Predictions are left
out, because they are most of the bytes and no query of a matrix needs them. Queries use these
tables, not the lines of files: lines may have an older schema, and do not say which observation
counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation: its meaning, and its columns with their types in SQL."""

    about: str
    columns: Mapping[str, str]


RELATIONS: Mapping[str, Relation] = {
    "observations": Relation(
        "what each check of each case found, everything that was measured and not only what counts",
        {
            "run": "VARCHAR",
            "machine": "VARCHAR",
            "case_id": "VARCHAR",
            "variant": "VARCHAR",
            "weights": "VARCHAR",
            "target": "VARCHAR",
            "recipe": "VARCHAR",
            "check_name": "VARCHAR",
            "check_version": "INTEGER",
            "status": "VARCHAR",
            "level": "VARCHAR",
            "reason": "VARCHAR",
            "remedy": "VARCHAR",
            "expected": "VARCHAR",
            "executed": "VARCHAR",
            "measured_at": "TIMESTAMP",
            "check_s": "DOUBLE",
            "threads": "INTEGER",
            "batch": "INTEGER",
            "profile": "VARCHAR",
            "counts": "BOOLEAN",
            "rtf": "DOUBLE",
            "rtf_upper": "DOUBLE",
            "median_s": "DOUBLE",
            "cold_start_s": "DOUBLE",
            "peak_bytes": "DOUBLE",
            "device_peak_bytes": "DOUBLE",
            "model_bytes": "DOUBLE",
            "metric": "VARCHAR",
            "metric_value": "DOUBLE",
            "degradation": "DOUBLE",
            "snr_db": "DOUBLE",
            "numbers": "JSON",
            "samples": "JSON",
            "limits": "JSON",
        },
    ),
    "cases": Relation(
        "what was planned on each machine, measured or not",
        {
            "machine": "VARCHAR",
            "case_id": "VARCHAR",
            "family": "VARCHAR",
            "task": "VARCHAR",
            "matrix_row": "VARCHAR",
            "variant": "VARCHAR",
            "weights": "VARCHAR",
            "hardware": "VARCHAR",
            "runtime": "VARCHAR",
            "target": "VARCHAR",
            "recipe": "VARCHAR",
            "precision": "VARCHAR",
            "evidence": "VARCHAR",
            "on_host_cpu": "BOOLEAN",
            "published": "BOOLEAN",
            "headline": "BOOLEAN",
            "stand_in": "BOOLEAN",
            "parameters": "DOUBLE",
        },
    ),
    "cells": Relation(
        "every rated configuration of every cell; where best is true the one that the cell shows",
        {
            "matrix_row": "VARCHAR",
            "hardware": "VARCHAR",
            "target": "VARCHAR",
            "recipe": "VARCHAR",
            "family": "VARCHAR",
            "variant": "VARCHAR",
            "machine": "VARCHAR",
            "evidence": "VARCHAR",
            "on_host_cpu": "BOOLEAN",
            "best": "BOOLEAN",
            "rating": "VARCHAR",
            "kind": "VARCHAR",
            "why": "VARCHAR[]",
            "rtf": "DOUBLE",
            "rtf_upper": "DOUBLE",
            "median_s": "DOUBLE",
            "peak_bytes": "DOUBLE",
            "model_bytes": "DOUBLE",
            "metric": "VARCHAR",
            "metric_set": "VARCHAR",
            "metric_of": "VARCHAR",
            "metric_value": "DOUBLE",
            "degradation": "DOUBLE",
            "snr_db": "DOUBLE",
        },
    ),
    "runs": Relation(
        "each process of each run, with where its numbers come from",
        {
            "run": "VARCHAR",
            "machine": "VARCHAR",
            "started": "TIMESTAMP",
            "profile": "VARCHAR",
            "git_commit": "VARCHAR",
            "threads": "INTEGER",
            "parallel": "BOOLEAN",
            "own": "VARCHAR[]",
            "versions": "JSON",
            "hashes": "JSON",
            "arguments": "VARCHAR[]",
            "observations": "INTEGER",
            "results_file": "VARCHAR",
        },
    ),
    "machines": Relation(
        "each machine with its facts",
        {
            "machine": "VARCHAR",
            "processor": "VARCHAR",
            "capabilities": "VARCHAR[]",
            "cores": "INTEGER",
            "memory_bytes": "DOUBLE",
            "os": "VARCHAR",
            "architecture": "VARCHAR",
            "facts": "JSON",
        },
    ),
}
"""Every relation by its name, in the order in which it is documented."""
