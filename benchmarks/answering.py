"""What answering a user's queries costs: users one after the other, or together in one batch."""

from __future__ import annotations

import tempfile
from pathlib import Path

from peft import PeftModel

from benchmarks.material import Material, make, trained_alike
from benchmarks.measure import Table, Way, measure
from conf.schema import QLoraConfig, SamplingConfig, TransformerSize
from models import lora
from models.answering import answer_queries
from models.loading import load_device_base

SIZES = (
    TransformerSize(layers=2, width=64, heads=2, feed_forward=192),
    TransformerSize(layers=4, width=128, heads=2, feed_forward=384),
)
QLORA = QLoraConfig(compute_dtype="float32")
GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=32)
USERS = 8
BATCH = 64


def run(*, sizes: tuple[TransformerSize, ...] = SIZES, rounds: int = 3) -> list[Table]:
    """Measure at the miniatures' own size and at that of the adaptation benchmark."""
    return [_table(size, rounds) for size in sizes]


def _table(size: TransformerSize, rounds: int) -> Table:
    with tempfile.TemporaryDirectory() as name:
        material = make(Path(name), size, users=USERS, records=12)
        folder = material.quantised(QLORA)
        slot = lora.attach(load_device_base(folder, QLORA), QLORA, seed=0)
        asked = [[query.input for query in user.queries] for user in material.data.targets]
        ways = [
            Way("each user alone, all queries in a batch", lambda: _alone(material, slot), USERS),
            Way(f"{USERS} users in one batch", lambda: _together(material, slot), USERS),
        ]
        rows = measure(ways, rounds)
    setting = (
        f"{size.layers} layers of width {size.width}, {QLORA.compute_dtype}; {len(asked[0])} "
        f"queries per user, greedy, up to {GREEDY.max_new_tokens} tokens, batches of {BATCH}."
    )
    return Table("way", setting, "user", "tokens", rows)


def _alone(material: Material, slot: PeftModel) -> str:
    tokens = 0
    for number, user in enumerate(material.data.targets):
        asked, adapter = [query.input for query in user.queries], trained_alike(slot, number)
        (own,) = answer_queries(slot, material.tokenizer, [asked], [adapter], GREEDY, BATCH)
        tokens += sum(answer.tokens for answer in own)
    return str(tokens)


def _together(material: Material, slot: PeftModel) -> str:
    asked = [[query.input for query in user.queries] for user in material.data.targets]
    adapters = [trained_alike(slot, number) for number in range(USERS)]
    answers = answer_queries(slot, material.tokenizer, asked, adapters, GREEDY, BATCH)
    return str(sum(answer.tokens for own in answers for answer in own))
