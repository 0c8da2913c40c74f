"""Folders of the project, each named in this one place."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Folder of the checkout, which holds the suites and the fixtures."""
FIXTURES = ROOT / "fixtures"
"""Folder of the data: corpora, checkpoints, thresholds, expectations."""
