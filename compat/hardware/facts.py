"""Facts about the machine, read cheaply and without any accelerator library.

Nothing here names a person, a host or a folder. A part that cannot be read is left out rather than
guessed. Functions called ``parse_...`` take the text of a tool or a kernel file, so that they can
be checked against recorded output.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

Facts = dict[str, Any]
T = TypeVar("T")

_TOOL_SECONDS = 10.0
_MEMORY_STEP = 4 << 30
"""Bytes to which memory is rounded up in a machine's id, since kernels and firmware keep a varying
part of it for themselves."""

# Names that x86 and ARM kernels give to the instructions that decide how fast a precision can be.
_LINUX_CAPABILITIES: dict[str, tuple[str, ...]] = {
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "bf16": ("avx512_bf16", "bf16"),
    "fp16": ("avx512_fp16", "asimdhp"),
    "vnni": ("avx512_vnni", "avx_vnni"),
    "amx": ("amx_tile",),
    "dotprod": ("asimddp",),
    "i8mm": ("i8mm",),
    "sve": ("sve",),
    "sme": ("sme",),
}
_APPLE_CAPABILITIES: dict[str, tuple[str, ...]] = {
    "avx2": ("hw.optional.avx2_0",),
    "avx512": ("hw.optional.avx512f",),
    "bf16": ("hw.optional.arm.feat_bf16",),
    "fp16": ("hw.optional.arm.feat_fp16",),
    "dotprod": ("hw.optional.arm.feat_dotprod",),
    "i8mm": ("hw.optional.arm.feat_i8mm",),
    "sme": ("hw.optional.arm.feat_sme",),
}
_SYSCTL_NAMES: tuple[str, ...] = (
    "machdep.cpu.brand_string",
    "hw.physicalcpu",
    "hw.logicalcpu",
    "hw.memsize",
    "hw.perflevel0.physicalcpu",
    "hw.perflevel1.physicalcpu",
    "hw.optional.avx2_0",
    "hw.optional.avx512f",
    "hw.optional.arm.FEAT_BF16",
    "hw.optional.arm.FEAT_FP16",
    "hw.optional.arm.FEAT_DotProd",
    "hw.optional.arm.FEAT_I8MM",
    "hw.optional.arm.FEAT_SME",
)
# winnt.h, PF_*: Windows reports no VNNI, BF16 or AMX by this call.
_WINDOWS_CAPABILITIES: dict[str, int] = {"avx2": 40, "avx512": 41, "dotprod": 43}

# Main ID Register, part numbers of ARM Ltd. (implementer 0x41), from the cores' manuals.
_ARM_PARTS: dict[int, str] = {
    0xD03: "Cortex-A53",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD48: "Cortex-X2",
    0xD49: "Neoverse-N2",
    0xD4F: "Neoverse-V2",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
    0xD82: "Cortex-X4",
    0xD85: "Cortex-X925",
    0xD87: "Cortex-A725",
    0xD8E: "Neoverse-N3",
}
_ARM_IMPLEMENTERS: dict[int, str] = {
    0x41: "ARM",
    0x46: "Fujitsu",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x51: "Qualcomm",
    0x61: "Apple",
    0x6D: "Microsoft",
    0xC0: "Ampere",
}
_PCI_VENDORS: dict[str, str] = {"0x8086": "intel", "0x1002": "amd", "0x10de": "nvidia"}


def machine_facts() -> Facts:
    """Describe this machine.

    Returns:
        ``system`` (``os``, ``release``, ``kernel``, ``libc``, ``architecture``), ``cpu``
        (``model``, ``vendor``, ``family``, ``model_number``, ``physical_cores``,
        ``logical_cores``, ``performance_cores``, ``efficiency_cores``, ``capabilities``),
        ``memory_bytes``, ``gpus`` (each with ``vendor``, ``name``, ``memory_bytes``,
        ``architecture``), ``accelerators`` (PCI devices for graphics and inference, as the kernel
        lists them) and ``drivers`` by vendor. Parts that cannot be read are left out. JSON can
        carry all of it.
    """
    facts: Facts = {}
    _add(facts, "system", _system)
    _add(facts, "cpu", _cpu)
    _add(facts, "memory_bytes", _memory)
    gpus: list[Facts] = []
    drivers: dict[str, str] = {}
    for probe in (_nvidia, _amd):
        found, version = _attempt(probe) or ([], "")
        gpus.extend(found)
        if found and version:
            drivers[found[0]["vendor"]] = version
    if gpus:
        facts["gpus"] = gpus
    if drivers:
        facts["drivers"] = drivers
    _add(facts, "accelerators", pci_accelerators)
    return facts


def machine_id(facts: Mapping[str, Any]) -> str:
    """Return an id of a machine, 8 hex digits: a hash of the facts that do not change with updates.

    These are architecture, operating system's name, processor, cores, instruction sets, memory (to
    4 GiB), GPUs and accelerators. Releases of system, kernel, libraries and drivers do not count.
    Two machines of one make have one id on purpose, because their results can be compared.
    """
    system, cpu = facts.get("system", {}), facts.get("cpu", {})
    stable = {
        "architecture": system.get("architecture"),
        "os": system.get("os"),
        "cpu": {
            key: cpu.get(key)
            for key in ("model", "vendor", "family", "model_number", "physical_cores")
        },
        "logical_cores": cpu.get("logical_cores"),
        "capabilities": sorted(cpu.get("capabilities", ())),
        "memory": -(-int(facts.get("memory_bytes") or 0) // _MEMORY_STEP),
        "gpus": sorted(
            [gpu.get("vendor"), gpu.get("name"), _gibibytes(gpu.get("memory_bytes"))]
            for gpu in facts.get("gpus", ())
        ),
        "accelerators": sorted(
            [device.get("vendor"), device.get("device")] for device in facts.get("accelerators", ())
        ),
    }
    text = json.dumps(stable, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of installed distributions; those that are not installed are left out."""
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def available_cpus(root: Path = Path("/")) -> int:
    """Processors that this process may use: the least of affinity and cgroup quota, at least 1.

    A quota of one and a half processors counts as one: a second thread would be throttled.
    """
    counts = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    quota = _attempt(lambda: _cgroup_cpus(root))
    if quota is not None:
        counts.append(int(quota))
    return max(1, min(counts))


