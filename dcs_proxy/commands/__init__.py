"""One module per command that a person, or ssh, runs."""
