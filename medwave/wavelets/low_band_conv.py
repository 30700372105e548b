"""Convolutions with a low band before or after them, which keep the names of their weights.

A strided convolution drops samples without a low-pass filter and so folds high frequencies into low ones. In its place
stands the same convolution at stride 1 and the low band of its result. The classes here are torch's convolutions with
two stations more; :func:`with_low_band` turns an existing layer into one *in place*, so that weights, hooks, optimisers
and keys of the state dict stay what they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from medwave.wavelets.resampling import WaveletPool

if TYPE_CHECKING:
    _Base = nn.Conv2d
else:
    _Base = object


class _LowBandStations(_Base):
    """The two stations; comes before a convolution in the order of classes."""

    low_before: nn.Module
    low_after: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Low band, convolution, low band; the stations that are not wanted do nothing."""
        return self.low_after(super().forward(self.low_before(x)))


class LowBandConv1d(_LowBandStations, nn.Conv1d):
    """``nn.Conv1d`` with a low band before or after it."""


class LowBandConv2d(_LowBandStations, nn.Conv2d):
    """``nn.Conv2d`` with a low band before or after it."""


class LowBandConv3d(_LowBandStations, nn.Conv3d):
    """``nn.Conv3d`` with a low band before or after it."""


LOW_BAND_CONVS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: LowBandConv1d,
    nn.Conv2d: LowBandConv2d,
    nn.Conv3d: LowBandConv3d,
}
"""Convolution -> the class that :func:`with_low_band` gives it."""


def with_low_band(conv: nn.Module, *, before: WaveletPool | None = None, after: WaveletPool | None = None) -> None:
    """Give a convolution stations, in place; a station that is there already stays where none is named."""
    if type(conv) in LOW_BAND_CONVS:
        conv.__class__ = LOW_BAND_CONVS[type(conv)]
        conv.low_before, conv.low_after = nn.Identity(), nn.Identity()
    if before is not None:
        conv.low_before = before
    if after is not None:
        conv.low_after = after
