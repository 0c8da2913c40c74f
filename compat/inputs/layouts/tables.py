"""Read tables in text files, comma- or tab-separated, and report their usual damage."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compat.inputs.audio import CorpusError
from compat.inputs.layouts.checking import TARGET, TRANSLATION
from compat.inputs.layouts.layout import Entry, plain_name
from compat.inputs.text import raw_lines, read_text

TEXTS = (
    *("text", "sentence", "transcription", "transcript", "normalized_text", "normalized_sentence"),
    *("raw_transcription", "raw_text"),
)
"""Names of the column with the spoken text, the usual ones first."""
LANGUAGES = ("lang", "locale", "language")
SPEAKERS = ("speaker", "speaker_id", "client_id")
LABELS = ("label", "category", "class")
CAPTIONS = ("caption",)
TRANSLATIONS = ("translation",)
TARGETS = ("target_lang", "tgt_lang", "target_language")
COLUMNS = (*TEXTS, *LANGUAGES, *SPEAKERS, *LABELS, *CAPTIONS, *TRANSLATIONS, *TARGETS)


def unquoted_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the place (file and line) of each row of a tab-separated file, and its fields by name.

    Nothing is quoted, so quotation marks are part of a text.

    Raises:
        CorpusError: the header lacks a name, or a row has another number of fields.
    """
    lines = raw_lines(path)
    header = [name.strip() for name in next(lines, (0, ""))[1].split("\t")]
    _check_header(path, header, needed, "tabs")
    for number, text in lines:
        fields = text.split("\t")
        if len(fields) != len(header):
            raise CorpusError(
                f"{path}:{number}: {len(fields)} fields where the header has {len(header)}: a tab "
                "inside a text, or a line that was cut. Correct or remove the line."
            )
        yield f"{path}:{number}", dict(zip(header, fields, strict=True))


def quoted_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the place of each row of a comma-separated file, and its fields by name.

    Texts may be quoted, and have several lines.

    Raises:
        CorpusError: as :func:`unquoted_rows`, or the quoting is broken.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header, needed, "commas")
        for fields in reader:
            where = f"{path}:{reader.line_num}"
            if not fields:
                continue
            if len(fields) != len(header):
                raise CorpusError(
                    f"{where}: {len(fields)} fields where the header has {len(header)}: put "
                    "quotation marks around a text with commas in it."
                )
            yield where, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise CorpusError(
            f"{path}:{reader.line_num}: {error}. Correct the quotation marks."
        ) from error


def json_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the object of each line of a JSON Lines file.

    Raises:
        CorpusError: a line is no object, or lacks a name.
    """
    for number, text in raw_lines(path):
        where = f"{path}:{number}"
        try:
            row = dict(json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            raise CorpusError(f"{where}: {error}. Correct or remove the line.") from error
        missing = [name for name in needed if name not in row]
        if missing:
            raise CorpusError(f"{where}: no {missing[0]!r}. Correct or remove the line.")
        yield where, row


def _check_header(path: Path, header: Sequence[str], needed: Sequence[str], between: str) -> None:
    missing = [name for name in needed if name not in header]
    if missing:
        raise CorpusError(
            f"{path}: the first line names no column {missing[0]!r}, but "
            f"{', '.join(header)[:120]}. Restore the header, with {between} between "
            f"{', '.join(needed)} and the others."
        )


def known(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the known fields of a data set's row, under a manifest's names such as ``text``."""
    fields: dict[str, str] = {}
    for name, columns in (
        ("text", TEXTS),
        ("lang", LANGUAGES),
        ("speaker", SPEAKERS),
        ("label", LABELS),
        ("caption", CAPTIONS),
        (TRANSLATION, TRANSLATIONS),
        (TARGET, TARGETS),
    ):
        for column in columns:
            # Numbers are skipped: they stand for classes whose names are not in the table.
            if isinstance(row.get(column), str):
                fields[name] = row[column].strip()
                break
    return fields


def labelled(
    path: Path, columns: Sequence[str], audio: Callable[[Mapping[str, str]], str]
) -> list[Entry]:
    """Return the recordings of a comma-separated table that gives each a class.

    Args:
        path: the table.
        columns: the names that the header must have, first the file's and the class's.
        audio: returns the path of a row's recording in the corpus.

    Raises:
        CorpusError: as :func:`quoted_rows`, a row lacks a field, or the table has no rows.
    """
    entries = []
    file, label, *_ = columns
    for where, row in quoted_rows(path, columns):
        if empty := [name for name in columns if not row[name].strip()]:
            raise CorpusError(f"{where}: no {empty[0]}. Correct or remove the line.")
        fields = {
            "id": plain_name(row[file]),
            "audio_filepath": audio(row),
            "label": row[label].strip(),
        }
        entries.append(Entry(where, fields))
    if not entries:
        raise CorpusError(f"{path} lists no recordings: restore it.")
    return entries
