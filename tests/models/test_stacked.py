from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from conf.errors import ModelError
from conf.schema import QLoraConfig
from models import lora
from models.loading import load_device_base
from models.multi_lora.dropout import draw_places, without
from models.multi_lora.stacked import Owners, Scope, Stack, installed, shared_inputs

QLORA = QLoraConfig(compute_dtype="float32", dropout=0.25, rank=4, alpha=6)
LAYER = "base_model.model.model.layers.1.mlp"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(qwen2_folder):
    return lora.attach(load_device_base(qwen2_folder, QLORA), QLORA, seed=0)


def states(model, users: int):
    generator = torch.Generator().manual_seed(1)
    return [
        {
            name: torch.randn(weight.shape, generator=generator) * 0.1
            for name, weight in lora.lora_parameters(model).items()
        }
        for _ in range(users)
    ]


def test_layers_are_grouped_by_what_they_read(model):
    groups = [[layer.name.rpartition(".")[2] for layer in group] for group in shared_inputs(model)]
    one_block = [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"]]
    assert groups == [*one_block, ["down_proj"]] * 2


def test_state_returns_what_was_stacked(model):
    given = states(model, 3)
    stack = Stack(model, given)
    for user, state in enumerate(given):
        assert stack.state(user).keys() == state.keys()
        assert all(torch.equal(stack.state(user)[name], state[name]) for name in state)
    stack.keep([2, 0])
    assert all(torch.equal(stack.state(0)[name], given[2][name]) for name in given[2])
    assert stack.gradients.shape == stack.weights.shape


def test_each_token_meets_its_own_users_matrices(model):
    """Rows of three users in one batch; each row as with that user's adapter in the slot."""
    given = states(model, 3)
    ids = torch.randint(0, 300, (6, 9), generator=torch.Generator().manual_seed(0))
    stack = Stack(model, given)
    stack.scope = Scope(Owners.of([1 * 9, 3 * 9, 2 * 9], CPU))
    with torch.no_grad(), installed(model, stack.modules()) as base:
        together = base(input_ids=ids).logits
    for user, rows in enumerate([[0], [1, 2, 3], [4, 5]]):
        lora.fill(model, given[user], "of a test")
        with torch.no_grad():
            torch.testing.assert_close(model(input_ids=ids[rows]).logits, together[rows])


def by_hand(inputs, state, mask, layer, name):
    """W x + alpha / r / (1 - p) B A (mask x)."""
    a, b = (state[f"{LAYER}.{name}.lora_{m}.weight"] for m in "AB")
    return layer.base_layer(inputs) + 6 / 4 / 0.75 * (inputs * mask) @ a.T @ b.T


def test_dropout_and_all_gradients_are_those_of_the_formula(model):
    given, sizes = states(model, 2), [5, 3]
    stack = Stack(model, given)
    stack.scope = Scope(
        Owners.of(sizes, CPU), generators=tuple(torch.Generator().manual_seed(s) for s in (5, 6))
    )
    generator = torch.Generator().manual_seed(7)
    inputs, *weights = (torch.randn(8, n, generator=generator) for n in (64, 128, 128))
    mlp = model.get_submodule(LAYER)
    layers = {name: getattr(mlp, name) for name in ("gate_proj", "up_proj")}
    ours = inputs.clone().requires_grad_()
    with installed(model, stack.modules()):
        out = [getattr(mlp, name)(ours) for name in layers]
        sum((o * w).sum() for o, w in zip(out, weights, strict=True)).backward()
    theirs = inputs.clone().requires_grad_()
    leaves = [{n: t.clone().requires_grad_() for n, t in state.items()} for state in given]
    total = 0.0
    for user, (start, end) in enumerate([(0, 5), (5, 8)]):
        generator = torch.Generator().manual_seed((5, 6)[user])
        seen = []
        for index, (name, layer) in enumerate(layers.items()):
            places = draw_places([end - start], 64, 0.25, [generator])
            mask = without(torch.ones(end - start, 64), places)
            assert 0.6 < mask.mean() < 0.9
            assert not any(torch.equal(mask, other) for other in seen)  # one of its own each
            seen.append(mask)
            expected = by_hand(theirs[start:end], leaves[user], mask, layer, name)
            torch.testing.assert_close(out[index][start:end], expected)
            total = total + (expected * weights[index][start:end]).sum()
    total.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    stack.weights.copy_(stack.gradients)  # to read the gradients by name
    for user, leaf in enumerate(leaves):
        for name, tensor in leaf.items():
            if tensor.grad is not None:
                torch.testing.assert_close(stack.state(user)[name], tensor.grad)


class Twice(nn.Module):
    """A model that runs its layer twice per token."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.config, self.dtype, self.device = None, torch.float32, CPU

    def forward(self, input_ids: torch.Tensor, **_: object) -> torch.Tensor:
        return self.layer(self.layer(torch.ones(*input_ids.shape, 4)))


def test_model_that_runs_a_layer_twice_is_refused():
    peft_model = get_peft_model(Twice(), LoraConfig(target_modules=["layer"]))
    with pytest.raises(ModelError, match="expected each of 1 adapted layers to run once"):
        shared_inputs(peft_model)
