"""``python -m sim device-demo``: a finished run's users as they would be on a phone.

Exports up to eight users' adapters with their base, loads the base once into llama.cpp, switches
from adapter to adapter and answers each user's first queries, beside transformers' answers to the
same prompts. It starts no process, and its files are removed unless ``out`` keeps them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from clients import answering, base
from clients import folder as device_folder
from clients.export import Target, target_of
from clients.folder import Device
from conf.errors import RunError
from conf.words import read_words
from lamp import tasks
from models.chat import encode_prompt, stop_ids
from models.llamacpp.runtime import Continuation, Runtime, binding
from protocol.settings import DeviceSettings, settings_of
from sim.commands.answer import adapter_of
from sim.commands.export import export_users
from sim.folders import RunFolder, asked_run, runs_root
from sim.report.tables import plural
from sim.terminal import PlainConsole

USAGE = (
    "usage: python -m sim device-demo [run=<folder or name>] [runs=<folder>] [out=<folder>]\n"
    "       [weights=q8_0|q4_0|q4_k_m|f16]\n"
    "The run is the newest finished one with adapters unless it is given; out keeps the files."
)
USERS = 8
QUERIES = 2  # of each user


@dataclass(frozen=True, slots=True)
class Row:
    """What one user's adapter took.

    Attributes:
        user: Whose.
        bytes: Size of the adapter's file.
        export_s: Seconds to export it; the first one's with the base.
        switch_s: Seconds to switch to it, its reading included.
        written: What llama.cpp wrote to each prompt.
        theirs_s: Seconds that transformers took for the same prompts.
        theirs_tokens: Tokens that it wrote.
        equal: How many answers are the same text.
    """

    user: str
    bytes: int
    export_s: float
    switch_s: float
    written: tuple[Continuation, ...]
    theirs_s: float
    theirs_tokens: int
    equal: int

    @property
    def tokens(self) -> int:
        """Tokens that llama.cpp wrote."""
        return sum(len(each.ids) for each in self.written)

    @property
    def seconds(self) -> float:
        """Seconds that llama.cpp took."""
        return sum(each.seconds for each in self.written)


def main(argv: Sequence[str]) -> int:
    """Export, answer, print the table."""
    console = PlainConsole()
    if set(argv) & {"-h", "--help"}:
        console.print(USAGE)
        return 0
    values, _ = read_words("device-demo", argv, ("run", "runs", "out", "weights"))
    binding()  # refuses before anything is written
    run = asked_run("device-demo", values) if "run" in values else newest_adapted(runs_root(values))
    with TemporaryDirectory() as temporary:
        target = target_of({"out": temporary, **values})
        show(run, target, console)
        if "out" in values:
            console.print(f"files in {target.out}")
    return 0


def newest_adapted(runs: Path) -> RunFolder:
    """The run below ``runs`` that ended last and has adapters.

    Raises:
        RunError: If there is none.
    """
    found = [RunFolder(path.parent.resolve()) for path in runs.glob("*/finished.json")]
    for run in sorted(found, key=lambda each: each.finished.stat().st_mtime_ns, reverse=True):
        if _with_adapters(run):
            return run
    raise RunError(f"{runs}: expected a finished run with adapters, got none; run make demo first")


def show(run: RunFolder, target: Target, console: Console) -> list[Row]:
    """Do all of it for the first users of ``run`` and print the table."""
    devices = _with_adapters(run)[:USERS]
    config = run.read_config()
    settings = _beside_transformers(settings_of(config))
    exported = [_exported(run, device, target) for device in devices]
    base_file = next(target.out.glob(f"base-*/{target.weights}.gguf"))
    rows = []
    with Runtime(base_file, threads=settings.torch_threads) as runtime:
        for device, (folder, seconds) in zip(devices, exported, strict=True):
            file = folder / "adapter.gguf"
            rows.append(_row(run, device, settings, runtime, file, seconds))
            runtime.drop(file)
    console.print(_table(run, base_file, rows))
    for line in _summary(settings, rows):
        console.print(line)
    return rows


def _with_adapters(run: RunFolder) -> list[Device]:
    devices = [device_folder.read(path) for path in device_folder.device_folders(run.devices)]
    return [
        each
        for each in devices
        if each.history.queries and device_folder.stored_adapters(each.folder)
    ]


def _beside_transformers(settings: DeviceSettings) -> DeviceSettings:
    """The settings with transformers as the runtime, whatever the run was scored through."""
    return replace(settings, evaluation=replace(settings.evaluation, runtime="transformers"))


def _exported(run: RunFolder, device: Device, target: Target) -> tuple[Path, float]:
    started = time.perf_counter()
    folder = export_users(run, [device], None, target)[0]
    return folder, time.perf_counter() - started


def _row(
    run: RunFolder,
    device: Device,
    settings: DeviceSettings,
    runtime: Runtime,
    file: Path,
    export_s: float,
) -> Row:
    arm, base_folder = adapter_of(run, device, None)
    loaded = base.load(base_folder, settings.qlora, settings.torch_threads)
    prompts = [query.input for query in device.history.queries[:QUERIES]]
    started = time.perf_counter()
    runtime.switch(file)
    switch_s = time.perf_counter() - started
    written = tuple(_ask(runtime, loaded, prompt, settings) for prompt in prompts)
    started = time.perf_counter()
    theirs = [answering.answer_alone(device, loaded, arm, each, settings) for each in prompts]
    theirs_s = time.perf_counter() - started
    texts = [_text(loaded.tokenizer, each) for each in written]
    return Row(
        user=device.user_id,
        bytes=file.stat().st_size,
        export_s=export_s,
        switch_s=switch_s,
        written=written,
        theirs_s=theirs_s,
        theirs_tokens=sum(each.tokens for each in theirs),
        equal=sum(a == b.text for a, b in zip(texts, theirs, strict=True)),
    )


def _ask(
    runtime: Runtime, loaded: base.Base, prompt: str, settings: DeviceSettings
) -> Continuation:
    limit = settings.task.max_new_tokens
    room = loaded.model.config.max_position_embeddings - limit
    asked = tasks.as_prompt(tasks.task(settings.task), prompt)
    ids = encode_prompt(loaded.tokenizer, asked, settings.system_prompt, room)
    return runtime.greedy(ids, limit, stop_ids(loaded.tokenizer, settings.system_prompt))


def _text(tokenizer: Any, written: Continuation) -> str:
    kept = written.ids[:-1] if written.finished else written.ids
    return str(tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _table(run: RunFolder, base_file: Path, rows: Sequence[Row]) -> Table:
    size = base_file.stat().st_size / 1e6
    title = f"{run.path.name}: {size:.1f} MB base in {base_file.stem.upper()}, loaded once"
    table = Table(title=title, title_justify="left")
    for heading in ("user", "adapter", "export", "switch", "first token", "tokens/s", "same text"):
        table.add_column(heading, justify="left" if heading == "user" else "right")
    for row in rows:
        first = sum(each.first_token_s for each in row.written) / len(row.written)
        table.add_row(
            row.user,
            f"{row.bytes / 1e6:.2f} MB",
            f"{row.export_s:.1f} s",
            f"{1e3 * row.switch_s:.0f} ms",
            f"{1e3 * first:.0f} ms",
            f"{row.tokens / row.seconds:.0f}",
            f"{row.equal} of {len(row.written)}",
        )
    return table


def _summary(settings: DeviceSettings, rows: Sequence[Row]) -> list[str]:
    ours = sum(row.tokens for row in rows) / sum(row.seconds for row in rows)
    theirs = sum(row.theirs_tokens for row in rows) / sum(row.theirs_s for row in rows)
    threads = plural(settings.torch_threads, "thread")
    return [
        f"llama.cpp wrote {ours:.0f} tokens/s, transformers {theirs:.0f}: {ours / theirs:.1f} "
        f"times, one prompt at a time, prompts included, {threads}.",
        "Same text: as transformers' greedy answer on NF4, which Q8_0 and Q4_0 quantise once more.",
    ]
