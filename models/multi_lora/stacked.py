"""Several users' adapters on one frozen base: each token meets its own user's matrices.

The adapters lie in one float32 matrix, a row per user. While a stack is installed, the slot's
layers are replaced by stacked ones: layers that read the same input (query, key and value; gate and
up) multiply it with their A matrices in one grouped product where there is no dropout; with dropout
each layer leaves out inputs of its own, as PEFT's layers do. Gradients go straight into a matrix of
the same shape; the base gets none.

Tokens stand user by user. What dropout leaves out comes from the user's own generator, for that
user's tokens alone: who else is in the stack changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from peft import PeftModel
from torch import nn
from torch.nn.functional import grouped_mm, linear

from conf.errors import ModelError
from models.lora import SLOT
from models.multi_lora.dropout import draw_places, without


class NotStackableError(ModelError):
    """The model's layers or its attention are of a kind that cannot serve several adapters."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One adapted layer of the slot.

    Attributes:
        name: Its name in the model with the slot.
        base: The frozen layer.
        rank: r.
        in_features: Width of A.
        out_features: Height of B.
        scaling: alpha / r.
        dropout: Share of A's inputs that are left out while training.
    """

    name: str
    base: nn.Module
    rank: int
    in_features: int
    out_features: int
    scaling: float
    dropout: float


@dataclass(frozen=True, slots=True)
class Owners:
    """Whose the tokens of a layer are.

    Attributes:
        sizes: Tokens of each user, in the order of the stack.
        ends: (U,) int32, where each user's tokens end.
    """

    sizes: tuple[int, ...]
    ends: torch.Tensor

    @classmethod
    def of(cls, sizes: Sequence[int], device: torch.device) -> Owners:
        """Count ``sizes`` tokens user by user."""
        ends = torch.tensor(sizes).cumsum(0).to(device, torch.int32, non_blocking=True)
        return cls(tuple(sizes), ends)


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose tokens the next forward pass brings.

    Attributes:
        tokens: Of all layers but those that see only scored tokens.
        scored: Of those; None where every layer sees every token.
        scored_at: (S,) int64, where the scored tokens stand.
        generators: Each user's generator of dropout; none without dropout.
    """

    tokens: Owners
    scored: Owners | None = None
    scored_at: torch.Tensor | None = None
    generators: tuple[torch.Generator, ...] = ()


