"""Parquet: ``test-00000-of-00001.parquet``, in the folder or in ``data/``, with audio as bytes.

Only the audio of chosen rows is written to the cache, and is read from there like any other file.
Whole row groups are chosen, because a row cannot be read without its group.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from compat.contract.cache import CACHE, cache_folder
from compat.contract.digests import digest
from compat.inputs.audio import CorpusError
from compat.inputs.layouts import tables
from compat.inputs.layouts.choosing import MOST, rank
from compat.inputs.layouts.layout import Entry, Layout, Part, evaluated, files

ENDING = ".parquet"
AUDIO = "audio"
INSTALL = "pip install 'audio-compat[parquet]'"
VERSION = 1
"""Version of the files in the cache; it is raised when their form changes."""
KINDS = ((b"RIFF", ".wav"), (b"fLaC", ".flac"), (b"OggS", ".ogg"), (b"FORM", ".aiff"))
"""First bytes of a kind of file and its ending; all other files are taken for MP3."""


def claims(path: Path) -> bool:
    """Return whether a path has this form."""
    return bool(_tables(path))


def read(path: Path, corpus: Path) -> Sequence[Part]:
    """Read the test sets of a path that was claimed."""
    splits: dict[str, list[Path]] = {}
    for file in _tables(path):
        splits.setdefault(file.name.removesuffix(ENDING).split("-")[0], []).append(file)
    several = len(splits) > 1
    return [_part(split if several else "", splits[split]) for split in evaluated(list(splits))]


def _tables(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.name.lower().endswith(ENDING) else []
    return [*files(path, (ENDING,), 0)] or [*files(path / "data", (ENDING,), 0)]


def _part(split: str, sources: Sequence[Path]) -> Part:
    opened = [(path, _open(path)) for path in sources]
    total = sum(file.metadata.num_rows for _, file in opened)
    facts = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in sources]
    folder = cache_folder() / f"corpus-{digest([VERSION, MOST, facts])}"
    if not (folder / "artifact.json").is_file():
        _unpack(folder, opened, {"of": [path.name for path in sources]})
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [Entry(row.pop("where"), row) for row in map(json.loads, lines)]
    if not entries:
        raise CorpusError(f"{sources[0]} holds no recordings: restore it.")
    return Part(folder, entries, split, total=total)


def _open(path: Path) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise CorpusError(
            f"{path} is a Parquet file, and pyarrow, which reads it, is not installed: {INSTALL}"
        ) from error
    try:
        file = parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise CorpusError(f"cannot read {path}: {error}. Restore it.") from error
    if AUDIO not in file.schema_arrow.names:
        raise CorpusError(
            f"{path} has no column {AUDIO!r}, but {', '.join(file.schema_arrow.names)[:120]}. "
            "Rename the column of the recordings."
        )
    return file


def _unpack(folder: Path, opened: Sequence[tuple[Path, Any]], arguments: dict[str, Any]) -> None:
    """Write the audio and the fields of the chosen rows into a folder: all of them, or nothing."""
    part = folder.with_name(f"{folder.name}-{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        with (part / "rows.jsonl").open("w", encoding="utf-8") as rows:
            for number, (where, row) in enumerate(_rows(opened)):
                fields = _fields(part, number, where, row)
                rows.write(json.dumps({"where": where, **fields}) + "\n")
        facts = {"job": "corpus", "arguments": arguments}
        (part / "artifact.json").write_text(json.dumps(facts), encoding="utf-8")
        try:
            part.rename(folder)
        except OSError:  # Another process was faster.
            if not (folder / "artifact.json").is_file():
                raise
    except OSError as error:
        raise CorpusError(
            f"cannot write the recordings of {opened[0][0]} into {folder.parent}: "
            f"{error.strerror or error}. Free some space (`compat cache clear`) or name another "
            f"folder in ${CACHE}."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _rows(opened: Sequence[tuple[Path, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the fields of each chosen row.

    Row groups are taken in a fixed random order until they have :data:`MOST` rows.
    """
    import pyarrow

    groups = [
        (path, file, index)
        for path, file in opened
        for index in range(file.metadata.num_row_groups)
    ]
    chosen, count = [], 0
    for path, file, index in sorted(groups, key=lambda one: rank(f"{one[0].name}:{one[2]}")):
        if count < MOST:
            chosen.append((path, file, index))
            count += file.metadata.row_group(index).num_rows
    for path, file, index in sorted(chosen, key=lambda one: (one[0], one[2])):
        first = sum(file.metadata.row_group(before).num_rows for before in range(index))
        names = set(file.schema_arrow.names)
        columns = [AUDIO, *(n for n in tables.COLUMNS if n in names)]
        try:
            for batch in file.iter_batches(64, [index], columns):
                for row in batch.to_pylist():
                    first += 1
                    yield f"{path}, row {first}", row
        except (OSError, pyarrow.ArrowException) as error:
            raise CorpusError(
                f"cannot read {path}, row group {index}: {error}. Restore it."
            ) from error


def _fields(folder: Path, number: int, where: str, row: dict[str, Any]) -> dict[str, Any]:
    """Write the audio of a row into a folder, and return the fields of its entry."""
    audio = row[AUDIO]
    content = audio.get("bytes") if isinstance(audio, dict) else audio
    if not isinstance(content, bytes) or not content:
        raise CorpusError(
            f"{where}: the column {AUDIO!r} holds no bytes of an audio file. Save the data set "
            "with its audio embedded (Dataset.to_parquet does it for a column of the type Audio)."
        )
    ending = next((end for start, end in KINDS if content.startswith(start)), ".mp3")
    name = f"{number:06d}{ending}"
    (folder / name).write_bytes(content)
    return {**tables.known(row), "audio_filepath": name}


LAYOUT = Layout("Parquet", claims, read)
