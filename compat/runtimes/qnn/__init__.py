"""QNN, Qualcomm's runtime for the Hexagon NPU."""
