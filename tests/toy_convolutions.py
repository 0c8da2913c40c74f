"""A toy of convolutions, which recipes for products of matrices leave as it is; and one of both.

Loaded with ``--catalog tests/toy_convolutions.py``.
"""

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
    generated_digest,
)

if TYPE_CHECKING:
    import torch

SAMPLES = 4_000

FAMILY = Family(
    name="toy-convolutions",
    task="agreement",
    row="Toy",
    headline="toy-bands",
    variants=tuple(
        Variant(name, ("seeded",), core=True, parameters=0.01) for name in ("toy-bands", "toy-both")
    ),
)


def load(variant: str, weights: str, checkpoint: str) -> Bands:
    return Bands(both=variant == "toy-both")


class Bands(Model):
    task = Agreement(scored=False)

    def __init__(self, both: bool) -> None:
        self.both = both

    def graphs(self) -> tuple[Graph, ...]:
        audio = {"audio": Tensor(("batch", 1, SAMPLES))}
        level = {"level": Tensor(("batch", 32))}
        points = {"b1": {"batch": 1}}
        bands = Graph("bands", audio, ("level",), points, convolutions)
        head = Graph("head", level, ("scores",), points, product)
        return (bands, head) if self.both else (bands,)

    def content(self) -> str:
        return generated_digest({})

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        predictions = []
        for item in items:
            audio = np.zeros((1, 1, SAMPLES), np.float32)
            audio[0, 0, : len(item.audio)] = item.audio[:SAMPLES]
            outputs = session.run("bands", {"audio": audio}, "b1")
            if self.both:
                outputs = session.run("head", outputs, "b1")
            (values,) = outputs.values()
            predictions.append({"embedding": values.numpy()[0].tolist()})
        return predictions

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        (prediction,) = self.run(session, [item], Stopwatch())
        return {"level": np.array(prediction["embedding"], np.float32)}


def convolutions() -> torch.nn.Module:
    """Return convolutions there and back, and a recurrent layer between them."""
    import torch

    class Convolutions(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.down = torch.nn.Conv1d(1, 32, 40, stride=20)
            self.recurrence = torch.nn.LSTM(32, 32, batch_first=True)
            self.up = torch.nn.ConvTranspose1d(32, 32, 4, stride=2)

        def forward(self, audio: torch.Tensor) -> tuple[torch.Tensor, ...]:
            hidden, _ = self.recurrence(self.down(audio).transpose(1, 2))
            return (self.up(hidden.transpose(1, 2)).square().mean(dim=2),)

    return Convolutions()


def product() -> torch.nn.Module:
    import torch

    class Product(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear = torch.nn.Linear(32, 128)

        def forward(self, level: torch.Tensor) -> tuple[torch.Tensor, ...]:
            # Of three axes: one of two would be exported as Gemm, which not every scheme takes.
            return (self.linear(level[:, None])[:, 0],)

    return Product()
