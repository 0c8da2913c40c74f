"""Wav2Vec2: speech recognition by an encoder of the waveform and CTC.

Source: Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech
Representations", 2020; connectionist temporal classification (CTC): Graves et al., 2006. Module
structure and parameter names are those of the Hugging Face implementation, so that its checkpoints
load unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.contract.case import Family, Variant
from compat.contract.graph import Graph, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.places import FIXTURES
from compat.contract.profile import Profile
from compat.contract.session import Session
from compat.inputs import checkpoints as weights_module
from compat.inputs import generator
from compat.inputs.corpus import Corpus
from compat.inputs.weights import (
    POSITIONS,
    Rules,
    checkpoint_files,
    checkpoint_fingerprint,
    fill_from_folder,
    read_json,
)
from compat.models.base import Model
from compat.models.items import Items
from compat.models.tasks.asr import Transcription

if TYPE_CHECKING:
    import torch

FAMILY = Family(
    name="wav2vec2",
    task="asr",
    row="Wav2Vec2",
    headline="wav2vec2-base",
    stand_in="wav2vec2-nano",
    variants=(
        Variant(
            "wav2vec2-nano",
            ("trained",),
            published=False,
            core=True,
            parameters=1.0,
            trained="checkpoints/wav2vec2-nano",
        ),
        Variant(
            "wav2vec2-base",
            ("pretrained", "seeded"),
            core=True,
            parameters=94.4,
            checkpoint="facebook/wav2vec2-base-960h",
        ),
        Variant(
            "wav2vec2-large-960h",
            ("pretrained", "seeded"),
            parameters=315.5,
            checkpoint="facebook/wav2vec2-large-960h",
        ),
        Variant(
            "wav2vec2-large-lv60",
            ("pretrained", "seeded"),
            parameters=315.5,
            checkpoint="facebook/wav2vec2-large-960h-lv60-self",
        ),
    ),
)

# Settings of Hugging Face's Wav2Vec2Config; what is not named has its default, that of the base.
_STRIDES = {"conv_kernel": [10, 3, 3, 3, 3, 2, 2], "conv_stride": [5, 2, 2, 2, 2, 2, 2]}
_BASE = {**_STRIDES, "vocab_size": 32, "feat_extract_norm": "group"}
_LARGE = {
    **_BASE,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_LV60 = {**_LARGE, "feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "wav2vec2-base": _BASE,
    "wav2vec2-large-960h": _LARGE,
    "wav2vec2-large-lv60": _LV60,
}

BATCHES = (1, 4)
LARGE_BATCHES = (8, 16, 24, 32)
"""Up to what guides recommend for GPUs; a driver takes them for as many inputs only."""
SIZES = (*BATCHES, *LARGE_BATCHES)

WINDOWS = (4, 10)
"""Seconds of audio that published sizes have programs for; shorter audio is padded."""
NANO_WINDOWS = (4,)
"""Those of the stand-in, whose training knew nothing longer and any amount of padding."""

CONTEXT = 16
"""Frames (0.32 s) that a window sees beyond either end of what is taken from it."""
PAUSE = 5
"""Frames (0.1 s) among which the quietest are looked for, to cut long audio there."""

# GELU leaves 0.43 of the variance of each convolution. Attention near uniform adds the same to all
# frames, which after twelve layers would be alike; with sharp attention rounding would change
# everything.
SEEDED_GAINS: Mapping[str, float | None] = {
    "feature_extractor": 1.5,
    "q_proj": 1.5,
    "k_proj": 1.5,
    "attention.out_proj": 0.3,
}


@dataclass(frozen=True)
class Vocabulary:
    """What the outputs of the network stand for."""

    symbols: tuple[str, ...]
    """Text of each output: a letter, a space for the word delimiter, nothing for the rest."""
    blank: int
    """The output that stands for no letter, and parts equal ones."""

    def decode(self, frames: Sequence[int]) -> tuple[list[int], str]:
        """Decode the best output of each frame greedily: outputs and text.

        Repetitions are one letter, unless a blank parts them.
        """
        collapsed = [int(output) for output, _ in groupby(frames)]
        letters = [output for output in collapsed if output != self.blank]
        return letters, " ".join("".join(self.symbols[output] for output in letters).split())


@dataclass(frozen=True)
class Chunk:
    """A part of a recording that fits a window."""

    samples: np.ndarray
    """float32 (samples,), as recorded."""
    first: int
    """First frame that counts; the earlier ones belong to the chunk before."""
    last: int
    """First frame that counts no more."""


def load(variant: str, weights: str, checkpoint: str) -> Wav2Vec2Model:
    """Load the host side of a variant.

    Args:
        variant: a variant of :data:`FAMILY`.
        weights: ``seeded``, ``trained`` or ``pretrained``.
        checkpoint: folder of the checkpoint, absolute or below ``fixtures/``; empty for seeded.

    Raises:
        CheckpointError: the checkpoint is of another architecture, or lacks files.
    """
    windows = NANO_WINDOWS if weights == "trained" else WINDOWS
    if weights == "seeded":
        return Wav2Vec2Model(PUBLISHED[variant], None, windows, normalize=True, folder=None)
    folder = FIXTURES / checkpoint  # An absolute path stays as it is.
    checkpoint_files(folder)
    config = read_json(folder / "config.json")
    if config.get("model_type") != "wav2vec2":
        raise weights_module.CheckpointError(
            f"{folder / 'config.json'} describes a {config.get('model_type')!r} model, not "
            f"'wav2vec2': name the folder of a Wav2Vec2 checkpoint for {variant}."
        )
    missing = _BASE.keys() - config.keys()
    if missing:
        raise weights_module.CheckpointError(
            f"{folder / 'config.json'} has no {', '.join(sorted(missing))}. Restore the file from "
            "the checkpoint."
        )
    if config.get("add_adapter"):
        raise weights_module.CheckpointError(
            f"{folder / 'config.json'} has add_adapter: convolutions behind the encoder, which "
            "this suite does not run. Name a checkpoint that was fine-tuned without them."
        )
    features = read_json(folder / "preprocessor_config.json")
    if features.get("sampling_rate") != Wav2Vec2Model.sample_rate:
        raise weights_module.CheckpointError(
            f"{folder / 'preprocessor_config.json'} asks for audio at "
            f"{features.get('sampling_rate')} Hz; only {Wav2Vec2Model.sample_rate} is supported."
        )
    vocabulary = _vocabulary(folder, int(config["vocab_size"]))
    normalize = bool(features.get("do_normalize", True))
    return Wav2Vec2Model(config, vocabulary, windows, normalize=normalize, folder=folder)


def _vocabulary(folder: Path, size: int) -> Vocabulary:
    if not (folder / "vocab.json").is_file():
        raise weights_module.CheckpointError(
            f"{folder} has no vocab.json: it is not fine-tuned for recognition, or its tokenizer "
            "was left behind. Name a checkpoint such as facebook/wav2vec2-base-960h."
        )
    ids = read_json(folder / "vocab.json")
    settings = read_json(folder / "tokenizer_config.json")
    named = {
        name: str(settings.get(f"{name}_token") or default)
        for name, default in (
            ("pad", "<pad>"),
            ("bos", "<s>"),
            ("eos", "</s>"),
            ("unk", "<unk>"),
            ("word_delimiter", "|"),
        )
    }
    symbols = [""] * size
    for token, index in ids.items():
        if not isinstance(index, int) or not 0 <= index < size:
            raise weights_module.CheckpointError(
                f"{folder / 'vocab.json'}: {token!r} has no place among the {size} outputs of the "
                "network. Restore the file from the checkpoint."
            )
        symbols[index] = "" if token in named.values() else token
    for name in ("pad", "word_delimiter"):
        if named[name] not in ids:
            raise weights_module.CheckpointError(
                f"{folder / 'vocab.json'} has no {named[name]!r}, which the tokenizer names as its "
                f"{name}_token. Restore the tokenizer of the checkpoint."
            )
    symbols[ids[named["word_delimiter"]]] = " "
    return Vocabulary(tuple(symbols), ids[named["pad"]])


class Wav2Vec2Model(Model):
    """Greedy transcription, long audio by overlapping windows."""

    def __init__(
        self,
        config: Mapping[str, Any],
        vocabulary: Vocabulary | None,
        windows: tuple[int, ...],
        *,
        normalize: bool,
        folder: Path | None,
    ) -> None:
        self.config = config
        self.vocabulary = vocabulary
        self.windows = windows
        self.normalize = normalize
        self.folder = folder
        # The stand-in knows a few words only.
        self.task = Transcription(open_vocabulary=windows != NANO_WINDOWS)
        self.hop = prod(config["conv_stride"])
        # Group normalisation over time sees the padding anyway, and checkpoints with it were
        # trained without a mask; those with layer normalisation were trained with one.
        self.masked = config["feat_extract_norm"] == "layer"

    def content(self) -> Any:
        weights = (
            checkpoint_fingerprint(self.folder)
            if self.folder
            else [generator.generated_digest(SEEDED_GAINS), dict(self.config)]
        )
        return [weights, self.windows]

    # Graphs ------------------------------------------------------------------------------------

    def graphs(self) -> tuple[Graph, ...]:
        # The shortest window first: it is the one that is always compiled.
        points = {
            f"b{batch}-{seconds}s": {
                "batch": batch,
                "samples": seconds * self.sample_rate,
                "frames": self.frames(seconds * self.sample_rate),
            }
            for seconds in self.windows
            for batch in SIZES
        }
        inputs = {"samples": Tensor(("batch", "samples"))}
        if self.masked:
            inputs["mask"] = Tensor(("batch", "frames"))
        return (
            Graph(
                "recogniser",
                inputs,
                ("best", "level", "features", "logits"),
                points,
                lambda: recogniser_module(self.network),
                scalar="level",
                large_batches=LARGE_BATCHES,
            ),
        )

    @cached_property
    def network(self) -> Any:
        """The Hugging Face module with its weights, float32."""
        from torch.nn.utils.parametrize import remove_parametrizations
        from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

        settings = (
            Wav2Vec2Config.from_pretrained(self.folder, local_files_only=True)
            if self.folder
            else Wav2Vec2Config(**self.config)
        )
        with generator.unfilled():
            network = Wav2Vec2ForCTC(settings)
        if self.folder:
            # Training alone masks its inputs.
            rules = Rules(network.base_model_prefix, (*POSITIONS, "masked_spec_embed"))
            fill_from_folder(network, self.folder, rules)
        # Training stores this kernel as length and direction. Runtimes get the kernel itself, and
        # the generator fills it as any other.
        remove_parametrizations(network.wav2vec2.encoder.pos_conv_embed.conv, "weight")
        if not self.folder:
            generator.seed(network, generator.gains(SEEDED_GAINS))
        return network.eval()

    def frames(self, samples: int) -> int:
        """Return how many frames the network makes of ``samples`` samples, at least one."""
        for kernel, stride in zip(
            self.config["conv_kernel"], self.config["conv_stride"], strict=True
        ):
            samples = (samples - kernel) // stride + 1
        return max(samples, 1)

    # Driver ------------------------------------------------------------------------------------

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        if self.folder:
            return super().items(corpus, profile)
        # Generated weights know no words: they get windows filled with speech, as timing wants.
        count = profile.pick(2, 2, 8)
        found = corpus.speech.items(self.sample_rate, 200)
        speech = np.concatenate([item.audio for item in found])
        window = self.windows[-1 if profile.whole else 0] * self.sample_rate
        step = min(window, len(speech) // count)  # Windows of a small corpus overlap.
        chosen = [
            Item.from_audio(
                f"window-{index}",
                speech.take(range(index * step, index * step + window), mode="wrap"),
                self.sample_rate,
            )
            for index in range(count)
        ]
        return Items({}, chosen, chosen)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        with stopwatch("features"):
            chunks = [(i, chunk) for i, item in enumerate(items) for chunk in self.chunks(item)]
        best: dict[int, np.ndarray] = {}
        levels = [0.0] * len(items)
        for point, batch in self._batches([chunk for _, chunk in chunks], len(items)):
            with stopwatch("features"):
                feeds = self._feeds([chunks[index][1] for index in batch], point)
            with stopwatch("recogniser"):
                outputs = session.run("recogniser", feeds, point, ("best", "level"))
                session.synchronize()
                found, level = outputs["best"].numpy(), outputs["level"].numpy()
            for row, index in enumerate(batch):
                item, chunk = chunks[index]
                best[index] = found[row, chunk.first : chunk.last].copy()
                levels[item] += float(level[row])
        with stopwatch("text"):
            frames: list[list[int]] = [[] for _ in items]
            for index, (item, _) in enumerate(chunks):
                frames[item] += best[index].tolist()
            return [
                {**self._prediction(of_item), "level": level}
                for of_item, level in zip(frames, levels, strict=True)
            ]

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        chunk = self.chunks(item)[0]
        point = self._point(chunk, 1)
        outputs = session.run(
            "recogniser", self._feeds([chunk], point), point, ("features", "logits")
        )
        return {name: handle.numpy()[0, : chunk.last].copy() for name, handle in outputs.items()}

    def chunks(self, item: Item) -> list[Chunk]:
        """Cut a recording into chunks that fit the longest window, at the quietest moments.

        A cut lies in the last third of a window, between two frames. Either side sees
        :data:`CONTEXT` frames beyond it, so that no frame that counts is near an edge.
        """
        samples, hop = item.audio, self.hop
        window = self.windows[-1] * self.sample_rate
        chunks: list[Chunk] = []
        first = 0
        while len(samples) > window:
            earliest = (window - window // 3) // hop
            latest = window // hop - CONTEXT
            pauses = samples[earliest * hop : latest * hop]
            pauses = pauses[: len(pauses) // (PAUSE * hop) * PAUSE * hop]
            energy = np.square(pauses.reshape(-1, PAUSE * hop)).sum(axis=1)
            cut = earliest + int(energy.argmin()) * PAUSE + PAUSE // 2
            chunks.append(Chunk(samples[: (cut + CONTEXT) * hop], first, cut))
            samples, first = samples[(cut - CONTEXT) * hop :], CONTEXT
        return [*chunks, Chunk(samples, first, self.frames(len(samples)))]

    def _point(self, chunk: Chunk, batch: int) -> str:
        seconds = len(chunk.samples) / self.sample_rate
        return f"b{batch}-{next(window for window in self.windows if window >= seconds)}s"

    def _batches(self, chunks: Sequence[Chunk], items: int) -> list[tuple[str, list[int]]]:
        """Group chunks of one window: pairs of a point and indices of chunks."""
        size = next((batch for batch in SIZES if batch >= items), SIZES[-1])
        by_point: dict[str, list[int]] = {}
        for index, chunk in enumerate(chunks):
            by_point.setdefault(self._point(chunk, size), []).append(index)
        return [
            (point, indices[start : start + size])
            for point, indices in by_point.items()
            for start in range(0, len(indices), size)
        ]

    def _feeds(self, chunks: Sequence[Chunk], point: str) -> dict[str, np.ndarray]:
        shapes = self.graphs()[0].examples(point)
        feeds = {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}
        for row, chunk in enumerate(chunks):
            feeds["samples"][row, : len(chunk.samples)] = self._normalised(chunk.samples)
            if self.masked:
                feeds["mask"][row, : self.frames(len(chunk.samples))] = 1.0
        return feeds

    def _normalised(self, samples: np.ndarray) -> np.ndarray:
        """Give audio zero mean and unit variance, as ``Wav2Vec2FeatureExtractor`` does."""
        if not self.normalize:
            return samples
        variance = samples.var(dtype=np.float64)
        normal = (samples - samples.mean(dtype=np.float64)) / np.sqrt(variance + 1e-7)
        return np.asarray(normal, np.float32)

    def _prediction(self, frames: Sequence[int]) -> Prediction:
        if self.vocabulary is None:
            # Generated weights write no text. A frame near a tie may tip: shares hardly change.
            counts = np.bincount(frames, minlength=self.config["vocab_size"])
            return {"shares": (counts / len(frames)).tolist()}
        tokens, text = self.vocabulary.decode(frames)
        return {"tokens": tokens, "text": text}


def recogniser_module(network: Any) -> torch.nn.Module:
    """Return the network as one graph.

    Maps samples (batch, samples), and for checkpoints trained with a mask (batch, frames) of ones
    where there is audio, to the best output of each frame (batch, frames) int32, the encoder's mean
    magnitude (batch,), the projected features (batch, frames, width) and the logits
    (batch, frames, vocabulary).
    """
    import torch

    class Recogniser(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network.wav2vec2
            self.head = network.lm_head
            self.stable = network.config.do_stable_layer_norm

        def forward(
            self, samples: torch.Tensor, mask: torch.Tensor | None = None
        ) -> tuple[torch.Tensor, ...]:
            extracted = self.network.feature_extractor(samples).transpose(1, 2)
            features, _ = self.network.feature_projection(extracted)
            hidden = self._encode(features, mask)
            logits = self.head(hidden)
            # One number per input that is NaN or infinite if anything before it was.
            level = hidden.abs().mean(dim=(1, 2))
            return logits.argmax(dim=-1).to(torch.int32), level, features, logits

        def _encode(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            # Written out, as the library's own masking exports as operators of unknown shape.
            encoder = self.network.encoder
            bias = None
            if mask is not None:
                hidden = hidden * mask.unsqueeze(-1)
                # Finite, as infinities become NaN in reduced precision on some targets.
                bias = ((mask - 1.0) * 1e4)[:, None, None, :]
            hidden = hidden + encoder.pos_conv_embed(hidden)
            if not self.stable:
                hidden = encoder.layer_norm(hidden)
            for layer in encoder.layers:
                hidden = layer(hidden, attention_mask=bias)
            return encoder.layer_norm(hidden) if self.stable else hidden

    return Recogniser()
