"""The trend of users' points along the share ratio, with a band over users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim import statistics
from sim.statistics import Floats, Resampling

FEW_RATIOS = 8  # up to so many distinct ratios get means, more get a straight line
LEAST_PER_RATIO = 2  # users per ratio, on average, that make a mean
RESAMPLES = 1000
GRID = 50


@dataclass(frozen=True, slots=True)
class Trend:
    """Middle of the users' points along the ratio, with a pointwise band over users; each (G,)."""

    ratios: Floats
    middle: Floats
    low: Floats
    high: Floats


def ratio_trend(ratios: Sequence[float], values: Sequence[float], resampling: Resampling) -> Trend:
    """Means per ratio where many users have few ratios, else a least-squares line.

    Args:
        ratios: Of each user, in their order.
        values: Of each user.
        resampling: Confidence of the band, and its seed; the band resamples users.
    """
    x, y = np.asarray(ratios, dtype=np.float64), np.asarray(values, dtype=np.float64)
    few = Resampling(RESAMPLES, resampling.confidence, resampling.seed)
    weights = np.vstack([np.ones((1, len(x))), statistics.draw_weights(len(x), few)])
    grid = np.unique(x)
    if grid.size == 1 or (grid.size <= FEW_RATIOS and x.size >= LEAST_PER_RATIO * grid.size):
        fitted = _weighted_means(x, y, weights, grid)
    else:
        grid = np.linspace(grid[0], grid[-1], GRID)
        fitted = _weighted_lines(x, y, weights, grid)
    tail = (1 - resampling.confidence) / 2
    bands = [np.quantile(column[np.isfinite(column)], (tail, 1 - tail)) for column in fitted[1:].T]
    low, high = np.array(bands).T
    return Trend(grid, fitted[0], low, high)


def _weighted_means(x: Floats, y: Floats, weights: Floats, grid: Floats) -> Floats:
    """(B + 1, G): mean at each ratio under each row of weights."""
    here = (x[:, None] == grid[None, :]).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        means: Floats = (weights * y) @ here / (weights @ here)
    return means


def _weighted_lines(x: Floats, y: Floats, weights: Floats, grid: Floats) -> Floats:
    """(B + 1, G): weighted least-squares line at each ratio under each row of weights."""
    total = weights.sum(axis=1)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    spread = weights @ x**2 / total - mean_x**2
    shared = weights @ (x * y) / total - mean_x * mean_y
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(spread > 0, shared / spread, np.nan)
    lines: Floats = mean_y[:, None] + slope[:, None] * (grid[None, :] - mean_x[:, None])
    return lines
