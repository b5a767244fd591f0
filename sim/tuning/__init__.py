"""``python -m sim tune``: settings chosen on public users."""
