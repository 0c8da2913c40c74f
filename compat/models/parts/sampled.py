"""The common driver of pipelines that turn noise and a prompt into sound."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from compat.contract.graph import Stopwatch
from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.contract.session import Handle, Session
from compat.inputs.corpus import Corpus
from compat.models.items import Items
from compat.models.parts import diffusion
from compat.models.parts.noise import normal
from compat.models.parts.pipeline import Pipeline
from compat.models.tasks.generation import AUDIO, seed_of

if TYPE_CHECKING:
    from compat.models.tasks.generation import AudioGeneration

CHANNELS = ("left", "right")
"""Names of the traced channels of a stereo sound."""


class SampledAudio(Pipeline):
    """A pipeline whose graph ``denoiser`` samples a latent, and whose other networks decode it."""

    task: AudioGeneration
    schedules: Mapping[float, diffusion.Schedule]
    """The seconds that graphs are compiled for, ascending, and the sampler of each."""

    @abstractmethod
    def latent(self, seconds: float) -> tuple[int, ...]:
        """Return the shape of the latent of a sound of so many seconds."""

    @abstractmethod
    def read(self, session: Session, item: Item) -> dict[str, Handle]:
        """Return the denoiser's conditions: with an item's prompt, and without."""

    @abstractmethod
    def decode(
        self, session: Session, latent: np.ndarray | Handle, point: str, stopwatch: Stopwatch
    ) -> tuple[np.ndarray, dict[str, Handle]]:
        """Return the sound of a latent (1, …), and outputs before it that are traced.

        The sound is (samples,), or (channels, samples) of several.
        """

    # Driver ------------------------------------------------------------------------------------

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        if self.folder:
            return super().items(corpus, profile)
        return self.task.unscored_items(self.sample_rate, profile)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        sounds = [self._sound(session, item, stopwatch) for item in items]
        count = sum(len(sound[diffusion.LATENTS]) for sound in sounds)
        stopwatch.marks["step"] = stopwatch.stages["denoiser"] / count
        return sounds

    def _sound(self, session: Session, item: Item, stopwatch: Stopwatch) -> Prediction:
        """Return the sound of one prompt, and the latent after each step."""
        point, schedule = self._fitting(item)
        with stopwatch("text"):
            text = self.read(session, item)
        with stopwatch("denoiser"):
            noises = self.noise(item)
            steps = diffusion.sample(session, "denoiser", point, schedule, noises, text)
        audio, _ = self.decode(session, steps.last[diffusion.LATENT], point, stopwatch)
        samples = round(item.seconds * self.sample_rate)
        latents = steps.outputs[diffusion.LATENT][:, 0]
        return {AUDIO: audio[..., :samples].copy(), diffusion.LATENTS: latents}

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        """Return the prompt's embedding, and the networks' outputs for the reference's latents.

        The outputs are predictions at the latents of steps, and what the last latent becomes; each
        channel of a stereo sound is an output of its own.
        """
        point, schedule = self._fitting(item)
        text = self.read(session, item)
        latents = np.concatenate((self.noise(item)[:1], guide[diffusion.LATENTS]))
        predicted = diffusion.predictions(session, "denoiser", point, schedule, latents[:-1], text)
        audio, before = self.decode(session, latents[-1:], point, Stopwatch())
        waves = {AUDIO: audio} if audio.ndim == 1 else dict(zip(CHANNELS, audio, strict=True))
        return {
            "text": text["text"].numpy()[:1].copy(),
            "prediction": predicted,
            **{name: one.numpy()[0].copy() for name, one in before.items()},
            **{name: wave.copy() for name, wave in waves.items()},
        }

    def noise(self, item: Item) -> np.ndarray:
        """Return the first latent of an item, (1, *latent).

        A sampler of second order also gets what each step adds: (1 + steps, *latent).
        """
        seconds = self._length(item.seconds)
        schedule = self.schedules[seconds]
        rows = 1 + schedule.steps if schedule.second_order else 1
        return normal(seed_of(item), (rows, *self.latent(seconds)))

    def _fitting(self, item: Item) -> tuple[str, diffusion.Schedule]:
        seconds = self._length(item.seconds)
        return point_name(seconds), self.schedules[seconds]

    def _length(self, seconds: float) -> float:
        """Return the shortest length of the graphs that holds so many seconds, or the longest."""
        known = list(self.schedules)
        return next((one for one in known if one >= seconds), known[-1])


def point_name(seconds: float) -> str:
    """Return the name of the point for a length in seconds, such as ``2.56s``."""
    return f"{seconds:g}s"
