"""Questions that no single case answers.

Each experiment is a module of this package that declares ``EXPERIMENT``. A new experiment is one
file, and its name in :data:`EXPERIMENTS`.
"""

EXPERIMENTS = ("browsers",)
