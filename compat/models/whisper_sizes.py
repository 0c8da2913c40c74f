"""The sizes of Whisper: the numbers that fix each architecture, and transformers' names of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compat.models.whisper_vocabulary import ENGLISH_ONLY


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

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Dimensions:
        """Return the dimensions in settings of transformers."""
        return cls(**{name: config[setting] for name, setting in SETTINGS.items()})

    def config(self) -> dict[str, Any]:
        """Return the dimensions as settings of transformers, with others that follow from them."""
        named = {setting: getattr(self, name) for name, setting in SETTINGS.items()}
        return {
            **named,
            "decoder_attention_heads": self.heads,
            "encoder_ffn_dim": 4 * self.width,
            "decoder_ffn_dim": 4 * self.width,
        }

    @property
    def window(self) -> int:
        """Samples of the audio window at 16 kHz: two frames of 10 ms for each position."""
        return self.source_positions * 2 * 160


SETTINGS = {
    "width": "d_model",
    "heads": "encoder_attention_heads",
    "encoder_layers": "encoder_layers",
    "decoder_layers": "decoder_layers",
    "mels": "num_mel_bins",
    "vocabulary": "vocab_size",
    "source_positions": "max_source_positions",
    "target_positions": "max_target_positions",
}
"""Transformers' names of the dimensions."""

PUBLISHED: Mapping[str, Dimensions] = {
    "whisper-tiny": Dimensions(384, 6, 4, 4),
    "whisper-tiny.en": Dimensions(384, 6, 4, 4, vocabulary=ENGLISH_ONLY),
    "whisper-base": Dimensions(512, 8, 6, 6),
    "whisper-base.en": Dimensions(512, 8, 6, 6, vocabulary=ENGLISH_ONLY),
    "whisper-small": Dimensions(768, 12, 12, 12),
    "whisper-small.en": Dimensions(768, 12, 12, 12, vocabulary=ENGLISH_ONLY),
    "whisper-medium": Dimensions(1024, 16, 24, 24),
    "whisper-medium.en": Dimensions(1024, 16, 24, 24, vocabulary=ENGLISH_ONLY),
    "whisper-large-v2": Dimensions(1280, 20, 32, 32),
    "whisper-large-v3": Dimensions(1280, 20, 32, 32, 128, 51866),
    "whisper-large-v3-turbo": Dimensions(1280, 20, 32, 4, 128, 51866),
    "distil-small.en": Dimensions(768, 12, 12, 4, vocabulary=ENGLISH_ONLY),
    "distil-medium.en": Dimensions(1024, 16, 24, 2, vocabulary=ENGLISH_ONLY),
    "distil-large-v2": Dimensions(1280, 20, 32, 2),
    "distil-large-v3": Dimensions(1280, 20, 32, 2, 128, 51866),
}
