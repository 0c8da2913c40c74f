"""faster-whisper's batched pipeline: CTranslate2, with features and batches of its own.

The pipeline is given the same windows of audio as every runtime, as clips, since its own voice
activity detection would choose other audio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from compat.contract.case import Recipe, Target
from compat.contract.execution import Driver, Execution
from compat.contract.graph import Stopwatch
from compat.contract.item import Item
from compat.contract.runtime import Options, Probe
from compat.models.whisper import Decoded
from compat.models.whisper_prompts import Prompts, grouped
from compat.runtimes.installed import installed
from compat.runtimes.whisper.ctranslate2 import CTranslate2, CTranslate2Execution

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compat.contract.item import Prediction
    from compat.contract.source import Source
    from compat.models.whisper import WhisperModel

INSTALL = "pip install faster-whisper==1.2.1"
BATCH = 8
"""Number of windows that are decoded together, its own default; more if more recordings are given
at once."""


class FasterWhisper(CTranslate2):
    """faster-whisper's batched pipeline on the devices of CTranslate2."""

    name = "faster-whisper"
    packages = ("faster-whisper", "ctranslate2")
    modules = ("faster_whisper",)
    targets = tuple(
        replace(
            target,
            name=target.name.replace("ctranslate2", "faster-whisper"),
            runtime="faster-whisper",
            # The core profile has CTranslate2 itself; this target only adds batches of windows.
            on_request=True,
        )
        for target in CTranslate2.targets
    )

    def probe(self, target: Target) -> Probe:
        return installed("faster-whisper", "faster_whisper", INSTALL) or super().probe(target)

    def open(
        self,
        model: Driver,
        sources: Mapping[str, Source],
        target: Target,
        recipe: Recipe,
        options: Options,
    ) -> Execution:
        return FasterWhisperExecution(cast("WhisperModel", model), sources, target, recipe, options)


class FasterWhisperExecution(CTranslate2Execution):
    """``BatchedInferencePipeline.transcribe``, greedy, for a fixed number of tokens."""

    def open(self, compute_type: str, options: Options) -> Any:
        from faster_whisper import BatchedInferencePipeline, WhisperModel

        frames = 2 * self.host.dimensions.source_positions
        execution = self

        class AnySize(WhisperModel):  # type: ignore[misc]
            """faster-whisper's model for any size; published sizes behave as without this class."""

            def encode(self, features: np.ndarray) -> Any:
                # The library has padded the features to 30 s, which small models do not take.
                return super().encode(np.ascontiguousarray(features[..., :frames]))

            def get_prompt(self, *arguments: Any, **options: Any) -> list[int]:
                # The library takes a model with a small vocabulary for an English-only one.
                return list(execution.prompt)

        model = AnySize(
            str(self.folder),
            device=self.target.device,
            device_index=int(options.device or 0),
            compute_type=compute_type,
            cpu_threads=options.threads,
        )
        self.prompt = self.host.vocabulary.prompt
        self.pipeline = BatchedInferencePipeline(model)
        return model.model

    def predict(self, items: Sequence[Item], stopwatch: Stopwatch) -> list[Prediction]:
        def hear(windows: Sequence[np.ndarray], prompts: Prompts) -> list[Decoded]:
            def detect(numbers: Sequence[int]) -> list[int]:
                self.check_detection()
                with stopwatch("language"):
                    model = self.pipeline.model
                    return [self.token(model.detect_language(windows[n])[0]) for n in numbers]

            found: dict[int, Decoded] = {}
            asked = prompts.ask(range(len(windows)), len(windows))(detect)
            # The pipeline takes one language at a time.
            for self.prompt, numbers in grouped(asked).items():
                with stopwatch("pipeline"):
                    part = self._hear([windows[number] for number in numbers], len(items))
                found |= zip(numbers, part, strict=True)
            return [found[number] for number in range(len(windows))]

        return self.host.join(items, stopwatch, hear)

    def _hear(self, windows: Sequence[np.ndarray], together: int) -> list[Decoded]:
        vocabulary = self.host.vocabulary
        rate = self.host.sample_rate
        ends = np.cumsum([len(window) for window in windows])
        # Half a sample is added, as the library truncates seconds to whole samples.
        clips = [
            {"start": (end - len(window) + 0.5) / rate, "end": (end + 0.5) / rate}
            for end, window in zip(ends, windows, strict=True)
        ]
        prompt, most = len(self.prompt), self.host.max_tokens
        segments, _ = self.pipeline.transcribe(
            np.concatenate(windows),
            language=vocabulary.language_of(self.prompt),
            task=vocabulary.task,
            beam_size=self.beams,
            temperature=0.0,
            suppress_tokens=list(vocabulary.suppress),
            suppress_blank=bool(vocabulary.begin_suppress),
            without_timestamps=True,
            vad_filter=False,
            clip_timestamps=clips,
            batch_size=max(BATCH, together),
            # CTranslate2 generates at most half of this, and leaves the rest for the prompt.
            max_new_tokens=min(2 * most + prompt, self.pipeline.model.max_length - prompt),
        )
        return [Decoded(list(segment.tokens)[:most]) for segment in segments]


RUNTIME = FasterWhisper()
