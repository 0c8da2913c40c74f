"""EnCodec: a neural audio codec, which turns audio into codes and codes into audio.

Source: Défossez et al., "High Fidelity Neural Audio Compression", 2022; the 32 kHz size is the one
that MusicGen generates (Copet et al., "Simple and Controllable Music Generation", 2023). Module
structure and parameter names are those of the Hugging Face implementation, so that its checkpoints
load unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, log2, prod
from pathlib import Path
from typing import Any

import numpy as np

from compat.contract.case import Family, Variant
from compat.contract.graph import Graph, State, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.contract.session import Session
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.corpus import Corpus
from compat.models.encodec_network import (
    contexts,
    decoder_module,
    encoder_module,
    fill_codebooks,
    settle,
    stream_module,
)
from compat.models.items import Items
from compat.models.parts import filled_windows
from compat.models.parts.batches import in_batches
from compat.models.parts.hugging_face import (
    HuggingFaceModel,
    published,
    read_checkpoint,
    read_features,
)
from compat.models.parts.windows import Windows, triangular
from compat.models.tasks.codec import BITRATE, Codec

FAMILY = Family(
    name="encodec",
    task="codec",
    row="Codec",
    headline="encodec-24khz",
    variants=(
        published("encodec-24khz", "facebook/encodec_24khz", 14.9, core=True),
        published("encodec-48khz", "facebook/encodec_48khz", 14.9),
        published("encodec-32khz", "facebook/encodec_32khz", 56.9),
        published("encodec-24khz-stream", "facebook/encodec_24khz", 14.9),
        Variant("encodec-nano", ("seeded",), published=False, core=True, parameters=0.5),
    ),
)

# Settings of Hugging Face's EncodecConfig. Others have its defaults, which are those of 24 kHz.
_24_KHZ: Mapping[str, Any] = {
    "sampling_rate": 24_000,
    "audio_channels": 1,
    "target_bandwidths": [1.5, 3.0, 6.0, 12.0, 24.0],
    "upsampling_ratios": [8, 5, 4, 2],
    "codebook_size": 1024,
}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "encodec-24khz": _24_KHZ,
    "encodec-24khz-stream": _24_KHZ,
    "encodec-48khz": {
        **_24_KHZ,
        "sampling_rate": 48_000,
        "audio_channels": 2,
        "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
        "use_causal_conv": False,
        "norm_type": "time_group_norm",
        "normalize": True,
        "chunk_length_s": 1.0,
        "overlap": 0.01,
    },
    "encodec-32khz": {
        **_24_KHZ,
        "sampling_rate": 32_000,
        "target_bandwidths": [2.2],
        "upsampling_ratios": [8, 5, 4, 4],
        "num_filters": 64,
        "codebook_size": 2048,
        "use_causal_conv": False,
        "use_conv_shortcut": False,
    },
    # This size is not a published one. It has all operators of 24 kHz, and is small enough for
    # every emulator.
    "encodec-nano": {
        **_24_KHZ,
        "target_bandwidths": [1.5, 3.0, 6.0],
        "num_filters": 4,
        "hidden_size": 32,
        "chunk_length_s": 1.0,
        "overlap": 0.01,
    },
}
MAIN = 6.0
"""Kilobits a second of the timed task; a size that lacks this rate uses its highest."""

BATCHES = (1, 4)
SECONDS = 5.0
"""Seconds of a window, for sizes without published chunks."""
OVERLAP = 0.1
"""Share of such a window that overlaps the next one, where one fades into the other."""
CHUNK = 15
"""Frames that a stream decodes at a time: 0.2 s."""

# With these factors the encoder's output has a standard deviation near 1, as generated codebooks
# have, and biases do not hide the differences between inputs.
SEEDED_GAINS: Mapping[str, float | None] = {"bias": 0.3, "encoder": 1.3}
DECLINE = 0.85
"""Size of each generated codebook relative to the one before, because residuals get smaller."""


def load(variant: str, weights: str, checkpoint: str) -> EncodecModel:
    """Load the host side of a variant.

    Args:
        variant: a variant of :data:`FAMILY`.
        weights: ``seeded`` or ``pretrained``.
        checkpoint: folder of the checkpoint; empty for seeded.

    Raises:
        CheckpointError: the checkpoint is of another architecture or size, or lacks files.
    """
    settings = PUBLISHED[variant]
    chunk = CHUNK if variant.endswith("-stream") else 0
    if weights == "seeded":
        return EncodecModel(settings, chunk=chunk)
    folder, config = read_checkpoint(checkpoint, "encodec", "EnCodec", variant, _24_KHZ)
    for name in ("sampling_rate", "audio_channels"):
        if config[name] != settings[name]:
            raise CheckpointError(
                f"{folder / 'config.json'} has {name} {config[name]}, and {variant} "
                f"{settings[name]}: name the folder of the checkpoint for {variant}."
            )
    read_features(folder, settings["sampling_rate"])
    return EncodecModel(config, folder, chunk)


class EncodecModel(HuggingFaceModel):
    """Encodes and decodes overlapping windows of a recording, and joins them.

    If a size has published chunks (48 kHz: 1 s, with an overlap of 10 ms), these are the windows.
    Otherwise windows are five seconds long and overlap by half a second. A stream decodes a window
    chunk by chunk, like a player that begins before it has all codes.
    """

    architecture = "EncodecModel"
    gains = SEEDED_GAINS
    needless = ("inited", "cluster_size", "embed_avg")  # Only training changes codebooks.

    def __init__(
        self, config: Mapping[str, Any], folder: Path | None = None, chunk: int = 0
    ) -> None:
        super().__init__(config, folder)
        self.chunk = chunk
        """Frames that a stream decodes at a time; 0 for whole windows."""
        self.sample_rate = rate = int(config["sampling_rate"])
        self.channels = int(config["audio_channels"])
        self.chunked = config.get("chunk_length_s") is not None
        seconds = config["chunk_length_s"] if self.chunked else SECONDS
        overlap = config["overlap"] if self.chunked else OVERLAP
        self.windows = Windows.overlapping(seconds, overlap, rate)
        hop = prod(config["upsampling_ratios"])
        self.frames = ceil(self.windows.length / hop)
        self.bits = ceil(rate / hop) * log2(config["codebook_size"])
        """Bits that one codebook takes per second of audio."""
        rates = tuple(map(float, config["target_bandwidths"]))
        self.codebooks = self.used(rates[-1])
        self.bitrate = MAIN if MAIN in rates else rates[-1]
        self.task = Codec(rates, self.bitrate)

    def used(self, bitrate: float) -> int:
        """Return the number of codebooks for a bitrate in kilobits a second."""
        return max(1, int(bitrate * 1000 / self.bits))

    def adapt(self, network: Any) -> None:
        settle(network)
        if not self.folder:
            fill_codebooks(network, DECLINE)

    # Graphs ------------------------------------------------------------------------------------

    def graphs(self) -> tuple[Graph, ...]:
        points = {f"b{batch}": {"batch": batch} for batch in BATCHES}
        encoder = Graph(
            "encoder",
            {"audio": Tensor(("batch", self.channels, self.windows.length))},
            ("z", "codes"),
            points,
            lambda: encoder_module(self.network),
            scalar="codes",
            windowed=self.chunked,
        )
        codes = {
            "codes": Tensor(("batch", self.codebooks, self.chunk or self.frames), "int32"),
            "used": Tensor(("batch", self.codebooks)),
        }
        if not self.chunk:
            return encoder, Graph(
                "decoder",
                codes,
                ("audio",),
                points,
                lambda: decoder_module(self.network),
                windowed=self.chunked,
            )
        return encoder, Graph(
            "stream",
            {**codes, "begins": Tensor((1,))},
            ("audio",),
            {"b1": points["b1"]},
            lambda: stream_module(self.network),
            {name: State(shape) for name, shape in contexts(self.config).items()},
        )

    # Driver ------------------------------------------------------------------------------------

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        if self.folder:
            return super().items(corpus, profile)
        source = next(iter(corpus.choose(self.task.sets).values()))
        window = profile.pick(1, 1, 2) * round(SECONDS * self.sample_rate)
        chosen = filled_windows.cut(source, self.sample_rate, window, profile.pick(2, 2, 8))
        return Items({}, chosen, chosen)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        with stopwatch("windows"):
            cut = [self._cut(item.audio) for item in items]
            scales = [self._scales(windows) for windows in cut]
            rows = np.concatenate(
                [one / size[:, None, None] for one, size in zip(cut, scales, strict=True)]
            )
            ends = np.cumsum([len(windows) for windows in cut])[:-1]
        with stopwatch("encoder"):
            feeds = {"audio": rows}
            codes = in_batches(session, "encoder", feeds, ("codes",), len(items))["codes"]
        masks = [self._mask(item, len(one)) for item, one in zip(items, cut, strict=True)]
        before = sum(stopwatch.stages.values())
        with stopwatch("decoder"):
            waves, first_s = self._decoded(session, codes, np.concatenate(masks), len(items))
        if self.chunk:
            stopwatch.marks["first_sound"] = before + first_s
        stopwatch.marks["window_decoded"] = stopwatch.stages["decoder"] / len(rows)
        with stopwatch("join"):
            parts = zip(
                *(items, scales, masks, np.split(codes, ends), np.split(waves, ends)), strict=True
            )
            return [
                {
                    "codes": of_item[:, : int(mask[0].sum())],
                    "audio": self._join(wave * size[:, None, None], item.audio.shape),
                    **({"scales": size.tolist()} if self.config.get("normalize") else {}),
                }
                for item, size, mask, of_item, wave in parts
            ]

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        windows = self._cut(item.audio)[:1]
        audio = (windows / self._scales(windows)[:, None, None]).astype(np.float32)
        heard = session.run("encoder", {"audio": audio}, "b1")
        z, codes = heard["z"].numpy()[0].T.copy(), heard["codes"].numpy()[0].T.copy()
        told = guide["codes"][:1]
        forced = np.zeros((1, self.codebooks, self.frames), np.int32)
        forced[:, : told.shape[1]] = told
        used = np.arange(self.codebooks)[None] < told.shape[1]
        waves, _ = self._decoded(session, forced, used.astype(np.float32))
        return {"z": z, "audio": waves[0].T.copy(), "codes": codes}

    def _decoded(
        self, session: Session, codes: np.ndarray, used: np.ndarray, inputs: int = 1
    ) -> tuple[np.ndarray, float]:
        """Return the audio of windows, and the seconds until a stream's first chunk is decoded.

        ``codes`` is (windows, codebooks, frames) and ``used`` (windows, codebooks). The seconds are
        0 if whole windows are decoded.
        """
        if not self.chunk:
            feeds = {"codes": codes, "used": used}
            return in_batches(session, "decoder", feeds, ("audio",), inputs)["audio"], 0.0
        steps = self.frames // self.chunk
        begins = (np.arange(steps) == 0).astype(np.float32)[:, None]
        found = []
        for window, row in zip(codes, used, strict=True):
            chunks = np.stack(np.split(window, steps, axis=-1))[:, None]
            along = {"codes": chunks, "begins": begins}
            feeds = {"used": row[None]}
            found.append(session.steps("stream", feeds, "b1", steps, along=along, fetch=("audio",)))
        waves = np.stack([np.concatenate(one.outputs["audio"], axis=-1)[0] for one in found])
        return waves, found[0].first_s

    def _whole(self, samples: int) -> int:
        """Return the samples of audio including the silence with which it is padded at its end.

        With published chunks, a chunk begins at every step that lies within the audio, and the last
        one is filled with silence. Otherwise there is no padding: the fewest windows that cover the
        audio are used.
        """
        if not self.chunked:
            return samples
        return (ceil(samples / self.windows.step) - 1) * self.windows.step + self.windows.length

    def _cut(self, audio: np.ndarray) -> np.ndarray:
        """Return the windows of audio, float32 (windows, channels, length)."""
        both = np.atleast_2d(audio)
        silence = self._whole(both.shape[-1]) - both.shape[-1]
        return self.windows.cut(np.pad(both, ((0, 0), (0, silence))))

    def _join(self, windows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        weights = triangular(self.windows.length)
        joined = self.windows.join(windows, self._whole(shape[-1]), weights)
        return joined[:, : shape[-1]].reshape(shape)

    def _scales(self, windows: np.ndarray) -> np.ndarray:
        """Return the divisor of each window, (windows,): the level of the mean of its channels."""
        if not self.config.get("normalize"):
            return np.ones(len(windows), np.float32)
        power = np.square(windows.mean(axis=1, dtype=np.float64)).mean(axis=-1)
        levels: np.ndarray = (np.sqrt(power) + 1e-8).astype(np.float32)
        return levels

    def _mask(self, item: Item, windows: int) -> np.ndarray:
        """Return which codebooks are decoded, float32 (windows, codebooks) of ones and zeros."""
        used = self.used(item.facts.get(BITRATE, self.bitrate))
        row = (np.arange(self.codebooks) < used).astype(np.float32)
        return np.tile(row, (windows, 1))
