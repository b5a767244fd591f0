"""Whether a user's model says through llama.cpp what it says through transformers.

``python -m benchmarks.device_parity <run> [--users 50] [--queries 4] [--arm <name>]`` takes the
adapters of a finished run. Per file type of the base: the share of answer tokens with the same most
likely token as transformers in float32 on the dequantised NF4 twin, teacher-forced on the gold
answers; the share of identical greedy answers; the score with its paired difference from F16 over
the users: what quantising the base after training does to an adapter. Needs ``make llamacpp``;
``--types`` without a type compares adapters beside the base and merged into it alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.measure import Sheet, append
from clients import adapters, answering, gguf_files
from clients import base as device_base
from clients import folder as device_folder
from clients.base import Base
from clients.folder import Device
from conf.compose import from_json
from conf.schema import Config, GgufWeights
from lamp import metrics, tasks
from lamp.metrics import QueryScore, score_query
from models import lora
from models.chat import IGNORED, Encoded, encode_example, stop_ids
from models.llamacpp.runtime import Runtime
from models.merging import merged
from protocol.settings import DeviceSettings, settings_of
from sim.commands.answer import adapter_of
from sim.folders import RunFolder, find_run
from sim.report.tables import number, signed
from sim.statistics import Resampling, compare, make_user_sums

TYPES: tuple[GgufWeights, ...] = ("f16", "q8_0", "q4_0")
Tokens = npt.NDArray[np.int64]


@dataclass(slots=True)
class Tally:
    """What one way of answering did over all users.

    Attributes:
        chosen: Per user the most likely token at each answer token, one array per query.
        texts: Per user the greedy answers.
        scores: Per user their scores.
    """

    chosen: dict[str, list[Tokens]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    scores: dict[str, list[QueryScore]] = field(default_factory=dict)


def main(argv: Sequence[str]) -> int:
    """Compare, print and append to RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device_parity")
    parser.add_argument("run", help="folder or name of a finished run")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--queries", type=int, default=4, help="of each user, at most")
    parser.add_argument("--arm", help="whose adapters; the last trained by default")
    parser.add_argument("--types", nargs="*", choices=TYPES, default=TYPES, help="of llama.cpp")
    arguments = parser.parse_args(argv)
    run = find_run(arguments.run, Path("runs"))
    config = from_json(run.config.read_text(encoding="utf-8"))
    devices = _devices(run)[: arguments.users]
    work = _Work(run, config, devices, arguments.arm, arguments.queries)
    print(append("device_parity", [work.sheet(arguments.types)]))
    return 0


def _devices(run: RunFolder) -> list[Device]:
    found = (device_folder.read(path) for path in device_folder.device_folders(run.devices))
    return [
        each
        for each in found
        if each.history.queries and device_folder.stored_adapters(each.folder)
    ]


