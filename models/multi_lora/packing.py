"""Rows of several users as one line of tokens: no padding, and a shared beginning only once.

Everything in a decoder but attention looks at one token at a time, so the rows of a step stand one
after the other, user by user, without padding. The rows of one user that begin alike (chat template
and instruction of the task) share those tokens: with a causal model they have the same hidden
states. Attention alone needs rows: it gathers them into a padded grid and scatters the result back.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from models.chat import IGNORED, Encoded
from models.memory import WRITTEN_WIDTH
from models.multi_lora.stacked import NotStackableError

ATTENTION = "packed_rows"
_NO_SUPPORT = ("softcap", "s_aux", "position_bias")


@dataclass(frozen=True, slots=True)
class Shared:
    """The common beginning of one user's rows.

    Attributes:
        start: Token where it begins.
        width: Its tokens.
        first_row: The first of the rows that share it.
        end_row: Behind the last of them.
    """

    start: int
    width: int
    first_row: int
    end_row: int


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the N tokens stand in R padded rows of T cells.

    Attributes:
        rows: R.
        width: T.
        token_of: (R * T,) int64, the token of each cell; 0 on padding.
        cell_of: (N,) int64, a cell of each token; for shared ones that in the user's first row.
        shared: Users with a common beginning.
    """

    rows: int
    width: int
    token_of: torch.Tensor
    cell_of: torch.Tensor
    shared: tuple[Shared, ...]


@dataclass(frozen=True, slots=True)
class Packed:
    """The rows of one step.

    Attributes:
        input_ids: (1, N) int64.
        position_ids: (1, N) int64.
        sizes: Tokens of each user; they add up to N.
        scored: (S,) int64, the tokens whose next token counts.
        targets: (S,) int64, those next tokens.
        scored_sizes: Scored tokens of each user, filling included; they add up to S.
        counts: Scored tokens of each user that count; they stand before the filling.
        grid: Where attention finds the rows.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    sizes: tuple[int, ...]
    scored: torch.Tensor
    targets: torch.Tensor
    scored_sizes: tuple[int, ...]
    counts: tuple[int, ...]
    grid: Grid


def pack(
    users: Sequence[Sequence[Encoded]], device: torch.device | str = "cpu", multiple: int = 1
) -> Packed:
    """Lay out the rows of each user, all of them with at least one token.

    How a user's rows are laid out does not depend on who else is there.

    Args:
        users: Rows of each user.
        device: Where the tensors go.
        multiple: Each user's numbers of tokens and of scored tokens are filled up to multiples of
            this by a row that counts for nothing: a library that prepares itself for every new
            size of a product then sees few sizes.
    """
    line = _Line(multiple)
    for rows in users:
        line.add(rows)
    return line.finish(torch.device(device))


def shared_width(rows: Sequence[Encoded]) -> int:
    """Return how many tokens the rows share at their beginning, all of them before the first score.

    A single row shares nothing.
    """
    if len(rows) < 2:
        return 0
    columns = zip(*(row.input_ids for row in rows), strict=False)  # as far as the shortest goes
    alike = len(list(itertools.takewhile(lambda column: len(set(column)) == 1, columns)))
    return min(alike, *(_first_score(row) for row in rows))


def packed_attention(
    module: torch.nn.Module,  # noqa: ARG001  # transformers' signature
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001
    *,
    scaling: float,
    grid: Grid,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally within each row; an attention function as transformers calls it.

    Args:
        module: The attention layer.
        query: (1, H, N, D).
        key: (1, H or fewer, N, D).
        value: As ``key``.
        attention_mask: Not used: the grid says which tokens form a row.
        scaling: Factor of the products.
        grid: Where the tokens stand.
        sliding_window: How far back a token sees; None for all the way.
        others: What else a model passes.

    Returns:
        (1, N, H, D), and no weights.

    Raises:
        NotStackableError: If the model asks for a kind of attention that is not implemented here.
    """
    odd = [name for name in _NO_SUPPORT if others.get(name) is not None]
    if odd:
        raise NotStackableError(
            f"attention: expected plain causal attention, got {odd[0]}; set qlora.cohort=1"
        )
    heads = query.shape[1]
    rows = tuple(_to_rows(states[0], heads, grid) for states in (query, key, value))
    attended = _attend(rows, scaling, sliding_window)  # (H, R, T, D)
    cells = attended.reshape(heads, -1, attended.shape[-1])
    line: torch.Tensor = _ToLine.apply(cells, grid)  # type: ignore[no-untyped-call]
    return line.transpose(0, 1).unsqueeze(0), None


def register() -> None:
    """Make the attention known to transformers under ``ATTENTION``."""
    AttentionInterface.register(ATTENTION, packed_attention)


