"""WaveMobileNetV2 and MobileNetV2. Names of weights are torchvision's.

Sandler et al., doi:10.1109/CVPR.2018.00474. The first convolution keeps its stride; the depthwise convolution of a
strided block gets stride 1 and a low band behind its activation.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from medwave.models.images.network import ADAPTIVE_POOL, ChainClassifier, Common, check_word, initialise

SETTINGS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and stride of each stage."""

STEMS = ("imagenet", "small")
"""``small``: neither the first convolution nor the first strided block halves."""


def divisible(channels: float, divisor: int = 8) -> int:
    """Channels as a multiple of 8 that is not below nine tenths of what was asked."""
    whole = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return whole + divisor if whole < 0.9 * channels else whole


class _Residual(nn.Module):
    """Widen (1 x 1), filter each channel (3 x 3), low band where it was strided, narrow (1 x 1, linear)."""

    def __init__(self, common: Common, before: int, after: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.shortcut = stride == 1 and before == after
        inner = before * expansion
        layers = [] if expansion == 1 else [_conv(common, before, inner, 1)]
        depthwise = _conv(common, inner, inner, 3, stride=common.conv_stride(stride), groups=inner)
        if common.wavelet is not None and stride > 1:
            depthwise.append(common.low_band())
        self.conv = nn.Sequential(*layers, depthwise, common.conv(inner, after, 1, bias=False), common.norm(after))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the block."""
        return x + self.conv(x) if self.shortcut else self.conv(x)


class WaveMobileNetV2(ChainClassifier):
    """MobileNetV2 whose strided blocks filter by low bands before they drop samples.

    Args:
        stem: a word of :data:`STEMS`.
        features_only: return the pyramid instead of logits.
        common: options of :class:`~medwave.models.images.network.Common`; widths become multiples of 8.

    Raises:
        InputError: for an option that is unknown or out of range.
    """

    def __init__(self, *, stem: str = "imagenet", features_only: bool = False, **common: Any) -> None:
        shared = Common(**common)
        check_word("stem", stem, STEMS)
        super().__init__({"stem": stem}, shared, features_only)
        small = stem == "small"
        before, top = divisible(32 * shared.width), divisible(1280 * max(1.0, shared.width))
        self.features = nn.Sequential(_conv(shared, shared.in_channels, before, 3, stride=1 if small else 2))
        reached, ends, widths, strides = 1 if small else 2, [], [], []
        for number, (expansion, published, blocks, stride) in enumerate(SETTINGS):
            stride = 1 if small and number == 1 else stride
            if stride > 1:
                ends.append(len(self.features))
                widths.append(before)
                strides.append(reached)
                reached *= stride
            after = divisible(published * shared.width)
            for block in range(blocks):
                self.features.append(_Residual(shared, before, after, stride if block == 0 else 1, expansion))
                before = after
        self.features.append(_conv(shared, before, top, 1))
        self._ends = [*ends, len(self.features)]
        self.feature_channels, self.feature_strides = (*widths, top), (*strides, reached)
        if not features_only:
            self.avgpool = ADAPTIVE_POOL[shared.ndim](1)
            self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(top, shared.classes))
        initialise(self, linear_deviation=0.01)


def _conv(common: Common, before: int, after: int, kernel: int, **options: Any) -> nn.Sequential:
    return nn.Sequential(
        common.conv(before, after, kernel, bias=False, **options), common.norm(after), nn.ReLU6(inplace=True)
    )
