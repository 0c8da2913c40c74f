"""The checks of a case, written as tests of pytest."""
