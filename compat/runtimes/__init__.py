"""Runtimes: one file each, which compiles graphs, runs them, and says where they ran."""
