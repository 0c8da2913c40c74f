"""A toy that makes stereo sound from a prompt and from noise, in a schedule of steps.

A text encoder runs once, a denoiser carries a latent through the schedule, and a decoder turns the
last latent into sound: the form of AudioLDM and Stable Audio, with a few thousand generated
parameters. It shows that a family whose input is text, and whose answer is an array, needs nothing
but its own file. Loaded with ``pytest suites --catalog tests/toy_diffusion.py``.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compat.api import (
    Corpus,
    Family,
    Graph,
    Item,
    Items,
    Metric,
    Model,
    Prediction,
    Profile,
    Session,
    Stopwatch,
    Task,
    Tensor,
    Variant,
    gains,
    generated_digest,
    seed,
)

if TYPE_CHECKING:
    import torch

WORDS, VOCABULARY, WIDTH = 12, 61, 24
"""Tokens of a prompt, different tokens, and features of each."""
CHANNELS, FRAMES, HOP = 8, 32, 64
"""Shape of the latent, and samples that the decoder makes of each of its frames."""
RATE = 8_000
SAMPLES = FRAMES * HOP
STEPS = 6
BATCHES = (1, 2)
GAINS = {"cross_query": 3.0, "cross_key": 3.0, "cross_value": 2.0, "leave": 2.0, "words": 2.0}

FAMILY = Family(
    name="toy-diffusion",
    task="toy-sound",
    row="Toy generation",
    headline="toy-diffusion",
    # The weights are this file's own, so that they count as trained and the task is scored.
    variants=(Variant("toy-diffusion", ("trained",), core=True, parameters=0.01),),
)


def load(variant: str, weights: str, checkpoint: str) -> ToyDiffusion:
    """Return the host side of the one variant."""
    return ToyDiffusion()


# The task --------------------------------------------------------------------------------------

LIMIT_DB = 10.0
"""Signal-to-noise ratio below which a sound counts as another one, by whatever precision."""
PROMPTS = (
    "rain on a tin roof",
    "a slow waltz in three",
    "brass and strings, forte",
    "a door creaks twice",
    "wind",
    "someone whistles far away",
    "bells",
    "a train crosses a bridge at night",
)
HARD = {
    "empty": "",
    "very-long": "again and " * 500,
    "repeated": "la la la la la la la la la la la la",
    "foreign": "雨 شتاء déjà-vu 🎻",
    "spaces": " \t\n ",
}


@dataclass(frozen=True)
class Sound(Task):
    """Makes a sound from a prompt and noise. A prediction has ``audio``, (2, samples)."""

    name: ClassVar[str] = "toy-sound"
    rescorable: ClassVar[bool] = False  # Results keep digests of sounds, and no sound.
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("snr_db", "dB", "higher", primary=True),
        Metric("spectral_distance_db", "dB", "lower"),
        Metric("sounds", "count"),
    )

    def items(self, corpus: Corpus, rate: int, profile: Profile) -> Items:
        prompts = PROMPTS[: profile.pick(4, 6, len(PROMPTS))]
        return Items.of({"prompts": [asked(f"prompt-{n}", p, n) for n, p in enumerate(prompts)]})

    def fresh(self, item: Item, number: int) -> Item:
        return replace(item, id="fresh", inputs={**item.inputs, "noise": noise(1_000 + number)})

    def hard(self, entries: Sequence[Any], easy: Sequence[Item], rate: int) -> list[Item]:
        texts = [asked(f"hard-{name}", prompt, 100) for name, prompt in HARD.items()]
        silent = np.zeros((CHANNELS, FRAMES), np.float32)
        noises = {"no-noise": silent, "much-noise": 10 * noise(101)}
        return texts + [
            replace(easy[0], id=f"hard-{name}", inputs={**easy[0].inputs, "noise": array})
            for name, array in noises.items()
        ]

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        pairs = [(p["audio"], r["audio"]) for p, r in zip(predictions, references, strict=True)]
        return {
            "snr_db": min(snr_db(sound, expected) for sound, expected in pairs),
            "spectral_distance_db": max(spectral_distance_db(*pair) for pair in pairs),
            "sounds": len(pairs),
        }

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        exact = snr_db(prediction["audio"], reference["audio"]) >= LIMIT_DB
        return {"errors": float(not exact), "reference": 0.0}


def asked(identifier: str, prompt: str, number: int) -> Item:
    """Return the item of a prompt and of the noise with a number."""
    inputs = {"prompt": prompt, "noise": noise(number)}
    return Item(identifier, inputs, SAMPLES / RATE, RATE, {"prompt": prompt})


def noise(number: int) -> np.ndarray:
    """Return noise (channels, frames), float32, the same on every machine."""
    random = np.random.Generator(np.random.Philox(number))
    return random.standard_normal((CHANNELS, FRAMES), np.float32)


def snr_db(sound: np.ndarray, expected: np.ndarray) -> float:
    """Return the signal-to-noise ratio against the reference's sound, 200 dB at most."""
    error = float(np.square(np.float64(sound) - expected).sum())
    signal = float(np.square(np.float64(expected)).sum())
    return min(200.0, 10 * float(np.log10((signal + 1e-30) / (error + 1e-30))))


