"""Files that survive a crash: atomic writes, content hashes, append-only JSON lines."""
