"""The CDCDA-PLM strategy: one Flower round per arm, no global arrays, adapters stay private.

A round sends train.adapt to every user of the arm (kept pairs down, numbers up) and then
evaluate.answer to those that adapted. Where devices train in cohorts, train.queue brings the pairs
to all of them first, and train.collect fetches the numbers. Shares were collected and augmented
before the first round, for all arms at once, so an arm differs from another only in a small record.
An adapter that serves several arms is trained once. A federated arm takes several rounds; between
them Flower's FedAvg averages the adapters.

Reference: Zhong et al., arXiv 2508.21313 (CDCDA-PLM).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, fields
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from typing_extensions import override

from protocol.codec import Arrays, WireMessage, decode, encode
from protocol.messages import (
    AdaptReply,
    AdaptRequest,
    AnswerReply,
    AnswerRequest,
    CollectRequest,
    QueueRequest,
)
from protocol.recipe import recipe_to_json
from protocol.wire import check_allowed
from strategy.averaging import Averages, arrays_of
from strategy.grid import TTL_S, AccountedGrid, Failure, ignore_reply
from strategy.planning import ArmPlan
from strategy.progress import Phase, Progress
from strategy.run_log import RunLog

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunContext:
    """What all arms share.

    Attributes:
        nodes: Node id by user id.
        settings: Device settings as JSON.
        seed: Root seed.
        cohort: Devices that train together.
        withdrawn: Per user who took records back, what names these.
    """

    nodes: Mapping[str, int]
    settings: str
    seed: int
    cohort: int = 1
    withdrawn: Mapping[str, str] = field(default_factory=dict)

    def training_key(self, plan: ArmPlan, user: str) -> str:
        """What names a user's training; after a withdrawal, arms that share are trained anew."""
        withdrawn = self.withdrawn.get(user, "") if plan.arm.method.depends_on_ratio else ""
        return plan.training_key(user, f"{self.seed} {self.settings} {withdrawn}")

    def answer_key(self, plan: ArmPlan, user: str) -> str:
        """What names a user's answers: the adapter, or the settings of who has none."""
        adapts = plan.arm.method.adapts
        trained = self.training_key(plan, user) if adapts else self.settings
        return plan.answer_key(trained)


