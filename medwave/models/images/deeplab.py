"""WDeepLabV3+, whose decoder goes up by inverse wavelet transforms, and its twin DeepLabV3+.

Conventions
    Trunk: a vanilla ResNet at stride 16 whose last stage is dilated. Any size: images are padded at the end of each
    axis to a multiple of 16 by repeating the border, the logits are cropped.

    Twin:    features of the first stage (1 x 1 to 48 channels) join the context, enlarged fourfold.
    Wavelet: the details of the first and second stage go into two inverse transforms, the context into the place of the
             low band; 1 x 1 convolutions bring the details of the second stage to the channels of the context.
    Details are projected without bias and normalisation, as published.

References
    Chen et al., DeepLabv3+, doi:10.1007/978-3-030-01234-2_49. Li & Shen, WaveSNet, arXiv:2005.14461.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medwave.core.errors import InputError
from medwave.models.images.encoder_decoder import cropped, padded
from medwave.models.images.network import Common, ImageNetwork, initialise
from medwave.models.images.resnet import BLOCKS, WaveResNet
from medwave.wavelets import DWT, HALVING_MODES, IDWT

RATES = (6, 12, 18)
"""Dilations of the context, beside a 1 x 1 convolution and the mean of the image."""

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
_MULTIPLE = 16


class _Context(nn.Module):
    """Atrous spatial pyramid pooling: convolutions of several dilations and the mean of the image, joined."""

    def __init__(self, common: Common, before: int, after: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [_conv(common, before, after, 1), *(_conv(common, before, after, 3, dilation=rate) for rate in RATES)]
        )
        self.mean = _conv(common, before, after, 1)
        self.join = nn.Sequential(*_conv(common, (len(RATES) + 2) * after, after, 1), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same size."""
        mean = self.mean(x.mean(dim=tuple(range(2, x.dim())), keepdim=True))
        return self.join(torch.cat([*(branch(x) for branch in self.branches), mean.expand(-1, -1, *x.shape[2:])], 1))


class WDeepLabV3Plus(ImageNetwork):
    """DeepLabV3+ with wavelets in its decoder, or without.

    Training needs two images a step at least, since the mean of an image is normalised over the batch.

    Args:
        depth: of the ResNet: 18, 34, 50, 101 or 152.
        dropout: before the last two convolutions; published pairs are (0.5, 0.1) and (0.5, 0.25) for VOC, (0, 0.1) and,
            vanilla, (0.25, 0.1) for Cityscapes.
        common: options of :class:`~medwave.models.images.network.Common`; ``wavelet=None`` is DeepLabV3+.

    Raises:
        InputError: for an option that is unknown or out of range.
    """

    def __init__(self, depth: int = 101, *, dropout: Sequence[float] = (0.5, 0.1), **common: Any) -> None:
        shared = Common(**common)
        if len(dropout) != 2 or not all(0 <= p < 1 for p in dropout):
            raise InputError(f"dropout is a pair of numbers from 0 to below 1, got {dropout}")
        if shared.ll_gain != "orthonormal" or shared.mode not in HALVING_MODES:
            raise InputError("networks that transform back need ll_gain='orthonormal' and a mode that halves the size")
        super().__init__({"depth": depth, "dropout": list(dropout)}, shared)
        trunk = {"in_channels": shared.in_channels, "width": shared.width, "ndim": shared.ndim}
        grid = [2 * 2 ** min(i, 2) for i in range(BLOCKS.get(depth, (0,) * 4)[3])]
        self.trunk = WaveResNet(depth, dilations=grid, features_only=True, **trunk)
        fine, middle, top = (
            self.trunk.feature_channels[1],
            self.trunk.feature_channels[2],
            self.trunk.feature_channels[4],
        )
        channels = shared.channels(256)
        self.context = _Context(shared, top, channels)
        if shared.wavelet is None:
            low = shared.channels(48)
            self.low = _conv(shared, fine, low, 1)
            first = _conv(shared, channels + low, channels, 3)
        else:
            self._make_wavelet_decoder(fine, middle, channels)
            first = _conv(shared, channels, channels, 3)
        self.classifier = nn.Sequential(
            *first,
            nn.Dropout(dropout[0]),
            *_conv(shared, channels, channels, 3),
            nn.Dropout(dropout[1]),
            shared.conv(channels, shared.classes, 1),
        )
        initialise(self)

    def _make_wavelet_decoder(self, fine: int, middle: int, channels: int) -> None:
        common = self.common
        bank = {"mode": common.mode, "filter_roles": common.filter_roles}
        self.dwt = DWT(str(common.wavelet), common.ndim, **bank)
        self.idwt = IDWT(str(common.wavelet), common.ndim, **bank)
        self.project_middle = self._projections(middle, channels)
        self.project_fine = self._projections(fine, channels)
        self.between = _conv(common, channels, channels, 3)

    def _projections(self, before: int, after: int) -> nn.ModuleList:
        """One for each detail band; none is needed where the channels are the same already."""
        bands = range(2**self.common.ndim - 1)
        if before == after:
            return nn.ModuleList(nn.Identity() for _ in bands)
        return nn.ModuleList(self.common.conv(before, after, 1, bias=False) for _ in bands)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(N, classes, ...)`` of each sample of the image.

        Raises:
            GeometryError: for another number of axes or channels.
        """
        self.check(image)
        whole = padded(image, _MULTIPLE)
        _, fine, middle, _, top = self.trunk(whole)
        x = self.context(top)
        if self.common.wavelet is None:
            x = torch.cat([self._enlarged(x, fine.shape[2:]), self.low(fine)], dim=1)
        else:
            x = self.between(self._inverse(x, middle, self.project_middle))
            x = self._inverse(x, fine, self.project_fine)
        return cropped(self._enlarged(self.classifier(x), whole.shape[2:]), image.shape[2:])

    def _inverse(self, low: Tensor, source: Tensor, projections: nn.ModuleList) -> Tensor:
        """Features at the resolution of ``source``: ``low`` and the details of ``source``."""
        bands = self.dwt(source)
        details = [project(bands[:, :, 1 + i]) for i, project in enumerate(projections)]
        return self.idwt(torch.stack([low, *details], dim=2))

    def _enlarged(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(x, list(size), mode=_LINEAR[self.common.ndim], align_corners=True)


def _conv(common: Common, before: int, after: int, kernel: int, **options: Any) -> nn.Sequential:
    return nn.Sequential(
        common.conv(before, after, kernel, bias=False, **options), common.norm(after), nn.ReLU(inplace=True)
    )
