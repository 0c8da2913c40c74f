"""Check that a package is installed and imports."""

from __future__ import annotations

from importlib import import_module, metadata

from compat.contract.runtime import Probe


def installed(distribution: str, module: str, install: str) -> Probe | None:
    """Return why a package cannot be used, with the remedy; None if it can. Imports the package.

    Args:
        distribution: the distribution's name, as pip has it.
        module: the module to import.
        install: the command that installs it.
    """
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