class CdcdaPlm(Strategy):
    """Runs the planned arms, one a round, over the users of the registry."""

    def __init__(
        self,
        plans: Sequence[ArmPlan],
        context: RunContext,
        log: RunLog,
        progress: Progress,
        on_arm: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepare the rounds.

        Args:
            plans: The arms in order; round r runs ``plans[r - 1]``.
            context: What all arms share.
            log: Where numbers are written.
            progress: Where progress is told.
            on_arm: Called with the arm's name after each round.
        """
        self._plans, self._context, self._log = tuple(plans), context, log
        self._progress, self._on_arm = progress, on_arm
        self._running = ExitStack()
        self._started = 0.0
        self._trained: dict[tuple[str, int], frozenset[str]] = {}
        self._averages = Averages(log.folder / "averages")
        self._grid: AccountedGrid | None = None

    @property
    def num_rounds(self) -> int:
        """One round per plan."""
        return len(self._plans)

    def summary(self) -> None:
        """Log what will run."""
        names = ", ".join(dict.fromkeys(plan.arm.name for plan in self._plans))
        logger.info("CDCDA-PLM: %d users, arms: %s", len(self._context.nodes), names)

    @override
    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One train.adapt per user, with that user's own kept pairs."""
        self._started = time.perf_counter()
        plan = self._plans[server_round - 1]
        if not self._must_train(plan):
            return []
        averaged = arrays_of(arrays) if plan.recipe.round else {}
        left = [user for user in self._context.nodes if not self._has_adapted(plan, user)]
        if plan.recipe.federated and self._averages.has(plan.training):
            self._log.failures([_missed(plan, user) for user in left])
            left = []
        requests = {user: self._adapt_request(plan, user, averaged) for user in left}
        if self._context.cohort > 1 and plan.recipe.can_wait:
            return self._open(plan, "adapt", grid, self._queue(plan, grid, requests))
        return self._open(plan, "adapt", grid, requests)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Keep the numbers; only a federated arm has arrays to average."""
        plan = self._plans[server_round - 1]
        if not self._must_train(plan):
            return None, None
        adapted = [decode(AdaptReply, reply.content) for reply in replies]
        self._trained[plan.training] = frozenset(
            user for user in self._context.nodes if self._has_adapted(plan, user)
        )
        self._close(plan, "adapt", users=len(adapted))
        losses = [reply.losses[-1] for reply in adapted if reply.losses]
        averaged = self._average(plan) if plan.recipe.federated else None
        return averaged, MetricRecord({"users": len(adapted), "last-loss": _mean(losses)})

    @override
    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One evaluate.answer per user whose adapter is ready."""
        self._started = time.perf_counter()
        plan = self._plans[server_round - 1]
        averaged = arrays_of(arrays) if plan.recipe.federated else {}
        if not plan.answers or (plan.recipe.federated and not averaged):
            return []  # without an average a device would answer with its own adapter
        request = AnswerRequest(
            arm=plan.arm.name,
            base_id=plan.base_id,
            settings=self._context.settings,
            adapted=plan.arm.method.adapts,
            adapter=plan.arm.adapter,
            retrieved=plan.retrieved,
            weights=averaged,
        )
        users = [user for user in self._context.nodes if self._can_answer(plan, user)]
        return self._open(plan, "answer", grid, dict.fromkeys(users, request))

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Keep the numbers per query; pooling over users is the report's."""
        plan = self._plans[server_round - 1]
        if not plan.answers:
            return None
        answered = [decode(AnswerReply, reply.content) for reply in replies]
        self._close(plan, "answer", users=len(answered))
        self._on_arm(plan.arm.name)
        return MetricRecord(
            {"users": len(answered), "queries": sum(reply.num_queries for reply in answered)}
        )

    def _average(self, plan: ArmPlan) -> ArrayRecord | None:
        """Close a federated round; whose weights fit nobody else's failed in it."""
        averaged, left_out = self._averages.close(plan.training)
        self._log.failures([_unfit(plan, user) for user in left_out])
        return averaged

    def _must_train(self, plan: ArmPlan) -> bool:
        return plan.arm.method.adapts and plan.training not in self._trained

    def _can_answer(self, plan: ArmPlan, user: str) -> bool:
        if self._log.has_answered(plan.arm.name, user, self._answered_from(plan, user)):
            return False
        return not plan.arm.method.adapts or user in self._trained[plan.training]

    def _has_adapted(self, plan: ArmPlan, user: str) -> bool:
        provenance_key = self._context.training_key(plan, user)
        return self._log.has_adapted(plan.training, user, provenance_key)

    def _answered_from(self, plan: ArmPlan, user: str) -> str:
        return self._context.answer_key(plan, user)

    def _note(self, plan: ArmPlan, phase: str, message: Message) -> None:
        """Write a reply down as soon as it is there, so that no crash can take it back."""
        user = self._user(message)
        if phase == "answer":
            answer = decode(AnswerReply, message.content)
            self._log.answered(user, answer, self._answered_from(plan, user))
            return
        reply = decode(AdaptReply, message.content)
        if plan.recipe.federated:
            self._averages.add(plan.training, user, reply)
        provenance_key = self._context.training_key(plan, user)
        self._log.adapted(plan.training, user, reply, provenance_key)

    def _adapt_request(self, plan: ArmPlan, user: str, averaged: Arrays) -> AdaptRequest:
        kept = tuple(plan.kept.get(user, ()))
        return AdaptRequest(
            arm=plan.arm.name,
            base_id=plan.base_id,
            settings=self._context.settings,
            seed=self._context.seed,
            kept=kept if plan.arm.method.downloads else (),
            extra_records=len(kept) if plan.arm.method.matches_steps else 0,
            adapter=plan.arm.adapter,
            recipe=recipe_to_json(plan.recipe),
            weights=averaged,
            logits=plan.logits.get(user, {}),
        )

    def _queue(
        self, plan: ArmPlan, grid: Grid, requests: Mapping[str, AdaptRequest]
    ) -> dict[str, CollectRequest]:
        """Bring the requests to the devices; returns how to collect what became of them."""
        messages = [
            self._message(plan, user, QueueRequest(**_fields(request)))
            for user, request in requests.items()
        ]
        collect = CollectRequest(
            arm=plan.arm.name,
            base_id=plan.base_id,
            settings=self._context.settings,
            adapter=plan.arm.adapter,
        )
        self._grid = grid if isinstance(grid, AccountedGrid) else None
        replies = grid.send_and_receive(messages)
        return {self._user(reply): collect for reply in replies}

    def _open(
        self, plan: ArmPlan, phase: str, grid: Grid, requests: Mapping[str, WireMessage]
    ) -> list[Message]:
        """Start a phase; each reply advances the progress.

        A list, never a generator: the deployment engine goes through it twice.
        """
        if isinstance(grid, AccountedGrid):
            self._grid = grid
            opened: AbstractContextManager[Phase] = self._progress.phase(
                f"{plan.arm.name}: {phase}", len(requests)
            )
            running = self._running.enter_context(opened)

            def on_reply(message: Message | None) -> None:
                if message is not None:
                    self._note(plan, phase, message)
                running.advance()

            grid.on_reply = on_reply
        return [self._message(plan, user, request) for user, request in requests.items()]

    def _message(self, plan: ArmPlan, user: str, body: WireMessage) -> Message:
        check_allowed(plan.arm.method.name, "down", body)
        return Message(
            encode(body), self._context.nodes[user], body.TYPE, ttl=TTL_S, group_id=plan.arm.name
        )

    def _close(self, plan: ArmPlan, phase: str, users: int) -> None:
        self._running.close()
        seconds = time.perf_counter() - self._started
        if users:  # nothing was left to do in a phase that an earlier process finished
            self._log.phase(plan.arm.name, phase, seconds, users=users)
        if self._grid is not None:
            self._grid.on_reply = ignore_reply
            self._log.failures(self._grid.take_failures())

    def _user(self, reply: Message) -> str:
        if self._grid is None:
            raise RuntimeError("CdcdaPlm needs an AccountedGrid")
        return self._grid.user_of(reply)


def _fields(body: AdaptRequest) -> dict[str, Any]:
    return {each.name: getattr(body, each.name) for each in fields(body)}


def _missed(plan: ArmPlan, user: str) -> Failure:
    """A user who failed in a federated round that an earlier process finished without them."""
    reason = f"missed round {plan.recipe.round + 1}, which is over"
    return Failure(plan.arm.name, user, AdaptRequest.TYPE, "MissedRound", reason)


def _unfit(plan: ArmPlan, user: str) -> Failure:
    """A user whose weights cannot be averaged with those of most others."""
    reason = f"weights of round {plan.recipe.round + 1} have other names or shapes, or no numbers"
    return Failure(plan.arm.name, user, AdaptRequest.TYPE, "UnfitWeights", reason)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
