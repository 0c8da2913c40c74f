"""Basic Pitch's network, and its weights in the ONNX file of the package.

Source: the package basic-pitch 0.4.0 (Spotify, Apache-2.0), whose code is never imported, and
Bittner et al., "A Lightweight Instrument-Agnostic Model for Polyphonic Note Transcription and
Multipitch Estimation", ICASSP 2022. The constant-Q transform is nnAudio's ``CQT2010v2``: one set of
kernels for an octave, applied to audio of ever lower rates.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import Conv1d, Conv2d
from torch.nn.functional import conv1d, pad

from compat.inputs.weights import fill_from_state

KERNEL = 256
"""Samples of a kernel of the transform, and of the filter before each halving of the rate."""
OCTAVE = 36
"""Bins in an octave, three for a semitone."""
OCTAVES = 9
BINS = 309
"""Bins of the transform, which are the highest of those that nine octaves have."""
CONTOUR_BINS = 264
SHIFTS = (-36, 0, 36, 57, 72, 84, 93, 101)
"""Bins from a pitch to its harmonics: half of its frequency, then 1 to 7 times."""
FLOOR = 1e-5
"""Magnitude whose square is added before the logarithm."""
SILENT = 1e-2
"""Least range of a window's logarithms. In silence, which has none, the published division would
make noise of the last bits."""
SCALE = 4096.0
"""Factor of all kernels, by which the floor of each bin is a normal number in half precision. It
cancels, as do the decibels that the published graph computes."""

CONVOLUTIONS = {
    "onset_features": "const_fold_opt__707",
    "contour_features": "const_fold_opt__727",
    "contour": "const_fold_opt__710",
    "note_features": "const_fold_opt__738",
    "note": "const_fold_opt__702",
    "onset": "const_fold_opt__680",
}
"""Names of the kernels in the file by layer. Their biases are inputs of the same node."""
COSINES, SINES, LOWPASS = (f"const_fold_opt__{number}" for number in (655, 664, 734))
LENGTHS = ";".join(2 * ["model_1/cq_t2010v2_1/Sqrt"])
"""Factor of each bin: root of the samples that its kernel would have at the full rate."""
NORM = ";".join(2 * ["model_1/batch_normalization/FusedBatchNormV3"])


class BasicPitch(torch.nn.Module):
    """Audio (batch, 43844) at 22,050 Hz to posteriorgrams of 172 frames.

    ``forward`` returns those of notes and of onsets, (batch, 172, 88) for the keys of a piano, and
    of contours, (batch, 172, 264) with three bins for a semitone.
    """

    lowpass: torch.Tensor
    floor: torch.Tensor
    offset: torch.Tensor
    gain: torch.Tensor
    shift: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.kernels = Conv1d(1, 2 * OCTAVE, KERNEL, bias=False)
        self.register_buffer("lowpass", torch.zeros(1, 1, KERNEL))
        for name in ("floor", "offset"):
            self.register_buffer(name, torch.zeros(BINS, 1))
        for name in ("gain", "shift"):
            self.register_buffer(name, torch.zeros(1))
        harmonics = len(SHIFTS)
        # Strides in frequency are three bins, so that a semitone is left of them.
        self.onset_features = Conv2d(harmonics, 32, 5, stride=(1, 3), padding=(2, 1))
        self.contour_features = Conv2d(harmonics, 8, (3, 39), padding=(1, 19))
        self.contour = Conv2d(8, 1, 5, padding=2)
        self.note_features = Conv2d(1, 32, 7, stride=(1, 3), padding=(3, 2))
        self.note = Conv2d(32, 1, (7, 3), padding=(3, 1))
        self.onset = Conv2d(33, 1, 3, padding=1)

    def forward(self, waveform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        heard = stacked(self.normalised(self.loudness(waveform)))
        contour = self.contour(self.contour_features(heard).relu()).sigmoid()
        note = self.note(self.note_features(contour).relu()).sigmoid()
        struck = self.onset_features(heard).relu()
        onset = self.onset(torch.cat((note, struck), dim=1)).sigmoid()
        return note.squeeze(1), onset.squeeze(1), contour.squeeze(1)

    def loudness(self, waveform: torch.Tensor) -> torch.Tensor:
        """Return logarithms of the powers of the constant-Q transform, (batch, 309, 172).

        With r and i the two parts of a bin and f its floor, the result is log(r² + i² + f²). The
        squares are taken of the parts' shares in the largest one. Those of faint parts would be
        zero in half precision, and exporters drop an addition of 1e-10.
        """
        audio = waveform.unsqueeze(1)
        octaves: list[tuple[torch.Tensor, ...]] = []
        for octave in range(OCTAVES):
            centred = pad(audio, (KERNEL // 2, KERNEL // 2), mode="reflect")
            spectrum = conv1d(centred, self.kernels.weight, stride=KERNEL >> octave)
            octaves.insert(0, spectrum.abs().chunk(2, dim=1))
            if octave < OCTAVES - 1:
                around = pad(audio, (KERNEL // 2 - 1, KERNEL // 2 - 1))
                audio = conv1d(around, self.lowpass, stride=2)
        real, imaginary = (
            torch.cat(parts, dim=1)[:, -BINS:] for parts in zip(*octaves, strict=True)
        )
        largest = torch.maximum(torch.maximum(real, imaginary), self.floor)
        one, other, least = (part / largest for part in (real, imaginary, self.floor))
        power = one * one + other * other + least * least
        return 2 * largest.log() + power.log() + self.offset

    def normalised(self, loudness: torch.Tensor) -> torch.Tensor:
        """Return values that lie between 0 and 1 in each window, after batch normalisation."""
        above = loudness - loudness.amin(dim=(1, 2), keepdim=True)
        most = above.amax(dim=(1, 2), keepdim=True).clamp(min=SILENT)
        return above / most * self.gain + self.shift


def stacked(levels: torch.Tensor) -> torch.Tensor:
    """Return each pitch beside its harmonics, (batch, 8, 172, 264), of (batch, 309, 172)."""
    shifted = []
    for shift in SHIFTS:
        part = levels[:, max(0, shift) : shift + CONTOUR_BINS]
        before = max(0, -shift)
        shifted.append(pad(part, (0, 0, before, CONTOUR_BINS - before - part.shape[1])))
    return torch.stack(shifted, dim=1).transpose(2, 3)


def read(path: Path) -> BasicPitch:
    """Return the network with the weights of ``nmp.onnx``, float32.

    Raises:
        CheckpointError: the file's weights do not fit the network.
    """
    import onnx  # Not at the top: it is not installed where PyTorch is the only runtime.

    graph = onnx.load(path).graph
    stored = {
        value.name: torch.from_numpy(onnx.numpy_helper.to_array(value).copy())
        for value in graph.initializer
    }
    biases = {node.input[1]: node.input[2] for node in graph.node if node.op_type == "Conv"}
    lengths = stored[LENGTHS].squeeze(2)
    state = {
        "kernels.weight": SCALE * torch.cat((stored[COSINES], stored[SINES])).squeeze(2),
        "lowpass": stored[LOWPASS].squeeze(2),
        "floor": SCALE * FLOOR / lengths,
        "offset": 2 * lengths.log(),
        "gain": stored[NORM],
        "shift": stored[f"{NORM}1"],
    }
    for layer, kernel in CONVOLUTIONS.items():
        state[f"{layer}.weight"] = stored[kernel]
        state[f"{layer}.bias"] = stored[biases[kernel]]
    network = BasicPitch()
    fill_from_state(network, path, state)
    return network
