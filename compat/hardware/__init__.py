"""Facts about this machine: provenance of every result, limits for workers, energy counters."""