class _Line:
    """Collects tokens and the cells of the grid, user by user."""

    def __init__(self, multiple: int) -> None:
        self._multiple = multiple
        self._ids: list[int] = []
        self._positions: list[int] = []
        self._rows: list[list[int]] = []  # tokens of each row
        self._cells: list[tuple[int, int]] = []  # row and column of each token
        self._scored: list[int] = []
        self._targets: list[int] = []
        self._shared: list[Shared] = []
        self._sizes: list[int] = []
        self._scored_sizes: list[int] = []
        self._counts: list[int] = []

    def add(self, rows: Sequence[Encoded]) -> None:
        start, first_row, scored = len(self._ids), len(self._rows), len(self._scored)
        width = shared_width(rows)
        for number, row in enumerate(rows):
            own = width if number else 0
            self._add_row(row, own, list(range(start, start + own)))
        if width:
            self._shared.append(Shared(start, width, first_row, len(self._rows)))
        self._counts.append(len(self._scored) - scored)
        self._fill(len(self._ids) - start, self._counts[-1])
        self._sizes.append(len(self._ids) - start)
        self._scored_sizes.append(len(self._scored) - scored)

    def _add_row(self, row: Encoded, own: int, tokens: list[int]) -> None:
        """Append the tokens of ``row`` from column ``own`` on; those before it stand already."""
        length, start = len(row.input_ids), len(self._ids)
        self._ids += row.input_ids[own:]
        self._positions += range(own, length)
        self._cells += [(len(self._rows), column) for column in range(own, length)]
        self._rows.append(tokens + list(range(start, start + length - own)))
        for column in range(own, length - 1):
            if row.labels[column + 1] != IGNORED:
                self._scored.append(start + column - own)
                self._targets.append(row.labels[column + 1])

    def _fill(self, tokens: int, scored: int) -> None:
        """Append a row that makes both numbers multiples."""
        more_scored = -scored % self._multiple
        length = more_scored + -(tokens + more_scored) % self._multiple
        if length:
            start = len(self._ids)
            self._add_row(Encoded([0] * length, [IGNORED] * length), 0, [])
            self._scored += range(start, start + more_scored)
            self._targets += [0] * more_scored

    def finish(self, device: torch.device) -> Packed:
        width = max(map(len, self._rows))
        token_of = [token for row in self._rows for token in [*row, *[0] * (width - len(row))]]
        cell_of = [row * width + column for row, column in self._cells]
        tensors = _tensors(
            device, self._ids, self._positions, self._scored, self._targets, token_of, cell_of
        )
        ids, positions, scored, targets, tokens, cells = tensors
        return Packed(
            input_ids=ids.unsqueeze(0),
            position_ids=positions.unsqueeze(0),
            sizes=tuple(self._sizes),
            scored=scored,
            targets=targets,
            scored_sizes=tuple(self._scored_sizes),
            counts=tuple(self._counts),
            grid=Grid(len(self._rows), width, tokens, cells, tuple(self._shared)),
        )


class _ToGrid(torch.autograd.Function):
    """(H, N, D) tokens to (H, R * T, D) cells; a shared token's gradient sums over its rows."""

    @staticmethod
    def forward(ctx: Any, tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
        ctx.grid = grid
        return tokens.index_select(1, grid.token_of)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        grid: Grid = ctx.grid
        # slices, not index_add: that would sum in any order on a GPU
        tokens = gradient.index_select(1, grid.cell_of)
        cells = gradient.view(gradient.shape[0], grid.rows, grid.width, -1)
        for part in grid.shared:
            rows = cells[:, part.first_row : part.end_row, : part.width]
            tokens[:, part.start : part.start + part.width] = rows.sum(1)
        return tokens, None


class _ToLine(torch.autograd.Function):
    """(H, R * T, D) cells to (H, N, D) tokens; of a shared token the first row's cell is taken."""

    @staticmethod
    def forward(ctx: Any, cells: torch.Tensor, grid: Grid) -> torch.Tensor:
        ctx.grid = grid
        return cells.index_select(1, grid.cell_of)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        grid: Grid = ctx.grid
        heads, _, depth = gradient.shape
        cells = gradient.new_zeros(heads, grid.rows * grid.width, depth)
        return cells.index_copy_(1, grid.cell_of, gradient), None


def _to_rows(states: torch.Tensor, heads: int, grid: Grid) -> torch.Tensor:
    """Return (H, R, T, D); key and value heads are repeated for the query heads they serve."""
    cells: torch.Tensor = _ToGrid.apply(states, grid)  # type: ignore[no-untyped-call]
    rows = cells.view(states.shape[0], grid.rows, grid.width, -1)
    return rows if len(rows) == heads else rows.repeat_interleave(heads // len(rows), dim=0)


def _attend(rows: tuple[torch.Tensor, ...], scaling: float, window: int | None) -> torch.Tensor:
    query, key, value = rows
    width = query.shape[2]
    banded = window is not None and window < width
    if query.device.type == "cpu" and width <= WRITTEN_WIDTH:  # beats the CPU's fused attention
        mask = _mask(width, window, query.dtype, query.device)
        flat = [states.flatten(0, 1) for states in (query, key, value)]  # (H R, T, D)
        scores = torch.baddbmm(mask, flat[0], flat[1].transpose(1, 2), alpha=scaling)
        weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
        return torch.bmm(weights, flat[2]).view_as(query)
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=_mask(width, window, query.dtype, query.device) if banded else None,
        is_causal=not banded,
        scale=scaling,
    )


def _mask(width: int, window: int | None, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return (T, T): 0 where column may be seen from row, else minus infinity."""
    seen = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    if window is not None:
        seen &= seen.triu(1 - window)
    return torch.zeros(width, width, dtype=dtype, device=device).masked_fill_(~seen, -torch.inf)


def _first_score(row: Encoded) -> int:
    """Return the first token whose next token counts, or the row's length."""
    labels = enumerate(row.labels[1:])
    return next((at for at, label in labels if label != IGNORED), len(row.labels))


def _tensors(device: torch.device, *columns: Iterable[int]) -> list[torch.Tensor]:
    return [torch.tensor(column).to(device, non_blocking=True) for column in columns]


class Select(torch.autograd.Function):
    """``tokens[:, chosen]`` whose gradient is copied, not added: each token is chosen once."""

    @staticmethod
    def forward(ctx: Any, tokens: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Take the (1, T, D) tokens at the (S,) places ``chosen``: (1, S, D)."""
        ctx.chosen, ctx.shape = chosen, tokens.shape
        return tokens.index_select(1, chosen)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Put the gradients back to their places."""
        return gradient.new_zeros(ctx.shape).index_copy_(1, ctx.chosen, gradient), None
