"""Adaptation and decoding on a GPU, without Flower and Ray.

    python -m benchmarks.gpu_adaptation
    python -m benchmarks.gpu_adaptation --shape tiny    # the same code anywhere, on a CPU too

The networks have the shapes of Qwen2.5-0.5B and Qwen2.5-3B and random weights, which compute as
long as trained ones do. Adaptation: tokens per second for 1, 8 and 32 users at once, beside
FlowerTune's and OPPU's way (:mod:`benchmarks.adaptation`) and unsloth where it is installed.
Decoding: the small one in NF4 with an adapter, as a device holds it, against the large one in
bfloat16, with the bytes of both on disk.

Work is counted as ``4 x P x tokens`` operations, P being the parameters but for the embeddings: two
for the forward pass and two for the gradient of the inputs; a frozen base has no gradient of its
weights. Attention, adapters and output layer are left out, so the share of the chip's peak is a
lower bound. The peak is measured: the best bfloat16 product of two square matrices.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from benchmarks import adaptation
from benchmarks.adaptation import Bench
from benchmarks.material import Material, make, trained_alike
from benchmarks.measure import RESULTS, Row, Sheet, Way, append, measure
from conf.schema import CausalModelConfig, QLoraConfig, SamplingConfig, TransformerSize
from models import lora
from models.chat import IGNORED, Encoded
from models.generation import generate
from models.loading import load_causal, load_device_base
from models.multi_lora.cohort import fitting_size

QLORA = QLoraConfig(learning_rate=1e-4, epochs=1, batch_size=16)
NF4 = replace(QLORA, dequantise_once=False)  # what a device computes with
COHORTS = (1, 8, 32)
LARGE_COHORTS = (1, 8)
PEER_USERS = adaptation.PEER_USERS
RECORDS = 64
LENGTHS = (64, 128)  # tokens of a record, as long as a headline or a tag and its text are
RESPONSE = 16  # of them, scored
TOKENIZER_FROM = TransformerSize(layers=1, width=64, heads=2, feed_forward=64)
GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=64)
ANSWERS = 2
CONTEXT = 32_768
GIB = 1 << 30
PAPER_GIB = 24  # one RTX A5000


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a Qwen2 network with tied embeddings.

    Attributes:
        name: Shown in the tables.
        layers: Transformer blocks.
        width: Hidden size.
        heads: Query heads.
        key_value_heads: Key and value heads.
        feed_forward: Inner size of the feed-forward part.
        vocabulary: Rows of the embedding.
    """

    name: str
    layers: int
    width: int
    heads: int
    key_value_heads: int
    feed_forward: int
    vocabulary: int

    def config(self, tokenizer: Any) -> Qwen2Config:
        """The configuration of the network."""
        return Qwen2Config(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.feed_forward,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            max_position_embeddings=CONTEXT,
            rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )


SMALL = Shape("Qwen2.5-0.5B", 24, 896, 14, 2, 4864, 151_936)
LARGE = Shape("Qwen2.5-3B", 36, 2048, 16, 2, 11_008, 151_936)
TINY = Shape("tiny", 1, 64, 4, 2, 128, 4096)
TINY_LARGE = Shape("tiny, larger", 2, 128, 4, 2, 256, 4096)
SHAPES = {"qwen2.5": (SMALL, LARGE), "tiny": (TINY, TINY_LARGE)}


@dataclass(frozen=True, slots=True)
class Load:
    """How much work there is.

    Attributes:
        cohorts: Users at once on the small network, one row each.
        large_cohorts: The same on the large one.
        records: Of each user.
        matrix: Rows of the square matrices that the peak is measured with.
        rounds: How often everything is measured.
        sampling: How answers are decoded.
    """

    cohorts: tuple[int, ...] = COHORTS
    large_cohorts: tuple[int, ...] = LARGE_COHORTS
    records: int = RECORDS
    matrix: int = 8192
    rounds: int = 2
    sampling: SamplingConfig = GREEDY


TINY_LOAD = Load((1, 2), (1, 2), 4, 256, 1, replace(GREEDY, max_new_tokens=4))


