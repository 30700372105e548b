"""One level of the discrete wavelet transform and its inverse in 1-D, 2-D and 3-D.

Conventions
    Signals are ``(N, C, W)``, ``(N, C, H, W)`` or ``(N, C, D, H, W)`` of any floating type. Bands are one tensor
    ``(N, C, 2 ** ndim, ...)`` in binary counting order, letters along the tensor axes: LL, LH, HL, HH; "LH" is low
    along H and high along W (see :func:`medwave.wavelets.band_names`). Filters and boundary rules:
    :mod:`medwave.wavelets.filters`, :mod:`medwave.wavelets.extension`.
    Float32 and float64 are computed as they come, float16 and bfloat16 in float32; the result has the input's type.

Modes
    ``periodization``: the signal repeats; half as many coefficients; exact inverse for every wavelet.
    ``zero``, ``symmetric``, ``reflect``: as in PyWavelets, with its ``(n + taps - 1) // 2`` coefficients per axis;
    exact inverse. ``zero_truncated``: zeros outside, half as many coefficients; the published networks use it; the
    inverse is exact for two taps, and off near the border for longer filters.
    Odd axes: where half as many coefficients are made, the last sample is repeated once; ``output_size`` crops it.

References
    Mallat (1989), doi:10.1109/34.192463. Lee et al., PyWavelets (2019), doi:10.21105/joss.01237.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from medwave.core.errors import GeometryError, InputError
from medwave.wavelets import operator
from medwave.wavelets.backends import check_backend
from medwave.wavelets.extension import check_mode, check_size, coefficient_size, dual_rule, full_size
from medwave.wavelets.filters import band_names, kernels, kernels_key


def dwt(
    x: torch.Tensor,
    wavelet: str,
    *,
    ndim: int,
    mode: str = "periodization",
    filter_roles: str = "pywt",
    backend: str | None = None,
) -> torch.Tensor:
    """Discrete wavelet transform over the last ``ndim`` axes.

    Linear and differentiable to any order; the backward is the exact adjoint.

    Args:
        x: ``(N, C, ...)`` with ``ndim`` spatial axes; float16, bfloat16, float32 or float64, any memory format.
        wavelet: a discrete wavelet of PyWavelets, or ``chX.Y`` for ``biorX.Y``.
        ndim: 1, 2 or 3.
        mode: ``periodization``, ``zero``, ``symmetric``, ``reflect`` or ``zero_truncated`` (see the module).
        filter_roles: ``pywt``, or ``reference`` for the published WaveCNet and WaveSNet filters.
        backend: ``torch``, ``numba`` (CPU) or ``triton`` (CUDA) to force one; by default the fastest that works.

    Returns:
        Bands ``(N, C, 2 ** ndim, ...)``.

    Raises:
        InputError: unknown wavelet, mode, filter role or back-end; a tensor that is not of a floating type.
        GeometryError: wrong number of axes, an empty axis, or one too short for ``reflect``.

    >>> dwt(torch.ones(1, 1, 4, 6), "haar", ndim=2).shape
    torch.Size([1, 1, 4, 2, 3])
    """
    key, _ = _bank(wavelet, filter_roles, True, "orthonormal", mode)
    return analyse(x, key, ndim, mode, False, check_backend(backend))


def dwt_low(
    x: torch.Tensor,
    wavelet: str,
    *,
    ndim: int,
    mode: str = "periodization",
    filter_roles: str = "pywt",
    ll_gain: str = "orthonormal",
    backend: str | None = None,
) -> torch.Tensor:
    """The all-low band of :func:`dwt` alone, at a fraction of the work: ``(N, C, ...)``.

    Args:
        ll_gain: ``orthonormal`` (a constant is multiplied by ``2 ** (ndim / 2)``) or ``unit`` (a constant stays).

    The other arguments and the errors are those of :func:`dwt`.
    """
    key, _ = _bank(wavelet, filter_roles, True, ll_gain, mode)
    return analyse(x, key, ndim, mode, True, check_backend(backend)).squeeze(2)


def idwt(
    bands: torch.Tensor,
    wavelet: str,
    *,
    ndim: int,
    mode: str = "periodization",
    output_size: Sequence[int] | None = None,
    filter_roles: str = "pywt",
    backend: str | None = None,
) -> torch.Tensor:
    """Inverse of :func:`dwt`.

    Args:
        bands: ``(N, C, 2 ** ndim, ...)`` as :func:`dwt` makes them.
        output_size: spatial size of the signal that gave the bands; by default the even one.

    The other arguments are those of :func:`dwt`.

    Returns:
        ``(N, C, *output_size)``.

    Raises:
        InputError: as :func:`dwt`.
        GeometryError: wrong number of axes or bands, or an ``output_size`` that does not give such bands.

    >>> x = torch.rand(1, 1, 5, 6)
    >>> torch.allclose(idwt(dwt(x, "db2", ndim=2), "db2", ndim=2, output_size=(5, 6)), x, atol=1e-5)
    True
    """
    key, length = _bank(wavelet, filter_roles, False, "orthonormal", mode)
    return synthesise(bands, key, length, ndim, mode, output_size, check_backend(backend))


@operator.constant_in_graphs
def _bank(wavelet: str, filter_roles: str, analysis: bool, gain: str, mode: str) -> tuple[str, int]:
    """Key and number of taps of a filter bank, all names checked."""
    check_mode(mode)
    key = kernels_key(wavelet, filter_roles=filter_roles, analysis=analysis, gain=gain)
    return key, kernels(key).length


def analyse(x: torch.Tensor, key: str, ndim: int, mode: str, low_only: bool, backend: str) -> torch.Tensor:
    """Check a tensor and analyse it; the names are checked already."""
    check_signal(x, ndim, mode)
    return operator.analysis(x, key=key, rule=mode, ndim=ndim, low_only=low_only, backend=backend)


def check_signal(x: torch.Tensor, ndim: int, mode: str) -> None:
    """Refuse a tensor that is no signal ``(N, C, ...)`` of ``ndim`` axes; the mode is known already."""
    if ndim not in (1, 2, 3):
        band_names(ndim)
    if x.dim() != ndim + 2:
        raise GeometryError(
            f"a {ndim}-D transform takes (N, C) and {ndim} spatial axes, got shape {tuple(x.shape)}; "
            "add axes with unsqueeze, or set ndim"
        )
    _check_dtype(x)
    for n in x.shape[2:]:
        check_size(n, mode)


def synthesise(
    bands: torch.Tensor,
    key: str,
    length: int,
    ndim: int,
    mode: str,
    output_size: Sequence[int] | None,
    backend: str,
) -> torch.Tensor:
    """Check bands and output size and synthesise; the names are checked already."""
    size = check_bands(bands, length, ndim, mode, output_size)
    return operator.synthesis(bands, key=key, rule=dual_rule(mode), size=size, backend=backend)


def check_bands(bands: torch.Tensor, length: int, ndim: int, mode: str, output_size: Sequence[int] | None) -> list[int]:
    """Refuse a tensor that holds no bands, and return the size of their signal; the mode is known already."""
    count = len(band_names(ndim))
    if bands.dim() != ndim + 3 or bands.shape[2] != count:
        raise GeometryError(
            f"the inverse of a {ndim}-D transform takes bands (N, C, {count}) and {ndim} spatial axes, "
            f"got shape {tuple(bands.shape)}; stack the bands along axis 2"
        )
    _check_dtype(bands)
    counts = bands.shape[3:]
    if output_size is None:
        size = [full_size(m, length, mode) for m in counts]
    else:
        size = list(output_size)
    _check_output(size, counts, length, mode)
    return size


def synthesise_low(low: torch.Tensor, key: str, mode: str, size: Sequence[int]) -> torch.Tensor:
    """The inverse of a low band ``(N, C, ...)`` whose details are zero; nothing is checked."""
    return operator.synthesis(low.unsqueeze(2), key=key, rule=dual_rule(mode), size=size, low_only=True)


def _check_output(size: Sequence[int], counts: Sequence[int], length: int, mode: str) -> None:
    fits = len(size) == len(counts)
    for n, m in zip(size, counts, strict=False):
        if n < 1 or coefficient_size(n, length, mode) != m:
            fits = False
    if not fits:
        even = [full_size(m, length, mode) for m in counts]
        raise GeometryError(
            f"output_size {tuple(size)} does not fit bands of size {tuple(counts)} in mode {mode!r}: "
            f"each axis may be at most {tuple(even)}, or one less"
        )


def _check_dtype(x: torch.Tensor) -> None:
    if x.dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        raise InputError(f"wavelet transforms take real floating tensors, got {x.dtype}; convert with .float()")
