"""Training several users' adapters in one forward and backward pass over the frozen base.

Each user has its own examples, schedule, gradient clipping and AdamW state, and leaves at its own
last step. The result is that of training alone: exactly the same function, computed in products of
other sizes, so equal up to rounding. A cohort of one gives the same bytes every time.

Three things make it fast where models are small, also for one user alone: no padding and common
beginnings only once (:mod:`.packing`), few and cheap operations for the adapters
(:mod:`.stacked`), and in the last layer a feed-forward part for scored tokens only.
The base's own dropout, if any, stays off; Qwen and Llama have none.

A step whose activations would take more than ``activation_bytes`` is computed in micro-batches, and
in smaller ones where memory runs out nonetheless (:mod:`.backward`).
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import nn

from conf.errors import ModelError
from conf.seeds import derive_seed
from models import lora, memory
from models.chat import Encoded
from models.multi_lora import packing
from models.multi_lora.adamw import AdamW
from models.multi_lora.backward import Backward, Step
from models.multi_lora.checkpointing import checkpoints
from models.multi_lora.stacked import NotStackableError, Stack, installed
from models.out_of_memory import DoesNotFitError, no_other_lack
from models.save_point import SavePoint
from models.training import (
    OnStep,
    Schedule,
    TrainReport,
    batches,
    learning_rates,
    peak_memory,
    require_finite,
    require_finite_weights,
    train,
)

ACTIVATION_BYTES = 1 << 30
Checkpointing = Literal["auto"] | bool
_FEED_FORWARD = re.compile(r"\.layers\.\d+\.mlp$")


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortJob:
    """What one user's adapter is trained on.

    Attributes:
        examples: Training examples.
        schedule: Steps, batches and rates.
        adapter_seed: Seed of a fresh adapter.
        batch_seed: Seed of batches and dropout.
        start: Weights to start from instead of a fresh adapter.
        distillation: Weight of the reverse KL of examples that have a teacher.
    """

    examples: Sequence[Encoded]
    schedule: Schedule
    adapter_seed: int
    batch_seed: int
    start: Mapping[str, torch.Tensor] | None = None
    distillation: float = 0.0


@dataclass(frozen=True, slots=True)
class CohortResult:
    """What came out for one user.

    Attributes:
        report: As of training alone; ``seconds`` is the user's share, by tokens, of the wall time.
        state: The adapter, by the names of :func:`models.lora.lora_parameters`.
        error: Why there is no usable adapter; the others of the cohort are not affected.
    """

    report: TrainReport
    state: dict[str, torch.Tensor]
    error: ModelError | None = None


def train_cohort(
    model: PeftModel,
    jobs: Sequence[CohortJob],
    on_step: OnStep | None = None,
    activation_bytes: int = ACTIVATION_BYTES,
    saved: SavePoint | None = None,
    checkpointing: Checkpointing = "auto",
) -> tuple[CohortResult, ...]:
    """Train all jobs together; model and slot are left as they were, in eval mode.

    Args:
        model: Frozen base with an adapter slot.
        jobs: One per user.
        on_step: Called after each common step with the users' steps done and their total.
        activation_bytes: What the activations of one forward pass may take, as estimated.
        saved: Where a job that is alone keeps its place, and goes on; not read with several.
        checkpointing: Whether blocks keep their inputs alone; "auto" begins without, and turns to
            it where memory runs out with single rows.

    Raises:
        NotStackableError: If the model has an attention or layers that cannot be stacked.
        DoesNotFitError: If memory runs out and nothing can be made smaller but the cohort.
    """
    started = time.perf_counter()
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    runs, reductions = [_Run(model, job) for job in jobs], 0
    ready = [run for run in runs if run.error is None and run.job.schedule.steps]
    if ready:
        most_tokens = activation_bytes // token_bytes(model, checkpointed=checkpointing is True)
        with no_other_lack(len(ready)):
            own = saved if len(jobs) == 1 else None
            reductions = _train(model.eval(), ready, on_step, most_tokens, own, checkpointing)
    seconds = time.perf_counter() - started
    tokens = max(1, sum(run.tokens for run in runs))
    peak = peak_memory(model.device)
    return tuple(
        run.result(seconds * run.tokens / tokens, peak, reductions if run in ready else 0)
        for run in runs
    )


def train_shrinking(
    model: PeftModel,
    jobs: Sequence[CohortJob],
    activation_bytes: int = ACTIVATION_BYTES,
    checkpointing: Checkpointing = "auto",
) -> tuple[CohortResult, ...]:
    """Train all jobs together, in halves of the cohort where memory does not hold the whole.

    Who does not fit alone either has that as the result's error. Arguments as of
    :func:`train_cohort`.

    Raises:
        NotStackableError: If the model has an attention or layers that cannot be stacked.
    """
    try:
        return train_cohort(
            model, jobs, activation_bytes=activation_bytes, checkpointing=checkpointing
        )
    except DoesNotFitError as error:
        if len(jobs) == 1:
            return (CohortResult(TrainReport((), 0, 0, 0.0, 0), {}, error),)
    middle = len(jobs) // 2
    found = [
        result
        for part in (jobs[:middle], jobs[middle:])
        for result in train_shrinking(model, part, activation_bytes, checkpointing)
    ]
    return tuple(
        replace(each, report=replace(each.report, reductions=each.report.reductions + 1))
        for each in found
    )


def train_one(
    model: PeftModel,
    pad_id: int,
    job: CohortJob,
    on_step: OnStep | None = None,
    saved: SavePoint | None = None,
    activation_bytes: int = ACTIVATION_BYTES,
    checkpointing: Checkpointing = "auto",
) -> TrainReport:
    """Train one adapter and leave it in the slot.

    As a cohort of one, or by the plain loop where the model cannot be stacked.

    Args:
        model: Frozen base with an adapter slot.
        pad_id: Id that fills short rows in the plain loop.
        job: What to train on.
        on_step: Called after each step with the steps done and their total.
        saved: Where the training keeps its place; the plain loop begins at the start.
        activation_bytes: As of :func:`train_cohort`; the plain loop begins with whole batches.
        checkpointing: As of :func:`train_cohort`; the plain loop has none.

    Raises:
        ModelError: If there are steps to take but no examples, a loss or weight is not finite, or
            memory runs out and nothing can be made smaller.
    """
    try:
        (result,) = train_cohort(model, [job], on_step, activation_bytes, saved, checkpointing)
    except NotStackableError:
        lora.fill(model, job.start or lora.fresh(model, job.adapter_seed), "to start from")
        seed, weight = job.batch_seed, job.distillation
        with no_other_lack(1):
            return train(model, pad_id, job.examples, job.schedule, seed, on_step, weight)
    if result.error is not None:
        raise result.error
    lora.fill(model, result.state, "as trained")
    return result.report


def fitting_size(model: PeftModel, tokens: int, share: float = 1.0) -> int:
    """Return how many users half of the free memory of the model's GPU holds, at least one.

    A CPU's memory is not looked at.

    Args:
        model: Frozen base with an adapter slot.
        tokens: Tokens of one user's largest batch.
        share: Part of the GPU that this process may take; others may start at the same moment.
    """
    if model.device.type != "cuda":
        return sys.maxsize
    free, whole = torch.cuda.mem_get_info(model.device)
    own = min(free, int(share * whole))
    return max(1, int(own // 2 // max(1, tokens * token_bytes(model))))


def token_bytes(model: PeftModel, *, checkpointed: bool = False) -> int:
    """Return how many bytes of activations a token leaves for the backward pass, as planned."""
    shape, itemsize = memory.shape_of_network(model.config), model.dtype.itemsize
    return memory.token_bytes(shape, itemsize, checkpointed=checkpointed)


class _Run:
    """One user on its way.

    Attributes:
        job: The user's job.
        tokens: Tokens seen so far.
        losses: Loss of each step; they stay on the device until the end.
        state: The adapter: first the untrained, at last the trained one.
        error: Why there is nothing to train.
    """

    def __init__(self, model: PeftModel, job: CohortJob) -> None:
        self.job, schedule = job, job.schedule
        self.state = dict(job.start or lora.fresh(model, job.adapter_seed))
        self.rates = learning_rates(schedule)
        self.generator = torch.Generator(model.device)
        self.generator.manual_seed(derive_seed(job.batch_seed, "dropout"))
        self.tokens, self.losses = 0, list[torch.Tensor]()
        self.error: ModelError | None = None
        self._order: Iterator[list[int]] = iter(())
        if schedule.steps and not job.examples:
            self.error = ModelError(
                f"training: expected examples for {schedule.steps} steps, got none"
            )
        elif schedule.steps:
            self._order = batches(
                len(job.examples), schedule.batch_size, schedule.steps, job.batch_seed
            )

    @property
    def is_done(self) -> bool:
        """Whether all steps are taken."""
        return len(self.losses) == self.job.schedule.steps

    def next_rows(self) -> list[Encoded]:
        rows = [self.job.examples[index] for index in next(self._order)]
        self.tokens += sum(len(row.input_ids) for row in rows)
        return rows

    def result(self, seconds: float, peak: int, reductions: int) -> CohortResult:
        losses = tuple(torch.stack(self.losses).tolist()) if self.losses else ()
        error = self.error
        try:
            require_finite(losses, self.job.schedule)
            require_finite_weights(self.state.values(), self.job.schedule)
        except ModelError as found:
            error = found
        report = TrainReport(losses, len(losses), self.tokens, seconds, peak, reductions)
        return CohortResult(report, self.state, error)


def _train(
    model: PeftModel,
    runs: list[_Run],
    on_step: OnStep | None,
    most_tokens: int,
    saved: SavePoint | None,
    checkpointing: Checkpointing,
) -> int:
    """Take all steps; returns how often a step went on in a smaller way."""
    total = sum(run.job.schedule.steps for run in runs)
    stack = Stack(model, [run.state for run in runs])
    optimizer = AdamW(stack, [run.job.schedule for run in runs])
    running, done = list(runs), 0
    if saved is not None and (found := saved.read()) is not None:
        done = _go_on(stack, optimizer, runs[0], found)
        running = _let_go(stack, optimizer, running)
    with _prepared(model, stack) as base, checkpoints(base, stack) as blocks:
        blocks.active = checkpointing is True
        may = checkpointing == "auto"
        backward = Backward(base, stack, most_tokens, blocks, may_checkpoint=may)
        while running:
            rates = [run.rates[len(run.losses)] for run in running]
            losses = backward.losses(_next_step(running))
            optimizer.step(stack, rates)
            for run, loss in zip(running, losses.unbind(), strict=True):
                run.losses.append(loss)
            done += len(running)
            if saved is not None and saved.is_due(done):
                saved.write(_standing(stack, optimizer, runs[0]))
            if on_step is not None:
                on_step(done, total)
            running = _let_go(stack, optimizer, running)
    return backward.reductions


def _next_step(running: Sequence[_Run]) -> Step:
    return Step.of(
        [run.next_rows() for run in running],
        [run.job.distillation for run in running],
        [run.generator for run in running],
    )


def _standing(stack: Stack, optimizer: AdamW, run: _Run) -> dict[str, torch.Tensor]:
    """All that the rest of one user's training depends on."""
    return {
        "weights": stack.weights,
        "losses": torch.stack(run.losses),
        "tokens": torch.tensor(run.tokens),
        "generator": run.generator.get_state(),
        **optimizer.state(),
    }


