"""Scores: pure functions from outputs, references and clock readings to plain numbers.

Every score comes back as built-in numbers that JSON can carry: no NaN, no infinity. The modules
need NumPy alone; jiwer, whisper-normalizer and SciPy are imported by the functions that use them.
"""

from __future__ import annotations

SCORER_VERSION = 1
"""Raised whenever a definition changes, so that scores of two definitions are never compared."""
