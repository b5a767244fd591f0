"""Gradient checkpointing of the engine: a decoder block keeps its input and is computed again.

The numbers are the same to the last byte on a CPU: dropout of the second computation is drawn from
where the users' generators stood at the first. It takes half as much arithmetic again, so it is
for rows that do not fit alone; what consists of several rows goes in micro-batches instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from models.multi_lora.stacked import Stack

_BLOCK = re.compile(r"(^|\.)layers\.\d+$")


class Checkpoints:
    """The blocks of one base while a stack is installed in it.

    Attributes:
        active: Whether the next forward pass keeps the blocks' inputs alone.
    """

    def __init__(self, base: nn.Module, stack: Stack) -> None:
        self.active = False
        self.blocks = [module for name, module in base.named_modules() if _BLOCK.search(name)]
        self._stack = stack

    def call(self, forward: Callable[..., Any], *inputs: Any, **others: Any) -> Any:
        """Run a block's own ``forward``."""
        if not self.active:
            return forward(*inputs, **others)
        return checkpoint(
            forward,
            *inputs,
            use_reentrant=False,
            preserve_rng_state=False,  # nothing draws from the process's generators
            context_fn=self._contexts,
            early_stop=False,  # a block that stops half-way would leave its layers' outputs behind
            **others,
        )

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        generators = self._stack.scope.generators
        return nullcontext(), _replayed(generators, [each.get_state() for each in generators])


@contextmanager
def checkpoints(base: nn.Module, stack: Stack) -> Iterator[Checkpoints]:
    """Let the blocks of ``base`` be checkpointed inside the block, once that is made active."""
    made = Checkpoints(base, stack)
    own = [vars(block).get("forward") for block in made.blocks]
    for block in made.blocks:
        block.forward = partial(made.call, block.forward)
    try:
        yield made
    finally:
        for block, forward in zip(made.blocks, own, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward


@contextmanager
def _replayed(
    generators: Sequence[torch.Generator], states: Sequence[torch.Tensor]
) -> Iterator[None]:
    """Let the generators draw once more what they drew from ``states`` on."""
    before = [each.get_state() for each in generators]
    _restore(generators, states)
    try:
        yield
    finally:
        _restore(generators, before)


def _restore(generators: Sequence[torch.Generator], states: Sequence[torch.Tensor]) -> None:
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
