"""Run the benchmarks named on the command line, or all."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import torch

from benchmarks.measure import append

NAMES = ("adaptation", "answering", "device_start", "generation", "nli")


def main(argv: Sequence[str]) -> int:
    """Run, print and append to RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark '{unknown[0]}'; known: {', '.join(NAMES)}")
    torch.set_num_threads(arguments.threads)
    for name in arguments.names or NAMES:
        tables = importlib.import_module(f"benchmarks.{name}").run()
        print(append(name, tables), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
