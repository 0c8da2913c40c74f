"""HTDemucs: separation of a song into drums, bass, other and vocals.

Source: Rouard, Massa and Défossez, "Hybrid Transformers for Music Source Separation", ICASSP 2023.
The network is in :mod:`compat.models.htdemucs_network`. The driver does what ``apply_model`` of the
package ``demucs`` does, without random shifts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compat.contract.case import Family, Variant
from compat.contract.digests import file_digest
from compat.contract.graph import Graph, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.places import FIXTURES
from compat.contract.profile import Profile
from compat.contract.session import Session
from compat.inputs import demucs
from compat.inputs.corpus import Corpus
from compat.inputs.generator import gains, generated_digest, seed
from compat.models.base import Model
from compat.models.htdemucs_settings import (
    CHANNELS,
    REMEDY,
    SAMPLE_RATE,
    Settings,
    read_settings,
)
from compat.models.items import Items
from compat.models.parts.hugging_face import stand_in
from compat.models.parts.overlap_add import OverlapAdd
from compat.models.parts.short_time import istft, stft
from compat.models.parts.windows import filled
from compat.models.tasks.separation import Separation, middles

if TYPE_CHECKING:
    import torch

FAMILY = Family(
    name="htdemucs",
    task="separation",
    row="Separation",
    headline="htdemucs",
    stand_in="htdemucs-nano",
    variants=(
        Variant(
            "htdemucs",
            ("pretrained", "seeded"),
            # With generated weights a case takes a minute or more and tests only numerics.
            core="pretrained",
            parameters=42.0,
            working_gb=4.0,
            checkpoint="adefossez/HTDemucs",
        ),
        stand_in("htdemucs-nano", 0.4),
    ),
)

GENERATED: Mapping[str, Settings] = {
    "htdemucs": Settings(),
}
"""Settings of the sizes that run with generated weights."""

OVERLAP = 0.25
"""Share of a segment that overlaps with the next one."""
POINT = "b1"

SEEDED_GAINS: Mapping[str, float | None] = {}
SCALES = (0.3, 1.0)
"""Smallest and largest generated factor of residual branches. Trained factors are of this size;
with the usual 0.02 of generated values the branches would have no effect."""


def load(variant: str, weights: str, checkpoint: str) -> HTDemucsModel:
    """Load the host side of a variant.

    Args:
        variant: a variant of :data:`FAMILY`.
        weights: ``seeded``, ``trained`` or ``pretrained``.
        checkpoint: a folder or a file, absolute or below ``fixtures/``; empty for seeded weights.

    Raises:
        CheckpointError: the file is no checkpoint of HTDemucs, or has parts that are not supported.
    """
    if weights == "seeded":
        return HTDemucsModel(GENERATED[variant])
    saved = demucs.read(FIXTURES / checkpoint)  # An absolute path stays as it is.
    return HTDemucsModel(read_settings(saved), saved)


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of values, by which they are standardised and restored."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: np.ndarray) -> Scale:
        """Return the scale of an array; sums are float64, as there are millions of values."""
        centre = values.mean(dtype=np.float64)
        squares = np.square(values - np.float32(centre))
        return cls(
            float(centre), float(np.sqrt(squares.sum(dtype=np.float64) / (squares.size - 1)))
        )

    def removed(self, values: np.ndarray) -> NDArray[np.float32]:
        """Return standardised values; silence stays silent."""
        return (values - np.float32(self.mean)) / np.float32(self.deviation + 1e-5)

    def restored(self, values: np.ndarray) -> NDArray[Any]:
        """Return standardised values in their original scale."""
        of_type = values.dtype.type
        restored: NDArray[Any] = values * of_type(self.deviation)
        restored += of_type(self.mean)
        return restored


class HTDemucsModel(Model):
    """Separates a song into four stems, segment by segment."""

    task = Separation()
    sample_rate = SAMPLE_RATE
    channels = CHANNELS

    def __init__(self, settings: Settings, saved: demucs.Checkpoint | None = None) -> None:
        self.settings = settings
        self.saved = saved
        """The checkpoint; None for generated weights."""
        self.segments = OverlapAdd.triangular(settings.samples, OVERLAP)

    def content(self) -> Any:
        weights = file_digest(self.saved.file) if self.saved else generated_digest(SEEDED_GAINS)
        return [weights, asdict(self.settings)]

    def graphs(self) -> tuple[Graph, ...]:
        settings = self.settings
        inputs = {
            "mix": Tensor(("batch", CHANNELS, settings.samples)),
            "spectrum": Tensor(("batch", 2 * CHANNELS, settings.bins, settings.frames)),
        }
        outputs = ("waves", "spectra")
        return (Graph("core", inputs, outputs, {POINT: {"batch": 1}}, lambda: self.network),)

    @cached_property
    def network(self) -> torch.nn.Module:
        from compat.models.htdemucs_network import HTDemucs

        network = HTDemucs(self.settings)
        if self.saved:
            self.saved.fill(network, REMEDY)
        else:
            self.generate(network)
        return network.unpack().eval()

    def generate(self, network: torch.nn.Module) -> None:
        """Fill a network with generated weights, in place."""
        from compat.models.htdemucs_transformer import LayerScale

        seed(network, gains(SEEDED_GAINS))
        for part in network.modules():
            if isinstance(part, LayerScale):
                spread(part.scale)

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        """Choose songs to score, and pieces of one step each for numerics and timing.

        A piece takes the work of one segment, and so shows what a second of a long song costs. A
        short song would not, because its last segment is mostly silence.
        """
        named = corpus.choose(self.task.sets)
        known = self.task.sets[0] in named
        songs = named[self.task.sets[0]] if known else corpus.speech
        step, count = self.segments.step, profile.pick(2, 2, 4)
        cut = middles(songs, step / SAMPLE_RATE + 0.1) if known else songs
        pieces = filled(cut.items(SAMPLE_RATE, count if known else 8 * count), step, count)
        scored = self.task.items(corpus, SAMPLE_RATE, profile).task if self.saved else {}
        return Items(scored, pieces, pieces)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        def separate(segment: np.ndarray) -> np.ndarray:
            with stopwatch("transform"):
                mix, spectrum, scales = self._features(segment)
            with stopwatch("core"):
                waves, spectra = self._core(session, mix, spectrum)
            with stopwatch("inverse"):
                answer: np.ndarray = scales[0].restored(waves)
                answer += self._inverse(scales[1].restored(spectra))
                return answer

        return [{"stems": self.segments.run(item.audio, separate)} for item in items]

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        """Return both branches' waves of the first segment, (samples, stems x channels)."""
        mix, spectrum, _ = self._features(self.segments.segment(item.audio, 0)[0])
        waves, spectra = self._core(session, mix, spectrum)
        both = {"waves": waves, "spectral": self._inverse(spectra)}
        return {name: one.reshape(-1, one.shape[-1]).T for name, one in both.items()}

    def _features(self, segment: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[Scale, Scale]]:
        """Return mix (channels, samples) and spectrum (2 x channels, bins, frames), and scales."""
        settings = self.settings
        edge = settings.hop // 2 * 3
        missing = settings.frames * settings.hop - settings.samples
        padded = np.pad(segment, ((0, 0), (edge, edge + missing)), mode="reflect")
        spectrum = stft(padded, settings.nfft)[:, :-1]
        parts = np.stack((spectrum.real, spectrum.imag), axis=1)
        values = parts.reshape(-1, settings.bins, settings.frames)
        scales = Scale.of(segment), Scale.of(values)
        return scales[0].removed(segment), scales[1].removed(values), scales

    def _core(
        self, session: Session, mix: np.ndarray, spectrum: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        handles = session.run("core", {"mix": mix[None], "spectrum": spectrum[None]}, POINT)
        waves, spectra = (handles[name].numpy()[0] for name in ("waves", "spectra"))
        # Recipes in half precision end with the graph: the host goes on in float32 at least.
        kind = np.result_type(waves.dtype, np.float32)
        return waves.astype(kind, copy=False), spectra.astype(kind, copy=False)

    def _inverse(self, spectra: np.ndarray) -> NDArray[Any]:
        """Return waves (stems, channels, samples) of (stems, 2 x channels, bins, frames)."""
        settings = self.settings
        real, imaginary = spectra[:, ::2], spectra[:, 1::2]
        # The network does not have the highest frequency, so it is silent. The bins of a frame are
        # neighbours in memory, as transforms need them.
        shape = (*real.shape[:2], settings.frames, settings.bins + 1)
        whole = np.zeros(shape, np.result_type(spectra.dtype, np.complex64)).swapaxes(2, 3)
        whole.real[:, :, :-1], whole.imag[:, :, :-1] = real, imaginary
        edge = settings.hop // 2 * 3
        waves: NDArray[Any] = istft(whole, settings.nfft)[..., edge : edge + settings.samples]
        return waves


def spread(scale: torch.nn.Parameter) -> None:
    """Map generated values within 0.02 of zero to factors between :data:`SCALES`, in place."""
    import torch

    low, high = SCALES
    with torch.no_grad():
        scale.div_(0.04).add_(0.5).mul_(high - low).add_(low)