def main(argv: Sequence[str]) -> int:
    """Run; print each table and append it to RESULTS.md as soon as it is measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_adaptation")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="qwen2.5")
    parser.add_argument("--results", type=Path, default=RESULTS, help="Markdown file to append to")
    arguments = parser.parse_args(argv)
    on_gpu = torch.cuda.is_available()
    if not on_gpu and arguments.shape != "tiny":
        parser.error(
            f"--shape {arguments.shape}: expected a CUDA device, got none; run it on a machine "
            "with a GPU, or take --shape tiny, which runs the same code on a CPU"
        )
    load = Load() if arguments.shape != "tiny" else TINY_LOAD
    for sheet in run(SHAPES[arguments.shape], "cuda" if on_gpu else "cpu", load):
        print(append("gpu_adaptation", [sheet], arguments.results), flush=True)
    return 0


def run(shapes: tuple[Shape, Shape], device: str, load: Load) -> Iterator[Sheet]:
    """Measure adaptation of the small shape, decoding of both, and adaptation of the large one."""
    small, large = shapes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with adaptation.quiet():
            world = make(folder, TOKENIZER_FROM, users=1, records=ANSWERS)
            peak = matmul_peak(device, load.matrix)
            materials = [with_network(world, shape, folder, device) for shape in shapes]
        parts: tuple[Callable[[], Sheet], ...] = (
            lambda: _adaptation(small, materials[0], device, load, load.cohorts, peak),
            lambda: _decoding(shapes, materials, device, load),
            lambda: _adaptation(large, materials[1], device, load, load.large_cohorts, peak),
        )
        for part in parts:
            with adaptation.quiet():
                sheet = part()
            yield sheet


def with_network(world: Material, shape: Shape, folder: Path, device: str) -> Material:
    """Write a checkpoint of ``shape`` in bfloat16: random weights, the world's tokenizer."""
    plain = folder / f"{shape.layers}-{shape.width}" / "plain"
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        network = Qwen2ForCausalLM(shape.config(world.tokenizer)).bfloat16()
    network.save_pretrained(plain)
    world.tokenizer.save_pretrained(plain)
    return replace(world, plain=plain)


def drawn_users(shape: Shape, users: int, records: int) -> list[list[Encoded]]:
    """Draw records of random tokens; they begin differently, so nothing is computed only once."""
    rng = random.Random(0)
    return [[_record(shape, rng) for _ in range(records)] for _ in range(users)]


def work(parameters: int, tokens: float) -> float:
    """Operations of adapting on ``tokens`` tokens over a frozen base: see the module's text."""
    return 4.0 * parameters * tokens


def parameters_of(shape: Shape, tokenizer: Any) -> int:
    """Parameters of the network but for the embedding, which is the output layer too."""
    with torch.device("meta"):
        network = Qwen2ForCausalLM(shape.config(tokenizer))
    return sum(w.numel() for name, w in network.named_parameters() if "embed" not in name)


