"""Derived files (exports, quantised graphs, references), made in builder processes."""
