"""One level of the wavelet transform by several libraries, as functions of one form.

A method, made for a :class:`Case`, gives ``forward``: a tensor ``(N, C, ...)`` to a tuple of coefficient tensors, and
``inverse``: the way back. Boundaries are each library's nearest: periodization where it has it, zeros in ptwt (which
has no periodization), truncated matrices in the dense form. Set-up that a layer does once (filters, cached matrices)
is outside the functions. Nothing is imported before a method is made.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

Coefficients = tuple[torch.Tensor, ...]


class Case(NamedTuple):
    """Shape ``(N, C, ...)`` of a float32 tensor, and a wavelet."""

    shape: tuple[int, ...]
    wavelet: str

    @property
    def ndim(self) -> int:
        return len(self.shape) - 2


class Method(NamedTuple):
    """A transform and its inverse; ``differentiable`` by torch or not."""

    forward: Callable[[torch.Tensor], Coefficients]
    inverse: Callable[[Coefficients], torch.Tensor]
    differentiable: bool = True


class Unavailable(Exception):
    """Why a method cannot do a case here."""


def medwave(case: Case, device: str, *, mode: str = "periodization", backend: str | None = None) -> Method:
    from medwave.wavelets import DWT, IDWT

    layer = DWT(case.wavelet, case.ndim, mode=mode, backend=backend)
    back = IDWT(case.wavelet, case.ndim, mode=mode, backend=backend)
    return Method(lambda x: (layer(x),), lambda c: back(c[0], case.shape[2:]))


def medwave_zero(case: Case, device: str) -> Method:
    """The boundary of ptwt."""
    return medwave(case, device, mode="zero")


def medwave_torch(case: Case, device: str) -> Method:
    """The form that is traced and exported."""
    return medwave(case, device, backend="torch")


def ptwt(case: Case, device: str) -> Method:
    if importlib.util.find_spec("ptwt") is None:
        raise Unavailable("ptwt is not installed")
    import ptwt

    if case.ndim == 2:

        def forward(x: torch.Tensor) -> Coefficients:
            low, details = ptwt.wavedec2(x, case.wavelet, mode="zero", level=1)
            return low, *details

        return Method(forward, lambda c: ptwt.waverec2((c[0], ptwt.WaveletDetailTuple2d(*c[1:])), case.wavelet))

    names: list[str] = []

    def forward_3d(x: torch.Tensor) -> Coefficients:
        low, details = ptwt.wavedec3(x, case.wavelet, mode="zero", level=1)
        names[:] = details
        return low, *details.values()

    def inverse_3d(c: Coefficients) -> torch.Tensor:
        return ptwt.waverec3((c[0], dict(zip(names, c[1:], strict=True))), case.wavelet)

    return Method(forward_3d, inverse_3d)


def pytorch_wavelets(case: Case, device: str) -> Method:
    if case.ndim == 3:
        raise Unavailable("pytorch_wavelets is 2-D only")
    try:
        from pytorch_wavelets import DWTForward, DWTInverse
    except ImportError as error:  # its import needs pkg_resources, which setuptools 81 dropped
        raise Unavailable(f"pytorch_wavelets cannot be imported ({error}): see benchmarks/README.md") from None
    layer = DWTForward(J=1, wave=case.wavelet, mode="periodization").to(device)
    back = DWTInverse(wave=case.wavelet, mode="periodization").to(device)

    def forward(x: torch.Tensor) -> Coefficients:
        low, details = layer(x)
        return low, details[0]

    return Method(forward, lambda c: back((c[0], [c[1]])))


def pywavelets(case: Case, device: str) -> Method:
    if device != "cpu":
        raise Unavailable("PyWavelets is for CPUs")
    import pywt

    axes = tuple(range(2, 2 + case.ndim))
    names: list[str] = []

    def forward(x: torch.Tensor) -> Coefficients:
        bands = pywt.dwtn(x.numpy(), case.wavelet, mode="periodization", axes=axes)
        names[:] = bands
        return tuple(torch.from_numpy(band) for band in bands.values())

    def inverse(c: Coefficients) -> torch.Tensor:
        bands = {name: band.numpy() for name, band in zip(names, c, strict=True)}
        return torch.from_numpy(pywt.idwtn(bands, case.wavelet, mode="periodization", axes=axes))

    return Method(forward, inverse, differentiable=False)


def dense(case: Case, device: str) -> Method:
    """Matrix products with matrices that are made once."""
    analysis, synthesis = (
        [_matrix(case.wavelet, n, side).to(device) for n in case.shape[2:]] for side in ("rec", "dec")
    )
    transposed = [m.T.contiguous() for m in synthesis]
    return Method(lambda x: _split(_products(x, analysis)), lambda c: _products(_join(c), transposed))


def dense_per_call(case: Case, device: str) -> Method:
    """The same with matrices that are made row by row at each call, as published wavelet networks do."""

    def matrices(side: str) -> list[torch.Tensor]:
        return [_matrix(case.wavelet, n, side).to(device) for n in case.shape[2:]]

    return Method(
        lambda x: _split(_products(x, matrices("rec"))),
        lambda c: _products(_join(c), [m.T for m in matrices("dec")]),
    )


def _matrix(wavelet: str, size: int, side: str) -> torch.Tensor:
    """``size x size``: rows of the low-pass, then of the high-pass, shifted by two, cut at the borders.

    Side "rec": reconstruction filters as correlation kernels. Side "dec": reversed decomposition filters.
    """
    import pywt

    bank = pywt.Wavelet(wavelet)
    filters = (bank.rec_lo, bank.rec_hi) if side == "rec" else (bank.dec_lo[::-1], bank.dec_hi[::-1])
    taps = len(filters[0])
    wide = np.zeros((size, size + taps - 2), dtype=np.float32)
    for number, kernel in enumerate(filters):
        for i in range(size // 2):
            wide[number * (size // 2) + i, 2 * i : 2 * i + taps] = kernel
    cut = taps // 2 - 1
    return torch.from_numpy(wide[:, cut : cut + size].copy())


def _products(x: torch.Tensor, matrices: list[torch.Tensor]) -> torch.Tensor:
    """Apply a matrix to each spatial axis: W from the right, H from the left, D after exchanging it with H."""
    y = torch.matmul(matrices[-2], torch.matmul(x, matrices[-1].T))
    if len(matrices) == 2:
        return y
    return torch.matmul(matrices[0], y.transpose(-3, -2)).transpose(-3, -2)


def _split(y: torch.Tensor) -> Coefficients:
    """The bands as views of the quadrants or octants."""
    bands = [y]
    for axis in range(2, y.dim()):
        bands = [half for band in bands for half in band.chunk(2, dim=axis)]
    return tuple(bands)


def _join(bands: Coefficients) -> torch.Tensor:
    parts = list(bands)
    for axis in reversed(range(2, bands[0].dim())):
        parts = [torch.cat(parts[i : i + 2], dim=axis) for i in range(0, len(parts), 2)]
    return parts[0]


METHODS: dict[str, Callable[[Case, str], Method]] = {
    "medwave": medwave,
    "medwave zero": medwave_zero,
    "medwave torch": medwave_torch,
    "ptwt": ptwt,
    "pytorch_wavelets": pytorch_wavelets,
    "PyWavelets": pywavelets,
    "dense": dense,
    "dense per call": dense_per_call,
}
