"""Which packages are installed, found without importing them."""

from __future__ import annotations

from importlib import import_module, metadata

from compat.contract.runtime import Probe


def installed(distribution: str, module: str, install: str) -> Probe | None:
    """Return why a package cannot be used, and the remedy; None if it can. Imports it."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return Probe("absent", f"{distribution} is not installed", install)
    try:
        import_module(module)
    except Exception as error:  # Whatever a loader or a version check may raise.
        reason = f"{distribution} does not import: {type(error).__name__}: {error}"
        return Probe("broken", reason, f"{install} --force-reinstall")
    return None
