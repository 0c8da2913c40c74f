"""The ``compat`` command: a module for each of its commands."""
