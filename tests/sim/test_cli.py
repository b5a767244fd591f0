"""The command line: what is called with what, exit statuses, one line per error, readable help."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from conf.errors import ConfigError, DataError, ModelError, RunError
from conf.groups import groups
from conf.keys import keys
from sim import cli
from sim.commands import COMMANDS, DEFAULT, load, report
from sim.help import print_help
from sim.terminal import PlainConsole

ROOT = Path(__file__).resolve().parents[2]
Calls = list[tuple[list[str], bool]]


Commands = dict[str, Callable[..., int]]


@pytest.fixture
def calls() -> Calls:
    """What the fake commands were called with: words, and whether it was a dry run."""
    return []


@pytest.fixture(autouse=True)
def commands(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> Commands:
    def run(overrides: Sequence[str], dry_run: bool = False) -> int:
        calls.append((list(overrides), dry_run))
        if "seed=13" in overrides:
            raise RunError("seed 13 brings bad luck")
        return 3 if "seed=3" in overrides else 0

    def rebuild(argv: Sequence[str]) -> int:
        calls.append((list(argv), False))
        return 7

    table: Commands = {"run": run, "report": rebuild}
    monkeypatch.setattr(cli, "COMMANDS", dict.fromkeys(table, "stands in"))
    monkeypatch.setattr(cli, "load", table.__getitem__)
    return table


@pytest.mark.parametrize(
    ("argv", "words", "dry_run"),
    [
        ([], [], False),
        (["users=5"], ["users=5"], False),
        (["run", "users=5"], ["users=5"], False),
        (["--dry-run", "users=5"], ["users=5"], True),
        (["run", "users=5", "--dry-run", "--debug"], ["users=5"], True),
        (["+experiment=smoke"], ["+experiment=smoke"], False),
    ],
)
def test_run_is_the_default_command(
    argv: list[str], words: list[str], dry_run: bool, calls: Calls
) -> None:
    assert cli.main(argv) == 0
    assert calls == [(words, dry_run)]


def test_another_command_gets_its_words_as_they_are(calls: Calls) -> None:
    assert cli.main(["report", "--help", "runs/a", "--dry-run"]) == 7
    assert calls == [(["--help", "runs/a", "--dry-run"], False)]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["reprot"], "error: reprot: no such command. Did you mean 'report'? Known: report, run\n"),
        (["--dryrun"], "error: --dryrun: no such option. Did you mean '--dry-run'? Known: "),
        (
            ["--help", "privcy"],
            "error: --help privcy: no such group, key or method. Did you mean 'privacy'? Known",
        ),
        (["-m", "privacy=fixd,mixed"], "error: privacy=fixd: no such name. Did you mean 'fixed'? "),
    ],
)
def test_wrong_usage_gets_one_line_and_status_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str], calls: Calls
) -> None:
    assert cli.main(argv) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(message)
    assert printed.err.count("\n") == 1
    assert calls == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(ConfigError("x"), 2), (DataError("x"), 2), (ModelError("x"), 1), (RunError("x"), 1)],
)
def test_the_status_tells_refused_from_failed(
    error: Exception,
    status: int,
    commands: Commands,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise error

    commands["run"] = fail
    assert cli.main([]) == status
    assert capsys.readouterr().err == "error: x\n"
    with pytest.raises(type(error)):
        cli.main(["--debug"])


def test_an_interrupt_ends_with_130(commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    commands["run"] = interrupt
    assert cli.main([]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_bug_keeps_its_traceback(commands: Commands) -> None:
    def crash(*_: object, **__: object) -> int:
        raise ZeroDivisionError

    commands["run"] = crash
    with pytest.raises(ZeroDivisionError):
        cli.main([])


def test_multirun_runs_every_combination(capsys: pytest.CaptureFixture[str], calls: Calls) -> None:
    assert cli.main(["-m", "task=lamp_2,lamp_4", "seed=0,1", "--dry-run"]) == 0
    assert calls == [
        (["task=lamp_2", "seed=0"], True),
        (["task=lamp_2", "seed=1"], True),
        (["task=lamp_4", "seed=0"], True),
        (["task=lamp_4", "seed=1"], True),
    ]
    assert "[3/4] task=lamp_4 seed=0\n" in capsys.readouterr().out


def test_multirun_puts_its_runs_into_one_folder_and_reports_them_together(
    calls: Calls, tmp_path: Path
) -> None:
    root = f"paths.runs={tmp_path}"
    assert cli.main(["--multirun", "seed=0,1", "task=lamp_2", "name=night", root]) == 0
    *runs, (report, _) = calls
    folder = tmp_path / "night"
    assert [words[-2:] for words, _ in runs] == [
        [f"paths.runs='{folder}'", "name='seed0'"],
        [f"paths.runs='{folder}'", "name='seed1'"],
    ]
    assert report == [f"run={folder}"]
    assert json.loads((folder / "sweep.json").read_text()) == {"runs": ["seed0", "seed1"]}


def test_runs_of_a_sweep_keep_the_names_that_they_were_given(calls: Calls, tmp_path: Path) -> None:
    assert cli.main(["-m", "name=a,b", f"paths.runs={tmp_path}"]) == 0
    assert [words[-1] for words, _ in calls[:2]] == ["name='a'", "name='b'"]


def test_an_experiment_brings_its_own_sweep(calls: Calls) -> None:
    assert cli.main(["experiment=table2_small", "--dry-run"]) == 0
    assert [words[-1] for words, _ in calls] == ["task=lamp_2", "task=lamp_7"]


def test_a_key_on_the_command_line_takes_the_place_of_the_experiments_sweep(calls: Calls) -> None:
    assert cli.main(["experiment=table2_small", "task=lamp_4"]) == 0
    assert calls == [(["experiment=table2_small", "task=lamp_4"], False)]
    calls.clear()
    assert cli.main(["-m", "experiment=table2_small", "seed=0,1", "--dry-run"]) == 0
    assert [words[1:] for words, _ in calls] == [
        [seed, task] for seed in ("seed=0", "seed=1") for task in ("task=lamp_2", "task=lamp_7")
    ]


def test_multirun_starts_nothing_when_one_run_is_refused(calls: Calls) -> None:
    assert cli.main(["-m", "users=5,0"]) == 2
    assert calls == []


def test_multirun_goes_on_after_a_failed_run(
    capsys: pytest.CaptureFixture[str], calls: Calls, tmp_path: Path
) -> None:
    root = f"paths.runs={tmp_path}"
    assert cli.main(["-m", "seed=3,13,0", root]) == 1
    assert len(calls) == 3
    printed = capsys.readouterr().err
    assert printed == "error: seed 13 brings bad luck\n2 of 3 runs did not end well\n"
    assert cli.main(["-m", "seed=3,0", root]) == 3


def page(*topics: str, width: int = 80) -> str:
    console = PlainConsole(file=io.StringIO(), width=width)
    print_help(topics, console, cli.COMMANDS)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_help_names_commands_groups_keys_and_presets() -> None:
    text = page()
    assert "\n  report                      stands in\n" in text
    assert re.search(r"\n  privacy +mixed, beta, fixed, per_user, uniform\n", text)
    assert re.search(
        r"\n  qlora +miniature, .*paper, smollm2\n", text
    )  # what the default model brings
    for key in keys().values():
        assert ("." in key.path) or key.is_section or f"\n  {key.path}=" in text
    for group in groups():
        assert f"\n  {group} " in text


def test_help_of_all_groups_shows_every_preset_and_key() -> None:
    text = page("all")
    for group, names in groups().items():
        for name in names:
            assert f"\n  {group}={name}" in text
    for key in keys().values():
        assert key.is_section or "." not in key.path or f"\n  {key.path}=" in text
    assert "\n  privacy.groups=[guarded,pragmatic,open]\n" in text


@pytest.mark.parametrize(
    ("topic", "shown"),
    [
        ("users", "  users=20 "),
        ("qlora.epochs", "  qlora.epochs="),
        ("augmenter.sampling", "  augmenter.sampling.top_p=1.0\n"),
        ("direct_ft", "  direct_ft                   adapter on D_u only; Tan et al."),
    ],
)
def test_help_of_a_key_or_a_method(topic, shown):
    assert shown in page(topic)
    assert cli.main(["--help", topic]) == 0


@pytest.mark.parametrize("width", [60, 80, 200])
def test_help_keeps_to_the_terminal(width: int) -> None:
    words = [line for line in page("qlora", width=width).splitlines() if line.startswith(" " * 30)]
    assert words
    assert max(map(len, words)) <= min(width, 120)


def test_the_module_answers_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sim", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("cdcda-sim simulates")
    assert done.stderr == ""


def test_every_command_is_a_module_and_every_module_a_command() -> None:
    modules = {path.stem for path in (ROOT / "sim" / "commands").glob("*.py")}
    assert modules - {"__init__", "cli_args"} == {each.replace("-", "_") for each in COMMANDS}
    assert next(iter(COMMANDS)) == DEFAULT
    assert load("report") is report.main