def _go_on(stack: Stack, optimizer: AdamW, run: _Run, found: Mapping[str, torch.Tensor]) -> int:
    """Continue where :func:`_standing` was; returns the steps done."""
    stack.weights.copy_(found["weights"])
    stack.refresh()
    optimizer.restore(found)
    for _ in found["losses"]:
        run.next_rows()
    run.losses = list(found["losses"].to(stack.weights.device).unbind())
    run.tokens = int(found["tokens"])
    run.generator.set_state(found["generator"])
    return len(run.losses)


def _let_go(stack: Stack, optimizer: AdamW, running: list[_Run]) -> list[_Run]:
    """Take users at their last step out of the stack; returns the others."""
    for user, run in enumerate(running):
        if run.is_done:
            run.state = stack.state(user)
    left = [user for user, run in enumerate(running) if not run.is_done]
    if len(left) < len(running):
        stack.keep(left)
        optimizer.keep(left)
    return [running[user] for user in left]


@contextmanager
def _prepared(model: PeftModel, stack: Stack) -> Iterator[nn.Module]:
    """Install stack, packed attention and the shortened last layer; undo all of it at the end."""
    with ExitStack() as undo:
        tail = _last_feed_forward(model)
        if tail:
            stack.only_scored(tail)
            undo.enter_context(_scored_only(model.get_submodule(tail), stack))
        base: Any = undo.enter_context(installed(model, stack.modules()))
        undo.callback(base.set_attn_implementation, base.config._attn_implementation)
        packing.register()
        base.set_attn_implementation(packing.ATTENTION)
        yield base


def _last_feed_forward(model: PeftModel) -> str:
    """Return the name of the last layer's feed-forward part, or "" where it has another name."""
    names = [name for name, _ in model.named_modules() if _FEED_FORWARD.search(name)]
    return names[-1] if names else ""


@contextmanager
def _scored_only(module: nn.Module, stack: Stack) -> Iterator[None]:
    """Let the last position-wise part see scored tokens only; to the others it adds zero.

    Nothing behind it mixes tokens, and only scored ones reach the output layer.
    """

    def select(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        chosen = packing.Select.apply(inputs[0], stack.scope.scored_at)  # type: ignore[no-untyped-call]
        return (chosen, *inputs[1:])

    def spread(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        scope = stack.scope
        whole = output.new_zeros(1, sum(scope.tokens.sizes), output.shape[-1])
        return whole.index_copy(1, scope.scored_at, output)  # type: ignore[arg-type]

    hooks = [module.register_forward_pre_hook(select), module.register_forward_hook(spread)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
