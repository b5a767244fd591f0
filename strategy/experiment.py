"""One experiment on the server, step by step: registry, base model, shares, augmentation, arms."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid

from conf.errors import ProtocolError
from conf.schema import Config
from conf.seeds import derive_seed
from lamp.dialogue.lexicons import Lexicon
from lamp.records import Pair
from protocol.codec import decode, encode
from protocol.messages import ShareReply, ShareRequest, WithdrawReply, WithdrawRequest
from protocol.settings import settings_of, settings_to_json
from strategy.arms import Arm, configured_arms
from strategy.augmentation import Counters
from strategy.base_model import BaseModel, ensure_base, ensure_untuned
from strategy.cache import Cache
from strategy.candidates import FILE, replay, save, write_candidates
from strategy.cdcda import CdcdaPlm, RunContext
from strategy.cloud_models import Cloud, configured_cloud
from strategy.delivery import deliver
from strategy.diagnosis import Truth
from strategy.domains import lexicons_of
from strategy.endpoint import EndpointGenerator
from strategy.extra_filters import with_extra_filters
from strategy.filters import Candidate
from strategy.grid import TTL_S, AccountedGrid, Failure, ignore_reply
from strategy.large_model import LargeModel, require_same_vocabulary
from strategy.ledger import DEVICE_MODEL, M_BASE, Ledger
from strategy.oracle import ORACLE, Histories, Oracle
from strategy.planning import ArmInputs, ArmPlan, Shares, largest_k, plan_arm
from strategy.progress import Progress
from strategy.public import PublicUsers
from strategy.registry import Registry, discover_clients, read_bound, wait_for_nodes
from strategy.run_log import RunLog
from strategy.teacher import teach

NODES_LIMIT_S = 180.0
STALL_FACTOR = 2.0
STALL_GRACE_S = 60.0

T = TypeVar("T")


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
    """Run all arms of one experiment over the users whose devices are there.

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
    config = inputs.config
    cloud = cloud or configured_cloud(config)
    arms = configured_arms(config)
    log = RunLog(inputs.run_folder)
    log.forget_failures()
    ledger = Ledger(log.ledger_path)
    accounted = AccountedGrid(
        grid,
        ledger,
        config.resources.retries,
        stall_s=STALL_FACTOR * config.message_limit_s + STALL_GRACE_S,
        end_hung=end_hung,
    )
    if any(arm.method.distils for arm in arms):
        require_same_vocabulary(config)
    bases = _timed(log, "base model", lambda: _bases(arms, inputs, progress))
    bound = read_bound(Path(config.engine.nodes)) if config.engine.nodes else None
    registry = discover_clients(accounted, wait_for_nodes(grid, config.users, NODES_LIMIT_S), bound)
    nodes, key = registry.nodes, config.engine.signing_key
    log.failures(accounted.take_failures())
    log.registry(nodes)
    _timed(
        log, "deliver", lambda: _deliver(arms, bases, registry, accounted, ledger, progress, key)
    )
    log.failures(accounted.take_failures())
    _forget(accounted, registry, ledger, config)
    log.failures(accounted.take_failures())
    lexicons = _lexicons(arms, inputs)
    shares = _timed(log, "share", lambda: _collect_shares(accounted, nodes, arms, log, progress))
    candidates = _timed(
        log, "augment", lambda: _candidates(arms, shares, inputs, cloud, log, progress, ledger)
    )
    large, context = (
        LargeModel(config, inputs.public, progress),
        _run_context(config, nodes, ledger),
    )
    oracle = Oracle(config, inputs.histories, large, bases.get(True), progress)
    _ask_oracles(arms, oracle, nodes, log, ledger, on_arm)
    material = ArmInputs(
        shares=shares,
        candidates=candidates,
        k=largest_k(arms, config),
        lexicons=lexicons,
        truth=inputs.truth,
    )
    plans = _plans(arms, bases, material, config, log)
    if untaught := _untaught(plans, context, log):
        ratio = max(arm.asked_ratio for arm in arms if arm.method.distils)
        shared = {user: by[ratio] for user, by in shares.items() if user in untaught}
        logits = _timed(
            log, "teacher logits", lambda: teach(shared, config, large, progress, log.folder)
        )
        plans = _plans(arms, bases, replace(material, logits=logits), config, log)
    large.release()
    strategy = CdcdaPlm(plans, context, log, progress, on_arm)
    strategy.start(accounted, ArrayRecord(), num_rounds=strategy.num_rounds, timeout=float("inf"))


