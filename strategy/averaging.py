"""Averaging of LoRA weights by Flower's own FedAvg, weighted by the number of records.

What a round received lies in files until it is averaged, and the average stays, so a run that was
ended half-way through a round goes on with the users that are left.

    <folder>/<adapter>/<round>/<hash of the user id>.safetensors   one user's weights
    <folder>/<adapter>/<round>.safetensors                         their average
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from conf.errors import RunError
from protocol.codec import Arrays
from protocol.messages import AdaptReply
from storage import atomic
from storage.hashing import hash_bytes
from strategy.planning import AdapterRound

WEIGHT = "num-examples"
SUFFIX = ".safetensors"
LEFT_OUT = "left out"
RECORDS_CAP = 10.0  # times the median of the round's users
NORM_CAP = 3.0
Part = tuple[str, int, Arrays]  # user, records, weights


class Averages:
    """The weights of federated rounds, as they come in and averaged."""

    def __init__(self, folder: Path) -> None:
        """Keep everything below ``folder``."""
        self._folder = folder

    def has(self, training: AdapterRound) -> bool:
        """Whether the round is over."""
        return self._average(training).is_file()

    def add(self, training: AdapterRound, user: str, reply: AdaptReply) -> None:
        """Keep one user's weights until the round is over."""
        facts = {"user": user, "records": str(reply.records)}
        name = hash_bytes(user.encode("utf-8")) + SUFFIX  # ids are no file names
        content = save(dict(reply.weights), metadata=facts)
        atomic.write_bytes(self._parts(training) / name, content)

    def close(self, training: AdapterRound) -> tuple[ArrayRecord | None, tuple[str, ...]]:
        """Average what came in, in the order of the users.

        Returns:
            The average, None without any weights; and the users whose weights were left out
            because they are no finite numbers, of no records, or of other names and shapes than
            those of most. A round that is over tells the same every time.
        """
        if not self.has(training):
            parts = [_part(path) for path in self._parts(training).glob(f"*{SUFFIX}")]
            parts.sort(key=lambda part: part[0])  # sums are the same in every run
            fitting = _fitting(parts)
            if not fitting:
                return None, tuple(part[0] for part in parts)
            taken = {part[0] for part in fitting}
            left_out = [part[0] for part in parts if part[0] not in taken]
            averaged = average(training[1], _capped(fitting))
            content = save(dict(arrays_of(averaged)), metadata={LEFT_OUT: json.dumps(left_out)})
            atomic.write_bytes(self._average(training), content)
        shutil.rmtree(self._parts(training), ignore_errors=True)
        facts, averages = _read(self._average(training))
        return _record(averages), tuple(json.loads(facts.get(LEFT_OUT, "[]")))

    def _parts(self, training: AdapterRound) -> Path:
        adapter, number = training
        return self._folder / adapter / str(number)

    def _average(self, training: AdapterRound) -> Path:
        return self._parts(training).with_suffix(SUFFIX)


def average(server_round: int, weighted: Sequence[tuple[int, Arrays]]) -> ArrayRecord:
    """Average weights, each with its number of records, in the given order."""
    messages = [
        Message(_as_flower_has_it(*each), dst_node_id=number, message_type=AdaptReply.TYPE)
        for number, each in enumerate(weighted, start=1)
    ]
    averaged, _ = FedAvg(weighted_by_key=WEIGHT).aggregate_train(server_round, messages)
    if averaged is None:
        raise RunError("fedavg: expected weights of at least one user, got none")
    return averaged


def arrays_of(record: ArrayRecord) -> Arrays:
    """The named arrays of ``record``."""
    return {name: array.numpy() for name, array in record.items()}


def _fitting(parts: Sequence[Part]) -> list[Part]:
    """Those that can be averaged with most of the others: one device must not end a round."""
    finite = [part for part in parts if part[1] > 0 and _is_finite(part[2])]
    shapes = [
        tuple(sorted((name, each.shape, each.dtype.str) for name, each in weights.items()))
        for _, _, weights in finite
    ]
    if not shapes:
        return []
    (usual, _) = Counter(shapes).most_common(1)[0]  # of equally many the first user's
    return [part for part, shape in zip(finite, shapes, strict=True) if shape == usual]


def _capped(parts: Sequence[Part]) -> list[tuple[int, Arrays]]:
    """No user counts as much more than most, by records or by the length of the weights.

    What lies within the caps is left as it came, to the last bit.
    """
    most_records = RECORDS_CAP * float(np.median([records for _, records, _ in parts]))
    norms = [_norm(weights) for _, _, weights in parts]
    longest = NORM_CAP * float(np.median(norms))
    capped = []
    for (_, records, weights), norm in zip(parts, norms, strict=True):
        shorter = weights
        if norm > longest:
            shorter = {
                n: (each * (longest / norm)).astype(each.dtype) for n, each in weights.items()
            }
        capped.append((max(1, int(min(records, most_records))), shorter))
    return capped


def _norm(weights: Arrays) -> float:
    squares = (float(np.square(each, dtype=np.float64).sum()) for each in weights.values())
    return math.sqrt(math.fsum(squares))


def _is_finite(weights: Arrays) -> bool:
    return bool(weights) and all(np.isfinite(each).all() for each in weights.values())


def _as_flower_has_it(records: int, weights: Arrays) -> RecordDict:
    metrics = MetricRecord({WEIGHT: float(records)})
    return RecordDict({"arrays": _record(weights), "metrics": metrics})


def _record(weights: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(each) for name, each in weights.items()})


def _part(path: Path) -> Part:
    facts, weights = _read(path)
    return facts["user"], int(facts["records"]), weights


def _read(path: Path) -> tuple[dict[str, str], Arrays]:
    """What one file says of its weights, and these."""
    try:
        with safe_open(path, framework="numpy") as file:
            facts = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"averages/{path.parent.name}/{path.name}: cannot be read ({type(error).__name__}); "
            "delete the file and resume the run"
        ) from error
    return facts, weights
