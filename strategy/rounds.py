"""The rounds of adapting and answering: who is left to be asked, and what came back.

A reply is written down as soon as it is there, so that no crash can take it back; who has replied
already, in this process or an earlier one, is not asked again. Where devices train in cohorts,
train.queue brings the pairs to all of them first, and train.collect fetches the numbers. An adapter
that serves several arms is trained once. Between the rounds of a federated arm Flower's FedAvg
averages the adapters.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord

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
from strategy.averaging import Averages
from strategy.grid import TTL_S, AccountedGrid, MessageFailure, ignore_reply
from strategy.planning import AdapterRound, ArmPlan, RunContext
from strategy.progress import Progress
from strategy.run_log import RunLog

ADAPT, ANSWER = "adapt", "answer"


class Rounds:
    """Asks the devices of one arm after the other, and keeps the numbers that they send."""

    def __init__(
        self, context: RunContext, grid: AccountedGrid, log: RunLog, progress: Progress
    ) -> None:
        """Take what all rounds share."""
        self._context, self._grid, self._log, self._progress = context, grid, log, progress
        self._running = ExitStack()
        self._started = 0.0
        self._trained: dict[AdapterRound, frozenset[str]] = {}
        self._averages = Averages(log.folder / "averages")

    def must_train(self, plan: ArmPlan) -> bool:
        """Whether the round trains an adapter that no earlier arm has trained."""
        return plan.arm.method.adapts and plan.training not in self._trained

    def left_to_adapt(self, plan: ArmPlan) -> list[str]:
        """Users whose adapter is not there; nobody comes late to a federated round."""
        if not self.must_train(plan):
            return []
        left = [user for user in self._context.nodes if not self.has_adapted(plan, user)]
        if plan.recipe.federated and self._averages.has(plan.training):
            self._log.failures(_missed(plan, user) for user in left)
            return []
        return left

    def left_to_answer(self, plan: ArmPlan) -> list[str]:
        """Users whose adapter is ready and who have not answered with it."""
        adapted = self._trained[plan.training] if plan.arm.method.adapts else self._context.nodes
        return [
            user
            for user in self._context.nodes
            if user in adapted
            and not self._log.has_answered(
                plan.arm.name, user, self._context.answer_key(plan, user)
            )
        ]

    def has_adapted(self, plan: ArmPlan, user: str) -> bool:
        """Whether the user's adapter was trained already, and from the same."""
        training_key = self._context.training_key(plan, user)
        return self._log.has_adapted(plan.training, user, training_key)

    def ask_to_adapt(
        self, plan: ArmPlan, requests: Mapping[str, AdaptRequest]
    ) -> Sequence[Message]:
        """Open a round of training; to cohorts the requests are brought here already."""
        self._started = time.perf_counter()
        if not self.must_train(plan):
            return []
        if self._context.cohort > 1 and plan.recipe.can_wait:
            return self._open(plan, ADAPT, self._queue(plan, requests))
        return self._open(plan, ADAPT, requests)

    def ask_to_answer(
        self, plan: ArmPlan, requests: Mapping[str, AnswerRequest]
    ) -> Sequence[Message]:
        """Open a round of answering."""
        self._started = time.perf_counter()
        return self._open(plan, ANSWER, requests) if plan.answers else []

    def adapted(
        self, plan: ArmPlan, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Close a round of training; only a federated arm has arrays to average."""
        if not self.must_train(plan):
            return None, None
        adapted = [decode(AdaptReply, reply.content) for reply in replies]
        self._trained[plan.training] = frozenset(
            user for user in self._context.nodes if self.has_adapted(plan, user)
        )
        self._close(plan, ADAPT, users=len(adapted))
        losses = [reply.losses[-1] for reply in adapted if reply.losses]
        averaged = self._average(plan) if plan.recipe.federated else None
        return averaged, MetricRecord({"users": len(adapted), "last-loss": _mean(losses)})

    def answered(self, plan: ArmPlan, replies: Iterable[Message]) -> MetricRecord | None:
        """Close a round of answering; pooling the numbers over users is the report's."""
        if not plan.answers:
            return None
        answered = [decode(AnswerReply, reply.content) for reply in replies]
        self._close(plan, ANSWER, users=len(answered))
        return MetricRecord(
            {"users": len(answered), "queries": sum(reply.num_queries for reply in answered)}
        )

    def _average(self, plan: ArmPlan) -> ArrayRecord | None:
        """Close a federated round; whose weights fit nobody else's failed in it."""
        averaged, left_out = self._averages.close(plan.training)
        self._log.failures(_unfit(plan, user) for user in left_out)
        return averaged

    def _note(self, plan: ArmPlan, phase: str, message: Message) -> None:
        user = self._grid.user_of(message)
        if phase == ANSWER:
            answer = decode(AnswerReply, message.content)
            self._log.answered(user, answer, self._context.answer_key(plan, user))
            return
        reply = decode(AdaptReply, message.content)
        if plan.recipe.federated:
            self._averages.add(plan.training, user, reply)
        training_key = self._context.training_key(plan, user)
        self._log.adapted(plan.training, user, reply, training_key)

    def _queue(
        self, plan: ArmPlan, requests: Mapping[str, AdaptRequest]
    ) -> dict[str, CollectRequest]:
        """Bring the requests to the devices; returns how to collect what became of them."""
        queued = {user: QueueRequest(**_fields(each)) for user, each in requests.items()}
        replies = self._grid.send_and_receive(self._messages(plan, queued))
        collect = CollectRequest(
            arm=plan.arm.name,
            base_id=plan.base_id,
            settings=self._context.settings,
            adapter=plan.arm.adapter,
        )
        return {self._grid.user_of(reply): collect for reply in replies}

    def _open(
        self, plan: ArmPlan, phase: str, requests: Mapping[str, WireMessage]
    ) -> list[Message]:
        """Start a phase; each reply advances the progress."""
        name = f"{plan.arm.name}: {phase}"
        running = self._running.enter_context(self._progress.phase(name, len(requests)))

        def on_reply(message: Message | None) -> None:
            if message is not None:
                self._note(plan, phase, message)
            running.advance()

        self._grid.on_reply = on_reply
        return self._messages(plan, requests)

    def _messages(self, plan: ArmPlan, requests: Mapping[str, WireMessage]) -> list[Message]:
        """One message per user; a list, as the deployment engine goes through it twice."""
        nodes, group = self._context.nodes, plan.arm.name
        messages = []
        for user, body in requests.items():
            check_allowed(plan.arm.method.name, "down", body)
            messages.append(
                Message(encode(body), nodes[user], body.TYPE, ttl=TTL_S, group_id=group)
            )
        return messages

    def _close(self, plan: ArmPlan, phase: str, users: int) -> None:
        self._running.close()
        seconds = time.perf_counter() - self._started
        if users:  # nothing was left to do in a phase that an earlier process finished
            self._log.phase(plan.arm.name, phase, seconds, users=users)
        self._grid.on_reply = ignore_reply
        self._log.failures(self._grid.take_failures())


def adapt_request(plan: ArmPlan, context: RunContext, user: str, averaged: Arrays) -> AdaptRequest:
    """What one device gets to train on beside D_u, and how it is to train."""
    kept = tuple(plan.kept.get(user, ()))
    return AdaptRequest(
        arm=plan.arm.name,
        base_id=plan.base_id,
        settings=context.settings,
        seed=context.seed,
        kept=kept if plan.arm.method.downloads else (),
        extra_records=len(kept) if plan.arm.method.matches_steps else 0,
        adapter=plan.arm.adapter,
        recipe=recipe_to_json(plan.recipe),
        weights=averaged,
        logits=plan.logits.get(user, {}),
        public=plan.pool.records,
    )


def answer_request(plan: ArmPlan, context: RunContext, averaged: Arrays) -> AnswerRequest:
    """With which model and prompt the devices answer; the same for all of them."""
    return AnswerRequest(
        arm=plan.arm.name,
        base_id=plan.base_id,
        settings=context.settings,
        adapted=plan.arm.method.adapts,
        adapter=plan.arm.adapter,
        retrieved=plan.retrieved,
        weights=averaged,
    )


def _fields(body: AdaptRequest) -> dict[str, Any]:
    return {each.name: getattr(body, each.name) for each in fields(body)}


def _missed(plan: ArmPlan, user: str) -> MessageFailure:
    """A user who failed in a federated round that an earlier process finished without them."""
    reason = f"missed round {plan.recipe.round + 1}, which is over"
    return MessageFailure(plan.arm.name, user, AdaptRequest.TYPE, "MissedRound", reason)


def _unfit(plan: ArmPlan, user: str) -> MessageFailure:
    """A user whose weights cannot be averaged with those of most others."""
    reason = f"weights of round {plan.recipe.round + 1} have other names or shapes, or no numbers"
    return MessageFailure(plan.arm.name, user, AdaptRequest.TYPE, "UnfitWeights", reason)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
