"""Older schemas of results files: what a line of each says in the words of the next.

Every reader migrates as it reads, and ``compat publish`` writes what it keeps in the current
schema. A new schema is a function here and its line in :data:`MIGRATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

SCHEMA_VERSION = 2

Tree = dict[str, Any]
"""A line as JSON has it: of any form, since files come from anywhere."""


def one_form_of_rows(line: Tree) -> Tree:
    """From schema 1: every header names its own inputs, every row of predictions has one form.

    The oldest rows hold the truth as a text, and the fields of the prediction beside it. They lack
    the length of their audio, which cannot be known later, so that none is made up.
    """
    if line.get("kind") == "run":
        return {**line, "own": line.get("own", [])}
    rows = line.get("predictions")
    if not isinstance(rows, list) or not any(_is_flat(row) for row in rows):
        return line
    return {**line, "predictions": [_nested(row) if _is_flat(row) else row for row in rows]}


def _is_flat(row: Any) -> bool:
    return isinstance(row, dict) and "prediction" not in row and isinstance(row.get("truth"), str)


def _nested(row: Tree) -> Tree:
    about: Tree = {key: row[key] for key in ("set", "item") if key in row}
    said = {key: value for key, value in row.items() if key not in ("set", "item", "truth")}
    return {**about, "truth": {"text": row["truth"]}, "prediction": said}


MIGRATIONS: Mapping[int, Callable[[Tree], Tree]] = MappingProxyType({1: one_form_of_rows})
"""Schema to the function that makes a line of the next of it."""


def migrated(line: Any, schema: Any) -> Any:
    """Return a line of a file of some schema as the current one has it; others as they are."""
    while isinstance(line, dict) and isinstance(schema, int) and schema in MIGRATIONS:
        line = MIGRATIONS[schema](line)
        schema += 1
        if line.get("kind") == "run":
            line = {**line, "schema": schema}
    return line


def schema_of(line: Any, before: Any) -> Any:
    """Return the schema of a line: a header says its own, others have that of the one before."""
    is_header = isinstance(line, dict) and line.get("kind") == "run"
    return line.get("schema") if is_header else before


def in_current_schema(data: bytes) -> bytes:
    """Return the content of a results file in the current schema.

    Lines that cannot be read, and those that say the same in it, keep their bytes: of two copies of
    which one begins with the other the same is true afterwards.
    """
    schema: Any = SCHEMA_VERSION
    lines = data.splitlines(keepends=True)
    for number, text in enumerate(lines):
        if schema == SCHEMA_VERSION and not text.lstrip().startswith(b'{"kind":"run"'):
            continue
        try:
            line = msgspec.json.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        schema = schema_of(line, schema)
        new = migrated(line, schema)
        if new != line:
            end = text[len(text.rstrip(b"\r\n")) :]
            lines[number] = msgspec.json.encode(new) + end
    return b"".join(lines)