class Stack:
    """The adapters of U users, each of P numbers.

    Attributes:
        weights: (U, P) float32.
        gradients: (U, P) float32, overwritten by every backward pass.
        dtype: Type in which the layers compute.
        scope: Whose tokens come next; to be set before every forward pass.
    """

    def __init__(self, peft_model: PeftModel, states: Sequence[Mapping[str, torch.Tensor]]) -> None:
        """Stack adapters that fit the slot of ``peft_model``.

        Args:
            peft_model: Base with the slot; its weights are not read.
            states: Matrices by the names of :func:`models.lora.lora_parameters`.

        Raises:
            NotStackableError: If the model's layers do not run once per token, each in its turn.
        """
        self.scope = Scope(Owners.of((), peft_model.device))
        self.anchor = torch.zeros((), device=peft_model.device, requires_grad=True)
        self._groups = [_Group(self, layers) for layers in shared_inputs(peft_model)]
        self._places = _places(self._groups)
        self.dtype = peft_model.dtype
        rows = [torch.cat([state[n].flatten() for n in self._places]) for state in states]
        self.weights = torch.stack(rows).to(peft_model.device, torch.float32, copy=True)
        self._bind()

    def refresh(self) -> None:
        """Let the layers see changed ``weights``."""
        if self._compute is not self.weights:
            self._compute.copy_(self.weights)

    def belongs(self, sizes: Sequence[int]) -> None:
        """Say how many of the next tokens are each user's; no dropout."""
        self.scope = Scope(Owners.of(sizes, self.weights.device))

    def keep(self, indices: Sequence[int]) -> None:
        """Reduce the stack to the users ``indices``."""
        self.weights = self.weights[list(indices)]
        self._bind()

    def state(self, user: int) -> dict[str, torch.Tensor]:
        """Return a copy of one user's matrices by their names in an adapter file."""
        row = self.weights[user]
        return {
            name: row[start : start + shape.numel()].view(shape).clone()
            for name, (start, shape) in self._places.items()
        }

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield what stands in for each layer of the slot."""
        for group in self._groups:
            for index, layer in enumerate(group.layers):
                yield layer.name, _StackedLayer(group, index)

    def only_scored(self, prefix: str) -> None:
        """Note that the layers below module ``prefix`` see scored tokens only."""
        for group in self._groups:
            group.only_scored = group.layers[0].name.startswith(f"{prefix}.")

    def forget(self) -> None:
        """Drop what a forward pass that was broken off left in the layers."""
        for group in self._groups:
            group.forget()

    def _bind(self) -> None:
        """Point every group to its part of the rows."""
        self._compute = self.weights.to(self.dtype)  # float32: the weights themselves
        self.gradients = torch.zeros_like(self.weights)
        at = 0
        for group in self._groups:
            at = group.bind(self._compute, self.gradients, at)


@contextmanager
def installed(
    peft_model: PeftModel, modules: Iterable[tuple[str, nn.Module]]
) -> Iterator[nn.Module]:
    """Put ``modules`` in the place of the slot's layers; yields the base model that uses them.

    Afterwards the model is as it was, also after an error.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for name, module in modules:
            parent, _, leaf = name.rpartition(".")
            owner = peft_model.get_submodule(parent)
            replaced.append((owner, leaf, owner.get_submodule(leaf)))
            setattr(owner, leaf, module)
        yield peft_model.get_base_model()
    finally:
        for owner, leaf, module in replaced:
            setattr(owner, leaf, module)


