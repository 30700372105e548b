"""Ways to halve and double the resolution of features ``(N, C, D, H, W)`` inside a U-shape.

Conventions
    ``down(x)`` returns the coarse features and what its partner needs later; ``up(x, kept, size)`` returns features
    of the spatial size ``size``. Channels are never changed. Axes are even.
    ``seen_by_down`` and ``seen_by_up`` say which samples along an axis the samples ``first ... last`` of the result
    depend on, in the finer and the coarser grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medwave.core.errors import InputError
from medwave.wavelets import DWT, HALVING_MODES, IDWT, DWTLow

Kept = tuple[Tensor, ...]


class Resampling(nn.Module):
    """A layer that halves and one that doubles, unrelated to each other.

    Args:
        to_coarse, to_fine: the layers; their attribute ``reach``, where set, is how many samples of the input a sample
            of the output sees before and after the aligned ones.

    Attributes:
        skip: whether the decoder also gets the encoder's features of that level.
    """

    skip = True

    def __init__(self, to_coarse: nn.Module, to_fine: nn.Module) -> None:
        super().__init__()
        self.to_coarse = to_coarse
        self.to_fine = to_fine

    def down(self, x: Tensor) -> tuple[Tensor, Kept]:
        """Coarse features, and nothing to keep."""
        return self.to_coarse(x), ()

    def up(self, x: Tensor, kept: Kept, size: Sequence[int]) -> Tensor:
        """Fine features; ``kept`` and ``size`` are not needed here."""
        return self.to_fine(x)

    def seen_by_down(self, first: int, last: int) -> tuple[int, int]:
        """Fine samples that coarse samples ``first ... last`` depend on."""
        reach = getattr(self.to_coarse, "reach", 0)
        return 2 * first - reach, 2 * last + 1 + reach

    def seen_by_up(self, first: int, last: int) -> tuple[int, int]:
        """Coarse samples that fine samples ``first ... last`` depend on."""
        reach = getattr(self.to_fine, "reach", 0)
        return first // 2 - reach, last // 2 + reach


class Unpooling(Resampling):
    """Maximum pooling that remembers where each maximum stood, and puts values back there; no skip."""

    skip = False

    def __init__(self, channels: int) -> None:
        super().__init__(nn.MaxPool3d(2, return_indices=True), nn.MaxUnpool3d(2))

    def down(self, x: Tensor) -> tuple[Tensor, Kept]:
        """Maxima, and their positions."""
        values, positions = self.to_coarse(x)
        return values, (positions,)

    def up(self, x: Tensor, kept: Kept, size: Sequence[int]) -> Tensor:
        """Values at the kept positions, zeros elsewhere."""
        return self.to_fine(x, kept[0])


class WaveletResampling(Resampling):
    """The wavelet transform, whose details are kept for the inverse transform.

    Half-precision features are transformed in float32 and details stay float32 until they are joined again: one
    conversion in and one out, and no rounding in between.

    Args:
        wavelet: any discrete wavelet of PyWavelets.
        shrink: applied to the details ``(N, C, 7, ...)`` on their way to the inverse transform.
        bank: ``mode`` and ``filter_roles`` of the transform.
    """

    def __init__(self, wavelet: str, shrink: nn.Module | None, **bank: str) -> None:
        super().__init__(DWT(wavelet, 3, **bank), IDWT(wavelet, 3, **bank))
        self.shrink = nn.Identity() if shrink is None else shrink
        self._taps = self.to_coarse._length

    def down(self, x: Tensor) -> tuple[Tensor, Kept]:
        """The low band, and the seven detail bands in the order of :func:`medwave.wavelets.band_names`."""
        bands = self.to_coarse(_exact(x))
        return bands[:, :, 0].to(x.dtype), (bands[:, :, 1:],)

    def up(self, x: Tensor, kept: Kept, size: Sequence[int]) -> Tensor:
        """Inverse transform with ``x`` in place of the low band."""
        bands = torch.cat([_exact(x).unsqueeze(2), self.shrink(kept[0])], dim=2)
        return self.to_fine(bands, size).to(x.dtype)

    def seen_by_down(self, first: int, last: int) -> tuple[int, int]:
        """Fine samples that coarse samples depend on (in modes that halve the size)."""
        return 2 * first - self._taps // 2 + 1, 2 * last + self._taps // 2

    def seen_by_up(self, first: int, last: int) -> tuple[int, int]:
        """Coarse samples that fine samples depend on."""
        return -((self._taps // 2 - first) // 2), (last + self._taps // 2 - 1) // 2


class BlurPool(nn.Module):
    """Binomial filter 1 3 3 1 along each axis with a repeated border, then every other sample.

    Zhang, ICML 2019, arXiv:1904.11486. Three averages of two neighbours are this filter.
    """

    reach = 1

    def forward(self, x: Tensor) -> Tensor:
        """Blurred features at half the resolution."""
        x = F.pad(x, [1] * 6, mode="replicate")
        return F.avg_pool3d(F.avg_pool3d(F.avg_pool3d(x, 2, 1), 2, 1), 2, 2)


def low_band(wavelet: str, *, mode: str, filter_roles: str) -> nn.Module:
    """The low band of the wavelet transform.

    Raises:
        InputError: for a mode that makes more coefficients than half the samples: its result cannot be doubled again.
    """
    layer = DWTLow(wavelet, 3, mode=mode, filter_roles=filter_roles)
    if mode not in HALVING_MODES:
        raise InputError(
            f"mode {mode!r} does not halve the size, which variants v1 and v2 need: use {' or '.join(HALVING_MODES)}"
        )
    return _with_reach(layer, layer._length // 2 - 1)


def max_pool() -> nn.Module:
    """The largest of eight voxels."""
    return nn.MaxPool3d(2)


def average_pool() -> nn.Module:
    """The mean of eight voxels."""
    return nn.AvgPool3d(2)


def strided(channels: int, kernel: int) -> nn.Module:
    """A convolution with stride 2; kernel 2 sees every voxel, kernel 1 one in eight."""
    return nn.Conv3d(channels, channels, kernel, stride=2)


def transposed(channels: int, kernel: int) -> nn.Module:
    """A transposed convolution with stride 2; kernel 2 writes every voxel, kernel 1 one in eight (bias elsewhere)."""
    return nn.ConvTranspose3d(channels, channels, kernel, stride=2, output_padding=2 - kernel)


def trilinear() -> nn.Module:
    """Interpolation to twice the size with the corner samples aligned."""
    return _with_reach(nn.Upsample(scale_factor=2, mode="trilinear", align_corners=True), 1)


def _with_reach(layer: nn.Module, reach: int) -> nn.Module:
    layer.reach = reach
    return layer


def _exact(x: Tensor) -> Tensor:
    """At least float32, in the plain memory order that the transforms work in, by one copy at most."""
    return x.to(torch.promote_types(x.dtype, torch.float32), memory_format=torch.contiguous_format)
