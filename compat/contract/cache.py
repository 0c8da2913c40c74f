"""The folder of the cache, which holds derived files and whatever else can be made again."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = "COMPAT_CACHE"
"""Environment variable that names the folder."""


def cache_folder() -> Path:
    """Return the cache's folder: ``$COMPAT_CACHE``, else the user's cache folder."""
    import platformdirs

    named = os.environ.get(CACHE)
    return Path(named) if named else Path(platformdirs.user_cache_dir("compat"))
