"""One experiment on the server, step by step: roster, base model, shares, augmentation, arms."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid

from conf.schema import Config
from lamp import tasks
from lamp.records import Pair
from protocol.codec import decode, encode
from protocol.messages import ShareReply, ShareRequest
from protocol.settings import settings_of, settings_to_json
from strategy.augmentation import Counters, augment
from strategy.base_model import BaseModel, ensure_base
from strategy.cache import Cache
from strategy.cdcda import ArmPlan, CdcdaPlm, Standing
from strategy.cloud_models import Cloud, configured_cloud
from strategy.exchange import TTL_S, AccountedGrid
from strategy.filters import Candidate, select
from strategy.ledger import Ledger
from strategy.methods import Arm, make_arms
from strategy.progress import Progress
from strategy.public import PublicUsers
from strategy.roster import call_roll, wait_for_nodes
from strategy.run_log import RunLog

NODES_LIMIT_S = 180.0
STALL_FACTOR = 2.0
STALL_GRACE_S = 60.0

T = TypeVar("T")
Shares = Mapping[str, Mapping[float, tuple[Pair, ...]]]  # user -> asked ratio -> records


@dataclass(frozen=True, slots=True)
class ServerInputs:
    """What the server holds: no user's history, no policy.

    Attributes:
        config: The run, model paths resolved.
        run_folder: Where the server writes.
        public: The public users.
    """

    config: Config
    run_folder: Path
    public: PublicUsers


def run_experiment(
    grid: Grid,
    inputs: ServerInputs,
    progress: Progress,
    on_arm: Callable[[str], None] = lambda _: None,
    cloud: Cloud | None = None,
) -> None:
    """Run all arms of one experiment over the users whose devices are there.

    Args:
        grid: Flower's grid.
        inputs: What the server holds.
        progress: Where progress is told.
        on_arm: Called with the arm's name after each arm.
        cloud: The cloud's models; None takes those of the configuration.

    Raises:
        RunError: If devices are missing; single failing users are noted and left out.
    """
    config = inputs.config
    cloud = cloud or configured_cloud(config)
    arms = make_arms(config.methods, config.ratios)
    log = RunLog(inputs.run_folder)
    ledger = Ledger(log.ledger_path)
    accounted = AccountedGrid(
        grid,
        ledger,
        config.resources.retries,
        stall_s=STALL_FACTOR * config.resources.client_limit_s + STALL_GRACE_S,
    )
    base = _timed(log, "base model", lambda: ensure_base(config, inputs.public, progress))
    nodes = call_roll(accounted, wait_for_nodes(grid, config.users, NODES_LIMIT_S))
    accounted.know({node: user for user, node in nodes.items()})
    log.roster(nodes)
    ledger.base_model(nodes, base.base_id, base.bytes)
    shares = _timed(log, "share", lambda: _collect_shares(accounted, nodes, arms, log, progress))
    plans = _timed(log, "augment", lambda: _plan(arms, shares, config, cloud, log, progress))
    strategy = CdcdaPlm(plans, _standing(config, nodes, base), log, progress, on_arm)
    strategy.start(accounted, ArrayRecord(), num_rounds=strategy.num_rounds, timeout=float("inf"))


def _timed(log: RunLog, phase: str, step: Callable[[], T]) -> T:
    started = time.perf_counter()
    result = step()
    log.phase("", phase, time.perf_counter() - started)
    return result


def _standing(config: Config, nodes: Mapping[str, int], base: BaseModel) -> Standing:
    return Standing(
        nodes=nodes,
        base_id=base.base_id,
        settings=settings_to_json(settings_of(config)),
        seed=config.seed,
    )


def _collect_shares(
    grid: AccountedGrid,
    nodes: Mapping[str, int],
    arms: Sequence[Arm],
    log: RunLog,
    progress: Progress,
) -> Shares:
    """Ask every device once for all ratios of the experiment; smaller shares lie in larger ones."""
    ratios = tuple(sorted({arm.asked_ratio for arm in arms if arm.method.needs_augmentation}))
    if not ratios:
        return {}
    request = encode(ShareRequest(ratios=ratios))
    with progress.phase("share", len(nodes)) as phase:
        grid.on_reply = phase.advance
        replies = grid.send_and_receive(
            Message(request, node, ShareRequest.TYPE, ttl=TTL_S, group_id="share")
            for node in nodes.values()
        )
    log.failures(grid.take_failures())
    shares: dict[str, dict[float, tuple[Pair, ...]]] = {}
    for reply in replies:
        body = decode(ShareReply, reply.content)
        shares[grid.user_of(reply)] = {
            ratio: body.pairs[:count] for ratio, count in zip(ratios, body.counts, strict=True)
        }
    return shares


def _plan(
    arms: Sequence[Arm],
    shares: Shares,
    config: Config,
    cloud: Cloud,
    log: RunLog,
    progress: Progress,
) -> list[ArmPlan]:
    """Augment the largest shares once, then choose for every arm."""
    if not any(arm.method.needs_augmentation for arm in arms):
        return [ArmPlan(arm, {}) for arm in arms]
    candidates = _candidates(shares, config, cloud, log, progress)
    return [_plan_arm(arm, shares, candidates, config, log) for arm in arms]


def _candidates(
    shares: Shares, config: Config, cloud: Cloud, log: RunLog, progress: Progress
) -> Mapping[str, tuple[Candidate, ...]]:
    counters = Counters()
    candidates = augment(
        {user: by_ratio[max(by_ratio)] for user, by_ratio in shares.items()},
        task=tasks.task(config.task),
        config=config.augmenter,
        seed=config.seed,
        writer=cloud.writer,
        judge=cloud.judge,
        cache=Cache(Path(config.paths.cache) / "augmentation.sqlite"),
        progress=progress,
        counters=counters,
    )
    log.phase(
        "",
        "augmentation counters",
        0.0,
        replies=counters.generated_replies,
        tokens=counters.generated_tokens,
        nli_pairs=counters.nli_pairs,
    )
    return candidates


def _plan_arm(
    arm: Arm,
    shares: Shares,
    candidates: Mapping[str, tuple[Candidate, ...]],
    config: Config,
    log: RunLog,
) -> ArmPlan:
    if not arm.method.needs_augmentation:
        return ArmPlan(arm, {})
    kept: dict[str, tuple[Pair, ...]] = {}
    for user, by_ratio in shares.items():
        shared = by_ratio[arm.asked_ratio]
        # k candidates per shared pair, in the order of the pairs: a smaller share is a prefix
        selection = select(candidates[user][: len(shared) * config.augmenter.k], config.filters)
        kept[user] = selection.kept
        if arm.method.downloads:
            log.augmentation(arm.name, user, len(shared), selection)
    return ArmPlan(arm, kept)
