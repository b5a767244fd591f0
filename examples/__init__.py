"""Programs of a user's own, each run by a test."""
