"""Whisper: speech recognition by an encoder and an autoregressive decoder.

Source: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022; the
module structure and parameter names are those of the Hugging Face implementation, so that its
checkpoints load unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.contract.case import Family
from compat.contract.graph import Graph, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.contract.session import Session
from compat.inputs.audio import CorpusError
from compat.inputs.corpus import Corpus
from compat.inputs.features import log_mel_spectrogram
from compat.models import whisper_vocabulary
from compat.models.items import Items
from compat.models.parts import filled_windows
from compat.models.parts.attention import (
    CachedDecoder,
    forced,
    greedy,
)
from compat.models.parts.hugging_face import (
    HuggingFaceModel,
    published,
    read_checkpoint,
    stand_in,
)
from compat.models.parts.long_audio import Pauses, merge
from compat.models.tasks.asr import Transcription
from compat.models.whisper_prompts import Ask, Prompt, Prompts
from compat.models.whisper_sizes import PUBLISHED, SETTINGS, Dimensions
from compat.models.whisper_vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

FAMILY = Family(
    name="whisper",
    task="asr",
    row="Whisper",
    headline="whisper-tiny.en",
    stand_in="whisper-nano",
    variants=(
        stand_in("whisper-nano", 1.1),
        published("whisper-tiny", "openai/whisper-tiny", 37.8),
        published("whisper-tiny.en", "openai/whisper-tiny.en", 37.8, core=True),
        published("whisper-base", "openai/whisper-base", 72.6),
        published("whisper-base.en", "openai/whisper-base.en", 72.6),
        published("whisper-small", "openai/whisper-small", 241.7),
        published("whisper-small.en", "openai/whisper-small.en", 241.7),
        published("whisper-medium", "openai/whisper-medium", 763.9),
        published("whisper-medium.en", "openai/whisper-medium.en", 763.9),
        published("whisper-large-v2", "openai/whisper-large-v2", 1543.3),
        published("whisper-large-v3", "openai/whisper-large-v3", 1543.5),
        published("whisper-large-v3-turbo", "openai/whisper-large-v3-turbo", 808.9),
        published("distil-small.en", "distil-whisper/distil-small.en", 166.1),
        published("distil-medium.en", "distil-whisper/distil-medium.en", 394.4),
        published("distil-large-v2", "distil-whisper/distil-large-v2", 756.2),
        published("distil-large-v3", "distil-whisper/distil-large-v3", 756.4),
    ),
)


SHARED_TOKENS = 8
"""Largest number of tokens in the half second that two windows share: about three quick words."""
SEEDED_TOKENS = 48
"""Number of tokens that generated weights write for a window, as they never end by themselves."""

TRACED_TOKENS = 16
"""Steps whose logits are compared with the reference's."""

BATCHES = (1, 4)
LARGE_BATCHES = (8, 16, 24, 32)
"""Large batch sizes, up to those that guides recommend for GPUs. They are used only if there are as
many inputs."""
SIZES = (*BATCHES, *LARGE_BATCHES)

# The factors make attention sharper than fan-in scaling would, so that the decoder depends on the
# audio: with nearly uniform attention over 1,500 positions, all inputs give the same answer. The
# encoder's table of sinusoids is part of the architecture and is not generated.
SEEDED_GAINS: Mapping[str, float | None] = {
    "encoder.embed_positions": None,
    "encoder_attn.q_proj": 3.0,
    "encoder_attn.k_proj": 3.0,
    "encoder_attn.out_proj": 4.0,
    "encoder_attn.v_proj": 2.0,
    "conv": 3.0,
}


@dataclass(frozen=True)
class Decoded:
    """The answer to one window."""

    tokens: list[int]
    """Tokens after the prompt, including the end and any tokens after it."""
    level: float = 0.0
    """Mean magnitude of the encoder's output; 0 if a port does not give it."""


