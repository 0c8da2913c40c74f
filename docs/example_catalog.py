"""An example to start from: one's own model and one's own runtime, in one file.

The model tells speech from silence, for every 30 ms of audio: a voice activity detector with four
weights. The runtime executes its graph with NumPy. Measure it with

    pytest suites --catalog docs/example_catalog.py --models loudness --targets cpu-torch,cpu-numpy

Nothing else is needed: the suites, the reference in float64, the thresholds and the report take
both as they take their own.
"""

import json
from pathlib import Path

import numpy as np

from compat.api import (
    Agreement,
    Family,
    Graph,
    GraphRuntime,
    Model,
    Placement,
    Probe,
    Target,
    Tensor,
    TensorSession,
    Variant,
    open_source,
)

# The model -------------------------------------------------------------------------------------

FRAME = 480
"""Samples in a frame: 30 ms at 16 kHz."""
FRAMES = 100
"""Frames in a window: the graph has one static shape."""
WEIGHTS = ((1.5, 0.5), 4.0, 0.25)
"""Of the two features of a frame, of their sum, and of the silence that is taken off."""

FAMILY = Family(
    name="loudness",
    task="loudness",  # Limits of its own: those of `vad` ask for error rates that it has not.
    row="Voice activity",  # The row of the matrix; other families may share it.
    headline="loudness-2",
    variants=(
        # `trained` weights come with the model; `pretrained` ones are named by --checkpoint.
        Variant("loudness-2", ("trained",), core=True, parameters=4e-6),
    ),
)


def load(variant, weights, checkpoint):
    """Return the host side of a variant. Weights are read later, when a runtime wants them."""
    return Loudness()


class Loudness(Model):
    """Probability of speech for every frame."""

    def content(self):
        # What determines the weights; the code of this file counts by itself.
        return WEIGHTS

    def graphs(self):
        return (
            Graph(
                "detector",
                inputs={"frames": Tensor(("batch", FRAMES, FRAME))},
                outputs=("speech",),
                points={"b1": {"batch": 1}, "b4": {"batch": 4}},
                module=detector_module,
            ),
        )

    @property
    def task(self):
        # What is right: inputs, scores and metrics. Here answers are held against the reference's.
        return LoudnessAgreement()

    def run(self, session, items, stopwatch):
        batch = 1 if len(items) == 1 else 4
        predictions = []
        for start in range(0, len(items), batch):
            part = items[start : start + batch]
            with stopwatch("features"):
                frames = np.zeros((batch, FRAMES, FRAME), np.float32)
                for row, item in enumerate(part):
                    frames[row] = split(item.audio)
            with stopwatch("detector"):
                speech = session.run("detector", {"frames": frames}, f"b{batch}")["speech"].numpy()
            predictions += [{"speech": [float(p) for p in speech[r]]} for r in range(len(part))]
        return predictions

    def trace(self, session, item, guide):
        # The outputs whose numerics are compared with the float64 reference, time first.
        found = session.run("detector", {"frames": split(item.audio)[None]}, "b1")
        return {"speech": found["speech"].numpy()[0].copy()}


class LoudnessAgreement(Agreement):
    """The corpus says nothing of pauses, so that the reference is all there is to agree with."""

    name = "loudness"

    def same(self, one, other):
        return decisions(one) == decisions(other)


def split(samples):
    """Cut or pad audio to one window; returns float32 (frames, samples)."""
    window = np.zeros(FRAMES * FRAME, np.float32)
    window[: len(samples)] = samples[: len(window)]
    return window.reshape(FRAMES, FRAME)


def decisions(prediction):
    """Return which frames are speech."""
    return [probability > 0.5 for probability in prediction["speech"]]


def detector_module():
    """Return the float32 torch module of which every runtime makes its program."""
    import torch  # Here and not above: a process that runs no torch need not import it.

    class Detector(torch.nn.Module):
        def __init__(self):
            super().__init__()
            (peak, level), slope, silence = WEIGHTS
            self.register_buffer("weights", torch.tensor([peak, level, slope, silence]))

        def forward(self, frames):
            peak = frames.abs().amax(dim=2)
            level = frames.abs().mean(dim=2)
            loudness = self.weights[0] * peak + self.weights[1] * level - self.weights[3]
            return ((self.weights[2] * loudness).sigmoid(),)

    return Detector()


# The runtime -----------------------------------------------------------------------------------


class NumPy(GraphRuntime):
    """Executes detectors with NumPy."""

    name = "numpy"
    packages = ("numpy",)  # Their versions are written beside the results.
    targets = (Target("cpu-numpy", "cpu", "numpy", "cpu", ("fp32",), on_host_cpu=True),)

    def probe(self, target):
        # "absent" or "broken" would come with the reason, and the command that mends it.
        return Probe("here", facts={"numpy": np.__version__})

    def compile(self, sources, target, recipe, options):
        # A source gives the graph as a torch module; `source.onnx(point)` gives it as a file.
        folder = sources["detector"].derive(write_weights, {}, packages=("torch",)).fetch()
        weights = json.loads((folder / "weights.json").read_text())
        return NumPySession({name: source.graph for name, source in sources.items()}, weights)


def write_weights(folder: Path, reference, graph):
    """Job: what this runtime compiles, done once in a process of its own and kept in the cache."""
    weights = open_source(reference, graph).module().weights
    (folder / "weights.json").write_text(json.dumps(weights.tolist()))


class NumPySession(TensorSession):
    """Arrays are its device tensors, so that there is nothing to copy or to wait for."""

    def __init__(self, graphs, weights):
        super().__init__(graphs)
        self.weights = np.array(weights, np.float32)

    def upload(self, array, graph):
        return array

    def download(self, native):
        return native

    def execute(self, graph, point, inputs):
        peak, level, slope, silence = self.weights
        magnitude = np.abs(inputs["frames"])
        loudness = peak * magnitude.max(axis=2) + level * magnitude.mean(axis=2) - silence
        return [1.0 / (1.0 + np.exp(-slope * loudness))]

    def placement(self):
        return Placement({"cpu": 1.0}, "cpu", "NumPy runs nowhere else")

    def executed(self):
        return dict.fromkeys(self.graphs, "fp32")

    def model_bytes(self):
        return self.weights.nbytes


RUNTIME = NumPy()
