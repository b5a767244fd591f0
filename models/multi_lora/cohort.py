"""Training several users' adapters in one forward and backward pass over the frozen base.

Each user has its own examples, schedule, gradient clipping and AdamW state, and leaves at its own
last step. The result is that of training alone: exactly the same function, computed in products of
other sizes, so equal up to rounding. A cohort of one gives the same bytes every time.

Three things make it fast where models are small, also for one user alone: no padding and common
beginnings only once (:mod:`.packing`), few and cheap operations for the adapters
(:mod:`.stacked`), and in the last layer a feed-forward part for scored tokens only.
The base's own dropout, if any, stays off; Qwen and Llama have none.

A step whose activations would take more than ``activation_bytes`` is computed in micro-batches. The
gradient is that of the whole batch: each scored token weighs the same wherever it lies. Only the
dropout masks are drawn in another order.
"""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from conf.errors import ModelError
from conf.seeds import derive_seed
from models import lora, memory
from models.chat import IGNORED, Encoded, num_scored
from models.losses import TokenLosses, before_head, lesson_of, num_taught, weighted_loss
from models.multi_lora import packing
from models.multi_lora.adamw import AdamW
from models.multi_lora.stacked import (
    NotStackableError,
    Owners,
    Scope,
    Stack,
    installed,
)
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
_MULTIPLE = 32  # in bfloat16, oneDNN takes half a millisecond for a product of a new size
_FILLER = Encoded([0], [IGNORED])
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
) -> tuple[CohortResult, ...]:
    """Train all jobs together; model and slot are left as they were, in eval mode.

    Args:
        model: Frozen base with an adapter slot.
        jobs: One per user.
        on_step: Called after each common step with the users' steps done and their total.
        activation_bytes: What the activations of one forward pass may take, as estimated.
        saved: Where a job that is alone keeps its place, and goes on; not read with several.

    Raises:
        NotStackableError: If the model has an attention or layers that cannot be stacked.
    """
    started = time.perf_counter()
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    runs = [_Run(model, job) for job in jobs]
    ready = [run for run in runs if run.error is None and run.job.schedule.steps]
    if ready:
        most_tokens = activation_bytes // token_bytes(model)
        _train(model.eval(), ready, on_step, most_tokens, saved if len(jobs) == 1 else None)
    seconds = time.perf_counter() - started
    tokens = max(1, sum(run.tokens for run in runs))
    peak = peak_memory(model.device)
    return tuple(run.result(seconds * run.tokens / tokens, peak) for run in runs)


def train_one(
    model: PeftModel,
    pad_id: int,
    job: CohortJob,
    on_step: OnStep | None = None,
    saved: SavePoint | None = None,
    activation_bytes: int = ACTIVATION_BYTES,
) -> TrainReport:
    """Train one adapter and leave it in the slot.

    As a cohort of one, or by the plain loop where the model cannot be stacked.

    Args:
        model: Frozen base with an adapter slot.
        pad_id: Id that fills short rows in the plain loop.
        job: What to train on.
        on_step: Called after each step with the steps done and their total.
        saved: Where the training keeps its place; the plain loop begins at the start.
        activation_bytes: As of :func:`train_cohort`; the plain loop takes what it needs.

    Raises:
        ModelError: If there are steps to take but no examples, or a loss or weight is not finite.
    """
    try:
        (result,) = train_cohort(model, [job], on_step, activation_bytes, saved)
    except NotStackableError:
        lora.fill(model, job.start or lora.fresh(model, job.adapter_seed), "to start from")
        seed, weight = job.batch_seed, job.distillation
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


def token_bytes(model: PeftModel) -> int:
    """Return how many bytes of activations a token leaves for the backward pass, as planned."""
    return memory.token_bytes(memory.shape_of_network(model.config), model.dtype.itemsize)


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

    def result(self, seconds: float, peak: int) -> CohortResult:
        losses = tuple(torch.stack(self.losses).tolist()) if self.losses else ()
        error = self.error
        try:
            require_finite(losses, self.job.schedule)
            require_finite_weights(self.state.values(), self.job.schedule)
        except ModelError as found:
            error = found
        report = TrainReport(losses, len(losses), self.tokens, seconds, peak)
        return CohortResult(report, self.state, error)


def _train(
    model: PeftModel,
    runs: list[_Run],
    on_step: OnStep | None,
    most_tokens: int,
    saved: SavePoint | None,
) -> None:
    total = sum(run.job.schedule.steps for run in runs)
    stack = Stack(model, [run.state for run in runs])
    optimizer = AdamW(stack, [run.job.schedule for run in runs])
    running, done = list(runs), 0
    if saved is not None and (found := saved.read()) is not None:
        done = _go_on(stack, optimizer, runs[0], found)
        running = _let_go(stack, optimizer, running)
    with _prepared(model, stack) as base:
        while running:
            rates = [run.rates[len(run.losses)] for run in running]
            losses = _backward(base, stack, running, most_tokens)
            optimizer.step(stack, rates)
            for run, loss in zip(running, losses.unbind(), strict=True):
                run.losses.append(loss)
            done += len(running)
            if saved is not None and saved.is_due(done):
                saved.write(_standing(stack, optimizer, runs[0]))
            if on_step is not None:
                on_step(done, total)
            running = _let_go(stack, optimizer, running)


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


