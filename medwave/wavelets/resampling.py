"""Modules that halve and double resolution, to be put where a network pools, strides, interpolates or shuffles.

Conventions
    Features are ``(N, C, ...)`` with 1, 2 or 3 spatial axes; modules have no parameters and no state. Only modes that
    halve the size are of use here: ``periodization`` (default) and ``zero_truncated``.

    =======================  =====================  ==========================================================
    module                   in the place of        what it does
    =======================  =====================  ==========================================================
    ``WaveletPool``          max or average pool    keeps the low band; stride 2, 4, ... per axis
    ``WaveletUpsample``      ``nn.Upsample``        inverse transform with details of zero
    ``WaveletUnshuffle``     ``PixelUnshuffle``     all bands as channels ``c * 2 ** ndim + band``; nothing is lost
    ``WaveletShuffle``       ``PixelShuffle``       the inverse of it
    =======================  =====================  ==========================================================

    The gain of the low band is ``unit`` unless told otherwise: a constant keeps its value through pool and upsample,
    as in what they replace. ``orthonormal`` multiplies it by ``sqrt(2)`` per halving, as in the published networks,
    which normalise afterwards.
    In U-shapes that keep details for the way up use :class:`medwave.wavelets.DWT` and ``IDWT``: ``bands[:, :, 0]``
    goes down, ``bands[:, :, 1:]`` waits.

References
    Li et al., WaveCNet (2021), doi:10.1109/TIP.2021.3101395.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from medwave.core.errors import GeometryError, InputError
from medwave.wavelets.extension import MODES, RULES, check_mode
from medwave.wavelets.filters import band_names, kernels, kernels_key
from medwave.wavelets.layers import DWT, IDWT
from medwave.wavelets.transform import analyse, check_signal, synthesise_low

HALVING_MODES = tuple(mode for mode in MODES if not RULES[mode].expansive)
"""Boundary modes with half as many coefficients as samples."""

ODD_SIZES = ("up", "down")
"""Half of an odd size: rounded up (the last sample is repeated) or down (it is dropped, as pooling does)."""


class _Resampling(nn.Module):
    """Checked names and strides of the two modules that keep or make the low band alone."""

    def __init__(
        self, wavelet: str, ndim: int, stride: int | Sequence[int], mode: str, roles: str, gain: str, analysis: bool
    ) -> None:
        super().__init__()
        self.wavelet, self.ndim, self.mode, self.filter_roles, self.ll_gain = wavelet, ndim, mode, roles, gain
        check_halving(mode)
        band_names(ndim)
        self.stride = (stride,) * ndim if isinstance(stride, int) else tuple(stride)
        if len(self.stride) != ndim or any(s < 1 or s & (s - 1) for s in self.stride):
            raise InputError(f"stride is a power of two, or one for each of {ndim} axes, got {stride!r}")
        self._key = kernels_key(wavelet, filter_roles=roles, analysis=analysis, gain=gain)
        self._length = kernels(self._key).length

    def _axes_per_level(self) -> list[tuple[int, ...]]:
        """Spatial axes that the first, second, ... halving acts on."""
        levels = max(self.stride).bit_length() - 1
        return [tuple(a for a, s in enumerate(self.stride) if s >> (level + 1)) for level in range(levels)]

    def extra_repr(self) -> str:
        """Wavelet, dimension, stride and what differs from the defaults."""
        stride = self.stride[0] if len(set(self.stride)) == 1 else self.stride
        return (
            f"{self.wavelet!r}, ndim={self.ndim}, stride={stride}, mode={self.mode!r}, "
            f"filter_roles={self.filter_roles!r}, ll_gain={self.ll_gain!r}"
        )


class WaveletPool(_Resampling):
    """``(N, C, ...)`` -> its low band at half the size, as a pooling layer.

    Args:
        wavelet: a discrete wavelet of PyWavelets, or ``chX.Y`` for ``biorX.Y``.
        ndim: 1, 2 or 3 spatial axes.
        stride: 1, 2, 4, ...; one number, or one per axis (``(1, 2, 2)`` leaves the first axis alone).
        odd: what half of an odd size is, see :data:`ODD_SIZES`.
        mode: ``periodization`` or ``zero_truncated``.
        filter_roles: as in :func:`medwave.wavelets.dwt`.
        ll_gain: ``unit`` or ``orthonormal``, see the module.

    Raises:
        InputError: for an unknown name, a mode that does not halve, or a stride that is no power of two.

    >>> WaveletPool("haar", 3, stride=(1, 2, 2))(torch.ones(1, 4, 5, 8, 7)).shape
    torch.Size([1, 4, 5, 4, 4])
    """

    def __init__(
        self,
        wavelet: str,
        ndim: int,
        *,
        stride: int | Sequence[int] = 2,
        odd: str = "up",
        mode: str = "periodization",
        filter_roles: str = "pywt",
        ll_gain: str = "unit",
    ) -> None:
        super().__init__(wavelet, ndim, stride, mode, filter_roles, ll_gain, True)
        if odd not in ODD_SIZES:
            raise InputError(f"odd is one of {', '.join(ODD_SIZES)}, got {odd!r}")
        self.odd = odd

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The low band.

        Raises:
            GeometryError: for another number of axes, or an axis that rounding down would leave empty.
        """
        check_signal(x, self.ndim, self.mode)
        for axes in self._axes_per_level():
            if self.odd == "down":
                x = self._even(x, axes)
            folded = _apart(x, axes)
            low = analyse(folded, self._key, len(axes), self.mode, True, "auto").squeeze(2)
            x = _together(low, axes, x)
        return x

    def _even(self, x: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
        for axis in axes:
            size = x.shape[2 + axis]
            if size < 2:
                raise GeometryError(f"an axis of {size} sample has no half when rounded down: use odd='up'")
            x = x.narrow(2 + axis, 0, size - size % 2)
        return x

    def extra_repr(self) -> str:
        """As the base, with the rounding where it is not upwards."""
        return super().extra_repr() + ("" if self.odd == "up" else f", odd={self.odd!r}")


class WaveletUpsample(_Resampling):
    """``(N, C, ...)`` -> twice the size: the inverse transform with details of zero.

    Haar repeats samples, ``bior2.2`` interpolates linearly, longer wavelets more smoothly. Arguments and errors as in
    :class:`WaveletPool`, whose right inverse it is on even sizes: pooling the result gives the features back.
    """

    def __init__(
        self,
        wavelet: str,
        ndim: int,
        *,
        stride: int | Sequence[int] = 2,
        mode: str = "periodization",
        filter_roles: str = "pywt",
        ll_gain: str = "unit",
    ) -> None:
        super().__init__(wavelet, ndim, stride, mode, filter_roles, ll_gain, False)

    def forward(self, x: torch.Tensor, output_size: Sequence[int] | None = None) -> torch.Tensor:
        """The larger features; ``output_size`` is their spatial size, by default ``stride`` times that of ``x``.

        Raises:
            GeometryError: when the features do not have the axes or the size that halving ``output_size`` gives.
        """
        check_signal(x, self.ndim, self.mode)
        doubled = [n * s for n, s in zip(x.shape[2:], self.stride, strict=True)]
        wanted = doubled if output_size is None else list(output_size)
        sizes = []
        size = wanted
        for axes in self._axes_per_level():
            sizes.append(size)
            size = [(n + 1) // 2 if a in axes else n for a, n in enumerate(size)]
        if size != list(x.shape[2:]):
            raise GeometryError(
                f"features of size {tuple(x.shape[2:])} cannot become {tuple(wanted)} at stride {self.stride}: "
                f"half of that, rounded up, is {tuple(size)}"
            )
        for axes, finer in zip(reversed(self._axes_per_level()), reversed(sizes), strict=True):
            larger = synthesise_low(_apart(x, axes), self._key, self.mode, [finer[a] for a in axes])
            x = _together(larger, axes, x)
        return x


class WaveletUnshuffle(nn.Module):
    """``(N, C, ...)`` -> all bands as channels ``(N, C * 2 ** ndim, ...)`` at half the size; nothing is lost.

    Arguments and errors as in :class:`WaveletPool`, without stride, rounding and gain.
    """

    def __init__(self, wavelet: str, ndim: int, *, mode: str = "periodization", filter_roles: str = "pywt") -> None:
        super().__init__()
        self.transform = DWT(wavelet, ndim, mode=check_halving(mode), filter_roles=filter_roles)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Bands of each channel side by side."""
        return self.transform(x).flatten(1, 2)


class WaveletShuffle(nn.Module):
    """The inverse of :class:`WaveletUnshuffle`: ``(N, C * 2 ** ndim, ...)`` -> ``(N, C, ...)`` at twice the size."""

    def __init__(self, wavelet: str, ndim: int, *, mode: str = "periodization", filter_roles: str = "pywt") -> None:
        super().__init__()
        self.transform = IDWT(wavelet, ndim, mode=check_halving(mode), filter_roles=filter_roles)

    def forward(self, x: torch.Tensor, output_size: Sequence[int] | None = None) -> torch.Tensor:
        """Features of bands; ``output_size`` crops to an odd size.

        Raises:
            GeometryError: for another number of axes, or channels that ``2 ** ndim`` does not divide.
        """
        bands = 2**self.transform.ndim
        if x.dim() != self.transform.ndim + 2 or x.shape[1] % bands:
            raise GeometryError(
                f"features are (N, C * {bands}) and {self.transform.ndim} spatial axes, got shape {tuple(x.shape)}"
            )
        return self.transform(x.reshape(x.shape[0], x.shape[1] // bands, bands, *x.shape[2:]), output_size)


def check_halving(mode: str) -> str:
    """Return a mode that halves the size.

    Raises:
        InputError: for another or an unknown one.
    """
    if check_mode(mode) not in HALVING_MODES:
        raise InputError(f"mode {mode!r} does not halve the size: use {' or '.join(HALVING_MODES)}")
    return mode


def _apart(x: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """``(N, C, ...)`` with the spatial axes that are left alone moved into the channels."""
    rest = [a for a in range(x.dim() - 2) if a not in axes]
    if not rest:
        return x
    return x.permute(0, 1, *[2 + a for a in rest], *[2 + a for a in axes]).flatten(1, 1 + len(rest))


def _together(y: torch.Tensor, axes: Sequence[int], x: torch.Tensor) -> torch.Tensor:
    """Undo :func:`_apart` of ``x`` on a result whose ``axes`` have other sizes."""
    rest = [a for a in range(x.dim() - 2) if a not in axes]
    if not rest:
        return y
    spread = y.reshape(*x.shape[:2], *[x.shape[2 + a] for a in rest], *y.shape[2:])
    order = [*rest, *axes]
    return spread.permute(0, 1, *[2 + order.index(a) for a in range(len(order))])
