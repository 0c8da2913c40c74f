"""Migrations of results files: each function rewrites a line of an older schema in the next.

Every reader migrates as it reads, and ``compat publish`` writes published files in the current
schema. A new schema is a function here and its line in :data:`MIGRATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

SCHEMA_VERSION = 2

Tree = dict[str, Any]
"""One decoded JSON line. It may have any form, since files come from anywhere."""


def one_form_of_rows(line: Tree) -> Tree:
    """Migrate a line from schema 1: headers get ``own``, and all rows of predictions one form.

    The oldest rows hold the truth as a text, and the fields of the prediction beside it. They lack
    the length of their audio, which stays absent because it cannot be known later.
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
"""For each older schema, the function that rewrites its lines in the next schema."""


def migrated(line: Any, schema: Any) -> Any:
    """Return a line rewritten from ``schema`` to the current one; a current line stays as it is."""
    while isinstance(line, dict) and isinstance(schema, int) and schema in MIGRATIONS:
        line = MIGRATIONS[schema](line)
        schema += 1
        if line.get("kind") == "run":
            line = {**line, "schema": schema}
    return line


def schema_of(line: Any, before: Any) -> Any:
    """Return the schema of a line: that of a header is its own, that of others is ``before``."""
    is_header = isinstance(line, dict) and line.get("kind") == "run"
    return line.get("schema") if is_header else before


def in_current_schema(data: bytes) -> bytes:
    """Return the content of a results file in the current schema.

    Lines that cannot be read or need no change keep their bytes. A copy that is the beginning of
    another therefore still is afterwards.
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
