"""AudioCaps: ``test.csv`` of a ``youtube_id``, a ``start_time`` and a ``caption``, and its audio.

Whoever fetches the clips names them as they like, and some are no longer to be had. So the audio is
looked for below the folder under the names that are usual, and clips without any are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from compat.inputs.audio import AUDIO, CorpusError
from compat.inputs.layouts import tables
from compat.inputs.layouts.layout import Entry, Layout, Part, evaluated, files
from compat.inputs.text import beginning

COLUMNS = ("youtube_id", "start_time", "caption")
IDENTIFIER = "audiocap_id"


def claims(path: Path) -> bool:
    """Return whether a path has this form."""
    return bool(_lists(path))


def read(path: Path, corpus: Path) -> Sequence[Part]:
    """Read the test sets of a path that was claimed."""
    found = _lists(path)
    if path.is_file():
        return [_part(path, "")]
    return [_part(found[split], split) for split in evaluated(list(found))]


def _lists(path: Path) -> dict[str, Path]:
    """Return the lists of captions in a folder by their names, or a file that is one."""
    paths = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    return {one.stem: one for one in paths if set(COLUMNS) <= set(beginning(one).split(","))}


def _part(path: Path, split: str) -> Part:
    folder = path.parent
    audio = {one.stem: one for one in files(folder, AUDIO)}
    # Of a clip in several folders, the part's own holds the one that is meant.
    audio |= {one.stem: one for one in files(folder / path.stem, AUDIO)}
    said: dict[str, tuple[str, list[str]]] = {}
    names: dict[str, Path] = {}
    missing = ""
    for where, row in tables.quoted_rows(path, COLUMNS):
        caption = row["caption"].strip()
        if not caption:
            raise CorpusError(f"{where}: a row without caption. Correct or remove the line.")
        clip = f"{row['youtube_id'].strip()}_{row['start_time'].strip()}"
        said.setdefault(clip, (where, []))[1].append(caption)
        stems = _stems(row, clip)
        for stem in stems:
            if stem in audio:
                names.setdefault(clip, audio[stem])
        missing = missing or f"{where}: no audio file {' or '.join(stems)}"
    if not names:
        raise CorpusError(
            f"{missing or f'{path} names no clips'} ({', '.join(AUDIO)}) is below {folder}, nor "
            "any other that the table names. Put the audio into that folder."
        )
    entries = []
    for clip, (where, captions) in said.items():
        if clip in names:
            fields = {
                "id": clip,
                "audio_filepath": names[clip].relative_to(folder).as_posix(),
                "caption": captions[0] if len(captions) == 1 else captions,
            }
            entries.append(Entry(where, fields))
    return Part(folder, entries, split)


def _stems(row: Mapping[str, str], clip: str) -> list[str]:
    """Return the names, without ending, that the audio of a row may have."""
    video = row["youtube_id"].strip()
    number = row.get(IDENTIFIER, "").strip()
    return [clip, video, f"Y{video}", *([number] if number else [])]


LAYOUT = Layout("AudioCaps", claims, read)
