"""Energy is what counters say: recorded ones here, and none where a machine has none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compat.catalog import load
from compat.commands import doctor
from compat.contract.places import FIXTURES
from compat.contract.profile import CORE, FULL, QUICK
from compat.hardware import energy
from compat.hardware.energy import Counter, Meter, find
from compat.judge.results import facts_of
from compat.judge.thresholds import load as load_thresholds
from compat.measure import energy as stages
from suites import test_energy


def domain(root: Path, place: str, name: str, microjoules: int, limit: int = 262143328850) -> Path:
    """Write a domain as Linux shows one; the limit is that of an Intel Core i7-8550U."""
    folder = root / place
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{limit}\n")
    return folder


class NVMLError(Exception):
    """As NVML's module raises."""


def nvml(*millijoules: Any) -> Any:
    """Return NVML's module as it answers on a machine with these GPUs; None has no counter."""

    def total(handle: int) -> int:
        if millijoules[handle] is None:
            raise NVMLError("Not Supported")
        return int(millijoules[handle])

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: len(millijoules),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=total,
    )


def test_domains_that_lie_in_one_another_are_counted_once(tmp_path: Path) -> None:
    """A package holds its cores; psys holds the packages; memory is apart."""
    package = domain(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    domain(tmp_path, "intel-rapl:0:0", "core", 900_000)
    domain(tmp_path, "intel-rapl:0:1", "dram", 500_000)
    domain(tmp_path, "intel-rapl:1", "psys", 9_000_000)
    found = find(tmp_path, nvml())
    assert [counter.name for counter in found.counters] == ["package-0", "dram-0"]
    with Meter(found.counters) as meter:
        (package / "energy_uj").write_text("3500000\n")
    assert meter.joules == {"package-0": 2.5, "dram-0": 0.0}
    with meter:
        (package / "energy_uj").write_text("4000000\n")
    assert meter.joules["package-0"] == 3.0, "it adds up"


def test_a_counter_that_begins_again_loses_nothing(tmp_path: Path) -> None:
    package = domain(tmp_path, "intel-rapl:0", "package-0", 262_143_000_000)
    (counter,) = find(tmp_path, nvml()).counters
    with Meter([counter]) as meter:
        (package / "energy_uj").write_text("1671150\n")
    assert meter.joules["package-0"] == pytest.approx(2.0)


def test_gpus_count_in_millijoules_and_those_without_a_counter_are_left_out(tmp_path: Path) -> None:
    found = find(tmp_path / "none", nvml(5_000, None, 7_000))
    assert [(c.name, c.read()) for c in found.counters] == [("gpu-0", 5.0), ("gpu-2", 7.0)]


def test_absence_is_said_with_a_remedy(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    found = find(tmp_path, nvml())
    assert not found.counters and found.reason and found.remedy
    locked = domain(tmp_path, "intel-rapl:0", "package-0", 1)

    def refuse(self: Path, *arguments: Any, **options: Any) -> str:
        if self == locked / "energy_uj":
            raise PermissionError(13, "Permission denied")
        with self.open() as file:
            return file.read()

    monkeypatch.setattr(Path, "read_text", refuse)
    found = find(tmp_path, nvml())
    assert "root" in found.reason and "chmod" in found.remedy
    monkeypatch.setattr(energy, "find", lambda: found)
    doctor._energy()
    assert "energy counters" in capsys.readouterr().out


def test_joules_are_those_of_a_minute_of_audio(monkeypatch: Any) -> None:
    """A counter of 10 W, a case that needs a second for half a minute: 20 J for a minute."""
    clock = [0.0]
    counter = Counter("package-0", lambda: 10.0 * clock[0])
    monkeypatch.setattr(stages, "find", lambda: SimpleNamespace(counters=(counter,)))
    monkeypatch.setattr(stages, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(stages, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))

    def predict(items: Any) -> Any:
        clock[0] += 1.0
        return [None], None, 1.0

    case: Any = SimpleNamespace(
        predict=predict,
        inputs=SimpleNamespace(items=SimpleNamespace(timed=["item"])),
        task=SimpleNamespace(seconds=lambda item, prediction: 30.0),
    )
    found = stages.energy(case, 5.0)
    assert found["joules_per_minute"] == pytest.approx(20.0)
    assert found["watts"] == found["idle_watts"] == pytest.approx(10.0)
    assert found["counters"] == {"package-0": pytest.approx(20.0)}
    assert len(stages.rounds(case, 3.0)["seconds"]) == 3


@pytest.mark.parametrize(
    ("last", "level"), [(1.0, "strict"), (1.05, "strict"), (1.3, "relaxed"), (2.0, "failed")]
)
def test_a_machine_that_slows_down_is_found(last: float, level: str) -> None:
    case = load().case("whisper-tiny.en@pretrained/cpu-torch/fp32")
    minutes = [1.0] * 5 + [last] * 5
    asked: list[str] = []
    judged: dict[str, Any] = {}

    def ask(stage: str, **arguments: Any) -> Any:
        asked.append(stage)
        if stage == "processors":
            return {}
        return {"seconds": [minutes[asked.count("rounds") - 1]]}

    measurement: Any = SimpleNamespace(
        stage=ask,
        note=lambda **found: None,
        worker=SimpleNamespace(ask=ask),
        judge=judged.update,
    )
    test_energy.test_sustained(measurement)
    assert judged["drift"] == last and asked.count("rounds") == test_energy.MINUTES
    thresholds = load_thresholds([FIXTURES / "thresholds.toml"])
    found, limits, _ = thresholds.judge("latency.sustained", facts_of(case), judged)
    assert found == level and limits


def test_ten_minutes_are_asked_for_under_full_alone_and_of_what_decides_a_cell() -> None:
    check = test_energy.test_sustained.check
    headline = load().case("whisper-tiny.en@pretrained/cpu-torch/fp32")
    other = load().case("whisper-small@seeded/cpu-torch/fp32")
    assert check.asked(headline, FULL)
    assert not any(check.asked(headline, profile) for profile in (QUICK, CORE))
    assert not check.asked(other, FULL)


def test_one_recipe_of_a_target_is_heated() -> None:
    """Every recipe of every variant would make hours of a whole run."""
    check = test_energy.test_sustained.check
    asked = [case for case in load().cases() if check.asked(case, FULL)]
    places = [(case.family.name, case.target.name, case.weights) for case in asked]
    assert len(places) == len(set(places)) > 0
    assert {case.variant.name for case in asked} <= {c.family.headline for c in load().cases()}