def available_memory_bytes(root: Path = Path("/")) -> int:
    """Bytes that this process can still allocate: the least of the machine and its cgroups.

    Page cache that the kernel would give back counts as free in both.
    """
    room = [int(_psutil().virtual_memory().available)]
    limit = _attempt(lambda: _cgroup_memory(root))
    if limit is not None:
        room.append(limit)
    return max(0, min(room))


def parse_cpuinfo(text: str) -> Facts:
    """Read ``/proc/cpuinfo`` of an x86 or ARM kernel into the ``cpu`` part of the facts.

    Capabilities are the names avx2, avx512, bf16, fp16 (arithmetic), vnni, amx, dotprod, i8mm,
    sve and sme.
    """
    processors: list[dict[str, str]] = [{}]
    general: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if not colon:
            continue
        key, value = key.strip(), value.strip()
        # "processor" begins a processor; the older ARM kernels' "Processor" is a model name.
        if key == "processor":
            processors.append({})
        processors[-1][key] = value
        general.setdefault(key, value)
    described = [processor for processor in processors if "processor" in processor]
    flags = set(f"{general.get('flags', '')} {general.get('Features', '')}".split())
    facts: Facts = {
        "model": general.get("model name") or _arm_model(described),
        "vendor": general.get("vendor_id")
        or _ARM_IMPLEMENTERS.get(_hexadecimal(general.get("CPU implementer")), ""),
        "family": _decimal(general.get("cpu family")),
        "model_number": _decimal(general.get("model")),
        "logical_cores": len(described),
        "physical_cores": _physical_cores(described),
        "capabilities": [
            name
            for name, spellings in _LINUX_CAPABILITIES.items()
            if not flags.isdisjoint(spellings)
        ],
    }
    return {key: value for key, value in facts.items() if value not in (None, "", 0)}


