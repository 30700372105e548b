"""WSegNet and WU-Net, which go up by inverse wavelet transforms, and their twins SegNet and U-Net.

Conventions
    Encoder: the convolutions of a VGG (13 with depth 16), each with batch norm and ReLU. Decoder: its mirror image; the
    last convolution of a stage makes the channels of the stage above. Any size: images are padded at the end of each
    axis to a multiple of 32 by repeating the border, the logits are cropped.

    ==========  ==========================  =========================================  ==================
    network     down                        up                                         decoder also gets
    ==========  ==========================  =========================================  ==================
    WSegNet     all bands, the low one      inverse transform with the kept details    nothing
                goes on
    SegNet      max pool, positions kept    values put back at their positions         nothing
    WUNet       as WSegNet                  as WSegNet                                 encoder features
    U-Net       max pool                    transposed convolution, kernel 2           encoder features
    ==========  ==========================  =========================================  ==================

References
    Li & Shen, WaveSNet, arXiv:2005.14461. Badrinarayanan et al., SegNet, doi:10.1109/TPAMI.2016.2644615.
    Ronneberger et al., U-Net, doi:10.1007/978-3-319-24574-4_28.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medwave.core.errors import InputError
from medwave.models.images.network import MAX_POOL, Common, ImageNetwork, initialise
from medwave.models.images.vgg import CHANNELS, STAGES, vgg_layer
from medwave.wavelets import DWT, HALVING_MODES, IDWT

SIZE_MULTIPLE = 32

_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_UNPOOL = {1: nn.MaxUnpool1d, 2: nn.MaxUnpool2d, 3: nn.MaxUnpool3d}


class _EncoderDecoder(ImageNetwork):
    """The common shape; ``skip`` says whether the decoder also gets the features of the encoder."""

    skip: bool

    def __init__(self, depth: int, common: Common) -> None:
        if depth not in STAGES:
            raise InputError(f"depth of the encoder, a VGG, is one of {', '.join(map(str, STAGES))}, got {depth}")
        if common.ll_gain != "orthonormal" or common.mode not in HALVING_MODES:
            raise InputError("networks that transform back need ll_gain='orthonormal' and a mode that halves the size")
        super().__init__({"depth": depth}, common)
        widths = tuple(map(common.channels, CHANNELS))
        self.encoders, self.decoders, self.ups = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = common.in_channels
        for level, (count, channels) in enumerate(zip(STAGES[depth], widths, strict=True)):
            self.encoders.append(_stage(common, [before, *(channels,) * count]))
            joined = 2 * channels if self.skip else channels
            above = widths[max(0, level - 1)]
            self.decoders.append(_stage(common, [joined, *(channels,) * (count - 1), above]))
            if common.wavelet is None and self.skip:
                self.ups.append(_TRANSPOSED[common.ndim](channels, channels, 2, 2))
            before = channels
        self.classifier = common.conv(widths[0], common.classes, 1)
        self._make_resampling()
        initialise(self)

    def _make_resampling(self) -> None:
        common = self.common
        if common.wavelet is not None:
            bank = {"mode": common.mode, "filter_roles": common.filter_roles}
            self.down: nn.Module = DWT(common.wavelet, common.ndim, **bank)
            self.inverse: nn.Module = IDWT(common.wavelet, common.ndim, **bank)
        else:
            self.down = MAX_POOL[common.ndim](2, 2, return_indices=not self.skip)
            self.inverse = _UNPOOL[common.ndim](2, 2)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(N, classes, ...)`` of each sample of the image.

        Raises:
            GeometryError: for another number of axes or channels.
        """
        self.check(image)
        size = image.shape[2:]
        x, features, kept = padded(image, SIZE_MULTIPLE), [], []
        for encoder in self.encoders:
            x = encoder(x)
            features.append(x if self.skip else None)
            x, details = self._halve(x)
            kept.append(details)
        for level in reversed(range(len(self.decoders))):
            x = self._double(x, kept.pop(), level)
            encoded = features.pop()
            x = self.decoders[level](x if encoded is None else torch.cat([x, encoded], dim=1))
        return cropped(self.classifier(x), size)

    def _halve(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Coarse features, and what the way up needs."""
        if self.common.wavelet is not None:
            bands = self.down(x)
            return bands[:, :, 0], bands[:, :, 1:]
        return (self.down(x), None) if self.skip else self.down(x)

    def _double(self, x: Tensor, kept: Tensor | None, level: int) -> Tensor:
        if self.common.wavelet is not None:
            return self.inverse(torch.cat([x.unsqueeze(2), kept], dim=2))
        return self.ups[level](x) if self.skip else self.inverse(x, kept)


class WSegNet(_EncoderDecoder):
    """SegNet whose pools and unpools are a wavelet transform and its inverse; 29.48 M parameters, either way.

    Args:
        depth: of the VGG that encodes: 11, 13, 16 or 19.
        common: options of :class:`~medwave.models.images.network.Common`; ``wavelet=None`` is SegNet.

    Raises:
        InputError: for an option that is unknown or out of range.
    """

    skip = False

    def __init__(self, depth: int = 16, **common: Any) -> None:
        super().__init__(depth, Common(**common))


class WUNet(_EncoderDecoder):
    """U-Net whose pools and transposed convolutions are a wavelet transform and its inverse (34.97 M parameters).

    Args:
        depth: of the VGG that encodes: 11, 13, 16 or 19.
        common: options of :class:`~medwave.models.images.network.Common`; ``wavelet=None`` is U-Net (37.42 M).

    Raises:
        InputError: for an option that is unknown or out of range.
    """

    skip = True

    def __init__(self, depth: int = 16, **common: Any) -> None:
        super().__init__(depth, Common(**common))


def padded(image: Tensor, multiple: int) -> Tensor:
    """The image, its border repeated at the end of each axis up to a multiple."""
    missing = [-n % multiple for n in image.shape[2:]]
    if not any(missing):
        return image
    return F.pad(image, [width for n in reversed(missing) for width in (0, n)], mode="replicate")


def cropped(logits: Tensor, size: Sequence[int]) -> Tensor:
    """The first samples along each spatial axis."""
    return logits[(..., *(slice(0, n) for n in size))]


def _stage(common: Common, channels: list[int]) -> nn.Sequential:
    pairs = itertools.pairwise(channels)
    return nn.Sequential(*(layer for before, after in pairs for layer in vgg_layer(common, before, after, True)))
