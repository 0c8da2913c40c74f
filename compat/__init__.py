"""Hardware compatibility of audio models, measured.

Importing this package imports no machine-learning runtime: models and runtimes are declared
here and loaded by a worker process when a case runs.
"""

__version__ = "0.1.0"
