"""Functions and classes by name, so that whoever names one need not import its module.

Modules that only a worker or a builder imports have heavy libraries at their top. What the parent
process imports too names their contents (``package.module:name``); :func:`resolve` is the one place
that imports them.
"""

from __future__ import annotations

import importlib
from typing import Any


def resolve(named: Any) -> Any:
    """Return what a name ``module:name`` stands for; anything but a string is returned as it is."""
    if not isinstance(named, str):
        return named
    module, name = named.split(":")
    return getattr(importlib.import_module(module), name)


def name_of(named: Any) -> str:
    """Return the name ``module:name`` of what is at the top of a module, or the name given."""
    return named if isinstance(named, str) else f"{named.__module__}:{named.__name__}"


def module_of(named: Any) -> str:
    """Return the name of the module that something is in."""
    return name_of(named).partition(":")[0]