def matmul_peak(device: str, rows: int, repeats: int = 20) -> float:
    """Measure the best bfloat16 product of two square matrices, in operations per second."""
    left, right = (torch.randn(rows, rows, device=device).bfloat16() for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        _wait(device)
        started = time.perf_counter()
        torch.mm(left, right)
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2.0 * rows**3 / best


def unsloth(bench: Bench) -> str:
    """Each user a fresh adapter on a fresh base, TRL's SFTTrainer on unsloth's model.

    As in unsloth's own notebooks, but without gradient checkpointing, as the other ways.
    """
    from unsloth import FastLanguageModel  # type: ignore[import-not-found,unused-ignore]  # isort:skip
    from trl import SFTConfig, SFTTrainer

    losses = []
    for user in bench.users[:PEER_USERS]:
        base, tokenizer = FastLanguageModel.from_pretrained(
            str(bench.folder), max_seq_length=256, dtype=torch.bfloat16, load_in_4bit=True
        )
        model = FastLanguageModel.get_peft_model(
            base,
            r=bench.qlora.rank,
            lora_alpha=bench.qlora.alpha,
            lora_dropout=bench.qlora.dropout,
            bias="none",
            use_gradient_checkpointing=False,
        )
        settings = SFTConfig(
            gradient_checkpointing=False, max_length=256, **adaptation.arguments(bench)
        )
        trainer = SFTTrainer(
            model=model,
            args=settings,
            train_dataset=adaptation.completions(user),
            processing_class=tokenizer,
        )
        losses.append(trainer.train().training_loss)
        model.save_pretrained(str(bench.out / "unsloth"))
    return adaptation.mean(losses)


class _Memory:
    """Peak GPU memory of each way, as if only its own model were loaded."""

    def __init__(self, device: str) -> None:
        self._on_gpu = device != "cpu"
        self._bytes: dict[str, int] = {}
        self._seen = 0

    def saw(self, peak: int) -> None:
        """Note a peak that was read in the middle of a way, before it was counted anew."""
        self._seen = max(self._seen, peak)

    def loaded(self, load: Callable[[], Any]) -> tuple[Any, int]:
        """Load a model; returns it and the bytes that it holds."""
        before = self._held()
        model = load()
        return model, self._held() - before

    def way(self, name: str, run: Callable[[], str], units: int, own: int = 0) -> Way:
        """Make a way whose peak is noted; ``own`` are the bytes of the model that it finds."""

        def watched() -> str:
            before, self._seen = self._held(), 0
            if self._on_gpu:
                torch.cuda.reset_peak_memory_stats()
            result = run()
            if self._on_gpu:
                torch.cuda.synchronize()
                self.saw(torch.cuda.max_memory_allocated())
                self._bytes[name] = self._seen - before + own
            return result

        return Way(name, watched, units)

    def cell(self, name: str) -> str:
        """The peak in GiB; on a CPU nothing is measured."""
        return f"{self._bytes[name] / GIB:.1f}" if name in self._bytes else "–"

    def _held(self) -> int:
        gc.collect()
        return int(torch.cuda.memory_allocated()) if self._on_gpu else 0


def _adaptation(
    shape: Shape,
    material: Material,
    device: str,
    load: Load,
    cohorts: Sequence[int],
    peak: float,
) -> Sheet:
    users = drawn_users(shape, max(*cohorts, PEER_USERS), load.records)
    bench = Bench(material, users, QLORA, material.plain.parent, device)
    memory = _Memory(device)
    base, base_bytes = memory.loaded(lambda: adaptation.oppu_base(bench))
    slot, slot_bytes = memory.loaded(lambda: adaptation.our_slot(bench))
    seen = [_tokens(users[:count]) for count in range(len(users) + 1)]
    ways = [
        memory.way(
            "FlowerTune: load the NF4 base, SFTTrainer",
            lambda: adaptation.flower_tune(bench),
            seen[PEER_USERS],
        ),
        memory.way(
            "OPPU: NF4 base in memory, Trainer + PEFT",
            lambda: adaptation.oppu(bench, base),
            seen[PEER_USERS],
            base_bytes,
        ),
        memory.way("unsloth: SFTTrainer", lambda: unsloth(bench), seen[PEER_USERS]),
        *(
            memory.way(name, _ours(bench, slot, count, at_once, memory), seen[count], slot_bytes)
            for count in cohorts
            for at_once in [min(count, _fitting(slot))]
            for name in [_name(count, at_once)]
        ),
    ]
    parameters = parameters_of(shape, material.tokenizer)
    rows = measure(ways, load.rounds)
    heads = ("way", "tokens/s", "× FlowerTune", "× OPPU", "share of peak", "peak GiB", "mean loss")
    setting = (
        f"Adaptation, shape of {shape.name}: {shape.layers} layers of width {shape.width}, "
        f"vocabulary {shape.vocabulary}, random weights, NF4, {QLORA.compute_dtype}; users with "
        f"{load.records} records of {LENGTHS[0]} to {LENGTHS[1]} random tokens, {RESPONSE} of them "
        f"scored, batches of {QLORA.batch_size}, LoRA r={QLORA.rank} on all linear layers."
    )
    notes = (
        f"Share of peak: 4 x {parameters:,} parameters (without embedding) x tokens, per second, "
        f"of the measured {peak / 1e12:.3g} Tflop/s in bfloat16. Peak GiB: of the GPU, only the "
        f"way's own base counted (the paper's GPU had {PAPER_GIB})."
    )
    cells = tuple(_adapted(row, rows, parameters, peak, memory) for row in rows)
    return Sheet(setting, heads, cells, notes)


def _adapted(
    row: Row, rows: Sequence[Row], parameters: int, peak: float, memory: _Memory
) -> tuple[str, ...]:
    if row.seconds is None:
        return (row.name, "–", "–", "–", "–", "–", row.result)
    return (
        row.name,
        f"{1 / row.seconds:,.0f}",
        _against(rows[0], row),
        _against(rows[1], row),
        f"{work(parameters, 1) / row.seconds / peak:.1%}",
        memory.cell(row.name),
        row.result,
    )


def _decoding(
    shapes: tuple[Shape, Shape], materials: Sequence[Material], device: str, load: Load
) -> Sheet:
    """One reply after the other, as one user waits for them."""
    small, large = shapes
    material, cloud = materials
    memory = _Memory(device)
    nf4 = material.quantised(QLORA, device)
    prompts = [query.input for query in material.data.targets[0].queries][:ANSWERS]
    loads: dict[str, Callable[[], PreTrainedModel | PeftModel]] = {
        f"{large.name}, bfloat16": lambda: load_causal(_plain(cloud), device),
        f"{small.name}, bfloat16": lambda: load_causal(_plain(material), device),
        f"{small.name}, NF4 + adapter": lambda: _with_adapter(nf4, NF4, device),
        f"{small.name}, NF4 dequantised once + adapter": lambda: _with_adapter(nf4, QLORA, device),
    }
    ways = []
    for name, make_model in loads.items():
        model, held = memory.loaded(make_model)
        reply = _decode(model, material.tokenizer, prompts, load.sampling)
        tokens = int(reply())  # greedy: as many tokens in every round
        ways.append(memory.way(name, reply, tokens, held))
    rows = measure(ways, load.rounds)
    adapter = material.plain.parent / "adapter"
    lora.save(_with_adapter(nf4, NF4, device), adapter)
    device_bytes = _bytes(nf4) + _bytes(adapter)
    sizes = (_bytes(cloud.plain), _bytes(material.plain), device_bytes, device_bytes)
    heads = ("model", "tokens/s", "× the large one", "MiB on disk", "less than it", "peak GiB")
    cells = tuple(
        (
            row.name,
            f"{1 / row.seconds:.1f}" if row.seconds else "–",
            _against(rows[0], row),
            f"{size / (1 << 20):,.1f}",
            f"{1 - size / sizes[0]:.0%}",
            memory.cell(row.name),
        )
        for row, size in zip(rows, sizes, strict=True)
    )
    setting = (
        f"Decoding, one of {len(prompts)} prompts at a time, greedy, up to "
        f"{load.sampling.max_new_tokens} tokens; models.generation. The claim to hold it against: "
        "80 % less storage, 3 x faster."
    )
    return Sheet(setting, heads, cells)


def _ours(
    bench: Bench, slot: PeftModel, users: int, at_once: int, memory: _Memory
) -> Callable[[], str]:
    return lambda: adaptation.ours(bench, slot, at_once, users, memory.saw)


def _name(users: int, at_once: int) -> str:
    part = "" if at_once == users else f", {at_once} at once by memory"
    return f"ours, {users} user{'s' if users > 1 else ''}{part}"


def _fitting(slot: PeftModel) -> int:
    return fitting_size(slot, LENGTHS[1] * QLORA.batch_size)


def _decode(
    model: PreTrainedModel | PeftModel,
    tokenizer: Any,
    prompts: Sequence[str],
    sampling: SamplingConfig,
) -> Callable[[], str]:
    def reply() -> str:
        replies = generate(model, tokenizer, prompts, [0] * len(prompts), sampling, batch_size=1)
        return str(sum(each.tokens for each in replies))

    return reply


def _with_adapter(folder: Path, qlora: QLoraConfig, device: str) -> PeftModel:
    slot = lora.attach(load_device_base(folder, qlora, device), qlora, seed=0)
    lora.fill(slot, trained_alike(slot, 0), "of a benchmark")
    return slot


def _plain(material: Material) -> CausalModelConfig:
    return CausalModelConfig(path=str(material.plain), dtype="bfloat16")


def _record(shape: Shape, rng: random.Random) -> Encoded:
    ids = [rng.randrange(shape.vocabulary) for _ in range(rng.randint(*LENGTHS))]
    return Encoded(ids, [IGNORED] * (len(ids) - RESPONSE) + ids[-RESPONSE:])


def _tokens(users: Sequence[Sequence[Encoded]]) -> int:
    return QLORA.epochs * sum(len(record.input_ids) for user in users for record in user)


def _against(other: Row, row: Row) -> str:
    if other.seconds is None or row.seconds is None:
        return "–"
    return f"{other.seconds / row.seconds:.2f}"


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
