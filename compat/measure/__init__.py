"""Measurement: what runs inside the worker process of a case."""
