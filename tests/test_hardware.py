"""compat.hardware.facts against samples of tool and kernel output, and on this machine.

The samples are shortened and written after real output of machines that the tests do not have.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from compat.hardware import facts as hardware
from compat.hardware.facts import (
    available_cpus,
    available_memory_bytes,
    machine_facts,
    machine_id,
    package_versions,
    parse_cgroups,
    parse_cpuinfo,
    parse_nvidia_smi,
    parse_os_release,
    parse_rocm_smi,
    parse_sysctl,
    pci_accelerators,
)


def _x86(
    vendor: str, family: int, number: int, name: str, flags: str, cores: list[tuple[int, int]]
) -> str:
    return "\n".join(
        f"processor\t: {index}\nvendor_id\t: {vendor}\ncpu family\t: {family}\n"
        f"model\t\t: {number}\nmodel name\t: {name}\nstepping\t: 8\nphysical id\t: {package}\n"
        f"siblings\t: {len(cores)}\ncore id\t\t: {core}\nflags\t\t: {flags}\n"
        "bugs\t\t: spectre_v1 spectre_v2\npower management:\n"
        for index, (package, core) in enumerate(cores)
    )


SAMPLE_INTEL = _x86(
    "GenuineIntel",
    6,
    143,
    "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
    "fpu sse2 avx avx2 f16c avx512f avx512_vnni avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_int8",
    [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0), (0, 1), (1, 0), (1, 1)],
)
SAMPLE_AMD = _x86(
    "AuthenticAMD", 23, 49, "AMD EPYC 7B12", "fpu sse2 avx avx2 f16c", [(0, 0), (0, 0)]
)
SAMPLE_ARM_SERVER = "\n".join(
    f"processor\t: {index}\nBogoMIPS\t: 2100.00\n"
    "Features\t: fp asimd fphp asimdhp asimddp sve i8mm bf16 dgh rng\n"
    "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: 0xd40\n"
    "CPU revision\t: 1\n"
    for index in range(4)
)
SAMPLE_ARM_BOARD = "\n".join(
    f"processor\t: {index}\nBogoMIPS\t: 48.00\n"
    "Features\t: fp asimd evtstrm aes fphp asimdhp asimddp\n"
    f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {part}\n"
    for index, part in enumerate(["0xd05"] * 4 + ["0xd0b"] * 4)
)
SAMPLE_ARM_GUEST = (
    "processor       : 0\nBogoMIPS        : 48.00\nFeatures        : fp asimd asimdhp\n"
    "CPU implementer : 0x61\nCPU part        : 0x000\n"
)

SAMPLE_SYSCTL_M2 = """\
machdep.cpu.brand_string: Apple M2 Pro
hw.physicalcpu: 10
hw.logicalcpu: 10
hw.memsize: 17179869184
hw.perflevel0.physicalcpu: 6
hw.perflevel1.physicalcpu: 4
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_FP16: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_SME: 0
"""
SAMPLE_SYSCTL_INTEL = """\
machdep.cpu.brand_string: Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz
hw.physicalcpu: 6
hw.logicalcpu: 12
hw.memsize: 34359738368
hw.optional.avx2_0: 1
hw.optional.avx512f: 0
sysctl: unknown oid 'hw.optional.arm.FEAT_BF16'
"""

SAMPLE_NVIDIA = "NVIDIA H200, 143771, 570.124.06, 9.0\nNVIDIA H200, 143771, 570.124.06, 9.0\n"
SAMPLE_NVIDIA_OLD = "Tesla V100-SXM2-16GB, 16160, 450.80.02\n"
SAMPLE_NVIDIA_SHARED = "NVIDIA GB10, [N/A], 580.95.05, 12.1\n"
SAMPLE_NVIDIA_BROKEN = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that "
    "the latest NVIDIA driver is installed and running.\n"
)
SAMPLE_NVIDIA_REFUSED = 'Field "compute_cap" is not a valid field to query.\n'

SAMPLE_ROCM = """\
WARNING: AMD GPU device(s) is/are in a low-power state. Check power control/runtime_status

{"card0": {"VRAM Total Memory (B)": "21458059264", "VRAM Total Used Memory (B)": "27856896",
 "Card Series": "Radeon RX 7900 XT", "Card Model": "0x744c", "GFX Version": "gfx1100"},
 "system": {"Driver version": "6.8.5"}}