def _backward(
    base: nn.Module, stack: Stack, running: Sequence[_Run], most_tokens: int
) -> torch.Tensor:
    """Bring the gradients of the users' next batches; returns their (U,) mean losses per token."""
    step = _Step.of(running, [run.next_rows() for run in running])
    first, *further = packing.micro_batches(step.rows, most_tokens)
    total = _backward_part(base, stack, step, first)
    if further:
        gradients = stack.gradients.clone()  # each backward pass writes over the last
        for part in further:
            total += _backward_part(base, stack, step, part)
            gradients += stack.gradients
        stack.gradients.copy_(gradients)
    return total


@dataclass(frozen=True, slots=True)
class _Step:
    """The users' next batches.

    Attributes:
        rows: Rows of each user.
        scored: Scored tokens of each user.
        shares: What the reverse KL of one taught token of each user weighs in its loss.
        generators: Each user's generator of dropout masks.
    """

    rows: list[list[Encoded]]
    scored: list[int]
    shares: list[float]
    generators: list[torch.Generator]

    @classmethod
    def of(cls, running: Sequence[_Run], rows: list[list[Encoded]]) -> _Step:
        each = zip(running, rows, strict=True)
        shares = [run.job.distillation / max(1, num_taught(own)) for run, own in each]
        scored = [sum(map(num_scored, own)) for own in rows]
        return cls(rows, scored, shares, [run.generator for run in running])


def _backward_part(
    base: nn.Module, stack: Stack, step: _Step, rows: Sequence[Sequence[Encoded]]
) -> torch.Tensor:
    """Bring the gradients of a part of the step's rows, and return the (U,) losses of this part.

    A user without rows takes part with a token that counts for nothing and draws no mask of its
    own.
    """
    device = stack.weights.device
    multiple = _MULTIPLE if stack.dtype == torch.bfloat16 else 1
    packed = packing.pack([own or [_FILLER] for own in rows], device, multiple)
    idle = torch.Generator(device)
    stack.scope = Scope(
        Owners.of(packed.sizes, device),
        Owners.of(packed.scored_sizes, device),
        packed.scored,
        tuple(own if part else idle for own, part in zip(step.generators, rows, strict=True)),
    )
    states, head = before_head(
        base,
        packed.scored,
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        grid=packed.grid,
    )
    fillings = [size - n for size, n in zip(packed.scored_sizes, packed.counts, strict=True)]
    lesson = lesson_of(rows, fillings, step.shares, device)
    losses = weighted_loss(states, head, packed.targets, _weights(packed, step), lesson)
    losses.total.backward()
    return _per_user(losses, packed, step, [num_taught(own) for own in rows])


def _weights(packed: packing.Packed, step: _Step) -> torch.Tensor:
    """Return (S,): a mean over each user's scored tokens of the step; filling weighs nothing."""
    device = packed.scored.device
    of, counts = (torch.tensor(each, device=device) for each in (step.scored, packed.counts))
    # a mean first, so that a whole batch has the bytes that it has without micro-batches
    each = torch.stack([counts / of / counts, torch.zeros_like(of, dtype=torch.float32)], 1)
    sizes = torch.tensor(packed.scored_sizes, device=device)
    return each.flatten().repeat_interleave(torch.stack([counts, sizes - counts], 1).flatten())


def _per_user(
    losses: TokenLosses, packed: packing.Packed, step: _Step, taught: Sequence[int]
) -> torch.Tensor:
    """Return (U,), each user's part of its mean loss; not a number where nothing is scored."""
    parts = losses.cross_entropy.split(list(packed.scored_sizes))
    means = [
        part[:n].mean() * (n / of) if n else part.sum() * (0 if of else math.nan)
        for part, n, of in zip(parts, packed.counts, step.scored, strict=True)
    ]
    told = losses.reverse_kl.split(list(taught))
    kl = [each.sum() * share for each, share in zip(told, step.shares, strict=True)]
    return torch.stack(means) + torch.stack(kl) if any(taught) else torch.stack(means)


@contextmanager
def _prepared(model: PeftModel, stack: Stack) -> Iterator[nn.Module]:
    """Install stack, packed attention and the shortened last layer; undo all of it at the end."""
    with ExitStack() as undo:
        tail = _last_feed_forward(model)
        if tail:
            stack.only_scored(tail)
            undo.enter_context(_scored_only(model.get_submodule(tail), stack))
        base: Any = undo.enter_context(installed(model, stack))
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
