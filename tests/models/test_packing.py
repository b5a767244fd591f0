from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from conf.errors import ModelError
from models.batch import micro_batches
from models.chat import IGNORED, Encoded
from models.multi_lora.packing import Grid, pack, packed_attention, shared_width

# prompts 1 2 3 and 1 2 4, completions 7 8 and 9; another user with one row
ONE = Encoded([1, 2, 3, 7, 8], [IGNORED, IGNORED, IGNORED, 7, 8])
TWO = Encoded([1, 2, 4, 9], [IGNORED, IGNORED, IGNORED, 9])
OTHER = Encoded([5, 6], [IGNORED, 6])


def encoded(ids: list[int], prompt: int) -> Encoded:
    return Encoded(ids, [IGNORED] * prompt + ids[prompt:])


def test_common_beginning_stands_once_and_nothing_is_padded():
    packed = pack([[ONE, TWO], [OTHER]])
    assert packed.input_ids.tolist() == [[1, 2, 3, 7, 8, 4, 9, 5, 6]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 2, 3, 0, 1]]
    assert packed.sizes == (7, 2)


def test_scored_tokens_are_those_before_the_labels():
    packed = pack([[ONE, TWO], [OTHER]])
    assert packed.scored.tolist() == [2, 3, 5, 7]
    assert packed.targets.tolist() == [7, 8, 9, 6]
    assert (packed.scored_sizes, packed.counts) == ((3, 1), (3, 1))


def test_grid_shows_every_row_whole():
    grid = pack([[ONE, TWO], [OTHER]]).grid
    assert (grid.rows, grid.width) == (3, 5)
    assert grid.token_of.view(3, 5).tolist() == [
        [0, 1, 2, 3, 4],
        [0, 1, 5, 6, 0],
        [7, 8, 0, 0, 0],
    ]
    assert grid.cell_of.tolist() == [0, 1, 2, 3, 4, 7, 8, 10, 11]


def test_users_are_laid_out_alike_whoever_else_is_there():
    alone, together = pack([[ONE, TWO]]), pack([[OTHER], [ONE, TWO]])
    assert together.input_ids[0, 2:].tolist() == alone.input_ids[0].tolist()
    assert (together.scored[1:] - 2).tolist() == alone.scored.tolist()


@pytest.mark.parametrize(
    ("rows", "width"),
    [
        ([encoded([1, 2, 3, 4], 3)], 0),  # alone
        ([encoded([1, 2, 3, 4], 3), encoded([1, 2, 5, 6], 3)], 2),
        ([encoded([1, 2, 3, 4], 3), encoded([1, 2, 3, 4], 3)], 2),  # up to the first score
        ([encoded([1, 2, 3, 4], 3), encoded([1, 2, 3, 4, 5, 6], 5)], 2),
        ([encoded([1, 2, 3], 2), encoded([1], 1)], 1),  # a row that scores nothing
        ([encoded([1, 2], 1), encoded([3, 4], 1)], 0),
    ],
)
def test_shared_width_ends_before_rows_differ_and_before_the_first_score(rows, width):
    assert shared_width(rows) == width


@pytest.mark.parametrize("multiple", [2, 8, 32])
def test_filling_makes_both_numbers_multiples_and_counts_for_nothing(multiple):
    packed = pack([[ONE, TWO], [OTHER]], multiple=multiple)
    assert all(size % multiple == 0 for size in (*packed.sizes, *packed.scored_sizes))
    assert packed.counts == (3, 1)
    assert packed.scored.unique().numel() == len(packed.scored) == sum(packed.scored_sizes)
    assert packed.input_ids[0, :7].tolist() == [1, 2, 3, 7, 8, 4, 9]
    assert packed.targets[: packed.counts[0]].tolist() == [7, 8, 9]
    assert packed.grid.cell_of.unique().numel() == sum(packed.sizes)


def line_of_rows(window: int | None):
    """Attention over a grid of three rows, the first two with two tokens in common, and by hand."""
    grid = pack([[ONE, TWO], [OTHER]]).grid
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(1, heads, 9, 4, generator=generator) for heads in (4, 2, 2)]
    for state in states:
        state.requires_grad_()
    out, _ = packed_attention(
        torch.nn.Identity(), *states, None, scaling=0.5, grid=grid, sliding_window=window
    )
    query, key, value = states[0], *(s.repeat_interleave(2, dim=1) for s in states[1:])
    expected = torch.zeros(1, 9, 4, 4)
    for row in ([0, 1, 2, 3, 4], [0, 1, 5, 6], [7, 8]):
        seen = torch.ones(len(row), len(row)).tril()
        seen = (seen.triu(1 - window) if window else seen).bool()
        parts = (state[:, :, row] for state in (query, key, value))
        attended = scaled_dot_product_attention(*parts, attn_mask=seen, scale=0.5)
        expected[:, row] = attended.transpose(1, 2)
    return states, out, expected


@pytest.mark.parametrize("window", [None, 2, 100])
@pytest.mark.parametrize("small", [True, False])
def test_attention_and_its_gradient_equal_those_of_the_rows(window, small, monkeypatch):
    if not small:
        monkeypatch.setattr("models.multi_lora.packing.WRITTEN_WIDTH", 0)
    states, out, expected = line_of_rows(window)
    torch.testing.assert_close(out, expected)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad((out * weights).sum(), states)
    theirs = torch.autograd.grad((expected * weights).sum(), states)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference)


def test_other_kinds_of_attention_are_refused():
    grid = Grid(1, 1, torch.zeros(1).long(), torch.zeros(1).long(), ())
    state = torch.zeros(1, 1, 1, 2)
    with pytest.raises(ModelError, match="expected plain causal attention, got softcap"):
        packed_attention(
            torch.nn.Identity(), state, state, state, None, scaling=1.0, grid=grid, softcap=30.0
        )


def test_micro_batches_hold_every_row_once_and_keep_to_the_budget():
    users = [[_row(n) for n in (30, 5, 20, 10)], [_row(7)], [_row(n) for n in (12,) * 6]]
    parts = micro_batches(users, 40)
    for user, rows in enumerate(users):
        found = [row for part in parts for row in part[user]]
        assert sorted(len(row.input_ids) for row in found) == sorted(
            len(row.input_ids) for row in rows
        )
    assert all(sum(len(row.input_ids) for own in part for row in own) <= 60 for part in parts)
    assert [part[0] for part in parts if part[0]] == [
        part[0] for part in micro_batches(users[:1], 40)
    ]


def test_what_fits_stays_in_its_order():
    rows = [_row(n) for n in (3, 9, 5)]
    assert micro_batches([rows, rows], 40) == [[rows, rows]]


def test_a_row_is_never_parted():
    assert micro_batches([[_row(50)]], 8) == [[[_row(50)]]]


def _row(tokens: int) -> Encoded:
    return Encoded(list(range(tokens)), [IGNORED] * (tokens - 1) + [tokens - 1])
