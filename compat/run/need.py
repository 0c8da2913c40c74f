"""The memory that a case needs, estimated before anything of it is loaded.

A model that does not fit ends in swapping for minutes, and then in a killed process. The size of
its weights is known before, so such a case is skipped with a reason that says what it would need.
"""

from __future__ import annotations

from compat.contract.case import Case
from compat.contract.precision import find_precision
from compat.contract.runtime import Probe, Runtime

BASE = 1e9
"""Bytes of a process that has imported PyTorch and a runtime."""
SMALL = 1e9
"""Bytes beyond :data:`BASE` up to which a case is tried without an estimate."""
FLOAT32 = 4


def host_bytes(case: Case, runtime: Runtime) -> float:
    """Return the bytes of the host's memory that building and running a case takes; 0 for little.

    These are the weights in float32, as many times as the runtime holds them at once, and the
    intermediate values that the variant declares.
    """
    weights = case.variant.parameters * 1e6 * FLOAT32
    needed = weights * runtime.copies + case.variant.working_gb * 1e9
    return BASE + needed if needed > SMALL else 0.0


def device_bytes(case: Case) -> float:
    """Return the bytes of a device's own memory that weights and intermediate values take."""
    return weight_bytes(case) + case.variant.working_gb * 1e9


def weight_bytes(case: Case) -> float:
    """Return the bytes of a case's weights in the precision of its recipe."""
    precision = find_precision(case.recipe.scheme)
    size = precision.bits / 8 if precision else FLOAT32
    return case.variant.parameters * 1e6 * size


def lacking(case: Case, runtime: Runtime, probe: Probe, available: int) -> str:
    """Return why a case does not fit, in words; empty if it fits or that is not known.

    Args:
        case: the case.
        runtime: its runtime.
        probe: probe of its target; ``memory_bytes`` among its facts is the device's own memory.
        available: bytes of the host's memory that may be used.
    """
    # Looked at first, since no larger machine helps. The weights count only once: MusicGen small
    # has 2.3 GB of them, and runs in pages that can address 4.3 GB.
    weights = weight_bytes(case)
    if weights > runtime.addressable:
        most = _gb(runtime.addressable)
        return f"needs {_gb(weights)} for weights, and {runtime.name} can address {most}"
    needed = host_bytes(case, runtime)
    if needed > available:
        return f"needs about {_gb(needed)} of memory, and {_gb(available)} are free"
    own = probe.facts.get("memory_bytes")
    if own and device_bytes(case) > own:
        return f"needs about {_gb(device_bytes(case))} on the device, which has {_gb(own)}"
    return ""


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
