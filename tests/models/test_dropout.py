"""Places drawn by gaps are what a mask of independent draws would leave out."""

from __future__ import annotations

import pytest
import torch

from models.multi_lora.dropout import draw_places, without


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def kept(sizes, width, rate, seeds) -> torch.Tensor:
    places = draw_places(sizes, width, rate, generators(*seeds))
    return without(torch.ones(sum(sizes), width), places)


@pytest.mark.parametrize("rate", [0.001, 0.05, 0.5, 0.9])
def test_the_given_share_is_left_out_independently_of_the_neighbours(rate):
    left_out = 1 - kept([1000], 301, rate, [0])
    cells = left_out.numel()
    assert set(left_out.unique().tolist()) == {0.0, 1.0}
    five_deviations = 5 * (rate * (1 - rate) / cells) ** 0.5
    assert left_out.mean().item() == pytest.approx(rate, abs=five_deviations)
    for step in (1, 2, 301):  # the next in a row, the second next, the one below
        flat = left_out.flatten()
        both = (flat[:-step] * flat[step:]).mean().item()
        pair = rate**2
        assert both == pytest.approx(pair, abs=6 * (pair * (1 - pair) / cells) ** 0.5 + 1e-6)


def test_the_last_cells_are_left_out_as_often_as_the_first():
    """Too few gaps would spare the end."""
    counts = sum(1 - kept([2], 50, 0.3, [seed]) for seed in range(2000)).flatten()
    assert counts.shape == (100,)
    assert (counts / 2000 - 0.3).abs().max().item() < 5 * (0.21 / 2000) ** 0.5


def test_a_users_places_do_not_depend_on_the_others():
    together = kept([5, 3, 7], 40, 0.2, [1, 2, 3])
    alone = [kept([size], 40, 0.2, [seed]) for size, seed in ((5, 1), (3, 2), (7, 3))]
    assert torch.equal(together, torch.cat(alone))


def test_all_are_left_out_at_rate_one_and_a_users_end_is_respected():
    assert kept([3], 4, 1.0, [0]).sum() == 0
    assert kept([1, 1], 1, 0.9999, [0, 1]).shape == (2, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_copy_is_made_and_other_cells_stay(dtype):
    inputs = torch.arange(1.0, 7.0).view(2, 3).to(dtype)
    got = without(inputs, torch.tensor([1, 5, 6, 6]))  # 6 stands for no place
    assert got.tolist() == [[1, 0, 3], [4, 5, 0]]
    assert got.dtype == dtype
    assert inputs.min() == 1
