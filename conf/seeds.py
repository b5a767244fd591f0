"""Seeds: every random choice has its own, derived from the root seed and from what it is for.

Nothing in the project reads a global generator; functions that draw take ``seed: int``.
"""

from __future__ import annotations

import hashlib

SEED_BITS = 63


def derive_seed(root: int, *parts: str | int) -> int:
    """Derive the seed of one purpose.

    Args:
        root: The run's root seed (or a device's own secret seed).
        parts: What the seed is for, e.g. ``("user-17", "cdcda", "adapter")``. The order counts,
            and ``("ab", "c")`` differs from ``("a", "bc")``.

    Returns:
        An integer in ``[0, 2**63)``, the same on every platform and Python version.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (root, *parts):
        encoded = f"{type(part).__name__}:{part}".encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return int.from_bytes(digest.digest(), "big") >> (64 - SEED_BITS)
