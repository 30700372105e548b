"""The stationary (undecimated) transform: every band keeps the sampling of the signal, so shifts pass through.

Conventions
    Layout, names, filters and types as in :mod:`medwave.wavelets.transform`. Level ``j`` spreads the taps by
    ``2 ** (j - 1)`` samples and drops none, so coefficient ``i`` belongs to sample ``i``; every other sample of level 1
    is the transform under periodization. Filters are not rescaled: a constant gains ``sqrt(2)`` per axis and level.
    Any size, odd ones too. The inverse is the mean over all decimated transforms that the coefficients hold, so it
    is exact, and linear and defined for coefficients that no signal has (as after shrinkage).

Modes
    ``periodization``: the signal repeats; coefficients have its size; equals PyWavelets' ``swtn`` where that is defined
    (sizes that ``2 ** levels`` divides).
    ``zero``, ``symmetric``, ``reflect``: the signal is extended once, by what the filters of all levels reach
    (:func:`stationary_margin`), and coefficients exist on that margin too; without it the inverse could not be exact.
    ``keep_margin=False`` cuts it off: features of the signal's size, for networks that do not go back.

References
    Nason & Silverman (1995), doi:10.1007/978-1-4612-2544-7_17.
    Coifman & Donoho (1995), doi:10.1007/978-1-4612-2544-7_9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from medwave.core.errors import GeometryError, InputError
from medwave.wavelets.backends.plain import HALF_DTYPES
from medwave.wavelets.extension import check_mode, modulo, source_index
from medwave.wavelets.filters import Kernels, kernels, kernels_key
from medwave.wavelets.multilevel import Pyramid, check_levels, filter_length
from medwave.wavelets.operator import constant_in_graphs
from medwave.wavelets.transform import check_signal

STATIONARY_MODES = ("periodization", "zero", "symmetric", "reflect")
"""Boundary modes of the stationary transform; ``zero_truncated`` would be ``zero``."""


def stationary_margin(wavelet: str, levels: int) -> tuple[int, int]:
    """Samples before and after the signal that the coefficients of modes other than periodization also cover.

    >>> stationary_margin("db2", 3)
    (7, 14)
    """
    taps = filter_length(wavelet)
    spread = 2 ** check_levels(levels) - 1
    before = taps // 2 - 1
    return before * spread, (taps - 1 - before) * spread


def swt(
    x: torch.Tensor,
    wavelet: str,
    *,
    ndim: int,
    levels: int,
    mode: str = "periodization",
    filter_roles: str = "pywt",
    keep_margin: bool = True,
) -> Pyramid:
    """Stationary wavelet transform over the last ``ndim`` axes.

    Linear and differentiable to any order; ordinary torch operations on every device.

    Args:
        x: ``(N, C, ...)`` with ``ndim`` spatial axes; float16, bfloat16 (computed in float32), float32 or float64.
        wavelet: a discrete wavelet of PyWavelets, or ``chX.Y`` for ``biorX.Y``.
        ndim: 1, 2 or 3.
        levels: at least 1.
        mode: one of :data:`STATIONARY_MODES`.
        filter_roles: as in :func:`medwave.wavelets.dwt`.
        keep_margin: whether modes other than periodization return the margin, without which there is no exact inverse.

    Returns:
        A pyramid whose low band and details, the finest level first, all have one spatial size: that of the signal,
        or of signal and margin.

    Raises:
        InputError: as :func:`medwave.wavelets.dwt`; a mode or a number of levels that does not exist here.
        GeometryError: as :func:`medwave.wavelets.dwt`.

    >>> bands = swt(torch.rand(1, 1, 15, 20), "db2", ndim=2, levels=3)
    >>> bands.low.shape, bands.band("HH", 2).shape
    (torch.Size([1, 1, 15, 20]), torch.Size([1, 1, 15, 20]))
    """
    _check_stationary_mode(mode)
    check_signal(x, ndim, mode)
    taps = _taps(wavelet, filter_roles, True)
    before, after = stationary_margin(wavelet, levels)
    low = x.float() if x.dtype in HALF_DTYPES else x
    if mode != "periodization":
        for axis in range(2, 2 + ndim):
            low = _extended(low, axis, before, after, mode)
    details = []
    for level in range(levels):
        bands = low.unsqueeze(2)
        for axis in range(3, 3 + ndim):
            bands = _split(bands, taps, axis, 2**level)
        low = bands[:, :, 0]
        details.append(bands[:, :, 1:])
    pyramid = Pyramid(low.to(x.dtype), tuple(d.to(x.dtype) for d in details))
    if mode == "periodization" or keep_margin:
        return pyramid
    return Pyramid(*_cropped(pyramid, before, x.shape[2:]))


def iswt(
    pyramid: Pyramid,
    wavelet: str,
    *,
    ndim: int,
    mode: str = "periodization",
    filter_roles: str = "pywt",
) -> torch.Tensor:
    """Inverse of :func:`swt`.

    Args:
        pyramid: as :func:`swt` makes it, with the margin.

    The other arguments and the errors are those of :func:`swt`.

    Returns:
        The signal ``(N, C, ...)``, without the margin.

    Raises:
        GeometryError: for a pyramid without details, tensors that do not fit each other, or one that is smaller than
            the margin of its mode.

    >>> x = torch.rand(1, 1, 15, 20)
    >>> back = iswt(swt(x, "db2", ndim=2, levels=3, mode="symmetric"), "db2", ndim=2, mode="symmetric")
    >>> torch.allclose(back, x, atol=1e-5)
    True
    """
    _check_stationary_mode(mode)
    low, details = pyramid
    _check_pyramid(low, details, ndim)
    taps = _taps(wavelet, filter_roles, False)
    x = low.float() if low.dtype in HALF_DTYPES else low
    for level in range(len(details) - 1, -1, -1):
        bands = torch.cat([x.unsqueeze(2), details[level].to(x.dtype)], dim=2)
        for axis in range(2 + ndim, 2, -1):
            bands = _joined(bands, taps, axis, 2**level)
        x = bands.squeeze(2)
    if mode != "periodization":
        before, after = stationary_margin(wavelet, len(details))
        size = [n - before - after for n in x.shape[2:]]
        if min(size) < 1:
            raise GeometryError(
                f"coefficients of size {tuple(x.shape[2:])} hold no signal inside a margin of {before} and {after} "
                f"samples: mode {mode!r} needs the coefficients of swt with keep_margin=True"
            )
        x = x[_window(before, size)]
    return x.to(low.dtype)


@constant_in_graphs
def _taps(wavelet: str, filter_roles: str, analysis: bool) -> Kernels:
    return kernels(kernels_key(wavelet, filter_roles=filter_roles, analysis=analysis))


def _split(y: torch.Tensor, taps: Kernels, axis: int, step: int) -> torch.Tensor:
    """Low and high coefficients of every band ``(N, C, B, ...)`` along an axis: ``(N, C, 2 B, ...)``."""
    size = y.shape[axis]
    around = _around(y, axis, (taps.length // 2 - 1) * step, taps.length // 2 * step)
    windows = [around.narrow(axis, k * step, size) for k in range(taps.length)]
    return torch.stack([_weighted(windows, weights) for weights in taps], dim=3).flatten(2, 3)


def _joined(y: torch.Tensor, taps: Kernels, axis: int, step: int) -> torch.Tensor:
    """Half the adjoint of :func:`_split`: bands ``(N, C, 2 B, ...)`` become ``(N, C, B, ...)``."""
    size = y.shape[axis]
    pairs = y.reshape(*y.shape[:2], y.shape[2] // 2, 2, *y.shape[3:])
    total: torch.Tensor | None = None
    for s, weights in enumerate(taps):
        around = _around(pairs.select(3, s), axis, taps.length // 2 * step, (taps.length // 2 - 1) * step)
        windows = [around.narrow(axis, (taps.length - 1 - k) * step, size) for k in range(taps.length)]
        part = _weighted(windows, [0.5 * w for w in weights])
        total = part if total is None else total + part
    assert total is not None
    return total


def _weighted(windows: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    used = [(window, weight) for window, weight in zip(windows, weights, strict=True) if weight != 0.0]
    total = used[0][0] * used[0][1]
    for window, weight in used[1:]:
        total = torch.add(total, window, alpha=weight)
    return total


def _around(y: torch.Tensor, axis: int, before: int, after: int) -> torch.Tensor:
    """The signal with its other end before and after it."""
    if before + after == 0:
        return y
    positions = torch.arange(y.shape[axis] + before + after, device=y.device) - before
    return y.index_select(axis, modulo(positions, y.shape[axis]))


def _extended(y: torch.Tensor, axis: int, before: int, after: int, mode: str) -> torch.Tensor:
    """The signal as a boundary mode goes on before and after it."""
    positions = torch.arange(y.shape[axis] + before + after, device=y.device) - before
    index = source_index(positions, y.shape[axis], mode)
    around = y.index_select(axis, index.clamp(min=0))
    if mode != "zero":
        return around
    shape = [1] * y.dim()
    shape[axis] = -1
    return torch.where((index >= 0).reshape(shape), around, 0.0)


def _cropped(pyramid: Pyramid, before: int, size: Sequence[int]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    window = _window(before, size)
    return pyramid.low[window], tuple(details[window] for details in pyramid.details)


def _window(before: int, size: Sequence[int]) -> Any:
    return (..., *(slice(before, before + n) for n in size))


def _check_stationary_mode(mode: str) -> None:
    if mode == "zero_truncated":
        raise InputError("the stationary transform drops no samples, so zero_truncated would be zero: use mode='zero'")
    check_mode(mode)


def _check_pyramid(low: torch.Tensor, details: Sequence[torch.Tensor], ndim: int) -> None:
    wanted = (*low.shape[:2], 2**ndim - 1, *low.shape[2:])
    if low.dim() != ndim + 2 or len(details) == 0 or any(d.shape != wanted for d in details):
        raise GeometryError(
            f"a stationary transform in {ndim}-D is a low band (N, C) and {ndim} spatial axes, and details "
            f"(N, C, {2**ndim - 1}, ...) of the same size for each level, got {tuple(low.shape)} and "
            f"{[tuple(d.shape) for d in details]}"
        )
