"""The transform in plain torch: any device, any tracer, forward-mode derivatives.

Conventions
    As in :mod:`medwave.wavelets.extension`. One axis at a time: the signal is extended once, then each tap is one
    strided slice (analysis) or one shifted slice of a phase (synthesis); no convolution, so no TF32 on GPUs and no
    limit on the batch. Half precision is computed in float32.
    Taps may be learned: tensors in place of numbers.
    Sizes may be symbolic: no decision here depends on a size that is not a plain ``int``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from medwave.wavelets.extension import RULES, coefficient_size, modulo, offset, source_index
from medwave.wavelets.filters import Kernels, LearnedKernels

HALF_DTYPES = (torch.float16, torch.bfloat16)


def analysis(x: torch.Tensor, taps: Kernels | LearnedKernels, rule: str, ndim: int, low_only: bool) -> torch.Tensor:
    """Bands ``(N, C, 2 ** ndim, ...)`` of ``(N, C, ...)``; one band if ``low_only``."""
    y = x.float() if x.dtype in HALF_DTYPES else x
    y = y.unsqueeze(2)
    for axis in range(3, 3 + ndim):
        y = _analyse_axis(y, taps, rule, axis, low_only)
    return y.to(x.dtype)


def synthesis(
    bands: torch.Tensor, taps: Kernels | LearnedKernels, rule: str, size: Sequence[int], low_only: bool
) -> torch.Tensor:
    """Exact adjoint of :func:`analysis`: ``(N, C, *size)`` from bands."""
    y = bands.float() if bands.dtype in HALF_DTYPES else bands
    for axis in range(2 + len(size), 2, -1):
        y = _synthesise_axis(y, taps, rule, axis, size[axis - 3], low_only)
    return y.squeeze(2).to(bands.dtype)


def _analyse_axis(
    y: torch.Tensor, taps: Kernels | LearnedKernels, rule: str, axis: int, low_only: bool
) -> torch.Tensor:
    size = y.shape[axis]
    count = coefficient_size(size, taps.length, rule)
    extended = _extend(y, taps.length, rule, axis, count)
    filters = (taps.low,) if low_only else (taps.low, taps.high)
    out: list[torch.Tensor | None] = [None] * len(filters)
    pairs = extended.reshape(*y.shape[:axis], count + taps.length // 2 - 1, 2, *y.shape[axis + 1 :])
    for k in range(taps.length):
        window = pairs.select(axis + 1, k % 2).narrow(axis, k // 2, count)
        out = [_add(total, window, weights[k]) for total, weights in zip(out, filters, strict=True)]
    return torch.stack([_some(total, filters) for total in out], dim=3).flatten(2, 3)


def _extend(y: torch.Tensor, taps: int, rule: str, axis: int, count: int) -> torch.Tensor:
    """The ``2 count + taps - 2`` samples that the windows along an axis see."""
    size = y.shape[axis]
    if taps == 2 and isinstance(size, int) and size % 2 == 0:
        return y  # two taps without overlap: no window leaves an even signal
    positions = torch.arange(2 * count + taps - 2, device=y.device) - offset(taps, rule)
    index = source_index(positions, size, rule)
    extended = y.index_select(axis, index.clamp(min=0))
    if RULES[rule].beyond != "zero" and (RULES[rule].repeat or RULES[rule].expansive):
        return extended
    shape = [1] * y.dim()
    shape[axis] = -1
    return torch.where((index >= 0).reshape(shape), extended, 0.0)


def _synthesise_axis(
    y: torch.Tensor, taps: Kernels | LearnedKernels, rule: str, axis: int, size: int, low_only: bool
) -> torch.Tensor:
    filters = (taps.low,) if low_only else (taps.low, taps.high)
    count = y.shape[axis]
    split = y.reshape(*y.shape[:2], y.shape[2] // len(filters), len(filters), *y.shape[3:])
    overlap = taps.length // 2 - 1
    periodic = RULES[rule].beyond == "periodic"
    phases: list[torch.Tensor | None] = [None, None]
    for s, weights in enumerate(filters):
        padded = _pad(split.select(3, s), axis, overlap, periodic)
        for j in range(taps.length // 2):
            window = padded.narrow(axis, overlap - j, count + overlap)
            phases = [_add(phases[p], window, weights[2 * j + p]) for p in (0, 1)]
    both = torch.stack([_some(p, filters) for p in phases], dim=axis + 1).flatten(axis, axis + 1)
    return _fold(both, taps.length, rule, axis, count, size)


def _pad(y: torch.Tensor, axis: int, overlap: int, periodic: bool) -> torch.Tensor:
    """Coefficients with ``overlap`` more on both sides: zeros, or the other end."""
    if overlap == 0:
        return y
    if periodic:
        index = modulo(torch.arange(y.shape[axis] + 2 * overlap, device=y.device) - overlap, y.shape[axis])
        return y.index_select(axis, index)
    widths = [0] * (2 * (y.dim() - 1 - axis)) + [overlap, overlap]
    return torch.nn.functional.pad(y, widths)


def _fold(y: torch.Tensor, taps: int, rule: str, axis: int, count: int, size: int) -> torch.Tensor:
    """Cut the samples out of what the windows wrote, and send the border back to the samples that stood there."""
    law = RULES[rule]
    first = offset(taps, rule)
    inner = y.narrow(axis, first, size)
    if law.beyond == "periodic":  # the coefficients already went round: only a repeated last sample is left
        start, stop = first + size, first + 2 * count
        borders = [(start, stop)] if law.repeat and start != stop else []
    elif law.beyond == "zero":
        borders = [(first + size, first + 2 * count)] if law.repeat and size != 2 * count else []
    else:
        borders = [(0, first), (first + size, 2 * count + taps - 2)]
    for start, stop in borders:
        index = source_index(torch.arange(start, stop, device=y.device) - first, size, rule)
        border = y.narrow(axis, start, stop - start)
        inner = inner.index_add(axis, index, border)
    return inner


def _add(total: torch.Tensor | None, window: torch.Tensor, weight: float | torch.Tensor) -> torch.Tensor | None:
    """``total + weight * window``, skipping the zeros that pad biorthogonal filters (but no learned tap)."""
    if isinstance(weight, torch.Tensor):
        return window * weight if total is None else total + window * weight
    if weight == 0.0:
        return total
    return window * weight if total is None else torch.add(total, window, alpha=weight)


def _some(total: torch.Tensor | None, filters: object) -> torch.Tensor:
    if total is None:
        raise ValueError(f"a filter without a single tap other than zero: {filters}")
    return total
