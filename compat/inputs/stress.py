"""Make inputs that are hard on a backend: silence, noise, clipping, very short and very long ones.

The fixed list is ``fixtures/stress.toml``. Each entry describes how its audio is made, so that an
input that a search finds can be added to the list.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compat.contract.errors import CompatError
from compat.contract.item import Item
from compat.contract.places import FIXTURES

DEFAULT = FIXTURES / "stress.toml"
KINDS = ("speech", "silence", "noise", "tone", "impulse", "square")
SHORT = 10.0
"""Seconds of the longest input in a quick run."""


def load(paths: Sequence[Path] = (DEFAULT,)) -> list[dict[str, Any]]:
    """Read the ``[[input]]`` entries of files: name, kind, seconds, gain, offset and seed.

    Raises:
        CompatError: a file cannot be read, or an entry lacks a name or a known kind.
    """
    entries: list[dict[str, Any]] = []
    for path in paths:
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8")).get("input", [])
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise CompatError(f"cannot read {path}: {error}.", "Correct the file.") from error
        for number, entry in enumerate(found, 1):
            if entry.get("kind") not in KINDS or not isinstance(entry.get("name"), str):
                raise CompatError(
                    f"{path}: input {number} needs a name and a kind out of {', '.join(KINDS)}."
                )
            entries.append(entry)
    return entries


def plain(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first entry of silence and the first of noise.

    These suffice for generated weights, to which speech is a signal like any other.
    """
    found = {entry["kind"]: entry for entry in reversed(entries)}
    return [found[kind] for kind in ("silence", "noise") if kind in found] or list(entries[:1])


def make(entry: dict[str, Any], speech: Sequence[Item], rate: int) -> Item:
    """Make the audio of one entry.

    Args:
        entry: ``kind``, ``seconds``, and optionally ``gain`` (factor, clipped at full scale
            afterwards), ``offset`` (added), ``seed``.
        speech: utterances from which the kind ``speech`` is joined, one after the other. The result
            has as many channels as they have.
        rate: sampling rate in hertz.
    """
    seconds = float(entry.get("seconds", 2.0))
    count = max(1, round(seconds * rate))
    random = np.random.default_rng(int(entry.get("seed", 0)))
    text = ""
    time = np.arange(count) / rate
    match entry["kind"]:
        case "speech":
            first = int(entry.get("seed", 0)) % len(speech)
            parts: list[Item] = []
            while sum(part.audio.shape[-1] for part in parts) < count:
                parts.append(speech[(first + len(parts)) % len(speech)])
            whole = np.concatenate([part.audio for part in parts], axis=-1)
            if "seconds" in entry:
                samples = whole[..., :count]
                whole_parts = parts[:-1] if whole.shape[-1] > count else parts
            else:
                samples, whole_parts = parts[0].audio, parts[:1]
            text = " ".join(part.text for part in whole_parts)
        case "silence":
            samples = np.zeros(count)
        case "noise":
            samples = random.standard_normal(count) * 0.1
        case "tone":
            samples = np.sin(2 * np.pi * float(entry.get("hertz", 440)) * time) * 0.5
        case "impulse":
            samples = np.zeros(count)
            samples[:: max(1, rate // 10)] = 1.0
        case _:
            samples = np.sign(np.sin(2 * np.pi * 100 * time))
    samples = samples * float(entry.get("gain", 1.0)) + float(entry.get("offset", 0.0))
    clipped = np.clip(samples, -1.0, 1.0).astype(np.float32)
    # Every channel has the same signal, for models that take more than one.
    shape = (*speech[0].audio.shape[:-1], clipped.shape[-1])
    clipped = np.ascontiguousarray(np.broadcast_to(clipped, shape))
    facts = {"text": text, "stress": dict(entry)}
    return Item.from_audio(f"stress-{entry['name']}", clipped, rate, facts)
