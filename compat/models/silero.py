"""Silero VAD: the probability of speech in every chunk of 32 ms.

Source: the package silero-vad 6.2.3 (Silero Team, "Silero VAD: pre-trained enterprise-grade Voice
Activity Detector", MIT licence), whose files hold the weights; its Python code is never imported.
The package ships three networks of one architecture. All files made for runtimes hold the first.
``silero_vad_16k.safetensors`` holds an earlier training state of it. ``silero_vad_half.onnx`` holds
an older network in float32 (*half*, because it has only one of the two sampling rates). So the
variants are:

- ``silero-vad``: the architecture rebuilt here, with the weights that the runtimes' files share;
- ``silero-vad-shipped``: the file that is shipped for each runtime, executed as it is, and further
  variants for the other ONNX files. Reference and oracles are those of the rebuilt module, so the
  numerics of these cases tell whether file and module are the same network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compat.contract.case import Family, Variant
from compat.contract.graph import Graph, Shipped, State, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.places import FIXTURES
from compat.contract.session import Session
from compat.inputs import checkpoints as weights_module
from compat.models.base import Model
from compat.models.parts.batches import parts
from compat.models.parts.windows import Windows
from compat.models.tasks.voice_activity import VoiceActivity

if TYPE_CHECKING:
    import torch

CHECKPOINT = "package:silero-vad/silero_vad/data"
SAMPLE_RATE = 16_000
CHUNK = 512
"""New samples in each step: 32 ms."""
CONTEXT = 64
"""Samples of the previous chunk that each step sees again."""
WIDTH = 128
"""Units of the LSTM, and features of a chunk."""
STEP = CHUNK / SAMPLE_RATE
"""Seconds from one probability to the next."""

THRESHOLD = 0.5
EXIT_THRESHOLD = 0.35
"""Speech ends below this probability; between it and the threshold, speech goes on."""
MIN_SPEECH = 4000
MIN_SILENCE = 1600
PADDING = 480
"""Samples: the shortest speech is 250 ms, the silence that ends it 100 ms, the padding 30 ms."""

TRACED_SECONDS = 8.0
"""Seconds of an input that are compared step by step; errors of a state show much earlier."""

BATCHES = (1, 8)
BLOCK = 128
"""Number of chunks that the graph for whole recordings takes at once."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the package."""

    name: str
    sha256: str
    constants: Mapping[str, int] = field(default_factory=dict)
    """Inputs that are the same in every step."""
    part: str = ""
    """For TorchScript: name of the submodule for 16 kHz that keeps no state itself."""


RATE = {"sr": SAMPLE_RATE}
SCRIPT = File(
    "silero_vad.jit",
    "e1122837f4154c511485fe0b9c64455f7b929c96fbb8d79fbdb336383ebd3720",
    part="_model",
)
ONNX = File(
    "silero_vad.onnx",
    "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    RATE,
)
OPENVINO = File(
    "silero_vad_openvino_16k.onnx",
    "7776b81ad1b0350c15d7f1555943b9232eb53e9ca5d989c6d0cea9ebc8664d87",
)
OPSET_15 = File(
    "silero_vad_16k_op15.onnx",
    "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
    RATE,
)
IF_LESS = File(
    "silero_vad_op18_ifless.onnx",
    "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28",
    RATE,
)
SEQUENCE = File(
    "silero_vad_16k_sequence.onnx",
    "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
)
HALF = File(
    "silero_vad_half.onnx",
    "1e0b195ad4806595ef4466f419d16fca7e4afcfc6669b8c0b5f76ea87547c769",
)
SAFETENSORS = File(
    "silero_vad_16k.safetensors",
    "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",
)


@dataclass(frozen=True, slots=True)
class Form:
    """The files and the graph that a variant executes."""

    weights: File
    """File with the weights of the rebuilt module."""
    shipped: Mapping[str, File] = field(default_factory=dict)
    """Shipped files by form, see :class:`Shipped`; if empty, the rebuilt module is exported."""
    chunks: int = 1
    """Number of chunks in a call; with more than one, the batch size is one."""


VARIANTS: Mapping[str, Form] = {
    "silero-vad": Form(SCRIPT),
    "silero-vad-shipped": Form(SCRIPT, {"torchscript": SCRIPT, "onnx": ONNX, "openvino": OPENVINO}),
    "silero-vad-opset15": Form(SCRIPT, {"onnx": OPSET_15}),
    "silero-vad-ifless": Form(SCRIPT, {"onnx": IF_LESS}),
    "silero-vad-sequence": Form(SCRIPT, {"onnx": SEQUENCE}, BLOCK),
    "silero-vad-half": Form(HALF, {"onnx": HALF}),
    "silero-vad-safetensors": Form(SAFETENSORS),
}

FAMILY = Family(
    name="silero",
    task="vad",
    row="Voice activity",
    headline="silero-vad",
    variants=tuple(
        Variant(
            name,
            ("pretrained",),
            core=name == "silero-vad",
            parameters=0.24,
            checkpoint=CHECKPOINT,
        )
        for name in VARIANTS
    ),
)


def load(variant: str, weights: str, checkpoint: str) -> SileroModel:
    """Load the host side of a variant.

    Args:
        variant: a variant of :data:`FAMILY`.
        weights: always ``pretrained``.
        checkpoint: the folder with the package's files.

    Raises:
        CheckpointError: a file is missing, or not the one that was reviewed.
    """
    return SileroModel(VARIANTS[variant], FIXTURES / checkpoint)


