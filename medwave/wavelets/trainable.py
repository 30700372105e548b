"""Filters that are learned, held to perfect reconstruction by a penalty.

Conventions
    A :class:`FilterBank` holds the low-pass taps, correlation order as in :mod:`medwave.wavelets.filters`: one filter
    when it is orthogonal (synthesis uses the taps of analysis), two when it is biorthogonal. The high-pass of one side
    is the low-pass of the other, reversed, with alternating signs, so aliasing cancels whatever is learned. All of
    PyWavelets' wavelets are of this form, and every pair of finite filters with a finite inverse is, up to delay and
    scale. What remains to be learned is ``sum_k low[k] dual[k + 2 n] = 1 if n == 0 else 0``; the penalty measures it.
    A bank starts as a wavelet, exactly, and can have more taps than that wavelet, zeros at first.
    The transforms are those of :mod:`medwave.wavelets.transform` in ordinary torch operations: any mode, device and
    derivative, for the signal and for the taps. A module that reads a bank shares it; nothing is copied.

        bank = FilterBank("db4")
        analysis, synthesis = LearnedDWT(bank, 2), LearnedIDWT(bank, 2)
        loss = task_loss + 10 * bank.reconstruction_penalty() + bank.mean_penalty()

References
    Vetterli & Herley (1992), doi:10.1109/78.157221. Recoskie & Mann (2018), arXiv:1802.02961.
"""

from __future__ import annotations

from collections.abc import Sequence

import pywt
import torch
from torch import nn

from medwave.core.errors import InputError
from medwave.wavelets.backends import plain
from medwave.wavelets.extension import check_mode, dual_rule
from medwave.wavelets.filters import LearnedKernels, band_names, canonical_name, kernels, kernels_key
from medwave.wavelets.transform import check_bands, check_signal


class FilterBank(nn.Module):
    """Learned taps of a two-channel filter bank.

    Args:
        wavelet: where learning starts: a discrete wavelet of PyWavelets, or ``chX.Y``.
        orthogonal: one filter for both sides, or one for each; by default as the wavelet is.
        length: number of taps, even; by default that of the wavelet. More taps are zeros on both sides at first.

    Attributes:
        low: parameter ``(length,)``, the low-pass of analysis.
        dual: parameter ``(length,)``, the low-pass of synthesis; ``None`` when orthogonal.

    Raises:
        InputError: for an unknown wavelet, an orthogonal bank of one that is not, or a length that is odd or too short.
    """

    signs: torch.Tensor

    def __init__(self, wavelet: str, *, orthogonal: bool | None = None, length: int | None = None) -> None:
        super().__init__()
        analysis, synthesis = (
            kernels(kernels_key(wavelet, filter_roles="pywt", analysis=side)) for side in (True, False)
        )  # fmt: skip
        is_orthogonal = bool(pywt.Wavelet(canonical_name(wavelet)).orthogonal)
        orthogonal = is_orthogonal if orthogonal is None else orthogonal
        if orthogonal and not is_orthogonal:
            raise InputError(f"{wavelet!r} is not orthogonal: start from dbN, symN or coifN, or use orthogonal=False")
        length = analysis.length if length is None else length
        if length % 2 or length < analysis.length:
            raise InputError(f"length is even and at least the {analysis.length} taps of {wavelet!r}, got {length}")
        beside = (length - analysis.length) // 2
        self.low = nn.Parameter(_widened(analysis.low, beside))
        self.dual = None if orthogonal else nn.Parameter(_widened(synthesis.low, beside))
        signs = 1.0 - 2.0 * ((torch.arange(length) + beside) % 2)
        self.register_buffer("signs", signs, persistent=False)

    @property
    def length(self) -> int:
        """Number of taps."""
        return len(self.signs)

    def taps(self, *, analysis: bool) -> LearnedKernels:
        """Low-pass and high-pass of one side, differentiable."""
        other = self.low if self.dual is None else self.dual
        low, opposite = (self.low, other) if analysis else (other, self.low)
        return LearnedKernels(low, self.signs * opposite.flip(0))

    def reconstruction_penalty(self) -> torch.Tensor:
        """Squared error of the round trip of a unit impulse, summed over samples and both its phases.

        Zero if and only if the bank reconstructs perfectly.
        """
        low, dual = self.taps(analysis=True).low, self.taps(analysis=False).low
        padded = nn.functional.pad(low, (self.length, self.length))
        shifts = torch.stack(
            [(padded.narrow(0, n, self.length) * dual).sum() for n in range(0, 2 * self.length + 1, 2)]
        )
        wanted = torch.zeros_like(shifts)
        wanted[self.length // 2] = 1.0
        return 2 * (shifts - wanted).square().sum()

    def mean_penalty(self) -> torch.Tensor:
        """Squared mean of the high-passes: zero if a constant has no details, which makes the low-pass one."""
        means = [self.taps(analysis=side).high.sum() for side in (True, False)]
        return means[0].square() + means[1].square()

    def extra_repr(self) -> str:
        """Length and kind."""
        return f"length={self.length}, orthogonal={self.dual is None}"


class _LearnedLayer(nn.Module):
    def __init__(self, bank: FilterBank, ndim: int, *, mode: str = "periodization") -> None:
        super().__init__()
        self.bank = bank
        self.ndim = ndim
        self.bands = band_names(ndim)
        self.mode = check_mode(mode)

    def extra_repr(self) -> str:
        """Dimension and mode."""
        return f"ndim={self.ndim}, mode={self.mode!r}"


class LearnedDWT(_LearnedLayer):
    """:class:`medwave.wavelets.DWT` with the filters of a bank: ``(N, C, ...)`` -> ``(N, C, 2 ** ndim, ...)``.

    Args:
        bank: the filters.
        ndim: 1, 2 or 3.
        mode: as in :func:`medwave.wavelets.dwt`.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Bands of a signal."""
        check_signal(x, self.ndim, self.mode)
        return plain.analysis(x, self.bank.taps(analysis=True), self.mode, self.ndim, False)


class LearnedIDWT(_LearnedLayer):
    """:class:`medwave.wavelets.IDWT` with the filters of a bank: the inverse of :class:`LearnedDWT`, as far as learned.

    Arguments as in :class:`LearnedDWT`.
    """

    def forward(self, bands: torch.Tensor, output_size: Sequence[int] | None = None) -> torch.Tensor:
        """Signal of bands; ``output_size`` crops to an odd size."""
        size = check_bands(bands, self.bank.length, self.ndim, self.mode, output_size)
        return plain.synthesis(bands, self.bank.taps(analysis=False), dual_rule(self.mode), size, False)


def _widened(taps: tuple[float, ...], beside: int) -> torch.Tensor:
    return nn.functional.pad(torch.tensor(taps, dtype=torch.get_default_dtype()), (beside, beside))
