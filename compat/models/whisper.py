"""Whisper: speech recognition by an encoder and an autoregressive decoder.

Source: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022; the
module structure and parameter names are those of the Hugging Face implementation, so that its
checkpoints load unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.contract.case import Family, Variant
from compat.contract.graph import Graph, State, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.places import FIXTURES
from compat.contract.profile import Profile
from compat.contract.session import Session
from compat.inputs import checkpoints as weights_module
from compat.inputs import generator
from compat.inputs.audio import CorpusError
from compat.inputs.corpus import Corpus, TestSet
from compat.inputs.features import log_mel_spectrogram
from compat.inputs.weights import (
    POSITIONS,
    Rules,
    checkpoint_files,
    checkpoint_fingerprint,
    fill_from_folder,
    read_json,
)
from compat.models import whisper_vocabulary
from compat.models.base import Model
from compat.models.items import Items
from compat.models.tasks.asr import Transcription
from compat.models.whisper_vocabulary import ENGLISH_ONLY, Vocabulary

if TYPE_CHECKING:
    import torch

FAMILY = Family(
    name="whisper",
    task="asr",
    row="Whisper",
    headline="whisper-tiny",
    stand_in="whisper-nano",
    variants=(
        Variant(
            "whisper-nano",
            ("trained",),
            published=False,
            core=True,
            parameters=1.1,
            trained="checkpoints/whisper-nano",
        ),
        Variant(
            "whisper-tiny",
            ("pretrained", "seeded"),
            core=True,
            parameters=37.8,
            checkpoint="openai/whisper-tiny",
        ),
        Variant(
            "whisper-tiny.en",
            ("pretrained", "seeded"),
            parameters=37.8,
            checkpoint="openai/whisper-tiny.en",
        ),
        Variant(
            "whisper-base",
            ("pretrained", "seeded"),
            parameters=72.6,
            checkpoint="openai/whisper-base",
        ),
        Variant(
            "whisper-base.en",
            ("pretrained", "seeded"),
            parameters=72.6,
            checkpoint="openai/whisper-base.en",
        ),
        Variant(
            "whisper-small",
            ("pretrained", "seeded"),
            parameters=241.7,
            checkpoint="openai/whisper-small",
        ),
        Variant(
            "whisper-small.en",
            ("pretrained", "seeded"),
            parameters=241.7,
            checkpoint="openai/whisper-small.en",
        ),
        Variant(
            "whisper-medium",
            ("pretrained", "seeded"),
            parameters=763.9,
            checkpoint="openai/whisper-medium",
        ),
        Variant(
            "whisper-medium.en",
            ("pretrained", "seeded"),
            parameters=763.9,
            checkpoint="openai/whisper-medium.en",
        ),
        Variant(
            "whisper-large-v3",
            ("pretrained", "seeded"),
            parameters=1543.5,
            checkpoint="openai/whisper-large-v3",
        ),
        Variant(
            "whisper-large-v3-turbo",
            ("pretrained", "seeded"),
            parameters=808.9,
            checkpoint="openai/whisper-large-v3-turbo",
        ),
        Variant(
            "distil-large-v3",
            ("pretrained", "seeded"),
            parameters=756.4,
            checkpoint="distil-whisper/distil-large-v3",
        ),
    ),
)


@dataclass(frozen=True)
class Dimensions:
    """The numbers that fix the architecture."""

    width: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    mels: int = 80
    vocabulary: int = 51865
    source_positions: int = 1500
    target_positions: int = 448

    @property
    def window(self) -> int:
        """Length of the audio window in samples at 16 kHz: two frames of 10 ms a position."""
        return self.source_positions * 2 * 160


PUBLISHED: Mapping[str, Dimensions] = {
    "whisper-tiny": Dimensions(384, 6, 4, 4),
    "whisper-tiny.en": Dimensions(384, 6, 4, 4, vocabulary=ENGLISH_ONLY),
    "whisper-base": Dimensions(512, 8, 6, 6),
    "whisper-base.en": Dimensions(512, 8, 6, 6, vocabulary=ENGLISH_ONLY),
    "whisper-small": Dimensions(768, 12, 12, 12),
    "whisper-small.en": Dimensions(768, 12, 12, 12, vocabulary=ENGLISH_ONLY),
    "whisper-medium": Dimensions(1024, 16, 24, 24),
    "whisper-medium.en": Dimensions(1024, 16, 24, 24, vocabulary=ENGLISH_ONLY),
    "whisper-large-v3": Dimensions(1280, 20, 32, 32, 128, 51866),
    "whisper-large-v3-turbo": Dimensions(1280, 20, 32, 4, 128, 51866),
    "distil-large-v3": Dimensions(1280, 20, 32, 2, 128, 51866),
}

SEEDED_TOKENS = 48
"""Tokens that a decoder with generated weights runs for each window; it knows no end."""

TRACED_TOKENS = 16
"""Steps whose logits are compared with the reference's."""

