"""Functions and classes by name, so that code can refer to one without importing its module.

Modules that only a worker or a builder imports load heavy libraries. Modules that the parent
process imports too refer to their contents by name (``package.module:name``), and only
:func:`resolve` imports them.
"""

from __future__ import annotations

import importlib
from typing import Any


def resolve(named: Any) -> Any:
    """Return the object of a name ``module:name``; anything but a string is returned as it is."""
    if not isinstance(named, str):
        return named
    module, name = named.split(":")
    return getattr(importlib.import_module(module), name)


def name_of(named: Any) -> str:
    """Return the name ``module:name`` of a top-level function or class; a string as it is."""
    return named if isinstance(named, str) else f"{named.__module__}:{named.__name__}"


def module_of(named: Any) -> str:
    """Return the name of the module that defines a named object, or one given by name."""
    return name_of(named).partition(":")[0]
