"""A catalog of 2,000 cases with five checks each, for timing collection; nothing in it can run."""

from __future__ import annotations

from compat.contract.case import Family, Target, Variant
from compat.contract.runtime import GraphRuntime, Options, Probe
from compat.contract.session import Session

VARIANTS, TARGETS, RECIPES = 10, 10, 20

FAMILY = Family(
    name="many",
    task="asr",
    row="Many",
    headline="many-0",
    variants=tuple(Variant(f"many-{n}", ("seeded",)) for n in range(VARIANTS)),
)


class Many(GraphRuntime):
    name = "many-runtime"
    packages = ()
    # Emulator evidence beside the host CPU: support, placement, numerics, memory and stress apply.
    targets = tuple(
        Target(
            f"many-{n}",
            "qualcomm",
            "many-runtime",
            "none",
            tuple(f"int8-scheme{r}" for r in range(RECIPES)),
            evidence="emulator",
        )
        for n in range(TARGETS)
    )

    def probe(self, target: Target) -> Probe:
        return Probe("absent", "it only exists to be collected")

    def compile(self, sources: object, target: Target, recipe: object, options: Options) -> Session:
        raise NotImplementedError


def load(variant: str, weights: str, checkpoint: str) -> None:
    raise NotImplementedError


RUNTIME = Many()
