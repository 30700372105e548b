"""WaveAlexNet and AlexNet (the one-column form). Names of weights are torchvision's.

Krizhevsky, arXiv:1404.5997. Max pools become low bands; the first convolution has stride 2 and a low band behind its
activation in the place of stride 4.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from medwave.models.images.network import ADAPTIVE_POOL, ChainClassifier, Common, dense_head

LAYERS = ((192, 5, True), (384, 3, False), (256, 3, False), (256, 3, True))
"""Published channels and kernel of the convolutions behind the first, and whether a pool follows."""


class WaveAlexNet(ChainClassifier):
    """AlexNet whose pools are low bands.

    Args:
        features_only: return the pyramid of the first convolution and the pools instead of logits.
        common: options of :class:`~medwave.models.images.network.Common`.

    Raises:
        InputError: for an option that is unknown or out of range.
    """

    smallest = 63
    feature_strides = (4, 8, 16, 32)

    def __init__(self, *, features_only: bool = False, **common: Any) -> None:
        shared = Common(**common)
        super().__init__({}, shared, features_only)
        before = shared.channels(64)
        vanilla = shared.wavelet is None
        first = shared.conv(shared.in_channels, before, 11, stride=4 if vanilla else 2, padding=2)
        act: nn.Module = nn.ReLU(inplace=True)
        self.features = nn.Sequential(
            first, act if vanilla else nn.Sequential(act, shared.low_band()), shared.max_pool(3)
        )
        widths, self._ends = [before, before], [2, 3]
        for published, kernel, pooled in LAYERS:
            after = shared.channels(published)
            self.features.extend([shared.conv(before, after, kernel), nn.ReLU(inplace=True)])
            before = after
            if pooled:
                self.features.append(shared.max_pool(3))
                self._ends.append(len(self.features))
                widths.append(after)
        self.feature_channels = tuple(widths)
        if not features_only:
            self.avgpool = ADAPTIVE_POOL[shared.ndim](6)
            hidden = shared.channels(4096)
            self.classifier = dense_head(
                before * 6**shared.ndim, hidden, shared.classes, dropout=0.5, dropout_first=True
            )
