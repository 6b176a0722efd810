"""The `fairtune` command: one module a subcommand, and what they share."""