def _bases(arms: Sequence[Arm], inputs: ServerInputs, progress: Progress) -> dict[bool, BaseModel]:
    """The small models that the arms work with, by whether they are tuned."""
    wanted = {arm.method.tuned for arm in arms if arm.method.answers == "device"}
    bases = {}
    if True in wanted:
        bases[True] = ensure_base(inputs.config, inputs.public, progress)
    if False in wanted:
        bases[False] = ensure_untuned(inputs.config)
    return bases


def _deliver(
    arms: Sequence[Arm],
    bases: Mapping[bool, BaseModel],
    registry: Registry,
    grid: AccountedGrid,
    ledger: Ledger,
    progress: Progress,
    signing_key: str | None,
) -> None:
    """See that every device has the models that it works with, once.

    To a real device they are sent; for a virtual one, which reads the server's folder, the ledger
    notes what a download would be.
    """
    virtual = [user for user in registry.nodes if user not in registry.downloads]
    for tuned in sorted({arm.method.tuned for arm in arms if not arm.method.oracle}):
        base = bases[tuned]
        ledger.base_model(virtual, base.base_id, base.bytes, M_BASE if tuned else DEVICE_MODEL)
        if registry.downloads:
            deliver(
                grid,
                base,
                tuned=tuned,
                registry=registry,
                progress=progress,
                signing_key=Path(signing_key) if signing_key else None,
            )


def _forget(grid: AccountedGrid, registry: Registry, ledger: Ledger, config: Config) -> None:
    """Ask real devices what their users took back, and delete what these records gave rise to.

    A simulated user withdraws by ``python -m sim withdraw``, which plays both sides.
    """
    nodes = [registry.nodes[user] for user in registry.downloads]
    request = encode(WithdrawRequest())
    replies = grid.send_and_receive(
        [Message(request, node, WithdrawRequest.TYPE, ttl=TTL_S, group_id="w") for node in nodes]
    )
    for reply in replies:
        user, body = grid.user_of(reply), decode(WithdrawReply, reply.content)
        if body.records:
            Cache(Path(config.paths.cache) / "augmentation.sqlite").release(user, body.records)
            ledger.tombstone(user, body.records)


def _ask_oracles(
    arms: Sequence[Arm],
    oracle: Oracle,
    users: Iterable[str],
    log: RunLog,
    ledger: Ledger,
    on_arm: Callable[[str], None],
) -> None:
    """Run the oracles that have not answered yet."""
    users = list(users)
    for arm in arms:
        if arm.method.oracle:
            if not all(log.has_answered(arm.name, user, ORACLE) for user in users):
                oracle.run(arm, log, ledger)
            on_arm(arm.name)


def _plans(
    arms: Sequence[Arm],
    bases: Mapping[bool, BaseModel],
    material: ArmInputs,
    config: Config,
    log: RunLog,
) -> list[ArmPlan]:
    return [
        plan
        for arm in arms
        if not arm.method.oracle
        for plan in plan_arm(arm, bases[arm.method.tuned].base_id, material, config, log)
    ]


def _untaught(plans: Sequence[ArmPlan], context: RunContext, log: RunLog) -> set[str]:
    """Users who still need the teacher's logits."""
    return {
        user
        for plan in plans
        if plan.arm.method.distils
        for user in context.nodes
        if not log.has_adapted(plan.training, user, context.training_key(plan, user))
    }


def _lexicons(arms: Sequence[Arm], inputs: ServerInputs) -> tuple[Lexicon, ...]:
    """The words per domain that devices score by, where some do."""
    if not any(arm.method.streaming for arm in arms):
        return ()
    return lexicons_of(inputs.config, inputs.public)


