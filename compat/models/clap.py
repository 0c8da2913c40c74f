"""CLAP: embeds audio and sentences in one space, in which matching ones are near each other.

Source: Wu et al., "Large-scale Contrastive Language-Audio Pretraining with Feature Fusion and
Keyword-to-Caption Augmentation", ICASSP 2023, without feature fusion. Module structure and
parameter names are those of the Hugging Face implementation, so that its checkpoints load
unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from compat.contract.case import Family
from compat.contract.digests import file_digest
from compat.contract.graph import Graph, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.contract.session import Session
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.corpus import Corpus
from compat.inputs.features import mel_filterbank
from compat.inputs.layouts.checking import CAPTION
from compat.inputs.weights import POSITIONS
from compat.models.items import Items
from compat.models.parts import filled_windows
from compat.models.parts.batches import in_batches
from compat.models.parts.clap_encoders import TOKENS, audio_module, text_module
from compat.models.parts.hugging_face import (
    HuggingFaceModel,
    published,
    read_checkpoint,
    read_features,
    stand_in,
)
from compat.models.parts.sentences import MERGES, Tokens, hashed_words, read_tokenizer
from compat.models.parts.spectral import hann
from compat.models.tasks.zero_shot import (
    CAPTIONS,
    SENTENCES,
    SOUNDS,
    ZeroShotClassification,
    answer,
    own_sentence,
    sentences_of,
)

FAMILY = Family(
    name="clap",
    task="zero-shot-audio-classification",
    row="CLAP",
    headline="clap-htsat-unfused",
    stand_in="clap-nano",
    variants=(
        published("clap-htsat-unfused", "laion/clap-htsat-unfused", 153.5, core=True),
        stand_in("clap-nano", 0.7),
    ),
)

# Settings of Hugging Face's ClapConfig and ClapFeatureExtractor, as published.
AUDIO: Mapping[str, Any] = {"spec_size": 256, "num_mel_bins": 64, "enable_fusion": False}
TEXT: Mapping[str, Any] = {"vocab_size": 50_265, "pad_token_id": 1}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "clap-htsat-unfused": {"audio_config": AUDIO, "text_config": TEXT},
}
FEATURES: Mapping[str, Any] = {
    "sampling_rate": 48_000,
    "feature_size": 64,
    "fft_window_size": 1024,
    "hop_length": 480,
    "max_length_s": 10,
    "frequency_min": 50,
    "frequency_max": 14_000,
    "truncation": "rand_trunc",
    "padding": "repeatpad",
}
PADDINGS = ("repeatpad", "repeat", "pad")
FLOOR = 1e-10
"""Smallest mel power: -100 dB."""

BATCHES = (1, 4)
LARGE_BATCHES = (8,)
"""Batch size that guides recommend for GPUs."""
WIDEST = BATCHES[-1]

# Nearly uniform attention gives nearly the same answer to every sentence (cosine 0.97). Sharp
# attention multiplies rounding errors from layer to layer: with a factor of 3 for queries and keys
# the SNR of float32 is 63 dB, with 1.5 it is 119 dB.
SEEDED_GAINS: Mapping[str, float | None] = {"query": 1.5, "key": 1.5}
SEEDED_LEVEL = (-40.0, 400.0)
"""Mean and variance of features in dB, which generated normalisation is set to remove."""


def load(variant: str, weights: str, checkpoint: str) -> ClapModel:
    """Load the host side of a variant; ``checkpoint`` is a folder, empty for seeded weights.

    Raises:
        CheckpointError: the checkpoint is of another architecture, or lacks files.
    """
    if weights == "seeded":
        return ClapModel(PUBLISHED[variant], FEATURES)
    parts = ("audio_config", "text_config")
    folder, config = read_checkpoint(checkpoint, "clap", "CLAP", variant, parts)
    if config["audio_config"].get("enable_fusion"):
        raise CheckpointError(
            f"{folder / 'config.json'} has enable_fusion: four spectra of long audio are fused, "
            "which this suite does not run. Name a checkpoint without fusion, such as "
            "laion/clap-htsat-unfused."
        )
    stored = read_features(folder, ClapModel.sample_rate)
    features = {name: stored.get(name, usual) for name, usual in FEATURES.items()}
    for name, known in (("truncation", ("rand_trunc",)), ("padding", PADDINGS)):
        if features[name] not in known:
            raise CheckpointError(
                f"{folder / 'preprocessor_config.json'} has {name} {features[name]!r}; only "
                f"{', '.join(known)} is supported. Restore the file of a checkpoint without fusion."
            )
    audio, text = {**AUDIO, **config["audio_config"]}, {**TEXT, **config["text_config"]}
    mels, columns = audio["num_mel_bins"], audio["spec_size"] ** 2 // audio["num_mel_bins"]
    if features["feature_size"] != mels or frame_count(features) > columns:
        raise CheckpointError(
            f"{folder}: the preprocessor makes {frame_count(features)} frames of "
            f"{features['feature_size']} bands, and the network takes at most {columns} of {mels}. "
            "Restore preprocessor_config.json and config.json of one and the same checkpoint."
        )
    tokens = read_tokenizer(folder, TOKENS, text["pad_token_id"], text["vocab_size"])
    return ClapModel(config, features, folder, tokens)


# Features ----------------------------------------------------------------------------------------


def sample_count(features: Mapping[str, Any]) -> int:
    """Return the number of samples that the model hears."""
    return int(features["max_length_s"] * features["sampling_rate"])


def frame_count(features: Mapping[str, Any]) -> int:
    """Return the number of frames of a spectrum."""
    return sample_count(features) // int(features["hop_length"]) + 1


def fitted(audio: np.ndarray, samples: int, padding: str) -> NDArray[np.float64]:
    """Return audio of exactly so many samples.

    Longer audio is cut to its beginning, whereas the library takes a random part. Shorter audio is
    repeated a whole number of times and followed by zeros (``repeatpad``), repeated and cut
    (``repeat``), or followed by zeros (``pad``).
    """
    wave = audio[:samples].astype(np.float64)
    if padding != "pad":
        wave = np.tile(wave, samples // len(wave) + (padding == "repeat"))[:samples]
    return np.pad(wave, (0, samples - len(wave)))


def log_mel(audio: np.ndarray, features: Mapping[str, Any] = FEATURES) -> NDArray[np.float32]:
    """Return the spectrum of a recording in dB: audio (samples,) at 48 kHz to (1, 1001, 64).

    The spectrum is that of ``ClapFeatureExtractor`` without fusion: centred frames of 21 ms, 10 ms
    apart; power in 64 mel bands with Slaney's scale and area, from 50 Hz to 14 kHz.
    """
    rate, size = features["sampling_rate"], features["fft_window_size"]
    wave = fitted(audio, sample_count(features), features["padding"])
    padded = np.pad(wave, size // 2, mode="reflect")
    frames = sliding_window_view(padded, size)[:: features["hop_length"]]
    spectrum = np.fft.rfft(frames * hann(size), axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    ends = features["frequency_min"], features["frequency_max"]
    mel = power @ mel_filterbank(features["feature_size"], size, rate, *ends)
    return (10.0 * np.log10(np.maximum(mel, FLOOR))).astype(np.float32)[None]


# Driver ------------------------------------------------------------------------------------------


class ClapModel(HuggingFaceModel):
    """Embeds the first ten seconds of recordings, and compares them with sentences."""

    sample_rate = FEATURES["sampling_rate"]
    architecture = "ClapModel"
    gains = SEEDED_GAINS
    # Transformers computes these buffers itself; only some checkpoints have them.
    needless = (*POSITIONS, "token_type_ids", "relative_position_index", "num_batches_tracked")

    def __init__(
        self,
        config: Mapping[str, Any],
        features: Mapping[str, Any],
        folder: Path | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        super().__init__(config, folder)
        text = {**TEXT, **config["text_config"]}
        self.features = features
        self.tokens = tokens or hashed_words(TOKENS, text["pad_token_id"], text["vocab_size"])
        self.samples, self.frames = sample_count(features), frame_count(features)
        self.task = ZeroShotClassification(float(features["max_length_s"]))
        self._known: WeakKeyDictionary[Session, dict[str, np.ndarray]] = WeakKeyDictionary()
        self._seconds: WeakKeyDictionary[Session, float] = WeakKeyDictionary()

    def content(self) -> Any:
        merges = self.folder / MERGES if self.folder else None
        known = file_digest(merges) if merges and merges.is_file() else ""
        return [super().content(), dict(self.features), known]

    def adapt(self, network: Any) -> None:
        encoder = network.audio_model.audio_encoder
        for stage in encoder.layers:
            for block in stage.blocks:
                attention = block.attention.self
                attention.relative_position_index = attention.create_relative_position_index()
        if not self.folder:
            mean, variance = SEEDED_LEVEL
            encoder.batch_norm.running_mean.fill_(mean)
            encoder.batch_norm.running_var.fill_(variance)

    # Graphs ------------------------------------------------------------------------------------

    def graphs(self) -> tuple[Graph, ...]:
        sentence = Tensor(("batch", TOKENS), "int32")
        points = {f"b{batch}": {"batch": batch} for batch in BATCHES}
        large = {f"b{batch}": {"batch": batch} for batch in LARGE_BATCHES}
        spectrum = Tensor(("batch", 1, self.frames, self.features["feature_size"]))
        return (
            Graph(
                "audio",
                {"features": spectrum},
                ("audio_embedding",),
                {**points, **large},
                lambda: audio_module(self.network, self.frames),
                large_batches=LARGE_BATCHES,
            ),
            Graph(
                "text",
                {"ids": sentence, "mask": sentence},
                ("text_embedding",),
                points,
                lambda: text_module(self.network),
            ),
        )

    # Driver ------------------------------------------------------------------------------------

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        if self.folder:
            return super().items(corpus, profile)
        source = corpus.special.get(SOUNDS) or corpus.speech
        number = profile.pick(2, 2, 8)
        windows = filled_windows.cut(source, self.sample_rate, self.samples, number)
        # Every item has another sentence, to see whether sentences are distinguished too.
        chosen = [
            replace(window, facts={CAPTIONS: SENTENCES[:number], CAPTION: sentence})
            for window, sentence in zip(windows, SENTENCES, strict=False)
        ]
        return Items({}, chosen, chosen)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        with stopwatch("features"):
            features = [log_mel(item.audio, self.features) for item in items]
        with stopwatch("audio"):
            rows = in_batches(session, "audio", {"features": features}, inputs=len(items))
        with stopwatch("text"):
            # Sentences are embedded for the first item only, as applications do it too.
            known = self.embedded(session, [one for item in items for one in sentences_of(item)])
            stopwatch.marks["sentences"] = self._seconds[session]
        with stopwatch("similarities"):
            return [
                answer(item, row, known)
                for item, row in zip(items, rows["audio_embedding"], strict=True)
            ]

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        features = [log_mel(item.audio, self.features)]
        audio = in_batches(session, "audio", {"features": features})["audio_embedding"]
        # Embedded alone, even if it was embedded before: rows of a batch share one scale of
        # integers, so the result would depend on the neighbours.
        text = self._embed(session, [own_sentence(item)])
        return {"audio": audio[0], "text": text[0]}

    def embedded(self, session: Session, sentences: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Return the embeddings (n,) of sentences, and of all sentences of the session before.

        Each sentence is embedded once for a session.
        """
        known = self._known.setdefault(session, {})
        new = [one for one in dict.fromkeys(sentences) if one not in known]
        started = perf_counter()
        known.update(zip(new, self._embed(session, new), strict=True))
        spent = perf_counter() - started if new else 0.0
        self._seconds[session] = self._seconds.get(session, 0.0) + spent
        return known

    def forget(self, session: Session) -> None:
        """Forget the session's embeddings, so that every sentence is embedded anew."""
        self._known.pop(session, None)

    def _embed(self, session: Session, sentences: Sequence[str]) -> list[np.ndarray]:
        """Embed sentences in full batches and the rest one by one, so that no batch is padded."""
        ids, mask = self.tokens(sentences)
        full = len(ids) // WIDEST * WIDEST
        parts = [slice(start, start + WIDEST) for start in range(0, full, WIDEST)]
        parts += [slice(row, row + 1) for row in range(full, len(ids))]
        embeddings: list[np.ndarray] = []
        for part in parts:
            feeds = {"ids": ids[part], "mask": mask[part]}
            embeddings.extend(in_batches(session, "text", feeds)["text_embedding"])
        return embeddings