"""
SAMPLE_ROCM_OLD = (
    '{"card0": {"Card series": "Arcturus GL-XL [AMD Instinct MI100]", "Card model": "0x0c34"}, '
    '"card1": {"Card series": "", "Card model": "0x0c34"}, '
    '"system": {"Driver version": "4.18.0-348.12.2.el8_5.x86_64"}}'
)


def test_cpuinfo_intel() -> None:
    assert parse_cpuinfo(SAMPLE_INTEL) == {
        "model": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
        "vendor": "GenuineIntel",
        "family": 6,
        "model_number": 143,
        "logical_cores": 8,
        "physical_cores": 4,
        "capabilities": ["avx2", "avx512", "bf16", "fp16", "vnni", "amx"],
    }


def test_cpuinfo_amd() -> None:
    found = parse_cpuinfo(SAMPLE_AMD)
    assert found["model"] == "AMD EPYC 7B12" and found["vendor"] == "AuthenticAMD"
    assert (found["logical_cores"], found["physical_cores"]) == (2, 1)
    assert found["capabilities"] == ["avx2"]


def test_cpuinfo_arm() -> None:
    found = parse_cpuinfo(SAMPLE_ARM_SERVER)
    assert (found["model"], found["vendor"]) == ("Neoverse-V1", "ARM")
    assert found["logical_cores"] == 4 and "physical_cores" not in found
    assert found["capabilities"] == ["bf16", "fp16", "dotprod", "i8mm", "sve"]
    board = parse_cpuinfo(SAMPLE_ARM_BOARD)
    assert board["model"] == "4 x Cortex-A76 + 4 x Cortex-A55"
    guest = parse_cpuinfo(SAMPLE_ARM_GUEST)
    assert (guest["model"], guest["vendor"]) == ("Apple part 0x000", "Apple")
    assert guest["capabilities"] == ["fp16"]


@pytest.mark.parametrize("text", ["", "nothing here\n", "processor: 0\n", ":::\n\x00"])
def test_cpuinfo_survives_anything(text: str) -> None:
    assert "model" not in parse_cpuinfo(text)


def test_sysctl_apple() -> None:
    assert parse_sysctl(SAMPLE_SYSCTL_M2) == {
        "cpu": {
            "model": "Apple M2 Pro",
            "vendor": "Apple",
            "logical_cores": 10,
            "physical_cores": 10,
            "performance_cores": 6,
            "efficiency_cores": 4,
            "capabilities": ["bf16", "fp16", "dotprod", "i8mm"],
        },
        "memory_bytes": 16 << 30,
    }


def test_sysctl_intel() -> None:
    found = parse_sysctl(SAMPLE_SYSCTL_INTEL)
    assert found["cpu"]["capabilities"] == ["avx2"]
    assert found["cpu"]["logical_cores"] == 12 and "performance_cores" not in found["cpu"]
    assert "memory_bytes" not in parse_sysctl("")


def test_nvidia_smi() -> None:
    gpus, driver = parse_nvidia_smi(SAMPLE_NVIDIA)
    assert driver == "570.124.06"
    assert (
        gpus
        == [
            {
                "vendor": "nvidia",
                "name": "NVIDIA H200",
                "memory_bytes": 143771 << 20,
                "architecture": "sm_90",
            }
        ]
        * 2
    )
    assert parse_nvidia_smi(SAMPLE_NVIDIA_OLD) == (
        [{"vendor": "nvidia", "name": "Tesla V100-SXM2-16GB", "memory_bytes": 16160 << 20}],
        "450.80.02",
    )
    assert parse_nvidia_smi(SAMPLE_NVIDIA_SHARED)[0] == [
        {"vendor": "nvidia", "name": "NVIDIA GB10", "architecture": "sm_121"}
    ]
    for text in (SAMPLE_NVIDIA_BROKEN, SAMPLE_NVIDIA_REFUSED, "", "No devices were found\n"):
        assert parse_nvidia_smi(text) == ([], "")


def test_nvidia_query_falls_back_for_old_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    def tool(_: str, *arguments: str) -> str:
        return SAMPLE_NVIDIA_REFUSED if "compute_cap" in arguments[0] else SAMPLE_NVIDIA_OLD

    monkeypatch.setattr(hardware, "_tool", tool)
    assert hardware._nvidia()[1] == "450.80.02"


def test_rocm_smi() -> None:
    gpus, driver = parse_rocm_smi(SAMPLE_ROCM)
    assert driver == "6.8.5"
    assert gpus == [
        {
            "vendor": "amd",
            "name": "Radeon RX 7900 XT",
            "memory_bytes": 21458059264,
            "architecture": "gfx1100",
        }
    ]
    gpus, driver = parse_rocm_smi(SAMPLE_ROCM_OLD)
    assert [gpu["name"] for gpu in gpus] == ["Arcturus GL-XL [AMD Instinct MI100]", "0x0c34"]
    assert driver.startswith("4.18")
    for text in ("", "{", "no JSON", '{"card0": 3}', "{}"):
        assert parse_rocm_smi(text) == ([], "")


def test_os_release() -> None:
    text = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\nID_LIKE=x\n'
    assert parse_os_release(text) == "debian 12"
    assert parse_os_release("ID=arch\n") == "arch"
    assert parse_os_release("") == ""


def test_pci_accelerators(tmp_path: Path) -> None:
    def device(entry: str, folder: str, vendor: str, number: str) -> None:
        where = tmp_path / "devices" / folder
        where.mkdir(parents=True, exist_ok=True)
        (where / "vendor").write_text(f"{vendor}\n")
        (where / "device").write_text(f"{number}\n")
        link = tmp_path / "sys/class" / entry / "device"
        link.parent.mkdir(parents=True)
        link.symlink_to(where)

    device("drm/card1", "0", "0x8086", "0x7d55")
    device("drm/card1-HDMI-A-1", "0", "0x8086", "0x7d55")
    device("drm/card0", "1", "0x1234", "0x1111")  # the display adapter of a virtual machine
    device("accel/accel0", "2", "0x8086", "0x7d1d")
    assert pci_accelerators(tmp_path) == [
        {"vendor": "intel", "device": "0x7d55", "kind": "gpu"},
        {"vendor": "intel", "device": "0x7d1d", "kind": "npu"},
    ]
    assert pci_accelerators(tmp_path / "none") == []


def test_machine_facts_name_nobody() -> None:
    found = machine_facts()
    text = json.dumps(found, allow_nan=False)
    words = set(re.findall(r"[\w.@-]+", text))
    assert platform.node() not in words
    assert getpass.getuser() not in words
    assert str(Path.home()) not in text and str(Path.cwd()) not in text
    assert found["cpu"]["logical_cores"] >= 1
    assert found["system"]["architecture"] == platform.machine()
    assert found["memory_bytes"] > 1 << 28


@pytest.mark.skipif(
    shutil.which("nvidia-smi") is not None or shutil.which("rocm-smi") is not None,
    reason="a GPU's tool takes as long as it takes",
)
def test_machine_facts_are_cheap() -> None:
    machine_facts()
    durations = []
    for _ in range(3):
        start = time.perf_counter()
        machine_facts()
        durations.append(time.perf_counter() - start)
    assert min(durations) < 0.1


def test_a_part_that_fails_costs_itself_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError("unusual machine")

    for name in ("_cpu", "_nvidia", "_amd", "_memory"):
        monkeypatch.setattr(hardware, name, broken)
    found = machine_facts()
    assert "system" in found and "cpu" not in found and "gpus" not in found
    assert re.fullmatch(r"[0-9a-f]{8}", machine_id(found))


def test_tool_that_is_absent_or_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert hardware._tool("no-such-tool-anywhere") == ""
    assert hardware._tool(sys.executable, "-c", "print('x'); raise SystemExit(3)").strip() == "x"
    monkeypatch.setattr(hardware, "_TOOL_SECONDS", 0.2)
    assert hardware._tool(sys.executable, "-c", "import time; time.sleep(30)") == ""
    broken = tmp_path / "broken"
    broken.write_text("")
    broken.chmod(0o755)
    assert hardware._tool(str(broken)) == ""


SAMPLE_FACTS: dict[str, Any] = {
    "system": {
        "os": "Linux",
        "release": "debian 12",
        "kernel": "6.1",
        "libc": "glibc 2.36",
        "architecture": "x86_64",
    },
    "cpu": parse_cpuinfo(SAMPLE_INTEL),
    "memory_bytes": 63 << 30,
    "gpus": parse_nvidia_smi(SAMPLE_NVIDIA)[0],
    "drivers": {"nvidia": "570.124.06"},
}


def _changed(*path: str, to: Any) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(SAMPLE_FACTS))
    inner = changed
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = to
    return changed


def test_machine_id_is_stable() -> None:
    identity = machine_id(SAMPLE_FACTS)
    # The value itself is fixed: published results are filed under it.
    assert identity == "f988c043"
    for changed in (
        _changed("system", "release", to="debian 13"),
        _changed("system", "kernel", to="6.18"),
        _changed("system", "libc", to="glibc 2.41"),
        _changed("drivers", "nvidia", to="600.1"),
        _changed("memory_bytes", to=(63 << 30) - 12345),
        _changed("cpu", "capabilities", to=list(reversed(SAMPLE_FACTS["cpu"]["capabilities"]))),
    ):
        assert machine_id(changed) == identity


def test_machine_id_tells_machines_apart() -> None:
    others = [
        _changed("system", "os", to="Windows"),
        _changed("system", "architecture", to="aarch64"),
        _changed("cpu", "model", to="another"),
        _changed("cpu", "model_number", to=144),
        _changed("cpu", "physical_cores", to=16),
        _changed("cpu", "logical_cores", to=16),
        _changed("cpu", "capabilities", to=["avx2"]),
        _changed("memory_bytes", to=127 << 30),
        _changed("gpus", to=SAMPLE_FACTS["gpus"][:1]),
        _changed("gpus", to=[]),
        _changed("accelerators", to=[{"vendor": "intel", "device": "0x7d1d", "kind": "npu"}]),
    ]
    identities = {machine_id(facts) for facts in (*others, SAMPLE_FACTS)}
    assert len(identities) == len(others) + 1


def test_package_versions() -> None:
    found = package_versions(["pytest", "no-such-distribution-anywhere"])
    assert found == {"pytest": pytest.__version__}


def _cgroup(root: Path, memberships: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": memberships, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_parse_cgroups() -> None:
    assert parse_cgroups("3:cpu,cpuacct:/a\n4:memory:/b:c\n0::/d\nrubbish\n") == {
        "cpu": "/a",
        "cpuacct": "/a",
        "memory": "/b:c",
        "": "/d",
    }


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({"box/cpu.max": "200000 100000\n"}, 2),
        ({"box/cpu.max": "150000 100000\n"}, 1),
        ({"box/cpu.max": "50000 100000\n"}, 1),
        ({"box/cpu.max": "max 100000\n"}, 64),
        ({"box/cpu.max": "max 100000\n", "cpu.max": "300000 100000\n"}, 3),
        ({}, 64),
    ],
)
def test_cpu_quota_version_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quotas: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    files = {f"sys/fs/cgroup/{name}": text for name, text in quotas.items()}
    assert available_cpus(_cgroup(tmp_path, "0::/box\n", files)) == expected


def test_cpu_quota_version_1_and_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    # The path is the host's and not visible here: the mount itself carries the limit.
    folder = "sys/fs/cgroup/cpu"
    files = {f"{folder}/cpu.cfs_quota_us": "400000\n", f"{folder}/cpu.cfs_period_us": "100000\n"}
    root = _cgroup(tmp_path, "1:cpu:/docker/0123\n0::/\n", files)
    assert available_cpus(root) == 4
    (root / folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert available_cpus(root) == 8


def test_memory_limits(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/box"
    limited = {
        f"{base}/memory.max": f"{100 << 20}\n",
        f"{base}/memory.current": f"{60 << 20}\n",
        f"{base}/memory.stat": f"anon 1\ninactive_file {20 << 20}\nactive_file 7\n",
    }
    assert available_memory_bytes(_cgroup(tmp_path, "0::/box\n", limited)) == 60 << 20
    (tmp_path / base / "memory.current").write_text(f"{500 << 20}\n")
    (tmp_path / base / "memory.stat").write_text("")
    assert available_memory_bytes(tmp_path) == 0
    (tmp_path / base / "memory.max").write_text("max\n")
    assert available_memory_bytes(tmp_path) > 100 << 20


def test_memory_limits_version_1(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/memory/a/b"
    files = {
        f"{base}/memory.limit_in_bytes": "9223372036854771712\n",
        f"{base}/memory.usage_in_bytes": f"{1 << 20}\n",
        "sys/fs/cgroup/memory/a/memory.limit_in_bytes": f"{50 << 20}\n",
        "sys/fs/cgroup/memory/a/memory.usage_in_bytes": f"{10 << 20}\n",
        "sys/fs/cgroup/memory/a/memory.stat": f"total_inactive_file {2 << 20}\n",
    }
    assert available_memory_bytes(_cgroup(tmp_path, "4:memory:/a/b\n", files)) == 42 << 20


def test_limits_on_this_machine() -> None:
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)
    assert available_memory_bytes() > 0
