"""Experiments: each answers a question that no single case answers.

Each experiment is a module of this package that declares ``EXPERIMENT``. To add one, write its
module, and add its name to :data:`EXPERIMENTS` and its version to ``compat/judge/experiments.py``.
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
    "seams",
    "threads",
    "times",
    "wasm",
)
