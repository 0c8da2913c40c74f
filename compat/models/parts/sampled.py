"""The common driver of pipelines that turn noise and a prompt into sound."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from compat.contract.graph import Stopwatch
from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.contract.session import Session
from compat.inputs.corpus import Corpus
from compat.models.items import Items
from compat.models.parts import diffusion
from compat.models.parts.pipeline import Pipeline

if TYPE_CHECKING:
    from compat.models.tasks.generation import AudioGeneration


class SampledAudio(Pipeline):
    """A pipeline whose stage ``denoiser`` samples a latent, and whose other networks decode it."""

    task: AudioGeneration

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        if self.folder:
            return super().items(corpus, profile)
        return self.task.unscored_items(self.sample_rate, profile)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        sounds = [self.sound(session, item, stopwatch) for item in items]
        count = sum(len(sound[diffusion.LATENTS]) for sound in sounds)
        stopwatch.marks["step"] = stopwatch.stages["denoiser"] / count
        return sounds

    @abstractmethod
    def sound(self, session: Session, item: Item, stopwatch: Stopwatch) -> Prediction:
        """Return the sound of one prompt, and the latent after each step."""
