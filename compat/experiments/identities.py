"""The experiment ``identities``: checks of the guides' statements on equality, shapes and numbers.

Nothing is timed, so the answers do not depend on how busy the machine is.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from compat.contract.errors import CompatError
from compat.contract.graph import Stopwatch
from compat.contract.places import ROOT
from compat.experiments.experiment import Experiment, no_arguments
from compat.experiments.measures import Measured, count, model_of, opened, recordings, yes
from compat.judge.experiments import Finding
from compat.models.parts.windows import Windows, triangular

SEGMENTATION = "segmentation-3.0@trained/cpu-torch/fp32"
EMBEDDING = "wespeaker-resnet34@seeded/cpu-torch/fp32"
WHISPER = "whisper-tiny@seeded/cpu-torch/fp32"
VOICES = "resemblyzer@pretrained/cpu-torch/fp32"
CHUNKS = ((6.0, 0.25), (30.0, 0.1), (3.0, 0.25))
"""Chunks that the guide recommends: seconds, and overlap as a share. For 3 s it names no overlap,
and 0.25 is taken."""
RATE = 16_000
OPTIONS = ("output", "compare", "quick", "models", "warmup", "iterations", "targets")


def identities(said: Callable[[str], None]) -> Measured:
    """Run the experiment."""
    found: list[Finding] = []
    for part in (_powerset, _embedding, _whisper, _language, _overlap, _cached, _options):
        said(part.__name__.strip("_"))
        found += part()
    return Measured(tuple(found))


def _powerset() -> Iterator[Finding]:
    """Yield how many frames of masks change with a softmax before argmax, and the masks' shape."""
    import torch

    from compat.models.segmentation import WINDOWS
    from compat.models.tasks.speaker_segmentation import powerset_masks

    _, model = model_of(SEGMENTATION)
    items = recordings("conversations", RATE, 4)
    windows = np.concatenate([WINDOWS.cut(item.audio) for item in items])
    with torch.no_grad():
        scores = [model.network(torch.from_numpy(one[None, None])) for one in windows]
        logs = torch.cat(scores)
        masks = powerset_masks(logs.numpy())
        after = powerset_masks(logs.softmax(-1).numpy())
    changed = int((masks != after).any(axis=-1).sum())
    yield count(
        "frames that the softmax changes",
        changed,
        f"of {masks[..., 0].size} frames of {len(items)} "
        "conversations, by argmax of log-probabilities and of their softmax",
    )
    shape = powerset_masks(scores[0].numpy()).shape
    yield yes(
        "segmentation gives (1, 589, 3)",
        shape == (1, 589, 3),
        f"(1, 1, {windows.shape[-1]}) to {tuple(scores[0].shape)} to {shape}",
    )


def _embedding() -> Iterator[Finding]:
    import torch

    from compat.models.wespeaker import SAMPLES, fbank, whole

    _, model = model_of(EMBEDDING)
    audio = np.random.default_rng(0).standard_normal((1, SAMPLES)).astype(np.float32) * 0.1
    masks = whole(SAMPLES)
    with torch.no_grad():
        found = model.network(
            torch.from_numpy(fbank(audio[0])[None]), torch.from_numpy(masks[None])
        )
    shape = tuple((found[0] if isinstance(found, tuple) else found).shape[-2:])
    yield yes(
        "embedding gives (3, 256)",
        shape == (3, 256),
        f"{audio.shape} and (1, {masks.shape[1]}, {masks.shape[0]}) to {shape}",
    )


def _whisper() -> Iterator[Finding]:
    import torch

    _, model = model_of(WHISPER)
    encoder = next(graph for graph in model.graphs() if graph.name == "encoder")
    shape = encoder.inputs["mel"].at({"batch": 1})
    yield yes("Whisper's encoder takes mels (batch, 80, 3000)", shape == (1, 80, 3000), str(shape))
    yield count(
        "positions of Whisper's encoder for 30 s",
        model.dimensions.source_positions,
        "whisper-tiny; every published size has as many",
    )
    _, small = model_of("whisper-nano@trained/cpu-torch/fp32")
    kinds = Counter(
        type(layer).__name__
        for layer in small.network.model.encoder.modules()
        if isinstance(layer, torch.nn.Conv1d | torch.nn.Conv2d)
    )
    yield count(
        "2-D convolutions in Whisper's encoder",
        kinds["Conv2d"],
        ", ".join(f"{number} {name}" for name, number in kinds.items()),
    )


