"""Measurement: the code that runs inside the worker process of a case."""
