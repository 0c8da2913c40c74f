"""Model references: the names of a model and its weights, which one process sends to another."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelReference:
    """Everything that another process needs to load the same model with the same weights."""

    family: str
    variant: str
    weights: str
    checkpoint: str = ""
    """Folder of the checkpoint; empty for seeded weights."""

    def arguments(self) -> dict[str, str]:
        """Return the reference as JSON arguments of a job."""
        return {
            "family": self.family,
            "variant": self.variant,
            "weights": self.weights,
            "checkpoint": self.checkpoint,
        }
