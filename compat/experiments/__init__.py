"""Questions that no single case answers.

Each experiment is a module of this package that declares ``EXPERIMENT``. A new experiment is one
file, its name in :data:`EXPERIMENTS`, and its version in ``compat/judge/experiments.py``.
"""

EXPERIMENTS = (
    "batches",
    "beams",
    "browsers",
    "cache",
    "chunks",
    "decoding",
    "ensemble",
    "features",
    "fusion",
    "identities",
    "live",
    "long",
    "parallel",
    "pruning",
    "threads",
    "times",
    "wasm",
)
