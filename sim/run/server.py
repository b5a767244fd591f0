"""From a configuration to the strategy: what each step works with is put together here.

The strategy itself knows no ``Config``; another ServerApp can put it together in its own way
(examples/own_app).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flwr.serverapp import Grid

from conf.schema import Config
from lamp.dialogue.lexicons import Lexicon
from protocol.settings import settings_of
from sim.run.cloud_workers import cloud_of
from strategy.arms import Arm, configured_arms
from strategy.augmenter import CloudAugmenter
from strategy.base_model import BaseModels, ensure_bases
from strategy.candidates import FILE
from strategy.cdcda import CdcdaPlm
from strategy.cloud_models import Cloud
from strategy.diagnosis import Truth
from strategy.domains import lexicons_of
from strategy.large_model import LargeModel, require_same_vocabulary
from strategy.oracle import Histories, Oracle
from strategy.progress import Progress
from strategy.public import NO_RECORDS, PublicUsers, RecordPool, pool, read
from strategy.recipes import RecipeInputs, thesaurus_of
from strategy.registry import Fleet, read_bound
from strategy.run_log import RunLog
from strategy.tuning import PublicTuning

STALL_FACTOR = 2.0
STALL_GRACE_S = 60.0


@dataclass(frozen=True, slots=True)
class ServerInputs:
    """What the server holds: no policy, and no user's history unless oracles run.

    Attributes:
        config: The run, model paths resolved.
        run_folder: Where the server writes.
        public: The public users.
        histories: Reads every user's history outside the wire, for the oracles; None where no
            oracle was asked for.
        truth: Tells right synthetic pairs from wrong ones, for the report; None where nobody knows.
    """

    config: Config
    run_folder: Path
    public: PublicUsers
    histories: Histories | None = None
    truth: Truth | None = None


def run_experiment(
    grid: Grid,
    inputs: ServerInputs,
    progress: Progress,
    on_arm: Callable[[str], None] = lambda _: None,
    cloud: Cloud | None = None,
    end_hung: Callable[[], int] = lambda: 0,
) -> None:
    """Run all arms of one experiment over the users whose devices are on ``grid``.

    Args:
        grid: Flower's grid.
        inputs: What the server holds.
        progress: Where progress is told.
        on_arm: Called with the arm's name after each arm.
        cloud: The cloud's models; None takes those of the configuration.
        end_hung: Ends device processes that hang and returns how many.

    Raises:
        ConfigError: If a method needs what the models do not have.
        RunError: If devices are missing; single failing users are noted and left out.
    """
    configured_strategy(inputs, progress, on_arm, cloud, end_hung).start(grid)


def configured_strategy(
    inputs: ServerInputs,
    progress: Progress,
    on_arm: Callable[[str], None],
    cloud: Cloud | None,
    end_hung: Callable[[], int],
) -> CdcdaPlm:
    """Put the strategy of a configuration together; its base models are made where they are not."""
    config, arms, log = inputs.config, configured_arms(inputs.config), RunLog(inputs.run_folder)
    if any(arm.method.distils for arm in arms):
        require_same_vocabulary(config.model.cloud, config.model.device)
    bases = _bases(inputs, arms, log, progress)
    large = LargeModel(config.model.cloud, public_tuning(config, inputs.public), progress)
    return CdcdaPlm(
        arms,
        settings=settings_of(config),
        bases=bases,
        augmenter=_augmenter(inputs, cloud or cloud_of(config)),
        filters=config.filters,
        fleet=_fleet(config, end_hung),
        log=log,
        seed=config.seed,
        recipes=_recipes(inputs, arms),
        teacher=large,
        oracle=_oracle(inputs, large, bases, progress),
        truth=inputs.truth,
        pool=_pool(inputs, arms),
        progress=progress,
        on_arm=on_arm,
    )


def public_tuning(config: Config, public: PublicUsers) -> PublicTuning:
    """What all tuning on the public users depends on, of a configuration."""
    return PublicTuning(
        task=config.task,
        qlora=config.qlora,
        public=public,
        cache=Path(config.paths.cache),
        seed=config.seed,
        device=config.resources.cloud_device,
        rag_items=config.evaluation.rag_items if config.qlora.base_rag else 0,
        rag_max_tokens=config.evaluation.rag_max_tokens,
    )


def _bases(
    inputs: ServerInputs, arms: tuple[Arm, ...], log: RunLog, progress: Progress
) -> BaseModels:
    """The small models that the arms work with, from the cache or made."""
    wanted = {arm.method.tuned for arm in arms if arm.method.answers == "device"}
    config, started = inputs.config, time.perf_counter()
    tuning = public_tuning(config, inputs.public)
    bases = ensure_bases(wanted, config.model.device, tuning, progress)
    log.phase("", "base model", time.perf_counter() - started)
    return bases


def _augmenter(inputs: ServerInputs, cloud: Cloud) -> CloudAugmenter:
    config = inputs.config
    return CloudAugmenter(
        config.augmenter,
        config.task,
        cloud,
        public=inputs.public,
        cache=Path(config.paths.cache),
        seed=config.seed,
        save_to=inputs.run_folder / FILE if config.augmenter.save else None,
    )


def _pool(inputs: ServerInputs, arms: tuple[Arm, ...]) -> RecordPool:
    """The public records that devices get; none where no arm's devices get any."""
    if not any(arm.method.reads_public for arm in arms):
        return NO_RECORDS
    config = inputs.config
    return pool(read(inputs.public), config.baselines.neighbours_pool, config.seed)


def _fleet(config: Config, end_hung: Callable[[], int]) -> Fleet:
    engine = config.engine
    return Fleet(
        users=config.users,
        retries=config.resources.retries,
        stall_s=STALL_FACTOR * config.message_limit_s + STALL_GRACE_S,
        end_hung=end_hung,
        bound=read_bound(Path(engine.nodes)) if engine.nodes else None,
        signing_key=Path(engine.signing_key) if engine.signing_key else None,
    )


def _recipes(inputs: ServerInputs, arms: tuple[Arm, ...]) -> RecipeInputs:
    """The settings of the baselines; words per domain only where devices score by them."""
    config = inputs.config
    streaming = any(arm.method.streaming for arm in arms)
    return RecipeInputs(
        baselines=config.baselines,
        stream=config.stream,
        thesaurus=thesaurus_of(config.baselines, config.data),
        lexicons=configured_lexicons(config, inputs.public) if streaming else (),
    )


def configured_lexicons(config: Config, public: PublicUsers) -> tuple[Lexicon, ...]:
    """Words per domain of a configuration."""
    return lexicons_of(
        config.stream, config.task, public, config.seed, miniature=config.data == "miniature"
    )


def _oracle(
    inputs: ServerInputs, large: LargeModel, bases: BaseModels, progress: Progress
) -> Oracle | None:
    """What runs the arms that hold all data in the cloud; None where no histories were given."""
    if inputs.histories is None:
        return None
    config = inputs.config
    return Oracle(
        inputs.histories,
        settings_of(config),
        large,
        bases.tuned_base,
        progress,
        seed=config.seed,
        device=config.resources.cloud_device,
    )
