"""OpenVINO."""

GROUP = 32
"""Activations that share one scale when they are quantised at run time; 4-bit weights that do."""
