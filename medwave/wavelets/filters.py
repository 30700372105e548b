"""Wavelet names, filter taps and band names.

Conventions
    A kernel is applied as a correlation: ``low[i] = sum_k taps[k] * x[2 i + k - offset]`` (no flip).
    ``filter_roles="pywt"``: the decomposition filters of PyWavelets analyse (flipped, since PyWavelets convolves) and
    its reconstruction filters synthesise. ``filter_roles="reference"``: the two swap places, as in the published
    WaveCNet and WaveSNet networks. Orthogonal wavelets are the same under both.
    Band letters follow the tensor axes (D, H, W); bands are in binary counting order with L = 0, H = 1 and the first
    axis most significant: LL, LH, HL, HH.

References
    Daubechies, Ten Lectures on Wavelets (1992), doi:10.1137/1.9781611970104.
    Li et al., WaveCNet (2021), doi:10.1109/TIP.2021.3101395.
"""

from __future__ import annotations

import difflib
import itertools
import math
from functools import lru_cache
from typing import NamedTuple

import pywt
import torch

from medwave.core.errors import GeometryError, InputError

FILTER_ROLES = ("pywt", "reference")
"""Which filters of PyWavelets analyse: its decomposition filters, or its reconstruction filters."""

LOW_GAINS = ("orthonormal", "unit")
"""Gain of the low-pass on a constant, per axis: sqrt(2), or 1; the synthesis side undoes it."""

_SCALES = {"orthonormal": 1.0, "unit": 1.0 / math.sqrt(2.0), "unit_inverse": math.sqrt(2.0)}


class Kernels(NamedTuple):
    """The low-pass and high-pass taps of one side of a filter bank, correlation order, equally long and even."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def length(self) -> int:
        """Number of taps of each filter."""
        return len(self.low)


class LearnedKernels(NamedTuple):
    """The same as :class:`Kernels` in tensors ``(length,)`` that gradients flow to."""

    low: torch.Tensor
    high: torch.Tensor

    @property
    def length(self) -> int:
        """Number of taps of each filter."""
        return len(self.low)


def wavelet_names() -> tuple[str, ...]:
    """Every discrete wavelet that :func:`medwave.wavelets.dwt` knows; ``chX.Y`` also names ``biorX.Y``."""
    return tuple(pywt.wavelist(kind="discrete"))


def band_names(ndim: int) -> tuple[str, ...]:
    """Names of the ``2 ** ndim`` bands in the order of the band axis.

    >>> band_names(2)
    ('LL', 'LH', 'HL', 'HH')

    Raises:
        GeometryError: when ``ndim`` is not 1, 2 or 3.
    """
    if ndim not in (1, 2, 3):
        raise GeometryError(f"wavelet transforms act on 1, 2 or 3 axes, got ndim={ndim!r}")
    return tuple("".join(letters) for letters in itertools.product("LH", repeat=ndim))


def named_bands(bands: torch.Tensor, ndim: int) -> dict[str, torch.Tensor]:
    """Views ``(N, C, ...)`` of a bands tensor ``(N, C, 2 ** ndim, ...)`` by name, such as ``["LLH"]``.

    Raises:
        GeometryError: when the tensor has another number of axes or bands.
    """
    names = band_names(ndim)
    if bands.dim() != ndim + 3 or bands.shape[2] != len(names):
        raise GeometryError(
            f"bands of a {ndim}-D transform are (N, C, {len(names)}) and {ndim} spatial axes, got {tuple(bands.shape)}"
        )
    return {name: bands[:, :, i] for i, name in enumerate(names)}


@lru_cache(maxsize=256)
def canonical_name(wavelet: str) -> str:
    """The PyWavelets name of a discrete wavelet; ``chX.Y`` (Cohen) becomes ``biorX.Y``.

    Raises:
        InputError: for an unknown wavelet; the message names the nearest known ones.
    """
    name = str(wavelet).strip().lower()
    if name.startswith("ch"):
        name = "bior" + name[2:]
    known = wavelet_names()
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else "known families: " + ", ".join(pywt.families())
    raise InputError(f"unknown discrete wavelet {wavelet!r}: {hint}")


def kernels_key(wavelet: str, *, filter_roles: str, analysis: bool, gain: str = "orthonormal") -> str:
    """A short text that stands for one side of a filter bank; :func:`kernels` turns it into taps.

    Operators take this text instead of the taps, so that graphs stay small and taps are never rounded to float32.

    Raises:
        InputError: for an unknown wavelet, filter role or gain.
    """
    if filter_roles not in FILTER_ROLES:
        raise InputError(f"filter_roles is one of {', '.join(FILTER_ROLES)}, got {filter_roles!r}")
    if gain not in LOW_GAINS:
        raise InputError(f"ll_gain is one of {', '.join(LOW_GAINS)}, got {gain!r}")
    if gain == "unit" and not analysis:
        gain = "unit_inverse"
    source = "dec" if analysis == (filter_roles == "pywt") else "rec"
    return f"{canonical_name(wavelet)}:{source}:{gain}"


@lru_cache(maxsize=512)
def kernels(key: str) -> Kernels:
    """The taps that a key of :func:`kernels_key` stands for."""
    name, source, gain = key.split(":")
    wavelet = pywt.Wavelet(name)
    if source == "dec":
        low, high = wavelet.dec_lo[::-1], wavelet.dec_hi[::-1]
    else:
        low, high = wavelet.rec_lo, wavelet.rec_hi
    scale = _SCALES[gain]
    return Kernels(tuple(float(v) * scale for v in low), tuple(float(v) * scale for v in high))
