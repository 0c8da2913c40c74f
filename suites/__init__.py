"""The checks, as tests of pytest: which numbers of a case are measured, and in which order."""
