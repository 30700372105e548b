"""Sums over the cube around every voxel, whatever its size at the price of a few additions.

Conventions
    Tensors are ``(N, C, D, H, W)``; the window of radius ``r`` has ``(2 r + 1)^3`` voxels and is cut at the border.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_SPATIAL = (2, 3, 4)


class _WindowSum(torch.autograd.Function):
    """A symmetric linear map: its own transpose, so that nothing is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, radius: int) -> Tensor:
        ctx.radius = radius
        for axis in _SPATIAL:
            values = _line_sum(values, radius, axis)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return window_sum(gradient, ctx.radius), None


def window_sum(values: Tensor, radius: int) -> Tensor:
    """Sum of the values inside the window of every voxel."""
    return _WindowSum.apply(values, radius)


def window_count(like: Tensor, radius: int) -> Tensor:
    """How many voxels of the grid each window holds, ``(1, 1, D, H, W)``."""
    count = like.new_ones((1, 1, 1, 1, 1))
    for axis in _SPATIAL:
        n = like.shape[axis]
        voxel = torch.arange(n, device=like.device)
        line = (voxel + radius).clamp_max(n - 1) - (voxel - radius).clamp_min(0) + 1
        count = count * line.to(like.dtype).view([-1 if a == axis else 1 for a in range(5)])
    return count


def _line_sum(values: Tensor, radius: int, axis: int) -> Tensor:
    """Sum of ``2 r + 1`` neighbours along one axis, from sums of 1, 2, 4, ... of them: no cancellation, log2 passes."""
    size, n = 2 * radius + 1, values.shape[axis]
    power = F.pad(values, [0, 0] * (4 - axis) + [radius, radius])
    total: Tensor | None = None
    start, width = 0, 1
    while width <= size:
        if size & width:
            part = power.narrow(axis, start, n)
            total = part if total is None else total + part
            start += width
        if 2 * width <= size:
            rest = power.shape[axis] - width
            power = power.narrow(axis, 0, rest) + power.narrow(axis, width, rest)
        width *= 2
    assert total is not None  # a window has at least one voxel
    return total
