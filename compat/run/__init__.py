"""pytest's side of a run: the plugin, the client of the workers, progress and selection."""
