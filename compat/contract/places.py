"""Folders of the project, each named in this one place.

In a checkout suites and fixtures lie beside the package; a wheel brings them inside it.
"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
"""Folder of the package ``compat``."""
INSTALLED = (PACKAGE / "suites").is_dir()
"""Whether the package was installed from a wheel, rather than lying in a checkout."""
ROOT = PACKAGE if INSTALLED else PACKAGE.parent
"""Folder that holds the suites and the fixtures."""
SUITES = ROOT / "suites"
FIXTURES = ROOT / "fixtures"
"""Folder of the data: corpora, checkpoints, thresholds, expectations."""
