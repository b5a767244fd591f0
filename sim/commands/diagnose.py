"""``python -m sim diagnose run=...``: how far each adapter's loss on new queries lies from D_u's.

The simulation's own look into the devices' folders, after the run and without a message: it loads
every stored adapter once and trains nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clients import folder as device_folder
from clients.folder import Device
from conf.errors import RunError
from conf.words import read_words
from lamp import tasks
from protocol.settings import DeviceSettings, settings_of
from sim.folders import RunFolder, asked_run
from sim.report import run_tables
from sim.report.run_records import LOSS_GAPS, read_run
from sim.report.tables import to_rich
from sim.terminal import PlainConsole
from storage import atomic
from strategy.base_model import bases_root

USAGE = "usage: python -m sim diagnose run=<folder or name> [runs=<folder of runs>]"


def main(argv: Sequence[str]) -> int:
    """Measure the adapters of one run and print the table.

    Raises:
        RunError: If the run has no adapter.
    """
    console = PlainConsole()
    if set(argv) & {"-h", "--help"}:
        console.print(USAGE)
        return 0
    values, _ = read_words("diagnose", argv, ("run", "runs"))
    run = asked_run("diagnose", values)
    lines = list(loss_gaps(run))
    if not lines:
        raise RunError(f"{run.path.name}: expected adapters in the devices' folders, found none")
    atomic.write_text(
        run.path / LOSS_GAPS, "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    )
    table = run_tables.loss_gap_table(read_run(run.path))
    if table is not None:
        console.print(to_rich(table, stacked=False))
    console.print(f"python -m sim report run={run.path.name} puts it into the report")
    return 0


def loss_gaps(run: RunFolder) -> Iterator[dict[str, Any]]:
    """Yield the losses of every stored adapter on its user's records and queries."""
    config = run.read_config()
    settings = settings_of(config)
    bases = bases_root(Path(config.paths.cache))
    for path in device_folder.device_folders(run.devices):
        device = device_folder.read(path)
        for adapter in device_folder.stored_adapters(path):
            marker = json.loads((adapter / atomic.MARKER).read_text(encoding="utf-8"))
            folder = bases / str(marker["base_id"])
            if losses := _losses(device, adapter.name, folder, settings):
                yield {"arm": adapter.name, "user": device.user_id, **losses}


def _losses(
    device: Device, arm: str, base_folder: Path, settings: DeviceSettings
) -> dict[str, float] | None:
    """Losses on D_u and on the queries' gold answers; None where one of them is empty."""
    from clients import adapters, base
    from models.chat import encode_example, encode_pairs
    from models.losses import mean_loss

    loaded = base.load(base_folder, settings.qlora, settings.torch_threads)
    adapters.load_into(device, arm, loaded.model)
    limit, system, tokenizer = (
        settings.qlora.max_seq_len,
        settings.system_prompt,
        loaded.tokenizer,
    )
    task = tasks.task(settings.task)
    own = encode_pairs(tokenizer, task, device.history.pairs, system=system, max_len=limit)
    asked = [
        encode_example(
            tokenizer, tasks.as_prompt(task, query.input), query.gold, system=system, max_len=limit
        )
        for query in device.history.queries
    ]
    values = [
        mean_loss(loaded.model, examples, tokenizer.pad_token_id, settings.qlora.batch_size)
        for examples in (own, asked)
    ]
    if values[0] is None or values[1] is None:
        return None
    return {"own": values[0], "held_out": values[1]}
