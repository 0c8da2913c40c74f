"""LJSpeech: ``metadata.csv`` with ``id|text|text in words``, and ``wavs/``; usual for one voice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compat.inputs.audio import CorpusError
from compat.inputs.layouts.layout import Entry, Layout, Part
from compat.inputs.text import beginning, raw_lines

METADATA = "metadata.csv"
WAVS = "wavs"


def claims(path: Path) -> bool:
    """Return whether a path has this form."""
    folder = path if path.is_dir() else path.parent
    metadata = folder / METADATA if path.is_dir() else path
    return metadata.name == METADATA and (folder / WAVS).is_dir() and "|" in beginning(metadata)


def read(path: Path, corpus: Path) -> Sequence[Part]:
    """Read the test sets of a path that was claimed."""
    folder = path if path.is_dir() else path.parent
    metadata = folder / METADATA
    entries = []
    for number, line in raw_lines(metadata):
        where = f"{metadata}:{number}"
        identifier, *texts = (field.strip() for field in line.split("|"))
        if len(texts) not in (1, 2):
            raise CorpusError(
                f"{where}: {1 + len(texts)} fields instead of 2 or 3 with | between them: the id, "
                "the text, and the text in words. Correct or remove the line."
            )
        # The last field has numbers and abbreviations written out, as they were spoken.
        text = next((text for text in reversed(texts) if text), "")
        if not text:
            raise CorpusError(f"{where}: {identifier} has no text. Correct or remove the line.")
        name = identifier if identifier.lower().endswith(".wav") else f"{identifier}.wav"
        fields = {
            "id": identifier.removesuffix(".wav"),
            "audio_filepath": f"{WAVS}/{name}",
            "text": text,
        }
        entries.append(Entry(where, fields))
    return [Part(folder, entries)]


LAYOUT = Layout("LJSpeech", claims, read)