def parse_sysctl(text: str) -> Facts:
    """Read ``sysctl name ...`` of macOS into ``cpu`` and ``memory_bytes``.

    Names that a system does not know are absent from the output and from the facts.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and " " not in key.strip():
            found[key.strip().lower()] = value.strip()
    model = found.get("machdep.cpu.brand_string", "")
    cpu: Facts = {
        "model": model,
        "vendor": "Apple" if model.startswith("Apple") else "",
        "logical_cores": _decimal(found.get("hw.logicalcpu")),
        "physical_cores": _decimal(found.get("hw.physicalcpu")),
        "performance_cores": _decimal(found.get("hw.perflevel0.physicalcpu")),
        "efficiency_cores": _decimal(found.get("hw.perflevel1.physicalcpu")),
        "capabilities": [
            name
            for name, keys in _APPLE_CAPABILITIES.items()
            if any(found.get(key) == "1" for key in keys)
        ],
    }
    facts: Facts = {"cpu": {key: value for key, value in cpu.items() if value not in (None, "")}}
    memory = _decimal(found.get("hw.memsize"))
    if memory:
        facts["memory_bytes"] = memory
    return facts


def parse_nvidia_smi(text: str) -> tuple[list[Facts], str]:
    """Read ``nvidia-smi --query-gpu=... --format=csv,noheader,nounits``: GPUs and driver version.

    Columns: name, memory.total (MiB), driver_version and, from drivers that know it, compute_cap.
    Boards that share the processor's memory report no size (``[N/A]``).
    """
    gpus: list[Facts] = []
    driver = ""
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        # Messages of a tool without a working driver have no such columns.
        if len(fields) < 3 or not re.fullmatch(r"\d+(\.\d+)+", fields[2]):
            continue
        gpu: Facts = {"vendor": "nvidia", "name": fields[0]}
        memory = _decimal(fields[1])
        if memory:
            gpu["memory_bytes"] = memory << 20
        if len(fields) > 3 and re.fullmatch(r"\d+\.\d+", fields[3]):
            gpu["architecture"] = f"sm_{fields[3].replace('.', '')}"
        gpus.append(gpu)
        driver = fields[2]
    return gpus, driver


def parse_rocm_smi(text: str) -> tuple[list[Facts], str]:
    """Read ``rocm-smi --showproductname --showmeminfo vram --showdriverversion --json``.

    Keys changed their capitals between releases (``Card series``, ``Card Series``), and warnings
    can precede the JSON object.
    """
    start = text.find("{")
    try:
        document = json.JSONDecoder().raw_decode(text[start:])[0] if start >= 0 else {}
    except json.JSONDecodeError:
        return [], ""
    gpus: list[Facts] = []
    driver = ""
    for card, fields in document.items():
        if not isinstance(fields, dict):
            continue
        values = {str(key).lower(): str(value).strip() for key, value in fields.items()}
        driver = values.get("driver version", driver)
        if not card.startswith("card"):
            continue
        names = (values.get(key, "") for key in ("card series", "device name", "card model"))
        gpu: Facts = {"vendor": "amd", "name": next((n for n in names if n), "AMD GPU")}
        memory = _decimal(values.get("vram total memory (b)"))
        if memory:
            gpu["memory_bytes"] = memory
        if re.fullmatch(r"gfx\w+", values.get("gfx version", "")):
            gpu["architecture"] = values["gfx version"]
        gpus.append(gpu)
    return gpus, driver


def parse_os_release(text: str) -> str:
    """Name and version of a Linux distribution from ``/etc/os-release``: ``debian 12``."""
    found = dict(re.findall(r'^(ID|VERSION_ID)="?([^"\n]*)"?\s*$', text, re.MULTILINE))
    return " ".join(found[key] for key in ("ID", "VERSION_ID") if found.get(key))


def parse_cgroups(text: str) -> dict[str, str]:
    """Read ``/proc/self/cgroup``: path by controller; version 2 has the controller ``""``."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            for controller in fields[1].split(","):
                paths[controller] = fields[2]
    return paths


