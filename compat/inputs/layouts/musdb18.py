"""MUSDB18-HQ: a folder for each song with ``mixture.wav``, ``drums.wav`` and the other stems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compat.inputs.audio import CorpusError
from compat.inputs.layouts.layout import Entry, Layout, Part, plain_name

MIXTURE = "mixture.wav"
STEMS = ("drums", "bass", "other", "vocals")
PACKED = ".stem.mp4"


def claims(path: Path) -> bool:
    """Return whether a path has this form."""
    return path.is_dir() and bool(_songs(path) or _packed(path))


def read(path: Path, corpus: Path) -> Sequence[Part]:
    """Read the test sets of a path that was claimed."""
    if packed := _packed(path):
        raise CorpusError(
            f"{packed[0]} holds five streams in one MP4 file, which libsndfile does not read. Take "
            "MUSDB18-HQ, or convert the folder with musdbconvert of the package musdb."
        )
    entries = []
    for song in _songs(path):
        below = "" if song == path else f"{song.name}/"
        fields = {
            "id": plain_name(song.name),
            "audio_filepath": f"{below}{MIXTURE}",
            "stems": {stem: f"{below}{stem}.wav" for stem in STEMS},
        }
        entries.append(Entry(str(song), fields))
    return [Part(path, entries)]


def _songs(path: Path) -> list[Path]:
    """Return the folders with a mixture and a stem, among the path and the folders in it."""
    folders = [path, *(one for one in sorted(path.iterdir()) if one.name[0] != ".")]
    return [
        folder
        for folder in folders
        if (folder / MIXTURE).is_file()
        and any((folder / f"{stem}.wav").is_file() for stem in STEMS)
    ]


def _packed(path: Path) -> list[Path]:
    return sorted(one for one in path.glob(f"*{PACKED}") if one.name[0] != ".")


LAYOUT = Layout("MUSDB18", claims, read)
