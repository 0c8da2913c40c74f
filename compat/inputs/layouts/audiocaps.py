"""AudioCaps: ``test.csv`` with ``youtube_id``, ``start_time`` and ``caption``, and audio files.

Clips have no fixed names, and some can no longer be downloaded. So each clip is looked for under
its usual names below the folder, and rows without a clip are left out.
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
    """Return the lists of captions in a folder by name; a path that is a list is the only one."""
    paths = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    return {one.stem: one for one in paths if set(COLUMNS) <= set(beginning(one).split(","))}


def _part(path: Path, split: str) -> Part:
    folder = path.parent
    audio = {one.stem: one for one in files(folder, AUDIO)}
    # If several folders hold a clip, the one in the folder of this part is taken.
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
    """Return the possible names, without ending, of a row's audio file."""
    video = row["youtube_id"].strip()
    number = row.get(IDENTIFIER, "").strip()
    return [clip, video, f"Y{video}", *([number] if number else [])]


LAYOUT = Layout("AudioCaps", claims, read)