def pci_accelerators(root: Path = Path("/")) -> list[Facts]:
    """Graphics and inference devices as Linux lists them: ``vendor``, ``device`` (id), ``kind``.

    The list covers devices without a tool of their own, such as Intel's GPUs and NPUs. Display
    adapters of virtual machines are left out.
    """
    found: dict[str, Facts] = {}
    for kind, pattern in (("gpu", "drm/card[0-9]*"), ("npu", "accel/accel[0-9]*")):
        for entry in sorted((root / "sys/class").glob(f"{pattern}/device")):
            vendor = _PCI_VENDORS.get(_read(entry / "vendor").strip())
            device = _read(entry / "device").strip()
            if vendor and re.fullmatch(r"0x[0-9a-f]{4}", device):
                # Connectors of one card are entries of their own that share its device.
                found[str(entry.resolve())] = {"vendor": vendor, "device": device, "kind": kind}
    return list(found.values())


def _system() -> Facts:
    facts: Facts = {
        "os": {"darwin": "macOS", "win32": "Windows"}.get(sys.platform, platform.system()),
        "architecture": platform.machine(),
    }
    if sys.platform == "darwin":
        facts["release"] = platform.mac_ver()[0]
        facts["kernel"] = platform.release()
    elif sys.platform == "win32":
        version = sys.getwindowsversion()
        facts["release"] = f"{version.major}.{version.minor}.{version.build}"
    else:
        facts["release"] = parse_os_release(_read(Path("/etc/os-release")))
        facts["kernel"] = platform.release()
        facts["libc"] = " ".join(platform.libc_ver())
    return {key: value for key, value in facts.items() if value}


def _cpu() -> Facts:
    if sys.platform == "darwin":
        cpu: Facts = _sysctl().get("cpu", {})
    elif sys.platform == "win32":
        cpu = _windows_cpu()
    else:
        cpu = parse_cpuinfo(_read(Path("/proc/cpuinfo")))
    if "logical_cores" not in cpu and os.cpu_count():
        cpu["logical_cores"] = os.cpu_count()
    if "physical_cores" not in cpu:
        cores = _psutil().cpu_count(logical=False)
        if cores:
            cpu["physical_cores"] = cores
    return cpu


def _windows_cpu() -> Facts:
    import ctypes

    # Imported by name: the module exists, and has types, on Windows only.
    registry = import_module("winreg")
    with registry.OpenKey(
        registry.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
    ) as key:
        model = str(registry.QueryValueEx(key, "ProcessorNameString")[0]).strip()
        vendor = str(registry.QueryValueEx(key, "VendorIdentifier")[0]).strip()
    present = getattr(ctypes, "windll").kernel32.IsProcessorFeaturePresent  # noqa: B009
    return {
        "model": model,
        "vendor": vendor,
        "capabilities": [name for name, bit in _WINDOWS_CAPABILITIES.items() if present(bit)],
    }


def _memory() -> int:
    if sys.platform == "darwin":
        return int(_sysctl().get("memory_bytes", 0))
    return int(_psutil().virtual_memory().total)


def _sysctl() -> Facts:
    return parse_sysctl(_tool("/usr/sbin/sysctl", *_SYSCTL_NAMES))


def _nvidia() -> tuple[list[Facts], str]:
    columns = "name,memory.total,driver_version"
    for query in (f"{columns},compute_cap", columns):
        output = _tool("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits")
        gpus, driver = parse_nvidia_smi(output)
        # Older drivers refuse the whole query for a column that they do not know.
        if gpus or "not a valid field" not in output:
            return gpus, driver
    return [], ""


def _amd() -> tuple[list[Facts], str]:
    return parse_rocm_smi(
        _tool(
            "rocm-smi", "--showproductname", "--showmeminfo", "vram", "--showdriverversion",
            "--json",
        )
    )  # fmt: skip


