"""What one user's adapter costs: FlowerTune's way, OPPU's way, ours alone, ours in a cohort.

The network has the size of the issue's reference, 4 layers of width 128; each user has 60 records
of about 60 tokens, trained for 2 epochs in batches of 16. Time counts everything from the examples'
ids to the adapter's folder. The peers' examples are tokenised beforehand, as ours are.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from datasets import (
    Dataset,
    disable_progress_bars,
    enable_progress_bars,
    is_progress_bar_enabled,
)
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)
from transformers.utils import logging as library_logging

from benchmarks.material import Material, make
from benchmarks.measure import Table, Way, measure
from conf.schema import Dtype, QLoraConfig, TransformerSize
from models import lora
from models.chat import IGNORED, Encoded, pad_id
from models.loading import load_device_base
from models.multi_lora.cohort import CohortJob, train_cohort
from models.training import user_schedule
from sim.run.placement import suited_size

SIZE = TransformerSize(layers=4, width=128, heads=2, feed_forward=384)
QLORA = QLoraConfig(learning_rate=1e-3, epochs=2, batch_size=16)
PEER_USERS = 2
COHORT = 8


@dataclass(frozen=True, slots=True)
class Bench:
    """What all ways share.

    Attributes:
        material: Data and checkpoint.
        users: Training examples of each user.
        qlora: Settings of every way.
        out: Folder for adapters.
        device: Torch device of every way.
    """

    material: Material
    users: Sequence[Sequence[Encoded]]
    qlora: QLoraConfig
    out: Path
    device: str = "cpu"

    @property
    def folder(self) -> Path:
        """The base in NF4."""
        return self.material.quantised(self.qlora, self.device)


def run(*, size: TransformerSize = SIZE, records: int = 60, rounds: int = 3) -> list[Table]:
    """Measure in bfloat16, the type of QLoRA, and in float32, the type of the miniatures."""
    with tempfile.TemporaryDirectory() as name, quiet():
        material = make(Path(name), size, users=COHORT, records=records)
        return [
            _table(Bench(material, material.examples(COHORT, records), qlora, Path(name)), rounds)
            for qlora in (_in("bfloat16"), _in("float32"))
        ]


def _in(dtype: Dtype) -> QLoraConfig:
    return replace(QLORA, compute_dtype=dtype)


def _table(bench: Bench, rounds: int) -> Table:
    base, slot = oppu_base(bench), our_slot(bench)
    cohort = min(suited_size(slot.config.hidden_size, on_gpu=False), len(bench.users))
    ways = [
        Way("FlowerTune: load the NF4 base, SFTTrainer", lambda: flower_tune(bench), PEER_USERS),
        Way("OPPU: NF4 base in memory, Trainer + PEFT", lambda: oppu(bench, base), PEER_USERS),
        Way("ours, cohort=1", lambda: ours(bench, slot, 1, PEER_USERS), PEER_USERS),
        Way(f"ours, cohort=auto ({cohort})", lambda: ours(bench, slot, cohort, cohort), cohort),
    ]
    examples = [example for user in bench.users for example in user]
    tokens = sum(len(example.input_ids) for example in examples) / len(examples)
    shape = slot.config
    setting = (
        f"{shape.num_hidden_layers} layers of width {shape.hidden_size}, "
        f"{bench.qlora.compute_dtype}; {len(bench.users[0])} records of {tokens:.0f} tokens on "
        f"average, {bench.qlora.epochs} epochs, batches of {bench.qlora.batch_size}, "
        f"LoRA r={bench.qlora.rank} on all linear layers."
    )
    return Table("way", setting, "user", "mean loss", measure(ways, rounds))


def oppu_base(bench: Bench) -> PreTrainedModel:
    """The NF4 base as :func:`oppu` holds it."""
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(bench.folder, **_loading(bench))
    return loaded


def our_slot(bench: Bench) -> PeftModel:
    """The base as :func:`ours` holds it, with its slot."""
    base = load_device_base(bench.folder, bench.qlora, bench.device)
    return lora.attach(base, bench.qlora, seed=0)


def flower_tune(bench: Bench) -> str:
    """Each message loads the quantised base from disk and trains with TRL's SFTTrainer.

    As Flower's flowertune-llm example, but without gradient checkpointing: that saves memory and
    would cost a forward pass per step.
    """
    from trl import SFTConfig, SFTTrainer

    losses = []
    for user in bench.users[:PEER_USERS]:
        base = AutoModelForCausalLM.from_pretrained(bench.folder, **_loading(bench))
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
        model = get_peft_model(base, _lora(bench.qlora))
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(gradient_checkpointing=False, max_length=256, **arguments(bench)),
            train_dataset=completions(user),
            processing_class=AutoTokenizer.from_pretrained(bench.folder),
        )
        losses.append(trainer.train().training_loss)
        model.save_pretrained(str(bench.out / "flower_tune"), save_embedding_layers=False)
    return mean(losses)


def oppu(bench: Bench, base: PreTrainedModel) -> str:
    """One process, users in sequence, each a fresh PEFT adapter on the loaded base."""
    losses = []
    for user in bench.users[:PEER_USERS]:
        model = get_peft_model(base, _lora(bench.qlora))
        trainer = Trainer(
            model=model,
            args=TrainingArguments(remove_unused_columns=False, **arguments(bench)),
            train_dataset=_rows(user),
            data_collator=_Padded(pad_id(bench.material.tokenizer)),
        )
        losses.append(trainer.train().training_loss)
        model.save_pretrained(str(bench.out / "oppu"), save_embedding_layers=False)
        model.unload()
    return mean(losses)


def ours(
    bench: Bench,
    slot: PeftModel,
    cohort: int,
    users: int,
    saw_peak: Callable[[int], None] = lambda _: None,
) -> str:
    """Users in cohorts on the dequantised base of this process.

    Args:
        bench: What all ways share.
        slot: Base with its slot.
        cohort: Users at once.
        users: Users in all.
        saw_peak: Called with the peak memory of each cohort in bytes; each counts anew.
    """
    jobs = [
        CohortJob(
            examples=examples,
            schedule=user_schedule(bench.qlora, len(examples)),
            adapter_seed=number,
            batch_seed=number,
        )
        for number, examples in enumerate(bench.users[:users])
    ]
    losses: list[float] = []
    for start in range(0, users, cohort):
        results = train_cohort(slot, jobs[start : start + cohort])
        saw_peak(max(result.report.peak_memory_bytes for result in results))
        for number, result in enumerate(results):
            lora.save_state(slot, result.state, bench.out / f"ours-{start + number}")
            losses.append(sum(result.report.losses) / result.report.steps)
    return mean(losses)


class _Padded:
    """Pads a batch on the right to its longest row, as DataCollatorForSeq2Seq does."""

    def __init__(self, pad: int) -> None:
        self._pad = pad

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        fills = {"input_ids": self._pad, "labels": IGNORED, "attention_mask": 0}
        return {
            name: torch.tensor([row[name] + [fill] * (width - len(row[name])) for row in rows])
            for name, fill in fills.items()
        }


def _rows(user: Sequence[Encoded]) -> list[dict[str, list[int]]]:
    return [
        {
            "input_ids": example.input_ids,
            "labels": example.labels,
            "attention_mask": [1] * len(example.input_ids),
        }
        for example in user
    ]


def completions(user: Sequence[Encoded]) -> Dataset:
    """TRL's form of tokenised examples whose completion alone is scored."""
    return Dataset.from_list(
        [
            {
                "input_ids": example.input_ids,
                "completion_mask": [int(label != IGNORED) for label in example.labels],
            }
            for example in user
        ]
    )


