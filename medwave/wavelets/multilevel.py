"""Several levels of the transform: the pyramid of details, and the full tree of wavelet packets.

Conventions
    Level 1 is the finest. A pyramid holds the low band of the last level and, per level, the ``2 ** ndim - 1`` detail
    bands in the order of :func:`medwave.wavelets.band_names` without the first. Sizes, modes, filter roles, types and
    errors are those of :mod:`medwave.wavelets.transform`; a level repeats its steps on the low band of the level
    before, so ``dwt`` is the case of one level. Odd sizes come back exactly: an inner level is cropped to the size of
    its details, the first one to ``output_size``.
    Packets split every band at every level. The leaves of ``levels`` levels stand in one tensor
    ``(N, C, 2 ** (ndim * levels), ...)`` in tree order, the first letters from level 1: "LL.HL" is the HL band of LL.
    A high-pass followed by dropping every other sample mirrors the frequencies, so tree order is not the order of
    frequencies; :func:`frequency_order` gives that one.

References
    Mallat (1989), doi:10.1109/34.192463. Coifman & Wickerhauser (1992), doi:10.1109/18.119732.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from medwave.core.errors import GeometryError, InputError
from medwave.wavelets.extension import check_mode, coefficient_size
from medwave.wavelets.filters import band_names, kernels, kernels_key
from medwave.wavelets.operator import constant_in_graphs
from medwave.wavelets.transform import dwt, idwt


class Pyramid(NamedTuple):
    """Wavelet coefficients of several levels; a tuple of tensors, so compilers and torch's tree functions know it.

    Attributes:
        low: low band of the last level, ``(N, C, ...)``.
        details: per level, the finest first, ``(N, C, 2 ** ndim - 1, ...)``.
    """

    low: torch.Tensor
    details: tuple[torch.Tensor, ...]

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return self.low.dim() - 2

    @property
    def levels(self) -> int:
        """Number of levels."""
        return len(self.details)

    def band(self, name: str, level: int) -> torch.Tensor:
        """View of one band ``(N, C, ...)``, such as ``band("LLH", 1)``; all lows exist at the last level only.

        Raises:
            InputError: for a band or a level that is not there.
        """
        names = band_names(self.ndim)
        if name not in names or not 1 <= level <= self.levels:
            raise InputError(
                f"a pyramid of {self.levels} level(s) has the bands {', '.join(names)} at levels 1 to {self.levels}, "
                f"got {name!r} at {level!r}"
            )
        if name != names[0]:
            return self.details[level - 1][:, :, names.index(name) - 1]
        if level != self.levels:
            raise InputError(f"{name} is kept at the last level, {self.levels}, only; level {level} was split further")
        return self.low

    def map_details(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Pyramid:
        """The pyramid with ``function`` applied to the details of every level, as in shrinkage."""
        return Pyramid(self.low, tuple(function(details) for details in self.details))


def max_levels(size: Sequence[int], wavelet: str) -> int:
    """How often a signal can be split before the filters outgrow it, as PyWavelets counts.

    Args:
        size: spatial size of the signal; its shortest axis counts.
        wavelet: as in :func:`medwave.wavelets.dwt`.

    >>> max_levels((64, 48), "db2")
    4
    """
    reach = filter_length(wavelet) - 1
    levels = 0
    while reach * 2 ** (levels + 1) <= min(size):
        levels += 1
    return levels


def wavedec(
    x: torch.Tensor,
    wavelet: str,
    *,
    ndim: int,
    levels: int | None = None,
    mode: str = "periodization",
    filter_roles: str = "pywt",
    backend: str | None = None,
) -> Pyramid:
    """Discrete wavelet transform of several levels over the last ``ndim`` axes.

    Args:
        x: ``(N, C, ...)`` with ``ndim`` spatial axes.
        levels: at least 1; by default :func:`max_levels`, but at least 1.

    The other arguments and the errors are those of :func:`medwave.wavelets.dwt`.

    Returns:
        The pyramid. :func:`waverec` inverts it exactly in the modes in which :func:`medwave.wavelets.idwt` is exact.

    Raises:
        InputError: for a number of levels below 1.

    >>> pyramid = wavedec(torch.rand(1, 1, 64, 48), "haar", ndim=2, levels=3)
    >>> pyramid.low.shape, pyramid.band("HL", 1).shape
    (torch.Size([1, 1, 8, 6]), torch.Size([1, 1, 32, 24]))
    """
    if levels is None:
        levels = max(1, max_levels(x.shape[2:], wavelet)) if x.dim() > 2 else 1
    details = []
    low = x
    for _ in range(check_levels(levels)):
        bands = dwt(low, wavelet, ndim=ndim, mode=mode, filter_roles=filter_roles, backend=backend)
        low, rest = bands[:, :, 0], bands[:, :, 1:]
        details.append(rest)
    return Pyramid(low, tuple(details))


def waverec(
    pyramid: Pyramid,
    wavelet: str,
    *,
    ndim: int,
    mode: str = "periodization",
    output_size: Sequence[int] | None = None,
    filter_roles: str = "pywt",
    backend: str | None = None,
) -> torch.Tensor:
    """Inverse of :func:`wavedec`.

    Args:
        pyramid: as :func:`wavedec` makes it, or any pair of a low band and details, the finest first.
        output_size: spatial size of the signal that gave the pyramid; by default the even one.

    The other arguments and the errors are those of :func:`medwave.wavelets.idwt`.

    Returns:
        ``(N, C, *output_size)``.

    Raises:
        GeometryError: for a pyramid without details, or levels whose sizes do not fit each other.

    >>> x = torch.rand(1, 1, 63, 50)
    >>> back = waverec(wavedec(x, "db2", ndim=2), "db2", ndim=2, output_size=(63, 50))
    >>> torch.allclose(back, x, atol=1e-5)
    True
    """
    x, details = pyramid
    if len(details) == 0:
        raise GeometryError("a pyramid needs the details of one level at least")
    for level in range(len(details), 0, -1):
        rest = details[level - 1]
        if rest.dim() != x.dim() + 1 or rest.shape[3:] != x.shape[2:]:
            raise GeometryError(
                f"level {level} of a pyramid has a low band of shape {tuple(x.shape)} and details of shape "
                f"{tuple(rest.shape)}: they are (N, C, ...) and (N, C, {2**ndim - 1}, ...) of one spatial size"
            )
        bands = torch.cat([x.unsqueeze(2), rest], dim=2)
        size = output_size if level == 1 else details[level - 2].shape[3:]
        x = idwt(bands, wavelet, ndim=ndim, mode=mode, output_size=size, filter_roles=filter_roles, backend=backend)
    return x


def packet_names(ndim: int, levels: int) -> tuple[str, ...]:
    """Names of the leaves of :func:`wpdec` in order.

    >>> packet_names(1, 2)
    ('L.L', 'L.H', 'H.L', 'H.H')
    """
    return tuple(".".join(path) for path in itertools.product(band_names(ndim), repeat=check_levels(levels)))


def frequency_order(levels: int) -> tuple[int, ...]:
    """Leaves of :func:`wpdec` in 1-D by rising frequency: entry ``i`` is the place of the ``i``-th in tree order.

    The places follow the Gray code. With more axes each axis has this order on its own.

    >>> [packet_names(1, 2)[i] for i in frequency_order(2)]
    ['L.L', 'L.H', 'H.H', 'H.L']
    """
    return tuple(i ^ (i >> 1) for i in range(2 ** check_levels(levels)))


def wpdec(
    x: torch.Tensor,
    wavelet: str,
    *,
    ndim: int,
    levels: int,
    mode: str = "periodization",
    filter_roles: str = "pywt",
    backend: str | None = None,
) -> torch.Tensor:
    """Wavelet packets: every band is split again, ``levels`` times.

    Arguments and errors as in :func:`wavedec`.

    Returns:
        Leaves ``(N, C, 2 ** (ndim * levels), ...)``; :func:`packet_names` names them.

    >>> wpdec(torch.rand(1, 3, 16, 24), "haar", ndim=2, levels=2).shape
    torch.Size([1, 3, 16, 4, 6])
    """
    leaves = x
    for _ in range(check_levels(levels)):
        bands = dwt(leaves, wavelet, ndim=ndim, mode=mode, filter_roles=filter_roles, backend=backend)
        leaves = bands.flatten(1, 2)
    return leaves.reshape(*x.shape[:2], 2 ** (ndim * levels), *leaves.shape[2:])


def wprec(
    leaves: torch.Tensor,
    wavelet: str,
    *,
    ndim: int,
    levels: int,
    mode: str = "periodization",
    output_size: Sequence[int] | None = None,
    filter_roles: str = "pywt",
    backend: str | None = None,
) -> torch.Tensor:
    """Inverse of :func:`wpdec`.

    Args:
        leaves: ``(N, C, 2 ** (ndim * levels), ...)`` in tree order.
        output_size: spatial size of the signal that gave the leaves; by default the even one.

    The other arguments and the errors are those of :func:`medwave.wavelets.idwt`.

    Returns:
        ``(N, C, *output_size)``.

    Raises:
        GeometryError: for another number of axes or leaves.
    """
    names = packet_names(ndim, levels)
    if leaves.dim() != ndim + 3 or leaves.shape[2] != len(names):
        raise GeometryError(
            f"packets of {levels} level(s) in {ndim}-D are (N, C, {len(names)}) and {ndim} spatial axes, "
            f"got {tuple(leaves.shape)}"
        )
    x = leaves.flatten(1, 2)
    sizes = _level_sizes(output_size, wavelet, mode, levels)
    for size in reversed(sizes):
        bands = x.reshape(x.shape[0], x.shape[1] // 2**ndim, 2**ndim, *x.shape[2:])
        x = idwt(bands, wavelet, ndim=ndim, mode=mode, output_size=size, filter_roles=filter_roles, backend=backend)
    return x


@constant_in_graphs
def filter_length(wavelet: str) -> int:
    """Number of taps of a wavelet's filters, which is one for all four."""
    return kernels(kernels_key(wavelet, filter_roles="pywt", analysis=True)).length


def check_levels(levels: int) -> int:
    """Return a usable number of levels.

    Raises:
        InputError: for fewer than one.
    """
    if levels < 1:
        raise InputError(f"a transform has at least one level, got levels={levels!r}")
    return levels


def _level_sizes(
    output_size: Sequence[int] | None, wavelet: str, mode: str, levels: int
) -> list[tuple[int, ...] | None]:
    """Spatial size that each level was taken from, the finest first; ``None`` where it is free."""
    if output_size is None:
        return [None] * levels
    taps = filter_length(wavelet)
    sizes: list[tuple[int, ...] | None] = []
    size = tuple(output_size)
    for _ in range(levels):
        sizes.append(size)
        size = tuple(coefficient_size(n, taps, check_mode(mode)) for n in size)
    return sizes
