"""What a device's model with its adapter costs against the cloud's: storage, memory, time.

``python -m benchmarks.efficiency --device <checkpoint> --cloud <checkpoint> [--threads 2]`` takes a
GGUF file or a folder in Hugging Face layout for each. The device's is quantised to NF4 and gets an
adapter of rank 16; the cloud's stays whole. Both are run by transformers as the simulation runs
them, and by llama.cpp from exported files. Every way runs in a process of its own, in turns, with
the same prompts, greedily, one at a time; its memory is its proportional set size. The table goes
to docs/results/efficiency.md. Needs ``make llamacpp``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from benchmarks.llamacpp_cost import pss
from benchmarks.measure import Sheet, machine, markdown
from benchmarks.parity_texts import prompts
from conf.schema import CausalModelConfig, GgufWeights, QLoraConfig, SamplingConfig
from models import loading, lora
from models.chat import encode_prompt, stop_ids
from models.generation import generate
from models.llamacpp import export
from models.llamacpp.runtime import binding
from models.sources import resolve_causal
from storage import atomic

PROMPTS = 6
TOKENS = 48  # written to each prompt, at most
QLORA = QLoraConfig()
TARGET = Path(__file__).parents[1] / "docs" / "results" / "efficiency.md"
LESS_STORAGE, FASTER = 0.8, 3.0  # the claims of a summary of the paper


@dataclass(frozen=True, slots=True)
class Way:
    """One model in one runtime.

    Attributes:
        name: Row of the table.
        runtime: "transformers" or "llama.cpp".
        is_cloud: Whether it is the cloud's model.
        model: Folder or GGUF file.
        tokenizer: Folder of its tokenizer.
        adapter: PEFT folder or GGUF file; "" for none.
        threads: CPU threads.
    """

    name: str
    runtime: str
    is_cloud: bool
    model: str
    tokenizer: str
    adapter: str
    threads: int

    @property
    def bytes(self) -> int:
        """What it takes on disk, adapter included, tokenizer of a folder left out."""
        return sum(_size(Path(path)) for path in (self.model, self.adapter) if path)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process measured.

    Attributes:
        first_token_s: Mean seconds from a prompt to its first token.
        tokens_per_s: Tokens behind the first ones, per second.
        pss: Bytes of memory after the answers, shared pages by their share.
        switch_s: Seconds to read the adapter and switch to it.
    """

    first_token_s: float
    tokens_per_s: float
    pss: int
    switch_s: float = 0.0


