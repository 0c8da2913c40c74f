"""Runtimes: a file or folder each, which compiles graphs, runs them, and says where they ran."""
