"""The `compat` command: one file per subcommand."""
