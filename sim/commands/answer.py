"""``python -m sim answer run=... user=... "query"``: ask one user's device, offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from clients import folder as device_folder
from clients.folder import Device
from clients.offline_query import BASE_ALONE, answer_with, newest_adapter
from conf.errors import ConfigError, RunError
from conf.names import one_of
from conf.schema import AnswerRuntime, GgufWeights
from conf.words import read_words, required
from protocol.settings import settings_of
from sim.folders import RunFolder, asked_run
from sim.terminal import PlainConsole
from storage import jsonlines
from strategy.base_model import bases_root
from strategy.ledger import M_BASE

USAGE = (
    'usage: python -m sim answer run=<folder or name> user=<id> [arm=cdcda] "query"\n'
    "       [runtime=transformers|llamacpp] [weights=f16|q8_0|q4_0|q4_k_m] [merge=true]\n"
    "The query may be a whole prompt, or just the text, which then gets the task's own prompt.\n"
    "arm=device asks M_base without an adapter; weights are those of llama.cpp's base;\n"
    "merge adds the adapter to the base's weights first (evaluation.merge_adapters)."
)
RUNTIMES: tuple[AnswerRuntime, ...] = get_args(AnswerRuntime)
WEIGHTS: tuple[GgufWeights, ...] = get_args(GgufWeights)


def main(argv: Sequence[str]) -> int:
    """Answer one query with a stored adapter."""
    console = PlainConsole()
    if set(argv) & {"-h", "--help"}:
        console.print(USAGE)
        return 0
    known = ("run", "user", "arm", "runs", "runtime", "weights", "merge")
    values, words = read_words("answer", argv, known, free=True)
    if not words:
        raise ConfigError(f"answer: the query is missing\n{USAGE}")
    through = _through(values)
    run = asked_run("answer", values)
    device = find_device(run, required("answer", values, "user", "17"))
    console.print(answer(run, device, values.get("arm"), " ".join(words), through))
    return 0


def answer(
    run: RunFolder,
    device: Device,
    arm: str | None,
    query: str,
    through: Mapping[str, Any] | None = None,
) -> str:
    """Answer ``query`` on ``device``.

    Args:
        run: The run that the device belongs to.
        device: Whose adapter answers.
        arm: The adapter's; None takes the last one trained, "device" M_base alone.
        query: A whole prompt, or just the text.
        through: Keys of ``evaluation`` that are other than the run's.
    """
    config = run.read_config()
    settings = settings_of(config)
    settings = replace(settings, evaluation=replace(settings.evaluation, **(through or {})))
    if arm == BASE_ALONE:
        return answer_with(device, None, _base_of(run, device), settings, query)
    return answer_with(device, *adapter_of(run, device, arm), settings, query)


def adapter_of(run: RunFolder, device: Device, arm: str | None) -> tuple[str, Path]:
    """Name of the adapter of ``arm`` (None: the last one trained) and folder of its base.

    Raises:
        RunError: If there is none.
        ConfigError: If there is none of that name.
    """
    chosen, base_id = newest_adapter(device, arm)
    return chosen, _bases(run) / base_id


def _base_of(run: RunFolder, device: Device) -> Path:
    """M_base of the run, as the ledger tells that the device got it."""
    for line in jsonlines.read(run.path / "ledger.jsonl"):
        if line["kind"] == M_BASE and line["user"] == device.user_id:
            return _bases(run) / str(line["hash"])
    raise RunError(f"user {device.user_id}: this device got no M_base in {run.path.name}")


def _bases(run: RunFolder) -> Path:
    config = run.read_config()
    return bases_root(Path(config.paths.cache))


def _through(values: dict[str, str]) -> dict[str, Any]:
    """Keys of ``evaluation`` from the command line."""
    found: dict[str, Any] = {}
    if {"runtime", "weights"} & values.keys():
        found["runtime"] = one_of("runtime", values.get("runtime", "transformers"), RUNTIMES)
        found["weights"] = one_of("weights", values.get("weights", "q8_0"), WEIGHTS)
    if "weights" in values and found["runtime"] != "llamacpp":
        raise ConfigError(
            f"answer: weights has no effect with runtime={found['runtime']}; add runtime=llamacpp"
        )
    if "merge" in values:
        found["merge_adapters"] = one_of("merge", values["merge"], ("true", "false")) == "true"
    return found


def find_device(run: RunFolder, user: str) -> Device:
    """The device of ``user`` in ``run``.

    Raises:
        RunError: If the run has no such user; the message names some.
    """
    path = run.devices / device_folder.folder_name(user)
    if not path.is_dir():
        known = [
            device_folder.read(each).user_id for each in device_folder.device_folders(run.devices)
        ]
        raise RunError(f"user={user}: no such user; this run has {', '.join(known[:10])} ...")
    return device_folder.read(path)