def _tool(name: str, *arguments: str) -> str:
    """Standard output of a tool; empty where it is absent, fails to start or hangs.

    The exit status does not count: sysctl prints the names that it knows and fails for the others.
    """
    executable = shutil.which(name)
    if executable is None:
        return ""
    try:
        return subprocess.run(
            [executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_TOOL_SECONDS,
            check=False,
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return ""


def _cgroup_cpus(root: Path) -> float | None:
    """Return the smallest quota, in processors, of this process's cgroup and those above it."""
    paths = parse_cgroups(_read(root / "proc/self/cgroup"))
    quotas: list[float] = []
    for folder in _cgroup_folders(root, paths.get(""), ""):
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
        if quota.isdecimal() and _decimal(period):
            quotas.append(int(quota) / int(period))
    for folder in _cgroup_folders(root, paths.get("cpu"), "cpu"):
        quota_us = _decimal(_read(folder / "cpu.cfs_quota_us"))
        period_us = _decimal(_read(folder / "cpu.cfs_period_us"))
        # -1, no quota, is no decimal number.
        if quota_us and period_us:
            quotas.append(quota_us / period_us)
    return min(quotas, default=None)


def _cgroup_memory(root: Path) -> int | None:
    """Return the smallest room left, in bytes, in this process's memory cgroup and those above."""
    paths = parse_cgroups(_read(root / "proc/self/cgroup"))
    room: list[int] = []
    for controller, limit_name, usage_name, cache_name in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for folder in _cgroup_folders(root, paths.get(controller), controller):
            limit = _decimal(_read(folder / limit_name))
            usage = _decimal(_read(folder / usage_name))
            # Without a limit version 2 says "max", and version 1 a number near 2**63.
            if limit is None or usage is None or limit >= 1 << 60:
                continue
            cache = re.search(rf"^{cache_name} (\d+)$", _read(folder / "memory.stat"), re.MULTILINE)
            room.append(limit - usage + (min(usage, int(cache[1])) if cache else 0))
    return min(room, default=None)


def _cgroup_folders(root: Path, path: str | None, controller: str) -> Iterator[Path]:
    """The folder of a cgroup and all above it; a limit on any of them binds."""
    if path is None:
        return
    mounts = [root / "sys/fs/cgroup" / controller]
    if not controller:
        mounts.append(root / "sys/fs/cgroup/unified")
    for mount in mounts:
        folder = mount
        yield folder
        # Inside a container the path can be the host's, of which only the mount itself is seen.
        for part in Path(path).parts[1:]:
            if part == "..":
                break
            folder = folder / part
            yield folder


def _arm_model(processors: list[dict[str, str]]) -> str:
    """Names of the kinds of core, by falling part number: ``2 x Cortex-A76 + 6 x Cortex-A55``."""
    kinds: dict[tuple[int, int], int] = {}
    for processor in processors:
        if "CPU part" in processor:
            kind = (
                _hexadecimal(processor.get("CPU implementer")),
                _hexadecimal(processor["CPU part"]),
            )
            kinds[kind] = kinds.get(kind, 0) + 1
    names = []
    for (implementer, part), count in sorted(kinds.items(), reverse=True):
        name = _ARM_PARTS.get(part, "") if implementer == 0x41 else ""
        maker = _ARM_IMPLEMENTERS.get(implementer, f"implementer 0x{implementer:02x}")
        name = name or f"{maker} part 0x{part:03x}"
        names.append(name if len(kinds) == 1 else f"{count} x {name}")
    return " + ".join(names)


def _physical_cores(processors: list[dict[str, str]]) -> int | None:
    cores = {
        (processor.get("physical id", "0"), processor["core id"])
        for processor in processors
        if "core id" in processor
    }
    return len(cores) or None


def _psutil() -> Any:
    # Imported by name, when needed: the package is slow to load and has no type information.
    return import_module("psutil")


def _gibibytes(value: Any) -> int:
    return round(int(value or 0) / (1 << 30))


def _decimal(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isdecimal() else None


def _hexadecimal(text: str | None) -> int:
    try:
        return int(text or "", 16)
    except ValueError:
        return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _attempt(part: Callable[[], T]) -> T | None:
    try:
        return part()
    except Exception:
        # An unusual machine may fail in one part in any way; the other parts and the run go on.
        return None


def _add(facts: Facts, name: str, part: Callable[[], Any]) -> None:
    value = _attempt(part)
    if value:
        facts[name] = value
