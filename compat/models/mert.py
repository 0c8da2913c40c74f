"""MERT: embeddings of music by a HuBERT body that was trained on music at 24 kHz.

Source: Li et al., "MERT: Acoustic Music Understanding Model with Large-Scale Self-supervised
Training", 2023. The published checkpoints have a configuration of their own (``mert_model``), but
the network is HuBERT's. So transformers' ``HubertModel`` runs it without the checkpoint's code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.contract.case import Family
from compat.contract.graph import Graph, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.contract.session import Session
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.corpus import Corpus
from compat.inputs.generator import sum_to_zero
from compat.inputs.weights import POSITIONS
from compat.models.items import Items
from compat.models.parts import filled_windows
from compat.models.parts.batches import in_batches
from compat.models.parts.hugging_face import (
    HuggingFaceModel,
    published,
    read_checkpoint,
    read_features,
    stand_in,
)
from compat.models.parts.wave_encoder import (
    fold_positions,
    frame_count,
    normalised,
    wave_encoder_module,
)
from compat.models.tasks.music_tagging import LAYERS, MusicTagging

if TYPE_CHECKING:
    import torch

FAMILY = Family(
    name="mert",
    task="music-tagging",
    row="Music embedding",
    headline="mert-95m",
    stand_in="mert-nano",
    variants=(
        published("mert-95m", "m-a-p/MERT-v1-95M", 94.4, core=True),
        published("mert-330m", "m-a-p/MERT-v1-330M", 315.4),
        stand_in("mert-nano", 0.2),
    ),
)

# Settings of Hugging Face's HubertConfig. Others have its defaults, which are those of the base.
_BASE = {
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "num_hidden_layers": 12,
    "do_stable_layer_norm": False,
}
# These settings are HuBERT's large form and are for generated weights. Checkpoints bring their own.
_LARGE = {
    **_BASE,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "conv_bias": True,
}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "mert-95m": _BASE,
    "mert-330m": _LARGE,
}

KINDS = ("mert_model", "hubert")
"""Model types of checkpoints: as published, and as ``HubertModel.save_pretrained`` writes them."""
OTHERS: Mapping[str, str] = {
    "feature_extractor_cqt": "a constant-Q transform beside the convolutions",
    "deepnorm": "residuals that are scaled by the depth",
    "conv_pos_batch_norm": "positions that are normalised over the batch",
}
"""Settings that change the network and are not supported. ``attention_relax`` is not among them: it
subtracts the largest score before a softmax, which changes nothing but rounding."""

SECONDS = 5
"""Seconds of a window, as in training."""
BATCHES = (1, 4)

# GELU leaves 0.43 of the variance of each convolution, which the first factor makes up for. Nearly
# uniform attention adds the same to all frames. With sharp attention (a factor of 3 for both)
# rounding errors grow by 6 dB in each layer, and the SNR of float32 in the last layer is 39 dB
# instead of 110.
SEEDED_GAINS: Mapping[str, float | None] = {"conv_layers": 1.6, "q_proj": 1.5, "k_proj": 1.5}


@dataclass(frozen=True)
class Window:
    """A part of a recording that goes through the graph at once."""

    samples: np.ndarray
    """float32 (samples,), normalised."""
    first: int
    """First frame that is used; earlier frames are taken from the window before."""
    last: int
    """The frame after the last one that is used."""

    @property
    def count(self) -> int:
        return self.last - self.first


def load(variant: str, weights: str, checkpoint: str) -> MertModel:
    """Load the host side of a variant; ``checkpoint`` is a folder, empty for seeded weights.

    Raises:
        CheckpointError: the checkpoint is of another architecture, or lacks files.
    """
    if weights == "seeded":
        return MertModel(PUBLISHED[variant])
    needed = {"conv_kernel", "conv_stride", "num_hidden_layers"}
    folder, config = read_checkpoint(checkpoint, KINDS, "MERT", variant, needed)
    for name, meaning in OTHERS.items():
        if config.get(name):
            raise CheckpointError(
                f"{folder / 'config.json'} has {name}: {meaning}, which this suite does not run. "
                "Name a checkpoint whose network is HuBERT's, as that of MERT-v1 is."
            )
    features = read_features(folder, MertModel.sample_rate)
    return MertModel(config, folder, normalize=bool(features.get("do_normalize", True)))


class MertModel(HuggingFaceModel):
    """Embeddings of every layer, averaged over all frames of a recording of any length."""

    architecture = "HubertModel"
    gains = SEEDED_GAINS
    needless = (*POSITIONS, "masked_spec_embed")  # Only training masks inputs.
    sample_rate = 24_000
    task = MusicTagging()

    def __init__(
        self,
        config: Mapping[str, Any],
        folder: Path | None = None,
        *,
        normalize: bool = True,
        seconds: float = SECONDS,
    ) -> None:
        super().__init__(config, folder)
        self.normalize = normalize
        self.window = round(seconds * self.sample_rate)
        self.hop = prod(config["conv_stride"])

    def content(self) -> Any:
        return [super().content(), self.window]

    def settings(self, kind: Any) -> Any:
        strange = ("model_type", "auto_map", "architectures")
        return kind(**{name: value for name, value in self.config.items() if name not in strange})

    def adapt(self, network: Any) -> None:
        fold_positions(network)

    def finish(self, network: Any) -> None:
        # The first layer's input, averaged over time, must differ from song to song. Without this
        # step the differences are 17 dB below the averages themselves, with it 4 dB.
        sum_to_zero(network.feature_extractor)

    # Graph -------------------------------------------------------------------------------------

    def graphs(self) -> tuple[Graph, ...]:
        sizes = {"samples": self.window, "frames": frame_count(self.config, self.window)}
        return (
            Graph(
                "encoder",
                {
                    "waveform": Tensor(("batch", "samples")),
                    "shares": Tensor(("batch", "frames")),
                },
                (LAYERS, "last"),
                {f"b{batch}": {"batch": batch, **sizes} for batch in BATCHES},
                lambda: encoder_module(self.network),
                windowed=True,
            ),
        )

    # Driver ------------------------------------------------------------------------------------

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        if self.folder:
            return super().items(corpus, profile)
        # Generated weights know no tags: they get windows filled with music if the corpus has any.
        sets = corpus.choose(self.task.sets, self.task.fact)
        music = next(iter(sets.values()), corpus.speech)
        chosen = filled_windows.cut(music, self.sample_rate, self.window, profile.pick(2, 2, 8))
        return Items({}, chosen, chosen)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        with stopwatch("features"):
            windows = [self.windows(item.audio) for item in items]
            every = [window for of_item in windows for window in of_item]
            feeds = self._feeds(every)
        with stopwatch("encoder"):
            means = in_batches(session, "encoder", feeds, [LAYERS], len(items))[LAYERS]
        counts = np.array([window.count for window in every], np.float64)[:, None, None]
        ends = np.cumsum([len(of_item) for of_item in windows])[:-1]
        return [
            {LAYERS: (sums.sum(axis=0) / weights.sum()).astype(np.float32)}
            for sums, weights in zip(
                np.split(means * counts, ends), np.split(counts, ends), strict=True
            )
        ]

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        window = self.windows(item.audio)[0]
        outputs = in_batches(session, "encoder", self._feeds([window]))
        layers = {f"layer_{number}": mean for number, mean in enumerate(outputs[LAYERS][0])}
        return {"last": outputs["last"][0, : window.last], **layers}

    def windows(self, audio: np.ndarray) -> list[Window]:
        """Cut audio (samples,) into windows of one length, so that every frame is used once.

        The last window ends with the recording and overlaps with the one before. A recording that
        is shorter than a window is repeated to fill it, and the repeated frames are not used.
        Silence instead would change normalisation over time and attention: the worst layer's cosine
        to the library's answer is 0.78 with silence, and 0.86 with repetition.
        """
        samples = normalised(audio) if self.normalize else np.asarray(audio, np.float32)
        length, frames = self.window, frame_count(self.config, self.window)
        if len(samples) <= length:
            counted = frame_count(self.config, len(samples))
            return [Window(np.resize(samples, length), 0, counted)]
        starts = range(0, len(samples) - length + 1, length)
        windows = [Window(samples[start : start + length], 0, frames) for start in starts]
        rest = len(samples) - starts[-1] - length
        first = max(0, -(-(length - rest) // self.hop))
        if first < frames:
            windows.append(Window(samples[-length:], first, frames))
        return windows

    def _feeds(self, windows: Sequence[Window]) -> dict[str, np.ndarray]:
        shares = np.zeros((len(windows), frame_count(self.config, self.window)), np.float32)
        for row, window in zip(shares, windows, strict=True):
            row[window.first : window.last] = 1.0 / window.count
        return {"waveform": np.stack([window.samples for window in windows]), "shares": shares}


def encoder_module(network: Any) -> torch.nn.Module:
    """Return a ``HubertModel`` as one graph.

    It maps samples (batch, samples) and the weights of frames (batch, frames) to embeddings
    (batch, layers + 1, width) and to the frames of the last layer (batch, frames, width). The
    embeddings are weighted means over the frames of the first layer's input and of each layer's
    output.
    """
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = wave_encoder_module(network)

        def forward(self, waveform: torch.Tensor, shares: torch.Tensor) -> tuple[torch.Tensor, ...]:
            _, *states = self.encoder(waveform)
            rows = shares.unsqueeze(1)
            return torch.cat([rows @ state for state in states], dim=1), states[-1]

    return Encoder()
