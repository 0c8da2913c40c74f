"""Packages that hold published weights, and their folders in the user's cache.

``fixtures/packages.toml`` lists the packages. :mod:`compat.inputs.fetching` fetches one; afterwards
:func:`folder_of` returns the folder of a checkpoint in it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from email.parser import HeaderParser
from functools import cache
from pathlib import Path

import msgspec

from compat.contract.errors import CompatError
from compat.contract.places import FIXTURES

TABLE = FIXTURES / "packages.toml"
CACHE = "COMPAT_PACKAGES"
"""Environment variable that names the folder of fetched packages, in place of the user's cache."""


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One pinned archive. ``fixtures/packages.toml`` describes each field."""

    name: str
    distribution: str
    version: str
    archive: str
    sha256: str
    bytes: int
    files: tuple[str, ...]
    licence: str
    gives: str
    checkpoints: Mapping[str, str] = {}

    @property
    def folder(self) -> Path:
        """Folder of the package's files; it exists only if the package was fetched whole."""
        return packages_folder() / f"{self.name}-{self.version}-{self.sha256[:12]}"

    @property
    def here(self) -> bool:
        return self.folder.is_dir()

    @property
    def remedy(self) -> str:
        """Command that fetches the package."""
        return f"compat fetch {self.name}"


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    package: tuple[Package, ...] = ()


def packages_folder() -> Path:
    """Return the folder of fetched packages: ``$COMPAT_PACKAGES``, else one in the user's cache.

    It is not part of the cache of derived files, which a person may clear at any time.
    """
    import platformdirs

    named = os.environ.get(CACHE)
    return Path(named) if named else Path(platformdirs.user_cache_dir("compat-packages"))


@cache
def known(table: Path = TABLE) -> tuple[Package, ...]:
    """Return every package of a table.

    Raises:
        CompatError: the table cannot be read.
    """
    try:
        return msgspec.toml.decode(table.read_bytes(), type=_Table).package
    except (OSError, msgspec.MsgspecError) as error:
        raise CompatError(f"cannot read the packages in {table}: {error}.") from error


def holder(checkpoint: str) -> Package | None:
    """Return the package that holds a checkpoint; None if no package does.

    Args:
        checkpoint: the checkpoint's name in a variant, such as ``openai/whisper-tiny.en``.
    """
    return next((package for package in known() if checkpoint in package.checkpoints), None)


def folder_of(checkpoint: str) -> Path | None:
    """Return the folder of a checkpoint whose package was fetched; None if it was not."""
    package = holder(checkpoint)
    if package is None or not package.here:
        return None
    return package.folder / package.checkpoints[checkpoint]


def stated_licence(folder: Path) -> str:
    """Return the licence in the metadata of a fetched package; empty if they state none."""
    metadata = [*folder.glob("*.dist-info/METADATA"), *folder.glob("PKG-INFO")]
    if not metadata:
        return ""
    fields = HeaderParser().parsestr(metadata[0].read_text(encoding="utf-8", errors="replace"))
    for name in ("License-Expression", "License"):
        # Old tools wrote UNKNOWN, or the whole text of the licence.
        stated = str(fields.get(name, "")).strip()
        if stated and stated != "UNKNOWN" and "\n" not in stated:
            return stated
    classified = [str(line) for line in fields.get_all("Classifier", [])]
    licences = [line.rpartition(" :: ")[2] for line in classified if line.startswith("License ::")]
    return ", ".join(licences)
