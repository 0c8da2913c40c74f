"""The request that starts a worker's measurements. Unlike the protocol it imports no libraries."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CaseRequest:
    """One case and how to measure it."""

    id: str
    corpus: str
    """Path of the corpus."""
    profile: str = "core"
    stress: tuple[str, ...] = ()
    """Files with stress inputs."""
    checkpoint: str = ""
    """Folder of the weights, where they are not the variant's own."""
    threads: int = 1
    device: str = ""
    language: str = ""
    """Code of the language of recordings whose corpus names none, for instance ``de``."""
