"""Models: one file per family, with its graphs, host-side driver and scorer."""
