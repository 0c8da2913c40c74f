"""Level: the energy of one second of audio in eight bands. The smallest complete model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from compat.api import (
    Agreement,
    Family,
    Graph,
    Item,
    Model,
    Prediction,
    Session,
    Stopwatch,
    Tensor,
    Variant,
    gains,
    generated_digest,
    seed,
)

if TYPE_CHECKING:
    import torch

SAMPLES = 16_000
BATCHES = (1, 2)
GAINS = {"filters": 1.0}

FAMILY = Family(
    name="level",
    task="agreement",
    row="Level",
    headline="level-8",
    variants=(Variant("level-8", ("seeded",), core=True, parameters=0.003),),
)


def load(variant: str, weights: str, checkpoint: str) -> LevelModel:
    """Return the model of a variant; its weights are generated, so that it needs no checkpoint."""
    return LevelModel()


class LevelModel(Model):
    """The driver: it cuts audio, calls the graph, and gives eight numbers for each recording."""

    task = Agreement(scored=False)

    def graphs(self) -> tuple[Graph, ...]:
        audio = Tensor(("batch", 1, SAMPLES))
        points = {f"b{batch}": {"batch": batch} for batch in BATCHES}
        return (Graph("bands", {"audio": audio}, ("level",), points, bands),)

    def content(self) -> str:
        return generated_digest(GAINS)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        batch = next((b for b in BATCHES if b >= len(items)), BATCHES[-1])
        predictions: list[Prediction] = []
        for start in range(0, len(items), batch):
            part = items[start : start + batch]
            audio = np.zeros((batch, 1, SAMPLES), np.float32)
            for row, item in enumerate(part):
                samples = item.audio[:SAMPLES]
                audio[row, 0, : len(samples)] = samples
            with stopwatch("bands"):
                level = session.run("bands", {"audio": audio}, f"b{batch}")["level"].numpy()
            predictions += [{"embedding": level[row].tolist()} for row in range(len(part))]
        return predictions

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        (prediction,) = self.run(session, [item], Stopwatch())
        return {"level": np.array(prediction["embedding"], np.float32)}


def bands() -> torch.nn.Module:
    """Return the float32 module: audio (batch, 1, samples) to energies (batch, 8)."""
    import torch

    class Bands(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filters = torch.nn.Conv1d(1, 8, 400, stride=160)

        def forward(self, audio: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (self.filters(audio).square().mean(dim=2),)

    network = Bands()
    seed(network, gains(GAINS))
    return network