BATCHES = (1, 4)
LARGE_BATCHES = (8, 16, 24, 32)
"""Up to what guides recommend for GPUs; a driver takes them for as many inputs only."""
SIZES = (*BATCHES, *LARGE_BATCHES)

OVERLAP = 4000
"""Samples (0.25 s) that a window shares with the next on either side of a cut."""

FRAME = 1600
"""Samples (0.1 s) in which the level is measured to find a pause."""

PAUSE = 5
"""Frames (0.5 s) that are quietest together where a window is cut."""

# Sharper attention than fan-in scaling gives makes the decoder depend on the audio: with nearly
# uniform attention over 1,500 positions every input looks alike. The sinusoid table of the
# encoder belongs to the architecture.
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
    """What one window gave."""

    tokens: list[int]
    """Tokens after the prompt, the end and what follows it included."""
    level: float = 0.0
    """Mean magnitude of the encoder's output, where it can be had."""


def load(variant: str, weights: str, checkpoint: str) -> WhisperModel:
    """Load the host side of a variant.

    Args:
        variant: a variant of :data:`FAMILY`.
        weights: ``seeded``, ``trained`` or ``pretrained``.
        checkpoint: folder of the checkpoint, absolute or below ``fixtures/``; empty for seeded.
    """
    if weights == "seeded":
        dimensions = PUBLISHED[variant]
        return WhisperModel(dimensions, whisper_vocabulary.seeded(dimensions.vocabulary), None)
    folder = FIXTURES / checkpoint  # An absolute path stays as it is.
    checkpoint_files(folder)
    config = read_json(folder / "config.json")
    if config.get("model_type") != "whisper":
        raise weights_module.CheckpointError(
            f"{folder / 'config.json'} describes a {config.get('model_type')!r} model, not "
            f"'whisper': name the folder of a Whisper checkpoint for {variant}."
        )
    try:
        dimensions = Dimensions(
            config["d_model"],
            config["encoder_attention_heads"],
            config["encoder_layers"],
            config["decoder_layers"],
            config["num_mel_bins"],
            config["vocab_size"],
            config["max_source_positions"],
            config["max_target_positions"],
        )
    except KeyError as error:
        raise weights_module.CheckpointError(
            f"{folder / 'config.json'} has no {error}. Restore the file from the checkpoint."
        ) from None
    vocabulary = whisper_vocabulary.read_vocabulary(folder, config)
    return WhisperModel(dimensions, vocabulary, folder, config.get("tie_word_embeddings", True))


