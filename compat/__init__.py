"""Hardware compatibility of audio models, measured.

Importing this package imports no machine-learning runtime: models and runtimes are only declared,
and a worker process loads them when a case runs.
"""

__version__ = "0.1.0"
