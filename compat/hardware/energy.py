"""Energy counters of this machine: RAPL of processors, NVML of NVIDIA's GPUs.

Linux keeps RAPL's counters below ``/sys/class/powercap``, in microjoules, for processors of Intel
and AMD; they begin again at zero after ``max_energy_range_uj``. NVML counts the millijoules of a
GPU since its driver was loaded (from Volta on). Without a counter energy is not measured, since an
estimate from the time or from a processor's nominal power would be a guess.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
WHOLE = ("package-", "dram")
"""Beginnings of the names of RAPL's domains that can be added up, as none is part of another.
``core`` and ``uncore`` are parts of a package, and ``psys`` holds packages."""


@dataclass(frozen=True)
class Counter:
    """A counter of energy in joules."""

    name: str
    """For example ``package-0`` or ``gpu-0``."""
    read: Callable[[], float]
    """Function that returns joules since some fixed moment in the past."""
    range: float = 0.0
    """Joules after which the counter begins again at zero; 0 if it never does."""

    def between(self, before: float, after: float) -> float:
        """Return the joules between two readings, even if the counter began again meanwhile."""
        used = after - before
        return used + self.range if used < 0 else used


@dataclass(frozen=True)
class Found:
    """The energy counters of a machine, or the reason and remedy if there are none."""

    counters: tuple[Counter, ...]
    reason: str = ""
    remedy: str = ""


@dataclass
class Meter:
    """Adds up the joules of counters within ``with`` blocks, of which there may be several."""

    counters: Sequence[Counter]
    joules: dict[str, float] = field(default_factory=dict)
    _before: list[float] = field(default_factory=list)

    def __enter__(self) -> Meter:
        self._before = [counter.read() for counter in self.counters]
        return self

    def __exit__(self, *_: object) -> None:
        after = [counter.read() for counter in self.counters]
        for counter, start, end in zip(self.counters, self._before, after, strict=True):
            used = counter.between(start, end)
            self.joules[counter.name] = self.joules.get(counter.name, 0.0) + used


def find(powercap: Path = POWERCAP, nvml: Any = None) -> Found:
    """Return the counters that can be read here.

    Args:
        powercap: folder in which the kernel shows RAPL's domains.
        nvml: module for NVML; None for ``pynvml``.
    """
    counters = []
    locked = []
    for domain in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (domain / "name").read_text().strip()
            if not name.startswith(WHOLE):
                continue
            counters.append(_rapl(domain, name))
        except PermissionError:
            locked.append(domain)
        except (OSError, ValueError):
            continue
    counters += _gpus(nvml)
    if counters:
        return Found(tuple(counters))
    if locked:
        return Found(
            (),
            f"{powercap}/*/energy_uj may be read by root only",
            f"sudo chmod a+r {powercap}/intel-rapl:*/energy_uj",
        )
    if platform.system() == "Darwin":
        return Found((), "macOS tells energy by powermetrics alone, to root", "none is read here")
    return Found((), "no RAPL and no NVIDIA GPU is to be seen", "run on hardware, not in a VM")


def _rapl(domain: Path, name: str) -> Counter:
    file = domain / "energy_uj"
    file.read_text()
    limit = int((domain / "max_energy_range_uj").read_text()) / 1e6
    # Each package has a domain called dram, so that its number must be added.
    number = domain.name.removeprefix("intel-rapl:").partition(":")[0]
    unique = name if name.startswith("package-") else f"{name}-{number}"
    return Counter(unique, lambda: int(file.read_text()) / 1e6, limit)


def _gpus(nvml: Any) -> list[Counter]:
    """Return a counter for each GPU whose driver has one; none without NVML."""
    if nvml is None:
        try:
            nvml = import_module("pynvml")
        except ImportError:
            return []
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:
        return []
    found = []
    for index, handle in enumerate(handles):

        def read(handle: Any = handle) -> float:
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3

        try:
            read()
        except nvml.NVMLError:
            continue
        found.append(Counter(f"gpu-{index}", read))
    return found
