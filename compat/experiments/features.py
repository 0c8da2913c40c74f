"""The experiment ``features``: does it pay to keep features, or to compute them on the device?

On the device, log-mels are computed by a PyTorch module as a graph would compute them: by a
convolution with a Fourier basis and a product with the filters. The device is the first GPU, else
the processor.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from compat.contract.graph import Stopwatch
from compat.experiments.experiment import Experiment, rounds_argument
from compat.experiments.measures import Measured, in_turns, opened, quotient, recordings, yes
from compat.hardware.facts import available_cpus
from compat.inputs.features import HOP_LENGTH, N_FFT, mel_filterbank
from compat.judge.experiments import Finding

CASE = "whisper-tiny.en@pretrained/cpu-onnxruntime/fp32"
SENTENCES = "clap-htsat-unfused@seeded/cpu-onnxruntime/fp32"
"""Case that embeds sentences. It has the published size and generated weights, because the cost of
a sentence does not depend on the weights."""

TASKS = 4
"""Rounds of the whole task, which takes a second, for each round of the rest."""


def mel_module(mels: int, samples: int) -> Any:
    """Return Whisper's log-mel as a module: (batch, samples) to (batch, mels, samples // 160)."""
    import torch

    time = np.arange(N_FFT)
    angles = 2 * np.pi * np.outer(np.arange(N_FFT // 2 + 1), time) / N_FFT
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * time / N_FFT)
    basis = np.concatenate([np.cos(angles), np.sin(angles)]) * hann

    class Mel(torch.nn.Module):
        basis: torch.Tensor
        filters: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("basis", torch.tensor(basis[:, None], dtype=torch.float32))
            filters = torch.tensor(mel_filterbank(mels).T.copy(), dtype=torch.float32)
            self.register_buffer("filters", filters)

        def forward(self, audio: torch.Tensor) -> torch.Tensor:
            f = torch.nn.functional
            padded = f.pad(audio[:, None], (N_FFT // 2, N_FFT // 2), mode="reflect")
            real, imaginary = f.conv1d(padded, self.basis, stride=HOP_LENGTH).chunk(2, dim=1)
            power = (real**2 + imaginary**2)[..., : samples // HOP_LENGTH]
            log = (self.filters @ power).clamp(min=1e-10).log10()
            log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0)
            return (log + 4.0) / 4.0

    return Mel()


def features(rounds: int, said: Callable[[str], None]) -> Measured:
    """Run the experiment: time the whole task with log-mels computed, kept, or from the device."""
    model, session = opened(CASE)
    items = recordings("clean", model.sample_rate, 8)
    compute = model.padded_mel
    kept: dict[bytes, np.ndarray] = {}
    answers: dict[str, list[Any]] = {"anew": [], "cached": []}

    def remembered(chunks: Any, batch: int) -> np.ndarray:
        key = b"".join(np.ascontiguousarray(chunk).tobytes() for chunk in chunks)
        if key not in kept:
            kept[key] = compute(chunks, batch)
        return kept[key]

    for item in items:
        model.padded_mel = remembered
        model.run(session, [item], Stopwatch())
    same = all(
        np.array_equal(mel, compute([np.frombuffer(key, np.float32)], 1))
        for key, mel in kept.items()
    )

    def contender(name: str, mel: Callable[..., np.ndarray]) -> Callable[[int], None]:
        def work(number: int) -> None:
            model.padded_mel = mel
            item = items[number % len(items)]
            answers[name].append(model.run(session, [item], Stopwatch()))

        return work

    contenders = {"anew": contender("anew", compute), "cached": contender("cached", remembered)}
    on_device, device = _on_device(model)
    graph = contender("graph", on_device)
    answers["graph"] = []
    # What is saved is little, and near the claim: many short rounds tell more than a few long ones.
    seconds = in_turns(contenders | {"graph": graph}, TASKS * rounds, said)
    padded = [one.audio for one in items]
    extract = in_turns(
        {
            "host": lambda number: compute(padded[:4], 4),
            "graph": lambda number: on_device(padded[:4], 4),
        },
        rounds,
        said,
    )
    apart = float(np.abs(compute(padded, 8) - on_device(padded, 8)).max())
    session.close()
    same = same and answers["anew"] == answers["cached"]
    detail = f"{CASE}, {len(kept)} inputs"
    by_graph = f"log-mels by PyTorch on {device}, in float32; {detail}"
    said(SENTENCES)
    return Measured(
        (
            *sentences(rounds, said),
            yes(
                "mels by a graph give the same transcripts",
                [[one["text"] for one in answer] for answer in answers["graph"]]
                == [[one["text"] for one in answer] for answer in answers["anew"]],
                f"log-mels at most {apart:.2g} apart; {by_graph}",
            ),
            quotient(
                "time of mels by a graph over the host's",
                extract["graph"],
                extract["host"],
                by_graph,
            ),
            quotient(
                "task with mels by a graph over the host's",
                seconds["graph"],
                seconds["anew"],
                by_graph,
            ),
            yes("a hit equals a miss", same, f"log-mels bit for bit and transcripts; {detail}"),
            quotient(
                "task with cached features over without", seconds["cached"], seconds["anew"], detail
            ),
        )
    )


def sentences(
    rounds: int, said: Callable[[str], None], case: str = SENTENCES
) -> tuple[Finding, ...]:
    """Time the comparison of sounds with sentences that are embedded anew, and with kept ones."""
    model, session = opened(case)
    items = recordings("sounds", model.sample_rate, 2)
    answers: dict[str, list[Any]] = {"anew": [], "kept": []}

    def contender(name: str) -> Callable[[int], None]:
        def work(number: int) -> None:
            if name == "anew":
                model.forget(session)
            answers[name].append(model.run(session, items, Stopwatch()))

        return work

    seconds = in_turns({name: contender(name) for name in answers}, rounds, said)
    session.close()
    same = all(
        np.array_equal(np.asarray(one[key]), np.asarray(other[key]))
        for before, after in zip(answers["anew"], answers["kept"], strict=True)
        for one, other in zip(before, after, strict=True)
        for key in one
    )
    detail = f"{case}, {len(items)} sounds, each against the sentences of its set"
    return (
        yes("kept embeddings of sentences give the same answers", same, f"bit for bit; {detail}"),
        quotient("task with kept sentences over without", seconds["kept"], seconds["anew"], detail),
    )


def _on_device(model: Any) -> tuple[Callable[..., np.ndarray], str]:
    """Return a function that computes log-mels on a device, like ``padded_mel``; and the device."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(available_cpus())
    size = model.dimensions
    module = mel_module(size.mels, size.window).eval().to(device)

    def mel(chunks: Any, batch: int) -> np.ndarray:
        # Rows without a window are zero, as on the host.
        found = np.zeros((batch, size.mels, size.source_positions * 2), np.float32)
        audio = np.zeros((len(chunks), size.window), np.float32)
        for row, chunk in enumerate(chunks):
            audio[row, : min(len(chunk), size.window)] = chunk[: size.window]
        with torch.inference_mode():
            found[: len(chunks)] = module(torch.from_numpy(audio).to(device)).cpu().numpy()
        return found

    return mel, device


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return features(arguments.rounds, said)


EXPERIMENT = Experiment(
    "does it pay to cache features, or to compute them on the device?",
    _run,
    rounds_argument(16),
    "compat experiment features --rounds 16 --save",
)
