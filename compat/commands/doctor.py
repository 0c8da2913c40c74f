"""``compat doctor``: the targets, weights and recordings that are here, and remedies for others."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from compat import catalog
from compat.commands.command import Command
from compat.commands.printing import say, told
from compat.contract.cache import CACHE, cache_folder
from compat.contract.untrusted import one_line
from compat.hardware import energy, facts
from compat.inputs import packages, people
from compat.inputs.checkpoints import CheckpointError, find_checkpoint
from compat.run.probing import Prober

FACTS = 160
"""Most characters that are shown of a target: some libraries list all that they were built with."""


def doctor(arguments: argparse.Namespace) -> int:
    """Probe every target; print which are here, broken or absent, with the remedies."""
    loaded = catalog.load()
    found = Prober().all(loaded.targets)
    machine = facts.machine_facts()
    rows: list[dict[str, Any]] = [
        {
            "hardware": target.hardware,
            "target": target.name,
            "state": found[target.name].state,
            "reason": found[target.name].reason,
            "remedy": found[target.name].remedy,
            "facts": dict(found[target.name].facts),
            "evidence": target.evidence,
        }
        for target in loaded.targets
    ]
    for hardware in loaded.hardware:
        if not any(row["hardware"] == hardware for row in rows):
            rows.append(
                {
                    "hardware": hardware,
                    "target": f"({hardware})",
                    "state": "absent",
                    "reason": "no runtime of the catalog serves this hardware yet",
                    "remedy": "add one with --catalog FILE, see docs/extending.md",
                    "facts": {},
                    "evidence": "",
                }
            )
    rows.sort(key=lambda row: loaded.hardware.index(row["hardware"]))
    packaged = _packaged_weights(loaded)
    if arguments.json:
        shown = {"machine": facts.machine_id(machine), "facts": machine, "targets": rows}
        print(json.dumps({**shown, "weights": packaged, "speech": _human_speech()}))
        return 0
    here = [row for row in rows if row["state"] == "here"]
    processor = machine.get("cpu", {})
    verb = "is" if len(here) == 1 else "are"
    told(
        f"{len(here)} of {len(rows)} targets {verb} here: machine {facts.machine_id(machine)}, "
        f"{one_line(processor.get('model', 'unknown processor'))}, {facts.available_cpus()} cores, "
        f"{facts.available_memory_bytes() / 2**30:.0f} GiB of memory free"
    )
    _found("✓ here", here)
    _found("! broken", [row for row in rows if row["state"] == "broken"])
    _absent([row for row in rows if row["state"] not in ("here", "broken")])
    _inputs(packaged)
    _energy()
    say(f"\ncache: {cache_folder()} (${CACHE} names another)")
    say(f"packages: {packages.packages_folder()} (${packages.CACHE} names another)")
    return 0


def _found(title: str, rows: list[dict[str, Any]]) -> None:
    """Print targets with their reasons and facts; targets with the same text share a line."""
    if rows:
        say(f"\n{title}")
    alike: dict[str, list[str]] = {}
    for row in rows:
        known = ", ".join(f"{name} {_words(value)}" for name, value in row["facts"].items())
        said = ". ".join(part for part in (row["reason"], known, row["remedy"]) if part)
        alike.setdefault(one_line(said, FACTS), []).append(_name(row))
    for said, names in alike.items():
        told(f"{', '.join(names)}{': ' if said else ''}{said}", "  ", "    ")


def _words(value: Any) -> str:
    """Return a fact of a device as a person writes it, without Python's brackets."""
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_words(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _absent(rows: list[dict[str, Any]]) -> None:
    """Print each remedy once, with the targets that it would bring and why each is absent."""
    if rows:
        say("\n· absent, and what would bring them")
    remedies: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        reasons = remedies.setdefault(one_line(row["remedy"]) or "nothing is known to", {})
        reasons.setdefault(one_line(row["reason"], FACTS), []).append(_name(row))
    for remedy, reasons in remedies.items():
        told(remedy, "  ", "    ")
        for reason, names in reasons.items():
            told(f"{reason}{': ' if reason else ''}{', '.join(names)}", "      ", "  ")


def _name(row: dict[str, Any]) -> str:
    # Only other evidence than a device's is named: an emulator or a conversion gives no times.
    proves = f" ({row['evidence']} evidence)" if row["evidence"] not in ("", "device") else ""
    return one_line(row["target"]) + proves


def _inputs(packaged: list[dict[str, str]]) -> None:
    """Print which weights and recordings are here, and the remedies for those that are not."""
    say("\nweights and recordings")
    speech = _human_speech()
    lines = [(f"weights of {row['families']} ({row['package']})", row) for row in packaged]
    lines.append(("human speech", speech))
    for what, row in lines:
        missing = f"; missing: {', '.join(row['missing'])}" if row.get("missing") else ""
        remedy = f": {row['remedy']}" if row["remedy"] else ""
        sign = "✓ here" if row["state"] == "here" else "· absent"
        told(f"{sign}  {what}{missing}{remedy}", "  ", "    ")


def _energy() -> None:
    """Print which energy counters can be read, or why there is none."""
    found = energy.find()
    if found.counters:
        names = ", ".join(counter.name for counter in found.counters)
        told(f"✓ here  energy counters: {names}", "  ", "    ")
    else:
        told(f"· absent  energy counters: {found.reason}: {found.remedy}", "  ", "    ")


def _human_speech() -> dict[str, Any]:
    """Return whether the recordings of people are here, and which packages are not."""
    missing = [package.distribution for package in people.missing()]
    if not missing:
        return {"state": "here", "missing": [], "remedy": ""}
    return {"state": "absent", "missing": missing, "remedy": people.REMEDY}


def _packaged_weights(loaded: catalog.Catalog) -> list[dict[str, str]]:
    """Return which packages hold published weights, and whether they are here."""
    rows = []
    for package in packages.known():
        families = [
            family.name
            for family in loaded.families
            if any(variant.checkpoint in package.checkpoints for variant in family.variants)
        ]
        try:
            for checkpoint in package.checkpoints:
                find_checkpoint(checkpoint)
            state, remedy = "here", ""
        except CheckpointError:
            state, remedy = "absent", package.remedy
        row = {"package": package.distribution, "families": ", ".join(families)}
        rows.append({**row, "state": state, "remedy": remedy})
    return rows


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


COMMAND = Command(
    "say what is here, absent or broken, and the remedy",
    doctor,
    "example:\n  compat doctor --json",
    _arguments,
)