def main(argv: Sequence[str]) -> int:
    """Measure all ways and write the page; ``--one`` measures one and prints it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.efficiency")
    parser.add_argument("--device", help="checkpoint of the device")
    parser.add_argument("--cloud", help="checkpoint of the cloud")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/cdcda").expanduser())
    parser.add_argument("--out", type=Path, default=TARGET)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.one:
        print(json.dumps(asdict(measure(Way(**json.loads(given.one))))))
        return 0
    if not given.device or not given.cloud:
        parser.error("--device and --cloud are required")
    binding()
    with TemporaryDirectory() as name:
        ways = prepare(Path(name), given.device, given.cloud, given.cache, given.threads)
        costs = _in_turns(ways, given.rounds)
        page = _page(given.device, given.cloud, ways, costs)
    atomic.write_text(given.out, page)
    print(page)
    return 0


def prepare(work: Path, device: str, cloud: str, cache: Path, threads: int) -> list[Way]:
    """Quantise, export, and list the ways."""
    small, large = (
        resolve_causal(CausalModelConfig(path=path), cache, lambda *_: None)
        for path in (device, cloud)
    )
    nf4, peft = work / "nf4", work / "adapter"
    loading.quantise_folder(small.path, nf4, QLORA)
    loading.load_tokenizer(small.path).save_pretrained(nf4)
    slot = lora.attach(loading.load_device_base(nf4, QLORA), QLORA, seed=0)
    lora.save(slot, peft)  # B is zero: the cost of an adapter, and the base's own words
    network = export.read_network(nf4, QLORA)
    export.write_adapter(
        export.read_adapter(peft), network.config, work / "adapter.gguf", "adapter"
    )
    ways = [
        Way("cloud, bfloat16", "transformers", True, large.path, large.path, "", threads),
        Way(
            "device, NF4 twin + adapter",
            "transformers",
            False,
            str(nf4),
            str(nf4),
            str(peft),
            threads,
        ),
    ]
    whole = _plain(large)
    kinds: tuple[GgufWeights, ...] = ("f16", "q4_0")
    for weights in kinds:
        theirs, ours = work / f"cloud-{weights}.gguf", work / f"device-{weights}.gguf"
        export.write_base(whole, weights, theirs, "cloud")
        export.write_base(network, weights, ours, "device")
        named, adapter = weights.upper(), str(work / "adapter.gguf")
        ways += [
            Way(f"cloud, {named}", "llama.cpp", True, str(theirs), large.path, "", threads),
            Way(
                f"device, {named} + adapter",
                "llama.cpp",
                False,
                str(ours),
                str(nf4),
                adapter,
                threads,
            ),
        ]
    return ways


def measure(way: Way) -> Cost:
    """Answer the prompts with transformers here; the first one twice, as a warm-up."""
    torch.set_num_threads(way.threads)
    answer = _with_transformers(way)
    asked = prompts()[:PROMPTS]
    answer(asked[0])
    timed = [answer(prompt) for prompt in asked]
    first = sum(each[0] for each in timed) / len(timed)
    behind = sum(tokens - 1 for _, _, tokens in timed)
    seconds = sum(whole - before for before, whole, _ in timed)
    return Cost(first, behind / seconds, pss())


def _with_transformers(way: Way) -> Callable[[str], tuple[float, float, int]]:
    if way.is_cloud:
        model: PreTrainedModel | PeftModel = loading.load_causal(CausalModelConfig(path=way.model))
    else:
        model = slot = lora.attach(loading.load_device_base(way.model, QLORA), QLORA, seed=0)
        lora.load(slot, Path(way.adapter))
    tokenizer = loading.load_tokenizer(way.tokenizer)
    long = SamplingConfig(temperature=0, max_new_tokens=TOKENS)

    def answer(prompt: str) -> tuple[float, float, int]:
        times = []
        for sampling in (replace(long, max_new_tokens=1), long):
            started = time.perf_counter()
            written = generate(model, tokenizer, [prompt], [0], sampling, batch_size=1)[0]
            times.append(time.perf_counter() - started)
        return times[0], times[1], written.tokens

    return answer


def _in_turns(ways: Sequence[Way], rounds: int) -> list[Cost]:
    """The fastest of the rounds, by tokens per second."""
    found: list[list[Cost]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, costs in zip(ways, found, strict=True):
            words = _words(way)
            done = subprocess.run(
                [sys.executable, "-m", *words], stdout=subprocess.PIPE, text=True, check=True
            )
            costs.append(Cost(**json.loads(done.stdout.splitlines()[-1])))
            print(f"{way.runtime}, {way.name}: {costs[-1]}", file=sys.stderr, flush=True)
    return [max(costs, key=lambda cost: cost.tokens_per_s) for costs in found]


def _words(way: Way) -> list[str]:
    """The module and its argument that measure ``way``."""
    if way.runtime == "transformers":
        return ["benchmarks.efficiency", "--one", json.dumps(asdict(way))]
    tokenizer = loading.load_tokenizer(way.tokenizer)
    task = {
        "model": way.model,
        "adapter": way.adapter,
        "threads": way.threads,
        "limit": TOKENS,
        "stops": list(stop_ids(tokenizer, None)),
        "prompts": [encode_prompt(tokenizer, each, None, 512) for each in prompts()[:PROMPTS]],
    }
    return ["benchmarks.llamacpp_cost", json.dumps(task)]


def _page(device: str, cloud: str, ways: Sequence[Way], costs: Sequence[Cost]) -> str:
    rows = [
        (
            way.runtime,
            way.name,
            f"{way.bytes / 1e6:.0f} MB",
            f"{cost.pss / 1e6:.0f} MB",
            f"{1e3 * cost.first_token_s:.0f} ms",
            f"{cost.tokens_per_s:.1f}",
        )
        for way, cost in zip(ways, costs, strict=True)
    ]
    heads = ("runtime", "model", "storage", "memory (PSS)", "first token", "tokens/s")
    setting = (
        f"{machine()}\n\nDevice {Path(device).name}, cloud {Path(cloud).name}; {PROMPTS} prompts, "
        f"up to {TOKENS} tokens each, greedy, one at a time, {ways[0].threads} threads."
    )
    switch = max(cost.switch_s for cost in costs)
    notes = (
        "Memory of a transformers process holds Python and PyTorch and, on the device, the "
        "dequantised twin that the simulation keeps instead of NF4; llama.cpp's holds Python. "
        f"llama.cpp read and switched to the adapter in {1e3 * switch:.0f} ms."
    )
    verdict = "\n".join(_verdicts(ways, costs))
    command = "python -m benchmarks.efficiency --device <checkpoint> --cloud <checkpoint>"
    return (
        f"# Storage, memory and speed of device and cloud\n\n`{command}`\n\n"
        f"{markdown(Sheet(setting, heads, tuple(rows), notes))}\n\n## Verdict\n\n"
        "A summary of the paper claims 80 % less storage and 3 x faster decoding for the device "
        f"model with an adapter against the cloud model.\n\n{verdict}\n"
    )


def _verdicts(ways: Sequence[Way], costs: Sequence[Cost]) -> list[str]:
    """One line per pair of cloud and device ways; they stand in that order."""
    lines = []
    for place in range(0, len(ways), 2):
        (cloud, device), (slow, fast) = ways[place : place + 2], costs[place : place + 2]
        less, times = 1 - device.bytes / cloud.bytes, fast.tokens_per_s / slow.tokens_per_s
        lines.append(
            f"- {device.runtime}, {device.name} against {cloud.name}: {less:.0%} less storage "
            f"({_holds(less >= LESS_STORAGE)}), {times:.1f} x the tokens per second "
            f"({_holds(times >= FASTER)})."
        )
    return lines


def _holds(claim: bool) -> str:
    return "the claim holds" if claim else "the claim does not hold"


def _plain(model: CausalModelConfig) -> export.Network:
    loaded = loading.load_causal(model)
    return export.Network(loaded.config, loaded.state_dict(), loading.load_tokenizer(model.path))


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.glob("*.safetensors"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