def load(variant: str, weights: str, checkpoint: str) -> WhisperModel:
    """Load the host side of a variant.

    Args:
        variant: a variant of :data:`FAMILY`.
        weights: ``seeded``, ``trained`` or ``pretrained``.
        checkpoint: folder of the checkpoint, absolute or below ``fixtures/``; empty for seeded.
    """
    if weights == "seeded":
        size = PUBLISHED[variant]
        return WhisperModel(size.config(), whisper_vocabulary.seeded(size.vocabulary))
    settings = SETTINGS.values()
    folder, config = read_checkpoint(checkpoint, "whisper", "Whisper", variant, settings)
    return WhisperModel(config, whisper_vocabulary.read_vocabulary(folder, config), folder)


class WhisperModel(HuggingFaceModel):
    """Greedy transcription; long audio is cut into overlapping windows."""

    architecture = "WhisperForConditionalGeneration"
    gains = SEEDED_GAINS

    def __init__(
        self, config: Mapping[str, Any], vocabulary: Vocabulary, folder: Path | None = None
    ) -> None:
        super().__init__(config, folder)
        self.dimensions = size = Dimensions.of(config)
        self.tied: bool = config.get("tie_word_embeddings", True)
        """Whether the output projection has the same weights as the embedding of tokens."""
        self.vocabulary = vocabulary
        # Published vocabularies have 50,000 pieces or more. Small ones know only some words.
        self.task = Transcription(open_vocabulary=size.vocabulary > 10_000)
        # Cuts lie in the last ten seconds of a window, which hold a pause, or in the last two
        # thirds of a small one. The pause is the quietest half second, measured every 0.1 s. The
        # windows on both sides share 0.25 s before and after the cut.
        reach = min(2 * size.window // 3, 160_000)
        self.pauses = Pauses(size.window, reach, overlap=4000, frame=1600, frames=5)

    def content(self) -> Any:
        return [super().content(), repr(self.vocabulary)]

    def adapt(self, network: Any) -> None:
        """Give the module the settings of its own ``generate``, which ports use."""
        from transformers import GenerationConfig

        if self.folder and (self.folder / whisper_vocabulary.GENERATION).is_file():
            network.generation_config = GenerationConfig.from_pretrained(self.folder)

    # Graphs ------------------------------------------------------------------------------------

    def graphs(self) -> tuple[Graph, ...]:
        size = self.dimensions
        points = {f"b{batch}": {"batch": batch} for batch in SIZES}
        decoder = CachedDecoder(
            size.decoder_layers,
            size.heads,
            size.width // size.heads,
            past=size.target_positions,
            cross=size.source_positions,
        )
        return (
            Graph(
                "encoder",
                {"mel": Tensor(("batch", size.mels, size.source_positions * 2))},
                ("hidden", "level", *decoder.cross_inputs),
                points,
                self.encoder,
                scalar="level",
                large_batches=LARGE_BATCHES,
            ),
            Graph(
                "decoder",
                decoder.inputs,
                ("next_token", "logits"),
                points,
                self.decoder,
                decoder.state,
                large_batches=LARGE_BATCHES,
            ),
        )

    def encoder(self) -> torch.nn.Module:
        from compat.models.whisper_network import Encoder

        return Encoder(self.network)

    def decoder(self) -> torch.nn.Module:
        from compat.models.whisper_network import Decoder

        return Decoder(self.network, self.vocabulary)

    # Driver ------------------------------------------------------------------------------------

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        if self.folder:
            chosen_items = super().items(corpus, profile)
            for item in (item for found in chosen_items.task.values() for item in found):
                self._said(item)  # Raises if the checkpoint cannot transcribe the item's language.
            return chosen_items
        windows = filled_windows.joined(corpus.speech, self.sample_rate, self.dimensions.window)
        chosen = list(islice(windows, profile.pick(2, 2, 8)))
        return Items({}, chosen, chosen)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        def decode(mel: np.ndarray, ask: Ask, stopwatch: Stopwatch) -> list[Decoded]:
            point = f"b{len(mel)}"
            with stopwatch("encoder"):
                encoded = session.run("encoder", {"mel": mel}, point)
                session.synchronize()

            def detect(rows: Sequence[int]) -> list[int]:
                with stopwatch("language"):
                    start = np.full((1, len(mel)), self.vocabulary.prompt[0], np.int32)
                    (logits,) = forced(session, encoded, point, start)
                return self.vocabulary.spoken(logits[rows])

            prompts = np.array(ask(detect), np.int32).T
            with stopwatch("decoder"):
                end = self.vocabulary.end if self.folder else None
                generated = greedy(session, encoded, point, prompts, self.max_tokens, end)
            if "first_token" not in stopwatch.marks:
                before = ("features", "encoder", "language")
                passed = sum(stopwatch.stages.get(name, 0.0) for name in before)
                stopwatch.marks["first_token"] = passed + generated.first_s
            level = encoded["level"].numpy()
            rows = zip(generated.outputs["next_token"].T, level, strict=True)
            return [Decoded([int(token) for token in row], float(level)) for row, level in rows]

        return self.transcribe(items, stopwatch, decode)

    def transcribe(
        self,
        items: Sequence[Item],
        stopwatch: Stopwatch,
        decode: Callable[[np.ndarray, Ask, Stopwatch], list[Decoded]],
    ) -> list[Prediction]:
        """Return predictions by the steps that all executions of Whisper share.

        The steps are cutting, features, decoding and joining. ``decode`` is called with mel
        (batch, mels, frames), a function that returns the rows' prompts, and the stopwatch; it
        returns one answer per row.
        """
        batch = next((b for b in SIZES if b >= len(items)), SIZES[-1])

        def hear(windows: Sequence[np.ndarray], prompts: Prompts) -> list[Decoded]:
            found: list[Decoded] = []
            for start in range(0, len(windows), batch):
                part = windows[start : start + batch]
                with stopwatch("features"):
                    mel = self.padded_mel(part, batch)
                ask = prompts.ask(range(start, start + len(part)), batch)
                found += decode(mel, ask, stopwatch)[: len(part)]
            return found

        return self.join(items, stopwatch, hear)

    def join(
        self,
        items: Sequence[Item],
        stopwatch: Stopwatch,
        hear: Callable[[Sequence[np.ndarray], Prompts], Sequence[Decoded]],
    ) -> list[Prediction]:
        """Return predictions by cutting and joining alone, for ports with features of their own.

        ``hear`` is called with all windows (samples,) and their prompts; it returns one answer per
        window.
        """
        said = [self._said(item) for item in items]
        lengths = [len(prompt or self.vocabulary.prompt) for prompt in said]
        if len({*lengths}) > 1:
            return self._by_length(items, lengths, stopwatch, hear)
        windows = [self.pauses.pieces(item.audio) for item in items]
        owners = [number for number, part in enumerate(windows) for _ in part]
        prompts = Prompts(self.vocabulary, said, owners)
        found = iter(hear([samples for part in windows for samples in part], prompts))
        with stopwatch("text"):
            return [
                self._prediction([next(found) for _ in part], prompts.detected(number))
                for number, part in enumerate(windows)
            ]

    def _by_length(
        self,
        items: Sequence[Item],
        lengths: Sequence[int],
        stopwatch: Stopwatch,
        hear: Callable[[Sequence[np.ndarray], Prompts], Sequence[Decoded]],
    ) -> list[Prediction]:
        """Call :meth:`join` for each length of prompts: the rows of a batch step together."""
        predictions: dict[int, Prediction] = {}
        for wanted in {*lengths}:
            numbers = [number for number, length in enumerate(lengths) if length == wanted]
            part = self.join([items[number] for number in numbers], stopwatch, hear)
            predictions |= zip(numbers, part, strict=True)
        return [predictions[number] for number in range(len(items))]

    def _said(self, item: Item) -> Prompt | None:
        """Return the prompt of a recording; None if its language is to be detected.

        Raises:
            CorpusError: the recording is in a language that the checkpoint does not know.
        """
        vocabulary = self.vocabulary
        language = str(item.facts.get("lang") or "")
        # Generated weights know no language.
        if not language or not self.folder:
            return None if vocabulary.detects else vocabulary.prompt
        prompt = vocabulary.prompt_in(language)
        if prompt is None:
            knows = sorted(vocabulary.languages) or [vocabulary.language]
            raise CorpusError(
                f"{item.id} is said to be in {language!r}, and the checkpoint {self.folder.name} "
                f"knows {'one language' if len(knows) == 1 else f'{len(knows)} languages'} only: "
                f"{', '.join(knows)}. Give a code (de) or an English name (german), choose a "
                "checkpoint that knows the language, or leave its recordings out of the corpus."
            )
        return prompt

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        mel, tokens = self.traced_input(item, guide)
        encoded = session.run("encoder", {"mel": mel}, "b1")
        hidden = encoded["hidden"].numpy()[0].copy()
        logits = forced(session, encoded, "b1", np.array(tokens, np.int32)[:, None])
        return {"encoder": hidden, "logits": logits[-traced_steps(guide) :, 0]}

    def traced_input(self, item: Item, guide: Prediction) -> tuple[np.ndarray, list[int]]:
        """Return mel (1, mels, frames) of the first window, and the tokens that are forced.

        If the corpus names no language, the prompt is for the one that the reference detected.
        """
        mel = self.padded_mel([item.audio[: self.dimensions.window]], 1)
        prompt = self._said(item)
        if prompt is None:
            language = self.vocabulary.languages[guide["language"]]
            prompt = self.vocabulary.prompt_detected(language)
        return mel, [*prompt, *guide["tokens"][:TRACED_TOKENS]]

    @property
    def max_tokens(self) -> int:
        """Largest number of tokens for a window, after its prompt."""
        if not self.folder:
            return SEEDED_TOKENS
        # The reference implementation allows half the positions. The rest is for prompts.
        longest = max(len(self.vocabulary.prompt), len(self.vocabulary.said))
        room = self.dimensions.target_positions - longest
        return min(room, max(self.dimensions.target_positions // 2, 24))

    def padded_mel(self, chunks: Sequence[np.ndarray], batch: int) -> np.ndarray:
        """Return the log-mel of up to ``batch`` windows, float32 (batch, mels, frames).

        Rows without a window are zero.
        """
        size = self.dimensions
        mel = np.zeros((batch, size.mels, size.source_positions * 2), np.float32)
        for row, samples in enumerate(chunks):
            mel[row] = log_mel_spectrogram(samples, size.mels, size.window)
        return mel

    def _until_end(self, tokens: list[int]) -> list[int]:
        if self.folder and self.vocabulary.end in tokens:
            return tokens[: tokens.index(self.vocabulary.end)]
        return tokens

    def _prediction(self, parts: Sequence[Decoded], language: str) -> Prediction:
        tokens = self._until_end(parts[0].tokens)
        for part in parts[1:]:
            following = self._until_end(part.tokens)
            tokens = merge(tokens, following, SHARED_TOKENS) if self.folder else tokens + following
        # The level is NaN or infinite if an encoder's output was. Tokens would not show it, because
        # a decoder turns NaN into ordinary tokens.
        level = sum(part.level for part in parts)
        if not self.folder:
            return {"tokens": tokens, "level": level}
        text = self._tokenizer.decode(tokens).strip()
        detected = {"language": language} if language else {}
        return {"tokens": tokens, "text": text, "level": level, **detected}

    @cached_property
    def _tokenizer(self) -> Any:
        assert self.folder is not None
        return whisper_vocabulary.open_tokenizer(self.folder)


def traced_steps(guide: Prediction) -> int:
    """Return the number of steps whose logits are compared: after the prompt and each token."""
    return 1 + min(TRACED_TOKENS, len(guide["tokens"]))
