"""The experiment ``chunks``: memory by length, at once and in chunks, and what chunks change.

Each length runs in a process of its own, whose peak memory counts. So no length reuses memory that
another one allocated.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from compat.contract.errors import CompatError
from compat.contract.graph import Stopwatch
from compat.experiments.experiment import Experiment, no_arguments
from compat.experiments.measures import Measured, opened, recordings
from compat.judge.experiments import Finding
from compat.metrics.bootstrap import ratio_interval

LENGTHS = (30, 120)
"""Seconds of audio."""
CHUNK_S = 10
"""Seconds of a chunk, so that either length has several: the second one may take memory beside what
the first one left to the allocator, whatever the length."""
POSITIONS = (1024, 4096)
HEADS, WIDTH = 8, 64
FRAME = 512
"""Samples of a frame of Silero VAD. Chunks begin where a frame begins, so that the frames of chunks
and of the whole recording can be compared."""
CONTEXT, CHUNK = 15 * FRAME, 63 * FRAME
"""Samples before a chunk that are heard again (0.5 s), and new samples of a chunk (2 s)."""
ATTEMPTS = 3
"""Number of processes, of which the smallest peak counts, because allocators round up."""


def memory_of(work: str) -> int:
    """Return the bytes that a piece of work adds to the peak of a fresh process.

    Args:
        work: words for :func:`main`, such as ``wav2vec2 at-once 30`` or ``attention plain 2048``.

    Raises:
        CompatError: the process failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "compat.experiments.chunks", *work.split()],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise CompatError(f"{work}: {done.stderr.strip().splitlines()[-1:]}")
    return int(done.stdout.split()[-1])


def main(work: list[str]) -> int:
    """Do a piece of work, and return by how many bytes the peak of this process grew."""
    import torch

    from compat.measure.memory import peak_bytes

    torch.manual_seed(0)
    torch.set_num_threads(1)
    what, how, size = work[0], work[1], int(work[2])
    if what == "attention":
        q, k, v = torch.randn(3, 1, HEADS, size, WIDTH).unbind(0)
        before = peak_bytes()
        with torch.inference_mode():
            if how == "plain":
                ((q @ k.transpose(-1, -2)) / WIDTH**0.5).softmax(-1) @ v
            else:
                torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return peak_bytes() - before
    from compat.experiments.measures import model_of

    _, model = model_of("wav2vec2-nano@trained/cpu-torch/fp32")
    network = model.network.eval()
    audio = torch.randn(1, size * 16_000) * 0.1
    chunk = CHUNK_S * 16_000 if how == "chunks" else audio.shape[1]
    with torch.inference_mode():
        network(audio[:, :16_000])
        before = peak_bytes()
        for start in range(0, audio.shape[1], chunk):
            network(audio[:, start : start + chunk])
    return peak_bytes() - before


def chunks(said: Callable[[str], None]) -> Measured:
    """Run the experiment."""
    found: list[Finding] = []
    for how, name in (("at-once", "at once"), ("chunks", "by chunks")):
        said(f"memory {name}")
        short, long = (_least(f"wav2vec2 {how} {length}") for length in LENGTHS)
        found.append(
            Finding(
                measure=f"memory {name}, 4 × the length over 1 ×",
                value=long / max(short, 1),
                detail=f"wav2vec2-nano, {LENGTHS[1]} s over {LENGTHS[0]} s: "
                f"{long / 1e6:.0f} MB over {short / 1e6:.0f} MB beyond weights and input"
                + (f", chunks of {CHUNK_S} s" if how == "chunks" else ""),
            )
        )
    for how in ("plain", "fused"):
        said(f"attention, {how}")
        small, large = (_least(f"attention {how} {size}") for size in POSITIONS)
        exponent = math.log(max(large, 1) / max(small, 1)) / math.log(POSITIONS[1] / POSITIONS[0])
        found.append(
            Finding(
                measure=f"exponent of {how} attention's memory",
                value=exponent,
                unit="number",
                detail=f"{POSITIONS[0]} and {POSITIONS[1]} positions, {HEADS} heads of {WIDTH}: "
                f"{small / 1e6:.1f} and {large / 1e6:.1f} MB, PyTorch",
            )
        )
    said("speech")
    return Measured((*found, *_speech()))


def _least(work: str) -> int:
    return min(memory_of(work) for _ in range(ATTEMPTS))


def _speech() -> list[Finding]:
    """Return the share of speech in conversations, and the share of frames that a stream changes.

    The stream hears chunks with 0.5 s of context instead of whole recordings.
    """
    model, session = opened("silero-vad@pretrained/cpu-torch/fp32")
    items = recordings("conversations", model.sample_rate)
    speech = seconds = 0.0
    different: list[float] = []
    frames: list[float] = []
    for item in items:
        (whole,) = model.run(session, [item], Stopwatch())
        speech += sum(end - start for start, end in whole["segments"])
        seconds += item.seconds
        decided = np.asarray(whole["probabilities"]) >= 0.5
        streamed: list[np.ndarray] = []
        for start in range(0, len(item.audio), CHUNK):
            context = min(CONTEXT, start)
            part = item.with_audio(item.audio[start - context : start + CHUNK])
            (heard,) = model.run(session, [part], Stopwatch())
            streamed.append(np.asarray(heard["probabilities"])[context // FRAME :] >= 0.5)
        joined = np.concatenate(streamed)
        both = min(len(joined), len(decided))
        different.append(float((joined[:both] != decided[:both]).sum()))
        frames.append(float(both))
    session.close()
    detail = f"silero-vad, {len(items)} conversations of {seconds:.0f} s in all"
    return [
        Finding(
            measure="share of conversations that is speech",
            value=speech / seconds,
            unit="share",
            detail=detail,
        ),
        Finding(
            measure="frames of speech that differ with 0.5 s of context",
            value=sum(different) / sum(frames),
            interval=ratio_interval(different, frames),
            unit="share",
            detail=f"{sum(different):g} of {sum(frames):g} frames, chunks of 2 s; {detail}",
        ),
    ]


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return chunks(said)


EXPERIMENT = Experiment(
    "how does memory grow with length, and what do chunks change?",
    _run,
    no_arguments,
    "compat experiment chunks --save",
)

if __name__ == "__main__":
    print(main(sys.argv[1:]))
