"""A plugin of pytest that puts toy_recommendations.toml in the place of what is shipped."""

from pathlib import Path

from compat.judge import recommendations

recommendations.default_path = lambda: Path(__file__).with_suffix(".toml")
