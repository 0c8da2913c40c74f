"""Kinds of evidence: where a configuration really ran, whatever its column is called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from compat.judge.results import CaseFacts

Kind = Literal["accelerator", "processor", "emulator", "conversion", "nothing"]

KINDS: dict[Kind, tuple[str, str, str]] = {
    "accelerator": (
        "Accelerator",
        "on the accelerator",
        "It ran on the accelerator itself, and its times are the accelerator's.",
    ),
    "processor": (
        "Processor",
        "on the processor",
        "It ran on the machine's own processor, whatever its column is called.",
    ),
    "emulator": (
        "Emulator",
        "on an emulator",
        "A program stood in for the hardware: support and accuracy, never speed.",
    ),
    "conversion": (
        "Conversion",
        "converted only",
        "It was converted, and its program executed apart from the hardware.",
    ),
    "nothing": ("Nothing", "nothing ran", "No case ran, which says nothing about the hardware."),
}
"""Maps each kind of evidence to heading, words and meaning; the strongest comes first."""


def on_processor(case: CaseFacts) -> bool:
    """Whether a target's device is the host's processor, even if the target has its own column.

    Older results do not state this; for them the last word of the target's name is the device.
    """
    return case.on_host_cpu or case.is_host or case.target.rpartition("-")[2] == "cpu"


def kind(case: CaseFacts, measured: bool) -> Kind:
    """Return the kind of evidence that a case gives."""
    if not measured:
        return "nothing"
    if case.evidence == "emulator":
        return "emulator"
    if case.evidence == "device":
        return "processor" if on_processor(case) else "accelerator"
    return "conversion"


def strongest(kinds: Iterable[Kind]) -> Kind:
    """Return the strongest of several kinds of evidence; ``nothing`` where there are none."""
    return min(kinds, key=list(KINDS).index, default="nothing")
