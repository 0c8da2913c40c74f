"""Results by the hundred thousand: those that are published, repeated on machines of other names.

Every observation is a published one, predictions and samples included, with its numbers changed by
a few per cent, so that lines have the published mean size and content.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from backports import zstd

from compat.hardware.facts import machine_id
from compat.judge.results import Header, Observation, Run, Started, read_all

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "reports" / "results"
BYTES = 1_000_000
"""From here on a whole number is a measured one: bytes. Lower ones count words and inputs."""


def write(folder: Path, observations: int, machines: int, source: Path = PUBLISHED) -> int:
    """Write ``observations`` of ``machines`` machines below ``folder``; return the bytes unpacked.

    Machines differ in the name of their processor. Their runs are the published ones in another
    order, and again where those are not enough, each time a day earlier.
    """
    runs = [run for run in read_all([source]).runs if run.observations]
    chance = random.Random(0)  # noqa: S311 (nothing is kept secret)
    size = 0
    for machine in range(machines):
        left = observations // machines
        round_ = 0
        while left > 0:
            for run in chance.sample(runs, len(runs)):
                part = run.observations[:left]
                left -= len(part)
                data = _lines(run, part, machine, round_, chance)
                place = folder / f"{machine:02}" / f"{round_:04}-{run.header.run}.jsonl.zst"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(zstd.compress(data, level=1))
                size += len(data)
                if left <= 0:
                    break
            round_ += 1
    return size


def _lines(
    run: Run, part: Iterable[Observation], machine: int, round_: int, chance: random.Random
) -> bytes:
    header = _renamed(run.header, machine, round_)
    lines: list[Any] = [header, *run.planned]
    for one in part:
        varied = _varied(one, chance)
        lines.append(Started(case=one.case, check=one.check, time=_earlier(one.time, round_)))
        lines.append(msgspec.structs.replace(varied, time=_earlier(one.time, round_)))
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def _renamed(header: Header, machine: int, round_: int) -> Header:
    cpu = {**header.facts["cpu"], "model": f"Made {machine}"}
    facts = {**header.facts, "cpu": cpu}
    facts["system"] = {"os": "Linux", "architecture": "x86_64"}
    cpu.update(vendor="made", family=1, model_number=machine, capabilities=["avx2"])
    return msgspec.structs.replace(
        header,
        run=f"{header.run}-{machine:02}{round_:04}",
        machine=machine_id(facts),
        facts=facts,
        started=_earlier(header.started, round_),
    )


def _earlier(moment: str, days: int) -> str:
    if not moment:
        return moment
    return (datetime.fromisoformat(moment) - timedelta(days=days)).isoformat()


def _varied(one: Observation, chance: random.Random) -> Observation:
    factor = chance.uniform(0.95, 1.05)
    return msgspec.structs.replace(
        one,
        values=_scaled(one.values, factor),
        samples={name: [s * factor for s in found] for name, found in one.samples.items()},
    )


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, dict):
        return {key: _scaled(part, factor) for key, part in value.items()}
    if isinstance(value, float) and not value.is_integer():
        return value * factor
    if isinstance(value, int) and value >= BYTES:
        return round(value * factor)
    return value


def sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the pages of a site and their bytes, the largest first; the plotting library apart."""
    found = [
        (str(path.relative_to(folder)), path.stat().st_size)
        for path in folder.rglob("*.html")
        if path.is_file()
    ]
    yield from sorted(found, key=lambda one: -one[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--observations", type=int, default=100_000)
    parser.add_argument("--machines", type=int, default=30)
    options = parser.parse_args()
    total = write(options.folder, options.observations, options.machines)
    print(f"{total / 1e6:.0f} MB unpacked", file=sys.stderr)