def _timed(log: RunLog, phase: str, step: Callable[[], T]) -> T:
    started = time.perf_counter()
    result = step()
    log.phase("", phase, time.perf_counter() - started)
    return result


def _run_context(config: Config, nodes: Mapping[str, int], ledger: Ledger) -> RunContext:
    return RunContext(
        nodes=nodes,
        settings=settings_to_json(settings_of(config)),
        seed=config.seed,
        cohort=size if isinstance(size := config.qlora.cohort, int) else 1,
        withdrawn=ledger.withdrawn,
    )


def _collect_shares(
    grid: AccountedGrid,
    nodes: Mapping[str, int],
    arms: Sequence[Arm],
    log: RunLog,
    progress: Progress,
) -> Shares:
    """Ask every device once for all ratios of the experiment; smaller shares lie in larger ones."""
    ratios = tuple(sorted({arm.asked_ratio for arm in arms if arm.method.needs_shares}))
    if not ratios:
        return {}
    request = encode(ShareRequest(ratios=ratios))
    with progress.phase("share", len(nodes)) as phase:
        grid.on_reply = lambda _: phase.advance()
        replies = grid.send_and_receive(
            Message(request, node, ShareRequest.TYPE, ttl=TTL_S, group_id="share")
            for node in nodes.values()
        )
    grid.on_reply = ignore_reply
    log.failures(grid.take_failures())
    shares: dict[str, dict[float, tuple[Pair, ...]]] = {}
    for reply in replies:
        user, body = grid.user_of(reply), decode(ShareReply, reply.content)
        if len(body.counts) != len(ratios):
            reason = f"expected {len(ratios)} counts, got {len(body.counts)}"
            log.failures([Failure("", user, ShareReply.TYPE, ProtocolError.__name__, reason)])
            continue
        log.share(user, len(body.pairs), sum(body.redactions))
        shares[user] = {
            ratio: body.pairs[:count] for ratio, count in zip(ratios, body.counts, strict=True)
        }
    return shares


def _candidates(
    arms: Sequence[Arm],
    shares: Shares,
    inputs: ServerInputs,
    cloud: Cloud,
    log: RunLog,
    progress: Progress,
    ledger: Ledger,
) -> Mapping[str, tuple[Candidate, ...]]:
    """Augment the largest shares that any arm needs, once for all arms."""
    ratios = {arm.asked_ratio for arm in arms if arm.method.needs_augmentation}
    if not ratios:
        return {}
    config, k, counters = inputs.config, largest_k(arms, inputs.config), Counters()
    shared = {user: by_ratio[max(ratios)] for user, by_ratio in shares.items()}
    try:
        if config.augmenter.file is not None:
            found = replay(Path(config.augmenter.file), shared, k, progress)
        else:
            found = write_candidates(
                shared, config, k, inputs.public, cloud, ledger, progress, counters
            )
    finally:
        cloud.end()
    if config.augmenter.save:
        save(log.folder / FILE, found, shared)
    _note_lost(counters, cloud, log, progress)
    log.phase(
        "",
        "augmentation counters",
        0.0,
        replies=counters.generated_replies,
        tokens=counters.generated_tokens,
        nli_pairs=counters.nli_pairs,
        cut_pairs=counters.cut_pairs,
    )
    return with_extra_filters(found, shared, config.filters, derive_seed(config.seed, "objections"))


def _note_lost(counters: Counters, cloud: Cloud, log: RunLog, progress: Progress) -> None:
    """Say who goes on without augmentation, and what the endpoint did."""
    log.failures(
        Failure("", user, "augment", "Unaugmented", f"goes on without augmentation: {reason}")
        for user, reason in counters.lost.items()
    )
    if counters.lost:
        reasons = ", ".join(sorted(set(counters.lost.values())))
        progress.note(f"{len(counters.lost)} users go on without augmentation: {reasons}")
    if isinstance(cloud.writer, EndpointGenerator):
        log.phase("", "endpoint", 0.0, requests=dict(cloud.writer.counts))
