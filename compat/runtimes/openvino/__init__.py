"""OpenVINO, Intel's runtime."""

GROUP = 32
"""Number of values that share one scale: of activations quantised at run time, and of 4-bit
weights."""
