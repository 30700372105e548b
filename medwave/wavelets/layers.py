"""Wavelet transforms as modules: no parameters, no state; names are checked when the module is made.

Conventions as in :mod:`medwave.wavelets.transform`. Filters are float64 constants that are rounded to the type of the
tensor on use, so ``.to()``, half precision, autocast, replication and ``state_dict`` have nothing to get wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from medwave.wavelets.backends import check_backend
from medwave.wavelets.extension import check_mode
from medwave.wavelets.filters import band_names, kernels, kernels_key
from medwave.wavelets.transform import analyse, synthesise


class _WaveletLayer(nn.Module):
    """What the three layers share: checked names and a telling repr."""

    def __init__(
        self, wavelet: str, ndim: int, mode: str, filter_roles: str, backend: str | None, analysis: bool, gain: str
    ) -> None:
        super().__init__()
        self.wavelet = wavelet
        self.ndim = ndim
        self.mode = check_mode(mode)
        self.filter_roles = filter_roles
        self.bands = band_names(ndim)
        self._backend = check_backend(backend)
        self._key = kernels_key(wavelet, filter_roles=filter_roles, analysis=analysis, gain=gain)
        self._length = kernels(self._key).length

    def extra_repr(self) -> str:
        """Wavelet, dimension, mode and roles, and the back-end when it is forced."""
        text = f"{self.wavelet!r}, ndim={self.ndim}, mode={self.mode!r}, filter_roles={self.filter_roles!r}"
        return text if self._backend == "auto" else f"{text}, backend={self._backend!r}"


class DWT(_WaveletLayer):
    """``(N, C, ...)`` -> bands ``(N, C, 2 ** ndim, ...)``; see :func:`medwave.wavelets.dwt`.

    Attributes:
        bands: names of the bands in order, such as ``("LL", "LH", "HL", "HH")``.

    >>> DWT("db2", 3)
    DWT('db2', ndim=3, mode='periodization', filter_roles='pywt')
    """

    def __init__(
        self,
        wavelet: str,
        ndim: int,
        *,
        mode: str = "periodization",
        filter_roles: str = "pywt",
        backend: str | None = None,
    ) -> None:
        super().__init__(wavelet, ndim, mode, filter_roles, backend, True, "orthonormal")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Bands of a signal."""
        return analyse(x, self._key, self.ndim, self.mode, False, self._backend)


class DWTLow(_WaveletLayer):
    """``(N, C, ...)`` -> its low band ``(N, C, ...)`` at half the size; see :func:`medwave.wavelets.dwt_low`.

    Only the low band is computed. With ``ll_gain="unit"`` a constant keeps its value, as in average pooling.
    """

    def __init__(
        self,
        wavelet: str,
        ndim: int,
        *,
        mode: str = "periodization",
        filter_roles: str = "pywt",
        ll_gain: str = "orthonormal",
        backend: str | None = None,
    ) -> None:
        super().__init__(wavelet, ndim, mode, filter_roles, backend, True, ll_gain)
        self.ll_gain = ll_gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Low band of a signal."""
        return analyse(x, self._key, self.ndim, self.mode, True, self._backend).squeeze(2)

    def extra_repr(self) -> str:
        """As the base, with the gain."""
        return f"{super().extra_repr()}, ll_gain={self.ll_gain!r}"


class IDWT(_WaveletLayer):
    """Bands ``(N, C, 2 ** ndim, ...)`` -> ``(N, C, ...)``; see :func:`medwave.wavelets.idwt`."""

    def __init__(
        self,
        wavelet: str,
        ndim: int,
        *,
        mode: str = "periodization",
        filter_roles: str = "pywt",
        backend: str | None = None,
    ) -> None:
        super().__init__(wavelet, ndim, mode, filter_roles, backend, False, "orthonormal")

    def forward(self, bands: torch.Tensor, output_size: Sequence[int] | None = None) -> torch.Tensor:
        """Signal of bands; ``output_size`` crops to an odd size."""
        return synthesise(bands, self._key, self._length, self.ndim, self.mode, output_size, self._backend)
