"""What a configuration really ran on, whatever its column is called."""

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
"""Kinds of evidence from the strongest on: heading, words, meaning."""


def on_processor(case: CaseFacts) -> bool:
    """Return whether a target's device is the host's processor, in a column of its own or not.

    Results from before targets said so are told by the target's name, whose last word is the
    device.
    """
    return case.on_host_cpu or case.is_host or case.target.rpartition("-")[2] == "cpu"


def kind(case: CaseFacts, measured: bool) -> Kind:
    """Return what a case of a target is evidence of."""
    if not measured:
        return "nothing"
    if case.evidence == "emulator":
        return "emulator"
    if case.evidence == "device":
        return "processor" if on_processor(case) else "accelerator"
    return "conversion"


def strongest(kinds: Iterable[Kind]) -> Kind:
    """Return the strongest of several kinds of evidence; nothing where there are none."""
    return min(kinds, key=list(KINDS).index, default="nothing")
