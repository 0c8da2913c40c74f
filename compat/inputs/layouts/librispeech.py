"""LibriSpeech: ``test-clean/1089/134686/1089-134686.trans.txt``, with audio files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compat.inputs.audio import AUDIO, CorpusError
from compat.inputs.layouts.layout import Entry, Layout, Part, files
from compat.inputs.text import text_lines

ENDING = ".trans.txt"
GLOBS = (f"*{ENDING}", f"*/*{ENDING}", f"*/*/*{ENDING}")
"""Patterns of transcripts in the folder of a chapter, of a speaker, and of a part."""


def claims(path: Path) -> bool:
    """Return whether a path has this form."""
    return path.is_dir() and any(
        not found.name.startswith(".") for pattern in GLOBS for found in path.glob(pattern)
    )


def read(path: Path, corpus: Path) -> Sequence[Part]:
    """Read the test sets of a path that was claimed."""
    entries = []
    for transcripts in files(path, (ENDING,), 2):
        folder = transcripts.parent.relative_to(path)
        # LibriSpeech is FLAC, but copies of it are often WAV.
        beside = {p.stem: p.name for p in sorted(transcripts.parent.iterdir()) if _is_audio(p)}
        for number, line in text_lines(transcripts):
            where = f"{transcripts}:{number}"
            identifier, *words = line.split()
            if not words:
                raise CorpusError(f"{where}: {identifier} has no text. Restore the line.")
            fields = {
                "id": identifier,
                "audio_filepath": (
                    folder / beside.get(identifier, f"{identifier}.flac")
                ).as_posix(),
                "text": " ".join(words),
                "lang": "en",
                "speaker": identifier.partition("-")[0],
            }
            entries.append(Entry(where, fields))
    return [Part(path, entries)]


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in AUDIO and not path.name.startswith(".")


LAYOUT = Layout("LibriSpeech", claims, read)
