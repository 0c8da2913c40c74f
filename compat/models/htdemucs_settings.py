"""The settings of HTDemucs' network, and how they are read from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from compat.inputs import demucs
from compat.inputs.checkpoints import CheckpointError
from compat.models.tasks.separation import STEMS

SAMPLE_RATE = 44_100
CHANNELS = 2
REMEDY = "Name 955717e8-8726e21a.th, or a copy of adefossez/HTDemucs from the hub."

FIXED: Mapping[str, tuple[Any, ...]] = {
    "cac": (True,),
    "rewrite": (True,),
    "channels_time": (None,),
    "multi_freqs": (None, []),
    "context_enc": (0,),
    "dconv_mode": (3,),
    "t_emb": ("sin",),
    "t_norm_in": (True,),
    "t_norm_in_group": (False,),
    "t_group_norm": (False,),
    "t_norm_first": (True,),
    "t_norm_out": (True,),
    "t_layer_scale": (True,),
    "t_gelu": (True,),
    "t_weight_pos_embed": (1.0,),
    "t_sparse_self_attn": (False,),
    "t_sparse_cross_attn": (False,),
    "t_cross_first": (False,),
    "use_train_segment": (True,),
    "samplerate": (SAMPLE_RATE,),
    "audio_channels": (CHANNELS,),
}
"""Demucs' settings that this network supports with certain values only: these values.

The first value is demucs' own default, which holds if a checkpoint does not name the setting.
``dconv_mode`` is the exception, see :data:`DEFAULTS`.
"""
DEFAULTS: Mapping[str, Any] = {"dconv_mode": 1, "bottom_channels": 0, "segment": 10}
"""Demucs' own defaults that differ from those of :class:`Settings`."""


@dataclass(frozen=True)
class Settings:
    """Settings that determine the network, with demucs' names and the published defaults."""

    channels: int = 48
    """Channels of the first layer."""
    growth: int = 2
    """Factor of the channels from layer to layer."""
    nfft: int = 4096
    """Samples of a frame; neighbours are a quarter of it apart."""
    depth: int = 4
    """Layers of each encoder."""
    freq_emb: float = 0.2
    """Weight of the embedding that tells one frequency from another."""
    emb_scale: float = 10.0
    kernel_size: int = 8
    stride: int = 4
    context: int = 1
    """Neighbouring positions that the decoders see on either side."""
    dconv_depth: int = 2
    dconv_comp: int = 8
    """Divisor of the channels inside a residual branch."""
    bottom_channels: int = 512
    """Width of the transformer."""
    t_layers: int = 5
    t_hidden_scale: float = 4.0
    t_heads: int = 8
    t_max_period: float = 10_000.0
    samples: int = 343_980
    """Samples of a segment: 7.8 s. Demucs calls it ``segment``, in seconds."""

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.nfft // 4

    @property
    def bins(self) -> int:
        """Number of frequencies of a spectrum: all but the highest."""
        return self.nfft // 2

    @property
    def frames(self) -> int:
        """Number of frames of a segment."""
        return -(-self.samples // self.hop)


def read_settings(saved: demucs.Checkpoint) -> Settings:
    """Return the settings of a checkpoint's network.

    Raises:
        CheckpointError: the checkpoint is of another class, or has parts that this network lacks.
    """
    given = {**DEFAULTS, **saved.settings}
    if saved.kind != demucs.HYBRID_TRANSFORMER:
        raise CheckpointError(f"{saved.file} holds a {saved.kind}, no HTDemucs.", REMEDY)
    sources = given.get("sources")
    if sources != list(STEMS) and sources != STEMS:
        raise CheckpointError(
            f"{saved.file} separates {sources}, where {', '.join(STEMS)} are judged.", REMEDY
        )
    for name, allowed in FIXED.items():
        if (value := given.get(name, allowed[0])) not in allowed:
            raise CheckpointError(
                f"{saved.file} has {name} = {value!r}, which this suite does not run: it knows "
                f"{allowed[0]!r}.",
                REMEDY,
            )
    try:
        known = {
            field.name: (int if field.type == "int" else float)(given[field.name])
            for field in fields(Settings)
            if field.name in given
        }
        # A product in float64 would be a sample short of 7.8 s at some rates.
        settings = Settings(**known, samples=int(demucs.seconds(given["segment"]) * SAMPLE_RATE))  # type: ignore[arg-type]
        narrowest = settings.bins // settings.stride ** (settings.depth - 1)
        numbers = [getattr(settings, field.name) for field in fields(Settings)]
        if min(numbers) <= 0 or max(numbers) > MOST or narrowest <= settings.kernel_size:
            raise ValueError("sizes that belong to no network of this kind")
        if given.get("norm_starts", settings.depth) < settings.depth:
            raise ValueError("normalisations between its layers")
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{saved.file} does not describe a network that this suite runs: {error}.", REMEDY
        ) from error
    return settings


MOST = 100_000_000
"""Largest number that settings may have: real networks stay far below, and larger numbers would
only exhaust memory."""