def _language() -> Iterator[Finding]:
    """Yield the decoder's steps for a window with a known language and with a detected one."""
    from dataclasses import replace

    model, session = opened(WHISPER)
    steps = Counter[str]()
    execute: Any = session.execute  # type: ignore[attr-defined]

    def counted(graph: str, point: str, inputs: Any) -> Any:
        steps[graph] += 1
        return execute(graph, point, inputs)

    session.execute = counted  # type: ignore[attr-defined]
    item = recordings("clean", RATE, 1)[0]
    known_vocabulary = model.vocabulary
    tokens = {"en": 50259, "de": 50261}
    asked = {}
    for detects in (False, True):
        steps.clear()
        # Generated weights know no language. It does not matter which language is detected: only
        # the steps of detection are counted.
        model.vocabulary = replace(known_vocabulary, languages=tokens, detects=detects)
        model.run(session, [item], Stopwatch())
        asked[detects] = Counter(steps)
    session.close()
    known, detected = asked[False], asked[True]
    yield count(
        "extra decoder steps to detect a language",
        detected["decoder"] - known["decoder"],
        f"whisper-tiny: {known['decoder']} steps and {known['encoder']} pass of the encoder where "
        f"it is said, {detected['decoder']} and {detected['encoder']} where it is not",
    )


def _overlap() -> Iterator[Finding]:
    audio = np.random.default_rng(0).standard_normal(RATE * 95 + 7).astype(np.float32)
    same = []
    for seconds, overlap in CHUNKS:
        windows = Windows.overlapping(seconds, overlap, RATE)
        joined = windows.join(windows.cut(audio), len(audio), triangular(windows.length))
        same.append(bool((joined == audio).all()))
    said = ", ".join(f"{s:g} s with {o:.0%}" for s, o in CHUNKS)
    yield yes("overlap-add gives back its input", all(same), f"bit for bit: {said}, triangular")


def _cached() -> Iterator[Finding]:
    """Yield whether an embedding kept in a file equals the one that another session computes."""
    model, session = opened(VOICES)
    items = recordings("speakers", model.sample_rate, 4)
    first = [one["embedding"] for one in model.run(session, items, Stopwatch())]
    file = io.BytesIO()
    np.savez(file, *map(np.asarray, first))
    file.seek(0)
    with np.load(file, allow_pickle=False) as kept:
        cached = [kept[name] for name in kept.files]
    session.close()
    model, session = opened(VOICES)
    anew = [one["embedding"] for one in model.run(session, items, Stopwatch())]
    session.close()
    same = all(np.array_equal(a, np.asarray(b)) for a, b in zip(cached, anew, strict=True))
    yield yes("a cached answer equals a new one", same, f"{len(items)} embeddings, bit for bit")


def _options() -> Iterator[Finding]:
    """Yield how many of the guides' options neither pytest nor any ``compat`` command has."""
    asked = [["-m", "pytest", "--help"]]
    asked += [["-m", "compat", name, "--help"] for name in ("matrix", "report", "publish")]
    shown = ""
    for words in asked:
        done = subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=ROOT,
            check=False,
        )
        if done.returncode:
            raise CompatError(f"{' '.join(words)} failed: {done.stderr.strip()[-300:]}")
        shown += done.stdout
    have = set(re.findall(r"--([a-z-]+)", shown))
    lacking = [name for name in OPTIONS if name not in have]
    yield count(
        "benchmark options that the command line lacks",
        len(lacking),
        f"of {', '.join(OPTIONS)}: lacks {', '.join(lacking) or 'none'}",
    )


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return identities(said)


EXPERIMENT = Experiment(
    "which equalities, shapes and counts of the guides hold?",
    _run,
    no_arguments,
    "compat experiment identities --save",
)
