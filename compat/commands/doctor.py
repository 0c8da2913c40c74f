"""``compat doctor``: what is here, absent or broken, and the remedy."""

from __future__ import annotations

import argparse
import json
from typing import Any

from compat import catalog
from compat.commands.command import Command
from compat.contract.cache import CACHE, cache_folder
from compat.contract.untrusted import clean, one_line
from compat.hardware import facts
from compat.inputs import packages, people
from compat.inputs.checkpoints import CheckpointError, find_checkpoint
from compat.run.probing import Prober


def doctor(arguments: argparse.Namespace) -> int:
    """Probe every target."""
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
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    processor = machine.get("cpu", {})
    console.print(
        f"Machine {facts.machine_id(machine)}: "
        f"{escape(one_line(processor.get('model', 'unknown processor')))}, "
        f"{facts.available_cpus()} cores, "
        f"{facts.available_memory_bytes() / 2**30:.0f} GiB of memory"
    )
    table = Table(box=None, pad_edge=False)
    for column in ("target", "state", "what was found", "remedy"):
        table.add_column(column, overflow="fold")
    symbols = {
        "here": "[green]✓ here[/]",
        "absent": "[dim]· absent[/]",
        "broken": "[red]! broken[/]",
    }
    for row in rows:
        known = ", ".join(f"{name} {value}" for name, value in row["facts"].items())
        # What a device measures needs no word; an emulator or a conversion times nothing.
        proves = f"{row['evidence']} evidence" if row["evidence"] not in ("", "device") else ""
        said = ". ".join(part for part in (str(row["reason"]), known, proves) if part)
        table.add_row(
            escape(one_line(row["target"])),
            symbols[str(row["state"])],
            escape(clean(said)),
            escape(clean(row["remedy"])),
        )
    for row in packaged:
        what = f"weights of {row['families']}"
        found_in = f"in the package {row['package']}"
        table.add_row(escape(what), symbols[row["state"]], escape(found_in), escape(row["remedy"]))
    speech = _human_speech()
    where = "in packages" + (
        f"; missing: {', '.join(speech['missing'])}" if speech["missing"] else ""
    )
    table.add_row("human speech", symbols[speech["state"]], escape(where), speech["remedy"])
    console.print(table)
    console.print(f"cache: {cache_folder()} (${CACHE} names another)")
    console.print(f"packages: {packages.packages_folder()} (${packages.CACHE} names another)")
    return 0


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