def spectral_distance_db(sound: np.ndarray, expected: np.ndarray) -> float:
    """Return the mean difference of two log spectra, over both channels."""
    ours, theirs = (
        np.abs(np.fft.rfft(np.float64(one).reshape(-1, 256))) for one in (sound, expected)
    )
    levels = [20 * np.log10(np.maximum(magnitude, 1e-3)) for magnitude in (ours, theirs)]
    return float(np.abs(levels[0] - levels[1]).mean())


# The model -------------------------------------------------------------------------------------


class ToyDiffusion(Model):
    """A quarter of a second of stereo sound."""

    task = Sound()
    sample_rate = RATE

    def content(self) -> Any:
        return generated_digest(GAINS)

    def graphs(self) -> tuple[Graph, ...]:
        points = {f"b{batch}": {"batch": batch} for batch in BATCHES}
        return (
            Graph(
                "text",
                {"tokens": Tensor(("batch", WORDS), "int32")},
                ("memory",),
                points,
                text_module,
            ),
            Graph(
                "denoiser",
                {
                    "latent": Tensor(("batch", CHANNELS, FRAMES)),
                    "memory": Tensor(("batch", WORDS, WIDTH)),
                    "time": Tensor((1,)),
                },
                ("denoised",),
                points,
                denoiser_module,
            ),
            # One sound at a time: a graph need not know batches.
            Graph(
                "decoder",
                {"denoised": Tensor((1, CHANNELS, FRAMES))},
                ("audio",),
                {"whole": {}},
                decoder_module,
            ),
        )

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        batch = 1 if len(items) == 1 else BATCHES[-1]
        predictions: list[Prediction] = []
        for start in range(0, len(items), batch):
            part = items[start : start + batch]
            latents = self._denoise(session, part, batch, stopwatch).last["denoised"].numpy().copy()
            with stopwatch("decoder"):
                for latent in latents[: len(part)]:
                    outputs = session.run("decoder", {"denoised": latent[None]}, "whole")
                    predictions.append({"audio": outputs["audio"].numpy()[0].copy()})
        return predictions

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        steps = self._denoise(session, [item], 1, Stopwatch(), fetch=("denoised",))
        outputs = session.run("decoder", steps.last, "whole")
        latents = steps.outputs["denoised"][:, 0]
        return {"latents": latents, "audio": outputs["audio"].numpy()[0].T.copy()}

    def _denoise(
        self,
        session: Session,
        items: Sequence[Item],
        batch: int,
        stopwatch: Stopwatch,
        fetch: Sequence[str] = (),
    ) -> Any:
        with stopwatch("text"):
            tokens = np.zeros((batch, WORDS), np.int32)
            latent = np.zeros((batch, CHANNELS, FRAMES), np.float32)
            for row, item in enumerate(items):
                tokens[row] = tokenise(str(item.inputs["prompt"]))
                latent[row] = item.inputs["noise"]
            text = session.run("text", {"tokens": tokens}, f"b{batch}")
        with stopwatch("denoiser"):
            return session.steps(
                "denoiser",
                {**text, "latent": latent},
                f"b{batch}",
                STEPS,
                along={"time": np.linspace(1, 0, STEPS, dtype=np.float32)[:, None]},
                carry={"latent": "denoised"},
                fetch=fetch,
            )


