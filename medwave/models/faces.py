"""Networks that turn a picture into a feature which tells identities apart: IR-ResNet, and it with wavelets.

Conventions
    Pictures are ``(N, C, H, W)``, scaled as by :func:`medwave.transforms.faces.normalise`; features are
    ``(N, dimension)`` float32, not of unit length (losses and metrics take their direction). Height and width are
    fixed when a network is built and are multiples of 16; 112 x 112 is the size of aligned faces.

Structure
    Stem: convolution 3x3, batch norm, PReLU. Four stages of widths w, 2w, 4w, 8w, each of which begins by halving the
    resolution. A block is batch norm, 3x3, batch norm, PReLU, convolution, batch norm, plus the shortcut, without an
    activation after the sum; the last batch norm starts at 0, so that a new block passes its input on. Convolutions
    that halve are 2x2 with stride 2 and no padding, also in shortcuts. Head: batch norm, dropout, one convolution over
    the whole map, batch norm whose scale stays 1.

    ======  ===================
    depth   blocks of the stages
    ======  ===================
    18      2, 2, 2, 2
    34      3, 4, 6, 3
    50      3, 4, 14, 3
    100     3, 13, 30, 3
    200     3, 33, 60, 3
    ======  ===================

    In a :class:`WaveIResNet` each convolution that halves works at stride 1 and the low band of its result is kept
    (:func:`medwave.wavelets.replacing.replace_downsampling`): weights have the same names, shapes and number.

Training
    After each step of an optimiser call :meth:`FaceNet.hold_slopes`: the published networks keep the slopes of PReLU
    at 0.01 or above.

Source
    He et al., CVPR 2016; the form for faces: Deng et al., CVPR 2019, arXiv 1801.07698; depths, 2x2 convolutions and
    slopes as in the networks of arXiv 2311.02523. With wavelets: after doi:10.1109/TIP.2021.3101395.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from medwave.core.errors import GeometryError, InputError
from medwave.wavelets import replace_downsampling

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 200: (3, 33, 60, 3)}
"""Depth -> number of blocks of each stage."""

SIZE_MULTIPLE = 16
SMALLEST_SLOPE = 0.01


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, halve: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.act = nn.PReLU(outputs)
        self.conv2 = _halving(outputs, outputs) if halve else nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.norm3.weight)
        self.shortcut = nn.Sequential(_halving(inputs, outputs), nn.BatchNorm2d(outputs)) if halve else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv2(self.act(self.norm2(self.conv1(self.norm1(x)))))
        return self.shortcut(x) + self.norm3(inner)


class FaceNet(nn.Module):
    """The skeleton of both networks; use :class:`IResNet` or :class:`WaveIResNet`.

    Args:
        depth: a key of :data:`BLOCKS`.
        width: channels of the stem and the first stage.
        image_size: height and width of the pictures, multiples of 16.
        in_channels: of the pictures.
        dimension: length of a feature.
        dropout: share of the values before the last convolution that training drops.

    Attributes:
        options: the arguments that build the network again (weight files carry them).

    Raises:
        InputError: for an unknown depth, a size that is no multiple of 16, or a number that is too small.
    """

    options: dict[str, Any]

    def __init__(
        self, depth: int, width: int, image_size: tuple[int, int], in_channels: int, dimension: int, dropout: float
    ) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise InputError(f"depth is one of {', '.join(map(str, BLOCKS))}, got {depth}")
        if len(image_size) != 2 or any(n < SIZE_MULTIPLE or n % SIZE_MULTIPLE for n in image_size):
            raise InputError(f"pictures have a height and width that are multiples of 16, got {tuple(image_size)}")
        if min(width, in_channels, dimension) < 1 or not 0 <= dropout < 1:
            raise InputError(
                "a face network needs width, in_channels and dimension of 1 or more and dropout in [0, 1), got "
                f"{width}, {in_channels}, {dimension} and {dropout}"
            )
        self.image_size, self.dimension = (int(image_size[0]), int(image_size[1])), int(dimension)
        self.in_channels = int(in_channels)
        self.options = {
            "depth": int(depth), "width": int(width), "image_size": list(self.image_size),
            "in_channels": self.in_channels, "dimension": self.dimension, "dropout": float(dropout),
        }  # fmt: skip
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)
        )
        self.stages = nn.ModuleList()
        inputs = width
        for level, blocks in enumerate(BLOCKS[depth]):
            outputs = width << level
            self.stages.append(
                nn.Sequential(
                    _Block(inputs, outputs, halve=True),
                    *(_Block(outputs, outputs, halve=False) for _ in range(blocks - 1)),
                )
            )
            inputs = outputs
        rest = (self.image_size[0] // SIZE_MULTIPLE, self.image_size[1] // SIZE_MULTIPLE)
        self.head = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.Dropout(dropout), nn.Conv2d(inputs, dimension, rest, bias=False)
        )
        self.norm = nn.BatchNorm1d(dimension)
        self.norm.weight.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Features ``(N, dimension)``.

        Raises:
            GeometryError: for pictures of another size or number of channels.
        """
        return self.with_maps(image)[0]

    def with_maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features, and the maps of the stage before the last, ``(N, 4 width, H / 8, W / 8)``, as ECLoss takes them.

        Raises:
            GeometryError: as ``forward``.
        """
        expected = (self.in_channels, *self.image_size)
        if image.dim() != 4 or tuple(image.shape[1:]) != expected:
            raise GeometryError(
                f"this network takes pictures (N, {', '.join(map(str, expected))}), got {tuple(image.shape)}"
            )
        x = self.stem(image)
        for stage in self.stages[:-1]:
            x = stage(x)
        feature = self.norm(self.head(self.stages[-1](x)).flatten(1))
        return feature.to(torch.promote_types(feature.dtype, torch.float32)), x

    @torch.no_grad()
    def hold_slopes(self) -> None:
        """Raise the slopes of PReLU that fell below 0.01 to that."""
        for layer in self.modules():
            if isinstance(layer, nn.PReLU):
                layer.weight.clamp_(min=SMALLEST_SLOPE)


class IResNet(FaceNet):
    """IR-ResNet of 18, 34, 50, 100 or 200 layers (see the module).

    Args and errors as in :class:`FaceNet`.

    >>> IResNet(18, width=4, image_size=(32, 48))(torch.zeros(2, 3, 32, 48)).shape
    torch.Size([2, 512])
    """

    def __init__(
        self, depth: int = 50, *, width: int = 64, image_size: tuple[int, int] = (112, 112), in_channels: int = 3,
        dimension: int = 512, dropout: float = 0.4,
    ) -> None:  # fmt: skip
        super().__init__(depth, width, image_size, in_channels, dimension, dropout)


class WaveIResNet(FaceNet):
    """IR-ResNet that halves by the low band of a wavelet transform (see the module).

    Args:
        wavelet: a discrete wavelet of PyWavelets, or ``chX.Y``.
        depth, width, image_size, in_channels, dimension, dropout: as in :class:`FaceNet`; errors too.
    """

    def __init__(
        self, depth: int = 50, *, wavelet: str = "haar", width: int = 64, image_size: tuple[int, int] = (112, 112),
        in_channels: int = 3, dimension: int = 512, dropout: float = 0.4,
    ) -> None:  # fmt: skip
        super().__init__(depth, width, image_size, in_channels, dimension, dropout)
        replace_downsampling(self, wavelet, position="after_conv")
        self.options["wavelet"] = wavelet


def _halving(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 2, stride=2, bias=False)
