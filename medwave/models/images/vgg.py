"""WaveVGG and VGG with 11, 13, 16 or 19 weighted layers.

Simonyan & Zisserman, arXiv:1409.1556; each max pool becomes a low band. Names of weights are torchvision's.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from medwave.core.errors import InputError
from medwave.models.images.network import ADAPTIVE_POOL, ChainClassifier, Common, check_word, dense_head, initialise

STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each stage, by depth."""

CHANNELS = (64, 128, 256, 512, 512)
"""Published channels of each stage."""

HEADS = ("imagenet", "small")
"""Three wide linear layers on 7 x 7 samples, or one on the mean, for small images."""


class WaveVGG(ChainClassifier):
    """VGG whose max pools are low bands.

    Args:
        depth: 11, 13, 16 or 19.
        batch_norm: normalise behind each convolution.
        head: a word of :data:`HEADS`.
        norm_after_pool: another normalisation behind each low band (2,944 parameters more), a published variant.
        features_only: return the pyramid of the pools instead of logits.
        common: options of :class:`~medwave.models.images.network.Common`.

    Raises:
        InputError: for an option that is unknown or out of range.
    """

    smallest = 32

    def __init__(
        self,
        depth: int = 16,
        *,
        batch_norm: bool = True,
        head: str = "imagenet",
        norm_after_pool: bool = False,
        features_only: bool = False,
        **common: Any,
    ) -> None:
        shared = Common(**common)
        if depth not in STAGES:
            raise InputError(f"depth of a VGG is one of {', '.join(map(str, STAGES))}, got {depth}")
        check_word("head", head, HEADS)
        if norm_after_pool and shared.wavelet is None:
            raise InputError("norm_after_pool is for low bands: name a wavelet")
        own = {"depth": depth, "batch_norm": batch_norm, "head": head, "norm_after_pool": norm_after_pool}
        super().__init__(own, shared, features_only)
        self.features = nn.Sequential()
        before, self.feature_channels = shared.in_channels, tuple(map(shared.channels, CHANNELS))
        self._ends = []
        for count, channels in zip(STAGES[depth], self.feature_channels, strict=True):
            for _ in range(count):
                self.features.extend(vgg_layer(shared, before, channels, batch_norm))
                before = channels
            pool = shared.max_pool()
            self.features.append(nn.Sequential(pool, shared.norm(channels)) if norm_after_pool else pool)
            self._ends.append(len(self.features))
        if not features_only:
            self._make_head(before, head)
        initialise(self, linear_deviation=0.01)

    def _make_head(self, channels: int, head: str) -> None:
        size, classes = 7 if head == "imagenet" else 1, self.common.classes
        self.avgpool = ADAPTIVE_POOL[self.common.ndim](size)
        if head == "small":
            self.classifier = nn.Sequential(nn.Linear(channels, classes))
        else:
            hidden = self.common.channels(4096)
            samples = channels * size**self.common.ndim
            self.classifier = dense_head(samples, hidden, classes, dropout=0.5, dropout_first=False)


def vgg_layer(common: Common, before: int, channels: int, batch_norm: bool) -> list[nn.Module]:
    """Convolution 3 x 3, normalisation if wanted, ReLU."""
    norm = [common.norm(channels)] if batch_norm else []
    return [common.conv(before, channels, 3), *norm, nn.ReLU(inplace=True)]
