"""``python -m sim tune``: choose learning rates, epochs, batches, temperature and thresholds.

On public users that neither M_base nor M_cloud has seen, never on target users: those are dropped
from the data before anything else happens. The stages build on each other: M_base, M_cloud,
adapters on the chosen M_base, augmentation for the chosen adapters. One setting, the best for
adapters on D_u alone, serves all methods, so that none is favoured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from conf.compose import compose
from conf.errors import ConfigError
from conf.schema import Config, TuneStage
from lamp import dataset, tasks
from lamp.dataset import LampData
from lamp.tasks import Task
from sim import exit_status
from sim.run.engine import set_environment
from sim.run.lifecycle import with_absolute_paths
from sim.run.prepare import with_models
from sim.run.progress import TerminalProgress
from sim.statistics import Resampling
from sim.terminal import PlainConsole
from sim.tuning import output
from sim.tuning.grid import ORDER, Choice, Trial, applied, choose, grid
from sim.tuning.output import Stage
from sim.tuning.trials import (
    Bench,
    adapter_trials,
    augmentation_trials,
    base_trials,
    cloud_trials,
    make_bench,
    retrieval_trials,
)

USAGE = """\
python -m sim tune [out=<preset>.yaml] [--dry-run] [group=name] [key=value] ...

Chooses settings on public users, never on target users. With out= it writes a
preset, and all trials beside it as <preset>.trials.jsonl:
  out=conf/experiment/mine.yaml   all of it:     python -m sim experiment=mine
  out=conf/qlora/mine.yaml        that group's:  python -m sim qlora=mine
What was measured before is not repeated: the same line goes on with what was
interrupted. --dry-run lists the grid and the estimated time.

The other words are those of a run. The grid stands under tune.* (--help tune):
  python -m sim tune task=lamp_4 tune.epochs=[2,4] tune.stages=[base,adapters]"""

RUN: dict[TuneStage, Callable[[Bench], Iterator[Trial]]] = {
    "base": base_trials,
    "retrieval": retrieval_trials,
    "cloud": cloud_trials,
    "adapters": adapter_trials,
    "augmentation": augmentation_trials,
}


def main(argv: Sequence[str]) -> int:
    """Tune what ``argv`` asks for.

    Returns:
        The exit status.

    Raises:
        ConfigError: If a word is refused.
        DataError: If the data cannot be used, or there are too few public users.
        RunError: If no setting of a stage could be scored.
    """
    console = PlainConsole()
    if {"-h", "--help"} & set(argv):
        console.print(USAGE)
        return exit_status.OK
    dry_run, out, words = _split(argv)
    if out is not None:
        output.check_target(out)
    config = with_absolute_paths(compose(words, tuning=True))
    data = public_data(config)
    if dry_run:
        from sim.tuning.estimate import print_estimate

        print_estimate(config, data, console)
        return exit_status.OK
    set_environment()  # before anything imports transformers
    progress = TerminalProgress(console, lasting=False)
    for note in data.notes:
        progress.note(note)
    config, _ = with_models(config, data, progress)
    stages = tune(make_bench(config, data, progress), console)
    if out is not None:
        output.write(out, stages, config, data, words)
        console.print(f"{out} is written; {output.use(out)}")
    return exit_status.OK


def _split(argv: Sequence[str]) -> tuple[bool, Path | None, list[str]]:
    """Tell the command's own words from those of the configuration."""
    outs = [word.removeprefix("out=") for word in argv if word.startswith("out=")]
    if len(outs) > 1:
        raise ConfigError("tune: out is given twice")
    words = [word for word in argv if word != "--dry-run" and not word.startswith("out=")]
    for word in words:
        if word.startswith("-"):
            raise ConfigError(f"tune: {word}: no such option. Known: --dry-run, --help")
    return "--dry-run" in argv, Path(outs[0]).expanduser() if outs else None, words


def public_data(config: Config) -> LampData:
    """The data without the target users: pseudo-targets in their place, apart from the public ones.

    Raises:
        ConfigError: If there are too few public users, the miniatures would learn from a
            pseudo-target, or the devices are real.
        DataError: If the data cannot be used.
    """
    build, wanted = config.model.build, config.skip_users + config.users + config.tune.users
    if build is not None and build.holdout < wanted:
        raise ConfigError(
            f"model.build.holdout must be >= {wanted} (skip_users + users + tune.users), got "
            f"{build.holdout}: the miniatures would have learned from the users that settings are "
            "chosen on; lower tune.users or users, or raise model.build.holdout"
        )
    if config.engine.name != "simulation":
        raise ConfigError("tune: runs in this process; leave engine out")
    return dataset.pseudo_targets(
        dataset.load(config),
        config.tune.users,
        exclude_contaminated=config.evaluation.exclude_contaminated,
        max_words=config.task.max_field_words,
    )


def tune(bench: Bench, console: Console) -> list[Stage]:
    """Run the stages in their order, each with what the earlier ones chose."""
    task = tasks.task(bench.config.task)
    evaluation = bench.config.evaluation
    resampling = Resampling(evaluation.bootstrap, evaluation.confidence, bench.config.seed)
    stages = []
    for name in ORDER:
        if name not in bench.config.tune.stages:
            continue
        stage = _run_stage(bench, name, task, resampling, console)
        output.print_stage(stage, console)
        if stage.choice is not None:
            bench = replace(bench, config=applied(bench.config, stage.choice.chosen.setting))
        stages.append(stage)
    return stages


def _run_stage(
    bench: Bench, name: TuneStage, task: Task, resampling: Resampling, console: Console
) -> Stage:
    planned = len(grid(bench.config, name))
    console.print(f"{output.TITLES[name]}: {planned} settings", highlight=False)
    trials: list[Trial] = []
    for trial in RUN[name](bench):
        trials.append(trial)
        line = output.trial_line(trial, task, resampling)
        console.print(f"  {len(trials)}/{planned} {line}")
    return Stage(name, task, tuple(trials), _choice(name, task, trials, resampling), resampling)


def _choice(
    name: TuneStage, task: Task, trials: Sequence[Trial], resampling: Resampling
) -> Choice | None:
    """Choose; an augmentation of which no setting keeps a usable share has nothing to choose."""
    if name == "augmentation" and not any(trial.sums for trial in trials):
        return None
    return choose(task, trials, resampling)