def shared_inputs(peft_model: PeftModel) -> list[list[Layer]]:
    """Return the slot's layers in the order of a forward pass, grouped by the input they read.

    Found by running one token.

    Raises:
        NotStackableError: If a layer runs more than once or not at all.
    """
    layers = adapted_layers(peft_model)
    calls: list[tuple[Layer, torch.Tensor]] = []
    hooks = [
        peft_model.get_submodule(layer.name).register_forward_pre_hook(
            lambda _module, inputs, layer=layer: calls.append((layer, inputs[0]))
        )
        for layer in layers
    ]
    try:
        with torch.no_grad():
            token = torch.zeros(1, 1, dtype=torch.int64, device=peft_model.device)
            peft_model.get_base_model()(input_ids=token, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    if sorted(layer.name for layer, _ in calls) != sorted(layer.name for layer in layers):
        raise NotStackableError(
            f"model: expected each of {len(layers)} adapted layers to run once per token, got "
            f"{len(calls)} runs; set qlora.cohort=1"
        )
    return _consecutive(calls)


class _Group:
    """Layers that read one input; A and B are views into the stack's rows."""

    def __init__(self, stack: Stack, layers: list[Layer]) -> None:
        self.stack, self.layers = stack, layers
        self.rank, self.scaling = layers[0].rank, layers[0].scaling
        self.rate = layers[0].dropout
        self.only_scored = False
        self.a = self.a_gradient = torch.empty(0)  # (U, k r, d_in) of k layers
        self.b: list[torch.Tensor] = []  # (U, d_out, r) each
        self.b_gradients: list[torch.Tensor] = []
        self._input: torch.Tensor | None = None
        self._outputs: list[torch.Tensor | None] = []

    def shapes(self) -> Iterator[tuple[str, torch.Size]]:
        """Yield names and shapes in the order in which they lie in a row: all A, then each B."""
        for layer in self.layers:
            yield f"{layer.name}.lora_A.weight", torch.Size((layer.rank, layer.in_features))
        for layer in self.layers:
            yield f"{layer.name}.lora_B.weight", torch.Size((layer.out_features, layer.rank))

    def bind(self, compute: torch.Tensor, gradients: torch.Tensor, start: int) -> int:
        """Take views into the rows from column ``start`` on; returns the next free column."""
        shapes = [(len(self.layers) * self.rank, self.layers[0].in_features)]
        shapes += [(layer.out_features, self.rank) for layer in self.layers]
        (self.a, self.a_gradient), *rest = _views(shapes, (compute, gradients), start)
        self.b, self.b_gradients = [b for b, _ in rest], [gradient for _, gradient in rest]
        return start + sum(height * width for height, width in shapes)

    @property
    def owners(self) -> Owners:
        scope = self.stack.scope
        return scope.scored if self.only_scored and scope.scored else scope.tokens

    def output(self, index: int, inputs: torch.Tensor) -> torch.Tensor:
        """Return what layer ``index`` makes of ``inputs``; the first call computes all layers'."""
        if inputs is not self._input:
            self._input = inputs
            outputs = _StackedProduct.apply(inputs, self.stack.anchor, self)  # type: ignore[no-untyped-call]
            self._outputs = list(outputs)
        output, self._outputs[index] = self._outputs[index], None
        if not any(rest is not None for rest in self._outputs):
            self._input = None  # hold nothing longer than needed
        if output is None:
            raise NotStackableError(
                "model: expected each adapted layer to run once, got a second run; set "
                "qlora.cohort=1"
            )
        return output

    def forget(self) -> None:
        """Hold no input and no output."""
        self._input, self._outputs = None, []

    def dropped(self) -> list[torch.Tensor]:
        """Return what each layer leaves out of its next inputs; nothing without dropout."""
        generators, sizes = self.stack.scope.generators, self.owners.sizes
        if not generators or not self.rate:
            return []
        return [draw_places(sizes, each.in_features, self.rate, generators) for each in self.layers]


class _StackedLayer(nn.Module):
    """Stands in for one layer of the slot."""

    def __init__(self, group: _Group, index: int) -> None:
        super().__init__()
        self._group, self._index = group, index

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._group.output(self._index, inputs)


class _StackedProduct(torch.autograd.Function):
    """y_j = W_j x + scaling B_j A_j dropout_j(x) for the layers j of a group, token by token.

    A and B are no inputs of the function: their gradients are written into the stack's rows.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        anchor: torch.Tensor,  # noqa: ARG004  # makes the graph start where inputs need no gradient
        group: _Group,
    ) -> tuple[torch.Tensor, ...]:
        tokens = inputs.reshape(-1, inputs.shape[-1])  # (N, d_in)
        sizes, ends, dropped = list(group.owners.sizes), group.owners.ends, group.dropped()
        factor = group.scaling / (1 - group.rate) if dropped else group.scaling
        parts = [
            grouped_mm(kept, a.mT, offs=ends).mul_(factor)  # (N, r), or (N, k r) of all at once
            for kept, a in zip(_kept(tokens, dropped), _parts(group.a, dropped), strict=True)
        ]
        low = torch.cat(parts, dim=1) if dropped else parts[0]  # (N, k r)
        outputs = []
        for layer, part, b in zip(group.layers, low.split(group.rank, dim=1), group.b, strict=True):
            output = linear(tokens, frozen_weight(layer.base), _bias(layer.base, tokens.dtype))
            # grouped_mm cannot add to what is there, and the output is the largest tensor around
            for own, own_part, own_b in zip(output.split(sizes), part.split(sizes), b, strict=True):
                own.addmm_(own_part, own_b.mT)
            outputs.append(output)
        ctx.group, ctx.factor, ctx.ends = group, factor, ends
        ctx.save_for_backward(tokens, low, *dropped)
        return tuple(output.view(*inputs.shape[:-1], -1) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        group: _Group = ctx.group
        tokens, low, *dropped = ctx.saved_tensors
        flat = [gradient.reshape(len(tokens), -1) for gradient in gradients]
        low_gradient = torch.empty_like(low)
        parts = zip(
            flat,
            low.split(group.rank, dim=1),
            low_gradient.split(group.rank, dim=1),
            group.b,
            group.b_gradients,
            strict=True,
        )
        for gradient, part, part_gradient, b, b_gradient in parts:
            torch.mul(grouped_mm(gradient, b, offs=ctx.ends), ctx.factor, out=part_gradient)
            b_gradient.copy_(grouped_mm(gradient.mT, part, offs=ctx.ends))
        result = _through_a(ctx, tokens, low_gradient, dropped)
        if result is None:
            return None, None, None
        for layer, gradient in zip(group.layers, flat, strict=True):
            result.addmm_(gradient, frozen_weight(layer.base).to(gradient.dtype))
        return result.view(*gradients[0].shape[:-1], -1), None, None


def _through_a(
    ctx: Any, tokens: torch.Tensor, low_gradient: torch.Tensor, dropped: list[torch.Tensor]
) -> torch.Tensor | None:
    """Bring the gradients of the A matrices; returns the (N, d_in) gradient of their inputs."""
    group: _Group = ctx.group
    ranks = low_gradient.split(group.rank, dim=1) if dropped else (low_gradient,)
    result: torch.Tensor | None = None
    for place, (rank, kept, a, a_gradient) in enumerate(
        zip(
            ranks,
            _kept(tokens, dropped),
            _parts(group.a, dropped),
            _parts(group.a_gradient, dropped),
            strict=True,
        )
    ):
        a_gradient.copy_(grouped_mm(rank.mT, kept, offs=ctx.ends))
        if ctx.needs_input_grad[0]:
            update = grouped_mm(rank, a, offs=ctx.ends)
            update = without(update, dropped[place]) if dropped else update
            result = update if result is None else result.add_(update)
    return result


def _kept(tokens: torch.Tensor, dropped: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield what each layer reads of ``tokens``; without dropout once for all of them."""
    if not dropped:
        yield tokens
    for places in dropped:
        yield without(tokens, places)


def _parts(a: torch.Tensor, dropped: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Return the (U, r, d_in) part of each layer; without dropout all of them as one."""
    return a.chunk(len(dropped), dim=1) if dropped else (a,)


def frozen_weight(layer: nn.Module) -> torch.Tensor:
    """Return the (d_out, d_in) weight of a frozen layer in its compute type."""
    weight: Any = layer.weight
    if isinstance(layer, Linear4bit):
        dequantised: torch.Tensor = dequantize_4bit(weight.data, weight.quant_state)
        return dequantised.to(layer.compute_dtype)
    return weight.detach()  # type: ignore[no-any-return]


def _bias(layer: nn.Module, dtype: torch.dtype) -> torch.Tensor | None:
    bias: Any = layer.bias
    return None if bias is None else bias.detach().to(dtype)


def adapted_layers(peft_model: PeftModel) -> list[Layer]:
    """Return the slot's layers, in model order."""
    return [
        Layer(
            name=name,
            base=module.base_layer,
            rank=module.r[SLOT],
            in_features=module.in_features,
            out_features=module.out_features,
            scaling=module.scaling[SLOT],
            dropout=float(getattr(module.lora_dropout[SLOT], "p", 0.0)),
        )
        for name, module in peft_model.named_modules()
        if hasattr(module, "base_layer") and SLOT in getattr(module, "lora_A", {})
    ]


def _consecutive(calls: Sequence[tuple[Layer, torch.Tensor]]) -> list[list[Layer]]:
    groups: list[list[Layer]] = []
    previous: torch.Tensor | None = None
    for layer, inputs in calls:
        if inputs is previous:
            groups[-1].append(layer)
        else:
            groups.append([layer])
        previous = inputs
    return groups


def _places(groups: Sequence[_Group]) -> dict[str, tuple[int, torch.Size]]:
    """Return column and shape of every matrix by its name in an adapter file."""
    places, at = {}, 0
    for group in groups:
        for name, shape in group.shapes():
            places[name] = (at, shape)
            at += shape.numel()
    return places


def _views(
    shapes: Sequence[tuple[int, int]], rows: Sequence[torch.Tensor], start: int
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield, for each shape, its view (U, height, width) into each of ``rows``."""
    for height, width in shapes:
        end = start + height * width
        yield tuple(row[:, start:end].unflatten(1, (height, width)) for row in rows)
        start = end
