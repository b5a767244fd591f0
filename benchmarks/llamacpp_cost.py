"""One process of :mod:`benchmarks.efficiency` for llama.cpp: no PyTorch in it, as on a phone.

``python -m benchmarks.llamacpp_cost <JSON>`` takes the files, the prompts as token ids, the longest
answer, the stop tokens and the threads; prints what it took as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from models.llamacpp.runtime import Runtime


def main(text: str) -> int:
    """Measure; the first prompt is answered twice, as a warm-up."""
    given = json.loads(text)
    with Runtime(Path(given["model"]), threads=given["threads"]) as runtime:
        switch_s = 0.0
        if given["adapter"]:
            started = time.perf_counter()
            runtime.switch(Path(given["adapter"]))
            switch_s = time.perf_counter() - started
        asked = given["prompts"]
        runtime.greedy(asked[0], given["limit"], given["stops"])
        timed = [runtime.greedy(ids, given["limit"], given["stops"]) for ids in asked]
        behind = sum(len(each.ids) - 1 for each in timed)
        seconds = sum(each.seconds - each.first_token_s for each in timed)
        cost = {
            "first_token_s": sum(each.first_token_s for each in timed) / len(timed),
            "tokens_per_s": behind / seconds,
            "pss": pss(),
            "switch_s": switch_s,
        }
    print(json.dumps(cost))
    return 0


def pss() -> int:
    """Bytes of this process's memory, pages that others share by their share."""
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/smaps_rollup: no line Pss")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
