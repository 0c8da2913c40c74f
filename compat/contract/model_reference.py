"""The name of a model with its weights, as one process tells it another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compat.models.base import Model


@dataclass(frozen=True)
class ModelReference:
    """Everything that another process needs to load the same model with the same weights."""

    family: str
    variant: str
    weights: str
    checkpoint: str = ""
    """Folder of the checkpoint; empty for seeded weights."""

    def arguments(self) -> dict[str, str]:
        """Return it as the JSON arguments of a job."""
        return {
            "family": self.family,
            "variant": self.variant,
            "weights": self.weights,
            "checkpoint": self.checkpoint,
        }

    @property
    def parameters(self) -> float:
        """Millions of parameters of the variant."""
        from compat import catalog

        families = {family.name: family for family in catalog.load().families}
        variants = families[self.family].variants
        return next(found.parameters for found in variants if found.name == self.variant)

    def load(self) -> Model:
        """Load the model's host side: no graph is built and no runtime imported yet."""
        from compat import catalog

        module = catalog.load().family_module(self.family)
        model: Model = module.load(self.variant, self.weights, self.checkpoint)
        return model
