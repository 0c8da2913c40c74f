"""Questions that no single case answers."""
