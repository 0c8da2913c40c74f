"""The experiment ``decoding``: the cost of reading MP3, Opus, FLAC and WAV."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from compat.experiments.experiment import Experiment, rounds_argument
from compat.experiments.measures import Measured, in_turns, quotient, recordings

SECONDS = 60
FORMATS = {
    "WAV": ("wav", "WAV", "PCM_16"),
    "FLAC": ("flac", "FLAC", "PCM_16"),
    "MP3": ("mp3", "MP3", "MPEG_LAYER_III"),
    "Opus": ("opus", "OGG", "OPUS"),
}


def decoding(rounds: int, said: Callable[[str], None]) -> Measured:
    """Run the experiment: decode a minute of speech, 48 kHz mono, from a file to float32."""
    import soundfile

    speech = np.concatenate([one.audio for one in recordings("conversations", 48_000, 4)])
    audio = np.tile(speech, -(-SECONDS * 48_000 // len(speech)))[: SECONDS * 48_000]
    with tempfile.TemporaryDirectory(prefix="compat-") as folder:
        paths = {}
        for name, (ending, container, subtype) in FORMATS.items():
            paths[name] = Path(folder) / f"speech.{ending}"
            soundfile.write(paths[name], audio, 48_000, format=container, subtype=subtype)

        def contender(path: Path) -> Callable[[int], None]:
            def work(number: int) -> None:
                soundfile.read(path, dtype="float32")

            return work

        seconds = in_turns({name: contender(path) for name, path in paths.items()}, rounds, said)
        sizes = {name: path.stat().st_size for name, path in paths.items()}
    detail = "; ".join(
        f"{name} {median(taken) * 1e3:.3g} ms a minute, {sizes[name] / 1e6:.1f} MB"
        for name, taken in seconds.items()
    )
    pairs = [("MP3", "WAV"), ("MP3", "FLAC"), ("Opus", "WAV"), ("FLAC", "WAV")]
    return Measured(
        tuple(quotient(f"{a} over {b}", seconds[a], seconds[b], detail) for a, b in pairs)
    )


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return decoding(arguments.rounds, said)


EXPERIMENT = Experiment(
    "does decoding MP3 cost more than WAV and FLAC?",
    _run,
    rounds_argument(12),
    "compat experiment decoding --rounds 12 --save",
)