class SileroModel(Model):
    """Probabilities of speech chunk by chunk, and segments by Silero's hysteresis."""

    sample_rate = SAMPLE_RATE
    # The graph runs once for every chunk of 32 ms.
    task = VoiceActivity(STEP, THRESHOLD)

    def __init__(self, form: Form, folder: Path) -> None:
        self.form = form
        files = {file.name: file for file in (form.weights, *form.shipped.values())}
        self.paths = {
            name: weights_module.verified(folder / name, file.sha256)
            for name, file in files.items()
        }
        self.digests = [file.sha256 for file in files.values()]

    def content(self) -> Any:
        return [self.digests, self.form.chunks]

    # Graph -------------------------------------------------------------------------------------

    def graphs(self) -> tuple[Graph, ...]:
        shipped = {
            form: Shipped(self.paths[file.name], file.constants, file.part)
            for form, file in self.form.shipped.items()
        }
        if self.form.chunks == 1:
            shape: tuple[int | str, ...] = ("batch", CONTEXT + CHUNK)
            points = {f"b{batch}": {"batch": batch} for batch in BATCHES}
            state = {"state": State((2, "batch", WIDTH))}
        else:
            shape = (self.form.chunks, CONTEXT + CHUNK)
            points = {"b1": {"batch": 1}}
            state = {name: State((1, "batch", WIDTH)) for name in ("h", "c")}
        return (
            Graph(
                "vad",
                {"input": Tensor(shape)},
                ("output",),
                points,
                lambda: self.network,
                state,
                shipped=shipped,
            ),
        )

    @cached_property
    def network(self) -> torch.nn.Module:
        """The rebuilt module with its weights, float32."""
        from compat.models.silero_network import Steps, read_weights, step_module

        path = self.paths[self.form.weights.name]
        step = step_module(read_weights(path), path)
        return step if self.form.chunks == 1 else Steps(step)

    # Driver ------------------------------------------------------------------------------------

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        predictions: list[Prediction] = []
        for part, batch in parts(len(items), self.batches()):
            with stopwatch("features"):
                chunks = self._chunks(items[part], batch)
            with stopwatch("vad"):
                (probabilities,) = self._listen(session, chunks)
            with stopwatch("segments"):
                predictions += [
                    _prediction(probabilities[: _count(item), row], len(item.audio))
                    for row, item in enumerate(items[part])
                ]
        return predictions

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        part = item.with_audio(item.audio[: int(TRACED_SECONDS * SAMPLE_RATE)])
        # The LSTM's output after each call.
        state = next(iter(self.graphs()[0].state))
        probabilities, states = self._listen(session, self._chunks([part], 1), state)
        return {"probability": probabilities[: _count(part)], "hidden": states[:, 0, 0]}

    def _chunks(self, items: Sequence[Item], batch: int) -> np.ndarray:
        """Return chunks with their context, float32 (chunks, batch, 576), silence after the end."""
        count = max(_count(item) for item in items)
        count = -(-count // self.form.chunks) * self.form.chunks
        audio = np.zeros((batch, CONTEXT + count * CHUNK), np.float32)
        for row, item in enumerate(items):
            audio[row, CONTEXT : CONTEXT + len(item.audio)] = item.audio
        return Windows(CONTEXT + CHUNK, CHUNK).cut(audio)

    def _listen(self, session: Session, chunks: np.ndarray, *states: str) -> tuple[np.ndarray, ...]:
        """Return the probability of speech in each chunk, float32 (chunks, batch), and states.

        The states that are named follow, each with its values after every call:
        (calls, *shape of the state).
        """
        count, batch, length = chunks.shape
        calls = count // self.form.chunks
        along = {"input": chunks.reshape(calls, -1, length)}
        outputs = session.steps(
            "vad", {}, f"b{batch}", calls, along=along, fetch=("output", *states)
        ).outputs
        return (outputs["output"].reshape(count, batch), *(outputs[name] for name in states))


def _count(item: Item) -> int:
    """Return the number of an item's chunks; the last one may be filled in part."""
    return -(-len(item.audio) // CHUNK)


def _prediction(probabilities: np.ndarray, samples: int) -> Prediction:
    rounded = [round(float(probability), 4) for probability in probabilities]
    return {"probabilities": rounded, "segments": speech_segments(rounded, samples)}


def speech_segments(probabilities: Sequence[float], samples: int) -> list[list[float]]:
    """Return where there is speech, as [start, end] in seconds.

    Speech begins with a probability of at least 0.5 and goes on until the probability has been
    below 0.35 for 0.1 s. Speech that is not longer than 0.25 s is dropped. The rest is padded by
    30 ms on either side, or up to the middle of a shorter pause. Source: ``get_speech_timestamps``
    of silero-vad 6.2.3 with its defaults, computed in samples as there.

    Args:
        probabilities: one per chunk.
        samples: length of the recording.
    """
    found: list[tuple[int, int]] = []
    start = end = None
    for chunk, probability in enumerate(probabilities):
        now = chunk * CHUNK
        if probability >= THRESHOLD:
            start, end = now if start is None else start, None
        elif probability < EXIT_THRESHOLD and start is not None:
            end = now if end is None else end
            if now - end >= MIN_SILENCE:
                found.append((start, end))
                start = end = None
    if start is not None:
        found.append((start, samples))
    kept = [(start, end) for start, end in found if end - start > MIN_SPEECH]
    if not kept:
        return []
    pauses = [start - end for (_, end), (start, _) in pairwise(kept)]
    margins = [
        min(PADDING, kept[0][0]),
        *(min(PADDING, pause // 2) for pause in pauses),
        min(PADDING, samples - kept[-1][1]),
    ]
    return [
        [(start - margins[index]) / SAMPLE_RATE, (end + margins[index + 1]) / SAMPLE_RATE]
        for index, (start, end) in enumerate(kept)
    ]