class _Work:
    """The users' queries, through transformers and through llama.cpp."""

    def __init__(
        self,
        run: RunFolder,
        config: Config,
        devices: Sequence[Device],
        arm: str | None,
        queries: int,
    ) -> None:
        self._run, self._config, self._devices = run, config, devices
        self._arm, self._queries = arm, queries
        self._task = tasks.task(config.task)
        self._settings: DeviceSettings = settings_of(config)
        _, folder = adapter_of(run, devices[0], arm)
        threads = config.resources.torch_threads
        self._base: Base = device_base.load(folder, config.qlora, threads)

    def sheet(self, types: Sequence[GgufWeights]) -> Sheet:
        computed, ways = self._config.qlora.compute_dtype, dict[str, Tally]()
        if computed != "float32":
            ways[f"transformers, {computed}, as in the run"] = self._transformers()
            ways[f"transformers, {computed}, merged"] = self._transformers(merge=True)
        self._base.model.float()  # the same weights; what is left is llama.cpp's own rounding
        ours = self._transformers()
        exact = {
            "transformers, float32": ours,
            "transformers, float32, merged": self._transformers(merge=True),
        }
        found = {weights: self._llamacpp(weights) for weights in types}
        name, _ = metrics.headline(self._task)
        rows = [self._row(way, tally, ours, None) for way, tally in {**exact, **ways}.items()]
        rows += [
            self._row(f"llama.cpp, {weights.upper()}", tally, ours, found.get("f16"))
            for weights, tally in found.items()
        ]
        tokens = sum(len(each) for own in ours.chosen.values() for each in own)
        answers = sum(map(len, ours.texts.values()))
        return Sheet(
            f"{len(self._devices)} adapters of {self._run.path.name} "
            f"({self._config.model.name}, {self._task.title}, rank {self._config.qlora.rank}); "
            f"{tokens} answer tokens, {answers} answers.",
            ("way", "same argmax", "identical answers", name, "minus F16"),
            tuple(rows),
            "Argmax and answers against transformers in float32 on the same dequantised NF4 "
            "weights, argmax teacher-forced on gold answers. Intervals of "
            f"{self._config.evaluation.confidence:.0%} over users, paired.",
        )

    def _transformers(self, *, merge: bool = False) -> Tally:
        tally, model = Tally(), self._base.model
        evaluation = replace(self._settings.evaluation, merge_adapters=merge)
        settings = replace(self._settings, evaluation=evaluation)
        for device in self._devices:
            arm, _ = adapter_of(self._run, device, self._arm)
            adapters.load_into(device, arm, model)
            with merged(model, lora.snapshot(model)) if merge else nullcontext(model) as network:
                chosen = [self._chosen_here(network, each) for each in self._gold(device)]
            tally.chosen[device.user_id] = chosen
            texts = [
                answering.answer_text(device, self._base, arm, query.input, settings)
                for query in device.history.queries[: self._queries]
            ]
            self._keep(tally, device, texts)
        return tally

    def _llamacpp(self, weights: GgufWeights) -> Tally:
        tally, folder = Tally(), self._base.folder
        file = gguf_files.base_file(folder, self._config.qlora, weights)
        with Runtime(file, threads=self._config.resources.torch_threads) as runtime:
            for device in self._devices:
                arm, _ = adapter_of(self._run, device, self._arm)
                adapter = gguf_files.adapter_file(device, arm, folder)
                runtime.switch(adapter)
                gold = self._gold(device)
                tally.chosen[device.user_id] = [
                    runtime.logits(each.input_ids[:-1], _start(each)).argmax(axis=1)
                    for each in gold
                ]
                texts = [self._ask(runtime, each) for each in gold]
                self._keep(tally, device, texts)
                runtime.drop(adapter)
        return tally

    def _gold(self, device: Device) -> list[Encoded]:
        return [
            encode_example(
                self._base.tokenizer,
                tasks.as_prompt(self._task, query.input),
                query.gold,
                system=self._settings.system_prompt,
                max_len=self._config.qlora.max_seq_len,
            )
            for query in device.history.queries[: self._queries]
        ]

    @torch.inference_mode()
    def _chosen_here(self, network: torch.nn.Module, example: Encoded) -> Tokens:
        logits = network(torch.tensor([example.input_ids[:-1]])).logits[0]
        chosen: Tokens = logits[_start(example) :].float().argmax(dim=-1).numpy()
        return chosen

    def _ask(self, runtime: Runtime, example: Encoded) -> str:
        tokenizer = self._base.tokenizer
        stops = stop_ids(tokenizer, self._settings.system_prompt)
        prompt = example.input_ids[: _start(example) + 1]
        written = runtime.greedy(prompt, self._settings.task.max_new_tokens, stops)
        kept = written.ids[:-1] if written.finished else written.ids
        return str(
            tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def _keep(self, tally: Tally, device: Device, texts: list[str]) -> None:
        tally.texts[device.user_id] = texts
        tally.scores[device.user_id] = [
            score_query(self._task, text, query.gold)
            for text, query in zip(texts, device.history.queries, strict=False)
        ]

    def _row(self, way: str, tally: Tally, ours: Tally, f16: Tally | None) -> tuple[str, ...]:
        same = [
            a == b
            for user, own in tally.chosen.items()
            for first, second in zip(own, ours.chosen[user], strict=True)
            for a, b in zip(first, second, strict=True)
        ]
        equal = [
            a == b
            for user, own in tally.texts.items()
            for a, b in zip(own, ours.texts[user], strict=True)
        ]
        name, _ = metrics.headline(self._task)
        sums = np.sum(list(self._sums(tally).values()), axis=0)
        score = metrics.metrics_of_sums(self._task, sums)[name]
        return (
            way,
            f"{np.mean(same):.1%}",
            f"{np.mean(equal):.1%}",
            number(float(score)),
            "" if f16 is None or f16 is tally else self._difference(tally, f16),
        )

    def _difference(self, tally: Tally, f16: Tally) -> str:
        evaluation = self._config.evaluation
        resampling = Resampling(evaluation.bootstrap, evaluation.confidence, self._config.seed)
        first, second = (make_user_sums(self._task, [self._sums(each)]) for each in (tally, f16))
        found = compare(first, second, resampling)[metrics.headline(self._task)[0]]
        return f"{signed(found.value)} [{signed(found.low)}, {signed(found.high)}]"

    def _sums(self, tally: Tally) -> dict[str, npt.NDArray[np.float64]]:
        return {user: metrics.sums(self._task, own) for user, own in tally.scores.items()}


def _start(example: Encoded) -> int:
    """Where the logits of the first answer token stand."""
    return next(at for at, label in enumerate(example.labels) if label != IGNORED) - 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
