"""WaveDenseNet and DenseNet with 121, 161, 169 or 201 layers. Names of weights are torchvision's.

Huang et al., doi:10.1109/CVPR.2017.243. The max pool of the stem and the average pools of the transitions become low
bands; stems as in :mod:`medwave.models.images.resnet`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medwave.core.errors import InputError
from medwave.models.images.network import ADAPTIVE_POOL, Classifier, Common, check_word, initialise
from medwave.models.images.resnet import STEMS

PUBLISHED = {
    121: (32, 64, (6, 12, 24, 16)),
    161: (48, 96, (6, 12, 36, 24)),
    169: (32, 64, (6, 12, 32, 32)),
    201: (32, 64, (6, 12, 48, 32)),
}
"""Growth, channels of the stem, and layers of each block, by depth."""

_BOTTLENECK = 4


class _Layer(nn.Module):
    """Normalise, 1 x 1, normalise, 3 x 3; its result joins what it got."""

    def __init__(self, common: Common, before: int, growth: int) -> None:
        super().__init__()
        inner = _BOTTLENECK * growth
        self.norm1, self.conv1 = common.norm(before), common.conv(before, inner, 1, bias=False)
        self.norm2, self.conv2 = common.norm(inner), common.conv(inner, growth, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """All features so far and the new ones."""
        new = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(new)))], dim=1)


class WaveDenseNet(Classifier):
    """DenseNet whose pools are low bands.

    Args:
        depth: 121, 161, 169 or 201.
        stem: a word of :data:`~medwave.models.images.resnet.STEMS`.
        features_only: return the pyramid (stem and four blocks) instead of logits.
        common: options of :class:`~medwave.models.images.network.Common`.

    Raises:
        InputError: for an option that is unknown or out of range.
    """

    def __init__(
        self, depth: int = 121, *, stem: str = "imagenet", features_only: bool = False, **common: Any
    ) -> None:  # fmt: skip
        shared = Common(**common)
        if depth not in PUBLISHED:
            raise InputError(f"depth of a DenseNet is one of {', '.join(map(str, PUBLISHED))}, got {depth}")
        check_word("stem", stem, STEMS)
        if stem == "wavelet" and shared.wavelet is None:
            raise InputError("stem 'wavelet' needs a wavelet; the vanilla network has stem 'imagenet' or 'small'")
        super().__init__({"depth": depth, "stem": stem}, shared, features_only)
        growth, channels, blocks = PUBLISHED[depth]
        growth, channels = shared.channels(growth), shared.channels(channels)
        self.features = self._stem(channels, stem)
        widths = [channels]
        for index, layers in enumerate(blocks, 1):
            made = OrderedDict(
                (f"denselayer{i + 1}", _Layer(shared, channels + i * growth, growth)) for i in range(layers)
            )
            self.features.add_module(f"denseblock{index}", nn.Sequential(made))
            channels += layers * growth
            widths.append(channels)
            if index < len(blocks):
                self.features.add_module(f"transition{index}", self._transition(channels))
                channels //= 2
        self.features.add_module("norm5", shared.norm(channels))
        self.feature_channels = tuple(widths)
        self.feature_strides = (1, 1, 2, 4, 8) if stem == "small" else (2, 4, 8, 16, 32)
        if not features_only:
            self.classifier = nn.Linear(channels, shared.classes)
        self.average = ADAPTIVE_POOL[shared.ndim](1)
        initialise(self)

    def _stem(self, channels: int, stem: str) -> nn.Sequential:
        common = self.common
        kernel, stride = {"imagenet": (7, 2), "wavelet": (7, 1), "small": (3, 1)}[stem]
        layers = OrderedDict(
            conv0=common.conv(common.in_channels, channels, kernel, stride=stride, bias=False),
            norm0=common.norm(channels),
            relu0=nn.ReLU(inplace=True),
        )
        if stem == "wavelet":
            layers["low0"] = common.low_band()
        layers["pool0"] = nn.Identity() if stem == "small" else common.max_pool(3, 1)
        return nn.Sequential(layers)

    def _transition(self, channels: int) -> nn.Sequential:
        common = self.common
        return nn.Sequential(
            OrderedDict(
                norm=common.norm(channels),
                relu=nn.ReLU(inplace=True),
                conv=common.conv(channels, channels // 2, 1, bias=False),
                pool=common.average_pool(),
            )
        )

    def pyramid(self, image: Tensor) -> tuple[Tensor, ...]:
        """The stem before its last pool, and the four blocks; the last one is normalised and rectified."""
        x, maps = image, []
        for name, layer in self.features.named_children():
            if name == "pool0":
                maps.append(x)
            x = layer(x)
            if name.startswith("denseblock") and name != "denseblock4":
                maps.append(x)
        return (*maps, F.relu(x))

    def head(self, top: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(self.average(top).flatten(1))
