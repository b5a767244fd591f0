"""One self-contained HTML page per run: opens from a file, without a network."""
