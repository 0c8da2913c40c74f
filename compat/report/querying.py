"""Query results with DuckDB: an in-memory database of :mod:`compat.report.relations`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from compat.contract.errors import CompatError
from compat.report.relation_rows import Row
from compat.report.relations import RELATIONS

REMEDY = "pip install 'audio-compat[query]'"
_AT_ONCE = 2_000
"""Rows that are collected before they are written to disk."""


def database(found: Mapping[str, Iterable[Row]], parquet: Iterable[Path] = ()) -> Any:
    """Return a DuckDB connection in which every relation is a table.

    Args:
        found: rows by relation.
        parquet: folders that :func:`export` wrote; their rows are added.

    Raises:
        CompatError: DuckDB is absent, or a Parquet file is not one of :func:`export`.
    """
    duckdb = _duckdb()
    connection = duckdb.connect(":memory:")
    with tempfile.TemporaryDirectory(prefix="compat-query-") as folder:
        for name, relation in RELATIONS.items():
            path = Path(folder, f"{name}.json")
            _write(path, found.get(name, ()))
            columns = ", ".join(f"{column}: '{kind}'" for column, kind in relation.columns.items())
            # Names and types are this module's own, and the path is a fresh one.
            connection.execute(
                f"CREATE TABLE {name} AS SELECT * FROM read_json(?, format = 'newline_delimited', "  # noqa: S608
                f"columns = {{{columns}}}, maximum_object_size = 134217728)",
                [str(path)],
            )
    for place in parquet:
        _add(connection, place)
    return connection


def _write(path: Path, rows: Iterable[Row]) -> None:
    encoder = msgspec.json.Encoder()
    with path.open("wb") as file:
        buffer: list[bytes] = []
        for row in rows:
            buffer.append(encoder.encode(row))
            if len(buffer) >= _AT_ONCE:
                file.write(b"\n".join(buffer) + b"\n")
                buffer.clear()
        file.write(b"\n".join(buffer) + b"\n" if buffer else b"")


def _add(connection: Any, folder: Path) -> None:
    duckdb = _duckdb()
    for name, relation in RELATIONS.items():
        path = folder / f"{name}.parquet"
        if not path.exists():
            continue
        columns = ", ".join(f"{c}::{kind} AS {c}" for c, kind in relation.columns.items())
        try:
            connection.execute(
                f"INSERT INTO {name} SELECT {columns} FROM read_parquet(?)",  # noqa: S608
                [str(path)],
            )
        except duckdb.Error as error:
            raise CompatError(
                f"{path} is no relation of results: {str(error).splitlines()[0]}",
                "Write it again with `compat query --export FOLDER RESULTS`.",
            ) from error


def is_export(folder: Path) -> bool:
    """Whether a folder is one that :func:`export` wrote."""
    return folder.is_dir() and (folder / "observations.parquet").is_file()


def export(connection: Any, folder: Path) -> list[Path]:
    """Write every relation as a Parquet file, and return their paths.

    Raises:
        CompatError: the folder cannot be written.
    """
    duckdb = _duckdb()
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in RELATIONS:
            path = folder / f"{name}.parquet"
            connection.table(name).write_parquet(str(path), compression="zstd")
            written.append(path)
    except (OSError, duckdb.Error) as error:
        raise CompatError(f"cannot write to {folder}: {error}.", "Name another folder.") from error
    return written


def ask(connection: Any, sql: str) -> tuple[list[str], list[str], list[tuple[Any, ...]]]:
    """Return the names and types of a query's columns, and its rows.

    Raises:
        CompatError: DuckDB rejects the query.
    """
    duckdb = _duckdb()
    try:
        answer = connection.execute(sql)
        described = answer.description or []
        return [d[0] for d in described], [str(d[1]) for d in described], answer.fetchall()
    except duckdb.Error as error:
        raise CompatError(
            str(error).strip(), "`compat query` without a query names the tables and columns."
        ) from error


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise CompatError("queries are answered by DuckDB, which is absent.", REMEDY) from error
    return duckdb