class WhisperModel(Model):
    """Greedy transcription, long audio by overlapping windows."""

    def __init__(
        self,
        dimensions: Dimensions,
        vocabulary: Vocabulary,
        folder: Path | None,
        tied: bool = True,
    ) -> None:
        self.dimensions = dimensions
        self.tied = tied
        """Whether the projection onto the vocabulary is the embedding of tokens."""
        self.vocabulary = vocabulary
        self.folder = folder
        # Published vocabularies start at Whisper's 50,000 pieces; small ones know words only.
        self.task = Transcription(open_vocabulary=dimensions.vocabulary > 10_000)

    def content(self) -> Any:
        weights = (
            checkpoint_fingerprint(self.folder)
            if self.folder
            else generator.generated_digest(SEEDED_GAINS)
        )
        return [weights, repr(self.dimensions), repr(self.vocabulary)]

    # Graphs ------------------------------------------------------------------------------------

    def graphs(self) -> tuple[Graph, ...]:
        size = self.dimensions
        head = size.width // size.heads
        layers = range(size.decoder_layers)
        points = {f"b{batch}": {"batch": batch} for batch in SIZES}
        # Keys are kept transposed (…, head width, positions), as the product with a query wants.
        key, value = (head, size.source_positions), (size.source_positions, head)
        cross = {f"cross_key_{i}": Tensor(("batch", size.heads, *key)) for i in layers} | {
            f"cross_value_{i}": Tensor(("batch", size.heads, *value)) for i in layers
        }
        past = size.target_positions
        state = {
            f"key_{i}": State(("batch", size.heads, head, past), update="write", axis=3)
            for i in layers
        } | {
            f"value_{i}": State(("batch", size.heads, past, head), update="write", axis=2)
            for i in layers
        }
        frames = size.source_positions * 2
        return (
            Graph(
                "encoder",
                {"mel": Tensor(("batch", size.mels, frames))},
                ("hidden", "level", *cross),
                points,
                lambda: encoder_module(self.network),
                scalar="level",
                large_batches=LARGE_BATCHES,
            ),
            Graph(
                "decoder",
                {"token": Tensor(("batch",), "int32"), "position": Tensor((1,), "int32"), **cross},
                ("next_token", "logits"),
                points,
                lambda: decoder_module(self.network, self.vocabulary),
                state,
                large_batches=LARGE_BATCHES,
            ),
        )

    @cached_property
    def network(self) -> Any:
        """The Hugging Face module with its weights, float32."""
        from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

        if self.folder:
            settings = WhisperConfig.from_pretrained(self.folder, local_files_only=True)
            with generator.unfilled():
                network = WhisperForConditionalGeneration(settings)
            fill_from_folder(network, self.folder, Rules(network.base_model_prefix, POSITIONS))
            if (self.folder / whisper_vocabulary.GENERATION).is_file():
                network.generation_config = GenerationConfig.from_pretrained(self.folder)
            return network.eval()
        size = self.dimensions
        config = WhisperConfig(
            d_model=size.width,
            encoder_layers=size.encoder_layers,
            decoder_layers=size.decoder_layers,
            encoder_attention_heads=size.heads,
            decoder_attention_heads=size.heads,
            encoder_ffn_dim=4 * size.width,
            decoder_ffn_dim=4 * size.width,
            num_mel_bins=size.mels,
            vocab_size=size.vocabulary,
            max_source_positions=size.source_positions,
            max_target_positions=size.target_positions,
        )
        with generator.unfilled():
            network = WhisperForConditionalGeneration(config)
        generator.seed(network, generator.gains(SEEDED_GAINS))
        network.tie_weights()
        return network

    # Driver ------------------------------------------------------------------------------------

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        if self.folder:
            return super().items(corpus, profile)
        # Generated weights know no words: they get windows filled with speech, as timing wants.
        chosen = list(islice(self._windows(corpus.speech), profile.pick(2, 2, 8)))
        return Items({}, chosen, chosen)

    def _windows(self, test_set: TestSet) -> Iterator[Item]:
        """Yield inputs that nearly fill the window: utterances joined, over and over.

        Every round begins one utterance later, so that no two windows are alike.
        """
        items = test_set.items(self.sample_rate, 200)
        if len(items) < 2:
            raise CorpusError(
                f"{test_set.folder} has one recording: generated weights are compared on different "
                "inputs. Add recordings."
            )
        joined: list[Item] = []
        for number in count():
            first, position = divmod(number, len(items))
            item = items[(first + position) % len(items)]
            if joined and sum(len(i.audio) for i in (*joined, item)) > self.dimensions.window:
                yield _join(joined, f"window-{number}")
                joined = []
            joined.append(item)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        prompt = np.array(self.vocabulary.prompt, np.int32)

        def decode(mel: np.ndarray, stopwatch: Stopwatch) -> list[Decoded]:
            point = f"b{len(mel)}"
            with stopwatch("encoder"):
                encoded = session.run("encoder", {"mel": mel}, point)
                session.synchronize()
            with stopwatch("decoder"):
                count = len(prompt) - 1 + self.max_tokens
                generated = session.steps(
                    "decoder",
                    encoded,
                    point,
                    count,
                    along={
                        "token": np.tile(prompt[:, None], len(mel)),
                        "position": np.arange(count, dtype=np.int32)[:, None],
                    },
                    carry={"token": "next_token"},
                    stop=("next_token", self.vocabulary.end) if self.folder else None,
                    fetch=("next_token",),
                )
            if "first_token" not in stopwatch.marks:
                before = stopwatch.stages["features"] + stopwatch.stages["encoder"]
                stopwatch.marks["first_token"] = before + generated.first_s
            level = encoded["level"].numpy()
            rows = zip(generated.outputs["next_token"].T, level, strict=True)
            return [Decoded([int(token) for token in row], float(level)) for row, level in rows]

        return self.transcribe(items, stopwatch, decode)

    def transcribe(
        self,
        items: Sequence[Item],
        stopwatch: Stopwatch,
        decode: Callable[[np.ndarray, Stopwatch], list[Decoded]],
    ) -> list[Prediction]:
        """Cut, transform, decode and join: what every way of executing Whisper has in common.

        ``decode`` makes of mel (batch, mels, frames) one answer per row.
        """
        batch = next((b for b in SIZES if b >= len(items)), SIZES[-1])

        def hear(windows: Sequence[np.ndarray]) -> list[Decoded]:
            found: list[Decoded] = []
            for start in range(0, len(windows), batch):
                part = windows[start : start + batch]
                with stopwatch("features"):
                    mel = self.padded_mel(part, batch)
                found += decode(mel, stopwatch)[: len(part)]
            return found

        return self.join(items, stopwatch, hear)

    def join(
        self,
        items: Sequence[Item],
        stopwatch: Stopwatch,
        hear: Callable[[Sequence[np.ndarray]], Sequence[Decoded]],
    ) -> list[Prediction]:
        """Cut and join alone, for what makes its own features: ``hear`` answers for each window."""
        windows = [self._chunks(item.audio) for item in items]
        found = iter(hear([samples for part in windows for samples in part]))
        with stopwatch("text"):
            return [self._prediction([next(found) for _ in part]) for part in windows]

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        mel, forced = self.traced_input(item, guide)
        encoded = session.run("encoder", {"mel": mel}, "b1")
        hidden = encoded["hidden"].numpy()[0].copy()
        along = {
            "token": np.array(forced, np.int32)[:, None],
            "position": np.arange(len(forced), dtype=np.int32)[:, None],
        }
        forced_steps = session.steps(
            "decoder", encoded, "b1", len(forced), along=along, fetch=("logits",)
        )
        logits = forced_steps.outputs["logits"][len(self.vocabulary.prompt) - 1 :, 0]
        return {"encoder": hidden, "logits": logits}

    def traced_input(self, item: Item, guide: Prediction) -> tuple[np.ndarray, list[int]]:
        """Return mel (1, mels, frames) of the first window, and the tokens that are forced."""
        mel = self.padded_mel([item.audio[: self.dimensions.window]], 1)
        return mel, [*self.vocabulary.prompt, *guide["tokens"][:TRACED_TOKENS]]

    @property
    def max_tokens(self) -> int:
        """Tokens that a window may give after the prompt."""
        if not self.folder:
            return SEEDED_TOKENS
        # Half the positions, as the reference implementation allows; the rest is for prompts.
        room = self.dimensions.target_positions - len(self.vocabulary.prompt)
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

    def _chunks(self, samples: np.ndarray) -> list[np.ndarray]:
        """Cut audio into windows that overlap a little, in the quietest half second near their end.

        A word that is cut is heard wrongly on both sides, whatever the overlap: better a pause.
        """
        window = self.dimensions.window
        # Ten seconds of speech hold a pause; a small window looks back as far as it can.
        start = window - min(2 * window // 3, 160_000)
        chunks = []
        while len(samples) > window:
            last = samples[start : window - OVERLAP]
            levels = np.square(last[: len(last) // FRAME * FRAME].reshape(-1, FRAME)).sum(axis=1)
            pauses = np.convolve(levels, np.ones(PAUSE), "valid")
            latest = len(pauses) - 1 - int(pauses[::-1].argmin())
            cut = start + latest * FRAME + PAUSE * FRAME // 2
            chunks.append(samples[: cut + OVERLAP])
            samples = samples[cut - OVERLAP :]
        return [*chunks, samples]

    def _until_end(self, tokens: list[int]) -> list[int]:
        if self.folder and self.vocabulary.end in tokens:
            return tokens[: tokens.index(self.vocabulary.end)]
        return tokens

    def _prediction(self, parts: Sequence[Decoded]) -> Prediction:
        tokens = self._until_end(parts[0].tokens)
        for part in parts[1:]:
            following = self._until_end(part.tokens)
            tokens = merge(tokens, following) if self.folder else tokens + following
        # Not finite if anything in an encoder was: a decoder turns NaN into ordinary tokens.
        level = sum(part.level for part in parts)
        if not self.folder:
            return {"tokens": tokens, "level": level}
        return {"tokens": tokens, "text": self._tokenizer.decode(tokens).strip(), "level": level}

    @cached_property
    def _tokenizer(self) -> Any:
        assert self.folder is not None
        return whisper_vocabulary.open_tokenizer(self.folder)


def merge(left: list[int], right: list[int]) -> list[int]:
    """Join the tokens of two overlapping windows where they agree best.

    Of all alignments of the end of ``left`` with the start of ``right`` the one with the largest
    share of equal tokens is taken, longer ones preferred; the join is in its middle, so that each
    side contributes what it saw away from its edge. Source: the long-form pipeline of Hugging
    Face's transformers, in its form without timestamps.
    """
    best, length = 0.0, 0
    for size in range(1, min(len(left), len(right)) + 1):
        equal = sum(a == b for a, b in zip(left[-size:], right[:size], strict=True))
        score = equal / size + size / 10_000
        if equal >= min(2, size) and score > best:
            best, length = score, size
    half = length // 2
    return left[: len(left) - (length - half)] + right[half:] if length else left + right


def _join(items: Sequence[Item], identifier: str) -> Item:
    facts = {"text": " ".join(item.text for item in items)}
    return Item.from_audio(
        identifier, np.concatenate([item.audio for item in items]), items[0].rate, facts
    )


def encoder_module(network: Any) -> torch.nn.Module:
    """Return the encoder with the cross-attention keys and values of every decoder layer.

    Maps mel (batch, mels, frames) to hidden (batch, positions, width), its mean magnitude (batch,),
    then for each layer keys
    (batch, heads, head width, positions), then values (batch, heads, positions, head width).
    """
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = network.model.encoder
            attentions = [layer.encoder_attn for layer in network.model.decoder.layers]
            self.keys = torch.nn.ModuleList(attention.k_proj for attention in attentions)
            self.values = torch.nn.ModuleList(attention.v_proj for attention in attentions)
            self.heads = network.config.decoder_attention_heads

        def forward(self, mel: torch.Tensor) -> tuple[torch.Tensor, ...]:
            hidden = self.encoder(mel).last_hidden_state
            keys = [self._split(project(hidden)).transpose(2, 3) for project in self.keys]
            values = [self._split(project(hidden)) for project in self.values]
            # One number per input that is NaN or infinite if anything before it was.
            level = hidden.abs().mean(dim=(1, 2))
            return (hidden, level, *(tensor.contiguous() for tensor in (*keys, *values)))

        def _split(self, tensor: torch.Tensor) -> torch.Tensor:
            batch, positions, width = tensor.shape
            return tensor.view(batch, positions, self.heads, width // self.heads).transpose(1, 2)

    return Encoder()


def decoder_module(network: Any, vocabulary: Vocabulary) -> torch.nn.Module:
    """Return one decoder step: the token at ``position`` in, the next token and logits out.

    The new key and value of the step are attended to directly and returned as slices; the caches
    hold the earlier positions only, so that nothing copies a cache.
    """
    import torch

    decoder = network.model.decoder
    layers = len(decoder.layers)

    class Step(torch.nn.Module):
        suppress: torch.Tensor
        begin_suppress: torch.Tensor
        positions: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.decoder = decoder
            self.head = network.proj_out
            config = network.config
            self.heads = config.decoder_attention_heads
            always, begin = torch.zeros(2, config.vocab_size).unbind()
            # Finite, as a mask of infinities becomes NaN in reduced precision on some targets.
            always[list(vocabulary.suppress)] = -1e4
            begin[list(vocabulary.begin_suppress)] = -1e4
            self.register_buffer("suppress", always)
            self.register_buffer("begin_suppress", begin)
            positions = torch.arange(config.max_target_positions, dtype=torch.int32)
            self.register_buffer("positions", positions)
            self.begin = len(vocabulary.prompt) - 1

        def forward(
            self, token: torch.Tensor, position: torch.Tensor, *tensors: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            cross, cache = tensors[: 2 * layers], tensors[2 * layers :]
            embed = self.decoder.embed_tokens(token).unsqueeze(1)
            table = self.decoder.embed_positions.weight
            hidden = embed + torch.nn.functional.embedding(position, table).unsqueeze(0)
            # (1, 1, 1, positions): 0 for earlier positions, large and negative for the rest.
            mask = torch.where(self.positions < position, 0.0, -1e4).to(hidden.dtype)
            keys, values = [], []
            for index, layer in enumerate(self.decoder.layers):
                normed = layer.self_attn_layer_norm(hidden)
                attention = layer.self_attn
                query = self._split(attention.q_proj(normed)) * attention.scaling
                key = self._split(attention.k_proj(normed)).transpose(2, 3)
                value = self._split(attention.v_proj(normed))
                before = query @ cache[index] + mask
                scores = torch.cat((before, query @ key), dim=-1).softmax(dim=-1)
                mixed = scores[..., :-1] @ cache[layers + index] + scores[..., -1:] * value
                hidden = hidden + attention.out_proj(self._join(mixed))
                keys.append(key)
                values.append(value)

                normed = layer.encoder_attn_layer_norm(hidden)
                attention = layer.encoder_attn
                query = self._split(attention.q_proj(normed)) * attention.scaling
                scores = (query @ cross[index]).softmax(dim=-1)
                mixed = scores @ cross[layers + index]
                hidden = hidden + attention.out_proj(self._join(mixed))

                normed = layer.final_layer_norm(hidden)
                hidden = hidden + layer.fc2(layer.activation_fn(layer.fc1(normed)))
            logits = self.head(self.decoder.layer_norm(hidden))[:, 0]
            at_begin = torch.where(position == self.begin, self.begin_suppress, 0.0)
            chosen = (logits + self.suppress + at_begin.to(logits.dtype)).argmax(dim=-1)
            return (chosen.to(torch.int32), logits, *keys, *values)

        def _split(self, tensor: torch.Tensor) -> torch.Tensor:
            batch, _, width = tensor.shape
            return tensor.view(batch, 1, self.heads, width // self.heads).transpose(1, 2)

        def _join(self, tensor: torch.Tensor) -> torch.Tensor:
            return tensor.transpose(1, 2).flatten(2)

    return Step()
