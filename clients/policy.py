"""The device's policy: what its user lets go, in one file that the user alone changes.

    <folder>/policy.json    the fields of :class:`Policy`; what is left out has its default

Records, numbers, adapter weights and texts are decided apart. A message of a server can narrow what
leaves (ask for a smaller ratio, for sums instead of numbers per query), never widen it. The file
also holds what the device takes from a server at all: its own task, bounds on hyperparameters, and
the base models that it trusts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from conf.errors import DataError
from conf.schema import STRICT, RedactedField, Select, TaskConfig
from storage import atomic
from storage.text_files import printable, read_json

FILE = "policy.json"
Permit = Literal["weights", "texts"]
Numbers = Literal["none", "coarse", "exact"]
Noise = Literal["system", "seeded"]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may leave the device; None is no limit. Refusals and errors count as messages.

    Attributes:
        messages_per_day: Messages of one day (UTC).
        messages: Messages in all.
        bits_per_day: Bits of numbers of one day, as :func:`clients.outbound.bits_of` counts them.
        bits: Bits of numbers in all.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    messages_per_day: int | None = 2_000
    messages: int | None = 20_000
    bits_per_day: float | None = 512.0
    bits: float | None = 2_048.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """Hyperparameters that the device takes from a server: closed intervals.

    Attributes:
        max_seq_len: Tokens of prompt and response.
        batch_size: Records per optimizer step.
        learning_rate: Peak learning rate.
        epochs: Passes over the records.
        rank: LoRA rank.
        dropout: Dropout in front of A.
        k: Copies or texts that the device itself makes of a record.
        added_records: Records or steps that a message adds to D_u: synthetic pairs, extra steps.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    max_seq_len: Interval = (128, 4096)
    batch_size: Interval = (4, 256)
    learning_rate: Interval = (1e-6, 1e-2)
    epochs: Interval = (1, 20)
    rank: Interval = (1, 128)
    dropout: Interval = (0.0, 0.5)
    k: Interval = (0, 20)
    added_records: Interval = (0, 100_000)


ANY = 1e12
UNBOUNDED = Bounds(
    max_seq_len=(1, ANY),
    batch_size=(1, ANY),
    learning_rate=(0.0, ANY),
    epochs=(1, ANY),
    rank=(1, ANY),
    dropout=(0.0, 1.0),
    k=(0, ANY),
    added_records=(0, ANY),
)
NO_BUDGET = Budget(None, None, None, None)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user allows.

    Attributes:
        ratio: Largest share of D_u that may leave the device, 0 to 1.
        withdrawn: Record ids that may not leave it (any more).
        select: Which records are shared first; fixed at set-up (:mod:`clients.share_order`).
        redact: Fields of a record that are redacted before it leaves.
        permits: What else may leave: the adapter's "weights", the "texts" of answers.
        numbers: How exact the numbers are that leave: "none" at all, "coarse" ones of each user
            as a whole, or "exact" ones.
        minimum: Coarse numbers are over at least so many records or queries; of fewer there are
            none.
        budget: How much may leave, by day and in all.
        plugins: Python files that register its task, where it is none of ours; relative paths count
            from the device's folder. They run with the device's rights.
        task: Whose prompts and metric the device uses; None takes no training and no queries.
        bertscore: Folder or hub name of the device's own BERTScore model; None for none. What a
            server names is never opened.
        bounds: Hyperparameters that it takes.
        bases: SHA-256 of the base models that it takes.
        base_keys: Ed25519 public keys, as hexadecimal digits, whose owners may sign base models.
        limit_s: A message that takes longer is ended; the server may ask for less.
        epsilon: Privacy loss that all private trainings together may spend; None for no limit.
        delta: Probability of a larger privacy loss.
        noise: Where the noise of DP-SGD comes from: the operating "system", or, in simulations that
            must be repeatable, a "seeded" generator, whose epsilon is for study only.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    ratio: float
    withdrawn: tuple[str, ...] = ()
    select: Select = "random"
    redact: tuple[RedactedField, ...] = ()
    permits: tuple[Permit, ...] = ()
    numbers: Numbers = "coarse"
    minimum: int = 10
    budget: Budget = field(default_factory=Budget)
    task: TaskConfig | None = None
    plugins: tuple[str, ...] = ()
    bertscore: str | None = None
    bounds: Bounds = field(default_factory=Bounds)
    bases: tuple[str, ...] = ()
    base_keys: tuple[str, ...] = ()
    limit_s: float | None = None
    epsilon: float | None = 8.0
    delta: float = 1e-3
    noise: Noise = "system"

    def __post_init__(self) -> None:
        """Refuse a ratio outside [0, 1], and texts beside numbers that are not exact."""
        if not 0 <= self.ratio <= 1:
            raise DataError(f"policy: ratio must lie in [0, 1], got {self.ratio}")
        if "texts" in self.permits and self.numbers != "exact":
            raise DataError(
                f"policy: permits texts of answers but {self.numbers} numbers; texts tell every "
                "number, so set numbers=exact or leave texts out"
            )


def read(folder: Path) -> Policy:
    """Read the policy of the device with the folder ``folder``.

    Raises:
        DataError: If the file is missing, or a key is missing, unknown or out of bounds.
    """
    return from_json(read_json(folder / FILE, missing="set the device up again"), folder.name)


def from_json(value: Any, where: str) -> Policy:
    """Check a policy that was read from a file.

    Raises:
        DataError: If it is none; the first wrong key is named.
    """
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = printable(".".join(str(each) for each in first["loc"])) or "the file"
        raise DataError(
            f"{where}/{FILE}: {key}: {first['msg']}; correct the file, docs/security.md has "
            "every key"
        ) from None


def write(folder: Path, policy: Policy) -> None:
    """Replace the policy of a device; only the user's own commands do."""
    atomic.write_json(folder / FILE, json.loads(_ADAPTER.dump_json(policy)))


_ADAPTER = TypeAdapter(Policy)
