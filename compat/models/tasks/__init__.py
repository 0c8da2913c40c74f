"""Tasks: one file each, which chooses inputs, scores answers and declares metrics."""
