"""TOML files of ``[[table]]`` entries that people write, with errors that name place and remedy."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compat.contract.errors import CompatError


@dataclass(frozen=True, slots=True)
class Format:
    """The format of one kind of file, and the words that its errors use."""

    name: str
    """Name of files and entries in errors, for instance ``threshold``."""
    table: str
    """Name of the TOML table of an entry."""
    required: tuple[str, ...]
    """Keys that every entry has, with texts that are not empty."""
    optional: tuple[str, ...]
    if_absent: str
    """Remedy where there is no such file."""
    if_broken: str
    """Remedy where a file is not valid TOML."""

    def read(self, path: Path) -> str:
        """Return the text of a file."""
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise CompatError(f"there is no {self.name}s file {path}.", self.if_absent) from error
        except (OSError, UnicodeDecodeError) as error:
            raise CompatError(f"cannot read {self.name}s from {path}: {error}.") from error

    def entries(self, path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each entry of a file's text, and where it stands for errors."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise CompatError(
                f"{path} is not valid TOML: {error}.", f"Correct that place{self.if_broken}"
            ) from error
        unknown = sorted(set(document) - {self.table})
        rows = document.get(self.table, [])
        if unknown or not isinstance(rows, list):
            raise CompatError(
                f"{path} has {', '.join(map(repr, unknown)) or self.table} at the top level; "
                f"only [[{self.table}]] entries belong there."
            )
        heading = re.compile(rf"\s*\[\[\s*{self.table}\s*\]\]")
        lines = [i for i, line in enumerate(text.splitlines(), 1) if heading.match(line)]
        for index, row in enumerate(rows):
            origin = f"{path}, entry {index + 1}"
            if len(lines) == len(rows):
                origin += f" (line {lines[index]})"
            self._check(origin, row)
            yield origin, row

    def _check(self, origin: str, row: Any) -> None:
        if not isinstance(row, dict):
            article = "an" if self.name[0] in "aeiou" else "a"
            raise CompatError(
                f"{origin}: {article} {self.name} is a table; write it under [[{self.table}]]."
            )
        known = (*self.required, *self.optional)
        for key in row:
            if key not in known:
                raise CompatError(f"{origin}: unknown key {key!r}. Known are {', '.join(known)}.")
        for key in self.required:
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise CompatError(f'{origin}: add {key} = "...", a text that is not empty.')
