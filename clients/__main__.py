"""Entry point of ``python -m clients``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Set a device up, withdraw records, start its trainer, export from it, or ask it."""
    if argv[:1] in (["setup"], ["withdraw"]):
        from clients.set_up import main as manage

        return manage(argv)
    if argv[:1] == ["trainer"]:
        from clients.trainer import main as train  # loads no library before it listens

        return train(argv[1:])
    if argv[:1] == ["export"]:
        from clients.export import main as export

        return export(argv[1:])
    from clients.offline_query import main as ask

    return ask(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
