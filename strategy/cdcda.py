"""CDCDA-PLM as a Flower strategy: the paper's five steps, each a method of :class:`CdcdaPlm`.

    ask for shares -> augment -> filter -> adapt -> answer

The first three run once, for all arms together; an arm is a method at a share ratio, and the
paper's baselines are arms that train on less or on other data. Then each arm takes one Flower
round, a federated arm several: train.adapt to every user, evaluate.answer to those that adapted.
There are no global arrays; adapters stay on their devices.

Reference: Zhong et al., arXiv 2508.21313 (CDCDA-PLM), Section 4 and Figure 1.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from typing_extensions import override

from conf.errors import ConfigError
from conf.schema import FiltersConfig
from conf.seeds import derive_seed
from protocol.codec import Arrays
from protocol.settings import DeviceSettings, settings_to_json
from strategy.arms import Arm
from strategy.augmenter import Augmenter
from strategy.averaging import arrays_of
from strategy.base_model import BaseModels
from strategy.delivery import deliver_all
from strategy.diagnosis import Truth
from strategy.extra_filters import Candidates, with_extra_filters
from strategy.grid import AccountedGrid
from strategy.large_model import LargeModel
from strategy.ledger import Ledger
from strategy.oracle import ORACLE, Oracle
from strategy.planning import (
    ArmInputs,
    ArmPlan,
    PlanSettings,
    RunContext,
    Shares,
    asked_ratios,
    largest_k,
    plan_arms,
    to_augment,
    to_teach,
    with_logits,
)
from strategy.progress import LoggedProgress, Progress
from strategy.public import NO_RECORDS, RecordPool
from strategy.recipes import RecipeInputs
from strategy.registry import Fleet, discover_clients, wait_for_nodes
from strategy.rounds import Rounds, adapt_request, answer_request
from strategy.run_log import RunLog
from strategy.shares import collect_shares, collect_withdrawals
from strategy.teacher import teach

logger = logging.getLogger(__name__)


class CdcdaPlm(Strategy):
    """The paper's five steps over the devices of any Flower grid."""

    def __init__(
        self,
        arms: Sequence[Arm],
        *,
        settings: DeviceSettings,
        bases: BaseModels,
        augmenter: Augmenter,
        filters: FiltersConfig,
        fleet: Fleet,
        log: RunLog,
        seed: int = 0,
        recipes: RecipeInputs | None = None,
        teacher: LargeModel | None = None,
        oracle: Oracle | None = None,
        truth: Truth | None = None,
        pool: RecordPool = NO_RECORDS,
        progress: Progress | None = None,
        on_arm: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Take what the steps work with; no message is sent yet.

        Args:
            arms: What is compared, in this order (:func:`strategy.arms.make_arms`).
            settings: Task, adapter and answering, the same for every device.
            bases: M_base, and the untuned device model where an arm works with it.
            augmenter: Writes and scores the similar pairs.
            filters: Thresholds where an arm has none of its own.
            fleet: Which devices are waited for, and how patiently.
            log: Where all numbers are written; the ledger lies beside them.
            seed: Root seed.
            recipes: Settings of the baselines; None takes their defaults.
            teacher: The large model whose logits ``rkd_ft`` learns from.
            oracle: Runs the arms that hold all data in the cloud, outside the wire.
            truth: Tells right synthetic pairs from wrong ones, for the report alone.
            pool: Public records for the devices of ``neighbours_ft``.
            progress: Where progress is told; None tells Python's log.
            on_arm: Called with the arm's name after each arm.

        Raises:
            ConfigError: If an arm needs a teacher, an oracle or public records and there is none.
        """
        self._arms, self._settings, self._bases = tuple(arms), settings, bases
        self._augmenter, self._filters, self._fleet, self._log = augmenter, filters, fleet, log
        self._seed, self._recipes = seed, recipes or RecipeInputs()
        self._teacher, self._oracle, self._truth = teacher, oracle, truth
        self._pool = pool
        self._progress, self._on_arm = progress or LoggedProgress(), on_arm
        self._plans: list[ArmPlan] = []
        for arm in self._arms:
            if arm.method.oracle and oracle is None:
                raise ConfigError(f"methods: {arm.method.name} reads every history, none was given")
            if arm.method.distils and teacher is None:
                raise ConfigError(f"methods: {arm.method.name} learns from a teacher, got none")
            if arm.method.reads_public and not self._pool.records:
                raise ConfigError(f"methods: {arm.method.name} reads public records, got none")

    @override
    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int = 0,
        timeout: float = math.inf,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run all arms over the users whose devices are on ``grid``.

        Args:
            grid: Any Flower grid; every message through it is retried and accounted for.
            initial_arrays: Not used: there are no global arrays.
            num_rounds: Not used: the arms tell how many rounds there are.
            timeout: Seconds until a round is given up; by default a round ends by ``fleet``.
            train_config: As in Flower; no step reads it.
            evaluate_config: As in Flower; no step reads it.
            evaluate_fn: As in Flower.

        Raises:
            RunError: If devices are missing; single failing users are noted and left out.
        """
        self._meet(grid)
        shares = self.ask_for_shares()
        candidates = self.augment(shares)
        self._plans = self.filter(shares, candidates)
        self._ask_oracle()
        self._ask_teacher(shares)
        return super().start(  # adapt and answer, once for each plan
            self._grid,
            ArrayRecord(),
            len(self._plans),
            timeout,
            train_config,
            evaluate_config,
            evaluate_fn,
        )

    # The five steps.

    def ask_for_shares(self) -> Shares:
        """Step 1, user-controllable data uploading: collect D_u^share (Section 4).

        Every device is asked once for all ratios. It sends what its user's policy allows.
        """
        with self._timed("share"):
            nodes, ratios = self._registry.nodes, asked_ratios(self._arms)
            collected = collect_shares(self._grid, nodes, ratios, self._progress)
        self._log.failures(collected.failures)
        self._log.shares(collected.replies)
        return collected.shares

    def augment(self, shares: Shares) -> Candidates:
        """Step 2, data augmentation with the server LLM: D_u^syn, k per shared pair (Eq. 1).

        The largest share and the largest k of any arm are augmented; smaller ones are parts of it.
        """
        with self._timed("augment"):
            k = largest_k(self._arms, self._augmenter.k)
            if not k:
                return {}
            shared = to_augment(self._arms, shares)
            augmented = self._augmenter.write(shared, k, self._ledger, self._progress)
            self._log.augmented(augmented)
        if augmented.lost:
            self._progress.note(augmented.lost)
        return augmented.candidates

    def filter(self, shares: Shares, candidates: Candidates) -> list[ArmPlan]:
        """Step 3, synthetic data selection: SCF, TDF, LSF keep D_u^filtered (Eq. 2 to 4).

        Every arm chooses by its own thresholds; what it keeps stands in its plan.
        """
        if candidates:
            shared, seed = to_augment(self._arms, shares), derive_seed(self._seed, "objections")
            candidates = with_extra_filters(candidates, shared, self._filters, seed)
        inputs = ArmInputs(
            shares=shares,
            candidates=candidates,
            k=largest_k(self._arms, self._augmenter.k),
            truth=self._truth,
            pool=self._pool,
        )
        planned = plan_arms(self._arms, self._bases, inputs, self._plan_settings)
        self._log.planned(planned)
        return [plan for arm in planned for plan in arm.rounds]

    def adapt(self, plan: ArmPlan, averaged: Arrays) -> Sequence[Message]:
        """Step 4, downloading and on-device fine-tuning (Eq. 5 and 6).

        Each device gets its own kept pairs and trains Delta W_u on D_u and these.
        """
        requests = {
            user: adapt_request(plan, self._context, user, averaged)
            for user in self._rounds.left_to_adapt(plan)
        }
        return self._rounds.ask_to_adapt(plan, requests)

    def answer(self, plan: ArmPlan, averaged: Arrays) -> Sequence[Message]:
        """Step 5, offline use: M_base + Delta W_u answers the user's own queries (Section 4).

        Numbers come back, as exact as the user's policy allows; texts stay.
        """
        request = answer_request(plan, self._context, averaged)
        return self._rounds.ask_to_answer(
            plan, dict.fromkeys(self._rounds.left_to_answer(plan), request)
        )

    # What stands around the steps.

    def _meet(self, grid: Grid) -> None:
        """Find out whose devices are there, give them M_base, forget what was taken back."""
        self._log.forget_failures()
        self._ledger, fleet = Ledger(self._log.ledger_path), self._fleet
        self._grid = AccountedGrid(
            grid, self._ledger, fleet.retries, stall_s=fleet.stall_s, end_hung=fleet.end_hung
        )
        nodes = wait_for_nodes(grid, fleet.users, fleet.nodes_limit_s)
        self._registry = discover_clients(self._grid, nodes, fleet.bound)
        self._log.failures(self._grid.take_failures())
        self._log.registry(self._registry.nodes)
        self._deliver()
        self._forget_withdrawn()
        self._context = RunContext(
            nodes=self._registry.nodes,
            settings=settings_to_json(self._settings),
            seed=self._seed,
            cohort=size if isinstance(size := self._settings.qlora.cohort, int) else 1,
            withdrawn=self._ledger.withdrawn,
        )
        self._rounds = Rounds(self._context, self._grid, self._log, self._progress)

    def _deliver(self) -> None:
        with self._timed("deliver"):
            deliver_all(
                self._grid,
                self._bases,
                {arm.method.tuned for arm in self._arms if not arm.method.oracle},
                self._registry,
                self._ledger,
                self._progress,
                self._fleet.signing_key,
            )

    def _forget_withdrawn(self) -> None:
        """Delete what withdrawn records gave rise to, here too."""
        for user, records in collect_withdrawals(self._grid, self._registry).items():
            self._augmenter.forget(user, records)
            self._ledger.tombstone(user, records)
        self._log.failures(self._grid.take_failures())

    def _ask_oracle(self) -> None:
        """Run the oracles that have not answered yet; they take no step and no message."""
        for arm in self._arms:
            if arm.method.oracle and self._oracle is not None:
                answered = (
                    self._log.has_answered(arm.name, user, ORACLE) for user in self._registry.nodes
                )
                if not all(answered):
                    self._oracle.run(arm, self._log, self._ledger)
                self._on_arm(arm.name)

    def _ask_teacher(self, shares: Shares) -> None:
        """Put the teacher's logits into the plans of the arms that distil (baseline RKD-FT)."""
        untaught = to_teach(self._plans, shares, self._rounds.has_adapted)
        if untaught and self._teacher is not None:
            with self._timed("teacher logits"):
                logits = teach(
                    untaught, self._settings, self._teacher, self._progress, self._log.folder
                )
            self._plans = [with_logits(plan, logits) for plan in self._plans]
        if self._teacher is not None:
            self._teacher.release()  # its memory is the devices' now

    @property
    def _plan_settings(self) -> PlanSettings:
        return PlanSettings(
            filters=self._filters,
            recipes=replace(self._recipes, k=self._augmenter.k),
            rag_items=self._settings.evaluation.rag_items,
            seed=self._seed,
        )

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        """Note how long a phase took that all arms share, and which messages failed in it."""
        started = time.perf_counter()
        yield
        self._log.phase("", phase, time.perf_counter() - started)
        self._log.failures(self._grid.take_failures())

    # Flower's verbs: round r runs plan r - 1.

    @override
    def summary(self) -> None:
        """Log what will run."""
        names = ", ".join(dict.fromkeys(plan.arm.name for plan in self._plans))
        logger.info("CDCDA-PLM: %d users, arms: %s", len(self._registry.nodes), names)

    @override
    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Step 4 of the round's plan; a later federated round starts from the average."""
        plan = self._plans[server_round - 1]
        return self.adapt(plan, arrays_of(arrays) if plan.recipe.round else {})

    @override
    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Keep the numbers; only a federated arm has arrays to average."""
        return self._rounds.adapted(self._plans[server_round - 1], replies)

    @override
    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Step 5 of the round's plan; a federated arm answers with the average."""
        plan = self._plans[server_round - 1]
        averaged = arrays_of(arrays) if plan.recipe.federated else {}
        if plan.recipe.federated and not averaged:
            return []  # without an average a device would answer with its own adapter
        return self.answer(plan, averaged)

    @override
    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Keep the numbers per query; pooling over users is the report's."""
        plan = self._plans[server_round - 1]
        metrics = self._rounds.answered(plan, replies)
        if plan.answers:
            self._on_arm(plan.arm.name)
        return metrics