def tokenise(prompt: str) -> np.ndarray:
    """Return the first words as tokens, int32 (words,), by their checksums; 0 is no word."""
    tokens = np.zeros(WORDS, np.int32)
    for index, word in enumerate(prompt.lower().split()[:WORDS]):
        tokens[index] = 1 + zlib.crc32(word.encode()) % (VOCABULARY - 1)
    return tokens


def text_module() -> torch.nn.Module:
    """Map tokens (batch, words) to memory (batch, words, width)."""
    import torch

    class Text(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(VOCABULARY, WIDTH)
            self.places = torch.nn.Parameter(torch.zeros(WORDS, WIDTH))
            self.mix = torch.nn.Linear(WIDTH, WIDTH)
            self.norm = torch.nn.LayerNorm(WIDTH)

        def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
            placed = self.words(tokens) + self.places
            return (self.norm(placed + torch.nn.functional.gelu(self.mix(placed))),)

    return seeded(Text())


def denoiser_module() -> torch.nn.Module:
    """Map a latent, the memory of a prompt and a time to the latent of the next step."""
    import torch

    class Denoiser(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = torch.nn.Linear(CHANNELS, WIDTH)
            self.clock = torch.nn.Linear(WIDTH, WIDTH)
            self.cross_query = torch.nn.Linear(WIDTH, WIDTH)
            self.cross_key = torch.nn.Linear(WIDTH, WIDTH)
            self.cross_value = torch.nn.Linear(WIDTH, WIDTH)
            self.along = torch.nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
            self.leave = torch.nn.Linear(WIDTH, CHANNELS)
            self.register_buffer("waves", torch.arange(1, WIDTH + 1, dtype=torch.float32))

        def forward(
            self, latent: torch.Tensor, memory: torch.Tensor, time: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            # Of rank 3 throughout, so that exporters make MatMul, which int8 schemes look for.
            clock = self.clock(torch.sin(time.reshape(1, 1, 1) * self.waves))
            frames = self.enter(latent.transpose(1, 2)) + clock
            scores = self.cross_query(frames) @ self.cross_key(memory).transpose(1, 2)
            heard = (scores / WIDTH**0.5).softmax(dim=2) @ self.cross_value(memory)
            hidden = torch.nn.functional.gelu(frames + heard)
            hidden = hidden + self.along(hidden.transpose(1, 2)).transpose(1, 2)
            velocity = torch.tanh(self.leave(hidden)).transpose(1, 2)
            return (0.7 * latent + 0.5 * velocity,)

    return seeded(Denoiser())


def decoder_module() -> torch.nn.Module:
    """Map a latent (1, channels, frames) to sound (1, 2, samples)."""
    import torch

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.widen = torch.nn.Conv1d(CHANNELS, WIDTH, 3, padding=1)
            self.sound = torch.nn.Linear(WIDTH, 2 * HOP)

        def forward(self, denoised: torch.Tensor) -> tuple[torch.Tensor, ...]:
            frames = torch.nn.functional.gelu(self.widen(denoised)).transpose(1, 2)
            blocks = torch.tanh(self.sound(frames)).reshape(1, FRAMES, 2, HOP)
            return (blocks.transpose(1, 2).reshape(1, 2, SAMPLES),)

    return seeded(Decoder())


def seeded(module: torch.nn.Module) -> torch.nn.Module:
    """Fill a module with the file's own weights."""
    seed(module, gains(GAINS))
    return module
