"""Find published checkpoints: in fetched packages, and in the hub's local cache."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

from compat.contract.errors import CompatError
from compat.inputs import packages

PACKAGE = "package:"
"""Prefix of the name of a checkpoint that comes inside a Python distribution."""


AGAIN = "compat fetch --all --again"
"""Command that restores fetched files that are damaged or missing."""


class CheckpointError(CompatError):
    """A checkpoint cannot be used; the message names the file and the remedy."""


def package_folder(name: str) -> Path:
    """Return the folder of an installed distribution's files without importing it.

    Args:
        name: ``package:distribution/folder``, such as ``package:silero-vad/silero_vad/data``.

    Raises:
        CheckpointError: the distribution is neither fetched nor installed.
    """
    distribution, _, folder = name.removeprefix(PACKAGE).partition("/")
    try:
        found = Path(str(metadata.distribution(distribution).locate_file(folder)))
    except metadata.PackageNotFoundError:
        found = None
    if found is None or not found.is_dir():
        raise CheckpointError(
            f"the weights inside the package {distribution} are not here", fetching(name)
        )
    return found


def verified(path: Path, sha256: str) -> Path:
    """Return a file after checking its SHA-256, because it comes from outside the project.

    Raises:
        CheckpointError: the file is missing, or is not the one that was reviewed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: {AGAIN}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise CheckpointError(
            f"{path} is not the file that this project knows (sha256 {found[:12]}…, expected "
            f"{sha256[:12]}…): {AGAIN}"
        )
    return path


def fetching(name: str) -> str:
    """Return the command that fetches a checkpoint's package; empty if no package holds it."""
    package = packages.holder(name)
    return package.remedy if package else ""


def find_checkpoint(name: str, download: bool = False) -> Path:
    """Return the folder of a published checkpoint.

    A fetched package comes first, because its hash is pinned. An installed package comes next, then
    the hub's local cache, which may hold any revision.

    Args:
        name: a hub id such as ``openai/whisper-tiny``, or ``package:distribution/folder``.
        download: whether the checkpoint may be downloaded from the hub if it is not there.

    Raises:
        CheckpointError: the checkpoint is not here, or cannot be downloaded.
    """
    if fetched := packages.folder_of(name):
        return fetched
    if name.startswith(PACKAGE):
        return package_folder(name)
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            "the package huggingface_hub is missing: pip install huggingface_hub"
        ) from error
    patterns = ["*.json", "*.safetensors", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=not download))
    except Exception as error:
        raise CheckpointError(
            f"no checkpoint {name} in the local cache ({type(error).__name__})",
            fetching(name) or "name a folder with --checkpoint, or fetch it with --download",
        ) from error