def _loading(bench: Bench) -> dict[str, Any]:
    return {"device_map": {"": bench.device}, "dtype": getattr(torch, bench.qlora.compute_dtype)}


def _lora(qlora: QLoraConfig) -> LoraConfig:
    return LoraConfig(
        r=qlora.rank,
        lora_alpha=qlora.alpha,  # type: ignore[arg-type]  # only ever a factor
        lora_dropout=qlora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def arguments(bench: Bench) -> dict[str, Any]:
    """The trainers' settings."""
    qlora = bench.qlora
    return {
        "output_dir": str(bench.out / "trainer"),
        "per_device_train_batch_size": qlora.batch_size,
        "num_train_epochs": qlora.epochs,
        "learning_rate": qlora.learning_rate,
        "warmup_steps": qlora.warmup,  # below 1 it is a share
        "max_grad_norm": qlora.clip,
        "weight_decay": qlora.weight_decay,
        "bf16": qlora.compute_dtype == "bfloat16",
        "use_cpu": bench.device == "cpu",
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }


def mean(losses: Sequence[float]) -> str:
    """The mean loss, as the tables show it."""
    return f"{sum(losses) / len(losses):.2f}"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the trainers' reports, warnings and bars out of the table's output."""
    level = library_logging.get_verbosity()
    bars = library_logging.is_progress_bar_enabled(), is_progress_bar_enabled()
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    disable_progress_bars()
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library_logging.set_verbosity(level)
        if bars[0]:
            library_logging.enable_progress_bar()
        if bars[1]:
            enable_progress_bars()
