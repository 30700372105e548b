"""Softmax over classes, plain, normalised, or with a margin on the positive: each sample has its own threshold.

Conventions
    As in :mod:`medwave.losses.recognition.interface`. All three are ``softplus(LSE_negatives - positive)``, which is
    cross-entropy, with the margin in the positive alone.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from medwave.core.errors import InputError
from medwave.losses.recognition.interface import ClassHead, batch_mean
from medwave.losses.recognition.scores import margin_softmax, over_negatives


class SoftmaxLoss(ClassHead):
    """Cross-entropy over the classes.

    Args:
        classes, dimension: see :class:`~medwave.losses.recognition.interface.ClassHead`.
        normalised: on ``scale`` times cosines; otherwise on inner products minus a learned bias per class.
        options: the rest of ``ClassHead``.
    """

    def __init__(self, classes: int, dimension: int, *, normalised: bool = False, **options: Any) -> None:
        super().__init__(classes, dimension, normalised=normalised, **options)
        self.bias = None if normalised else nn.Parameter(torch.zeros(self.classes))

    def _offsets(self) -> Tensor | None:
        return self.bias

    def _parts(self, features: Tensor, labels: Tensor, samples: Tensor | None) -> dict[str, Tensor]:
        positive, rows = self._compared(features, labels)
        offsets = self.bias
        if offsets is not None:
            offsets = offsets.to(features.dtype)
            positive = positive - offsets[labels]
            offsets = offsets if rows.ids is None else offsets[rows.ids]
        negatives = over_negatives(
            self._directed(features), rows.others, rows.own, offsets, "logsumexp", normalised=self.normalised
        )
        return {"softmax": batch_mean(margin_softmax(negatives, positive))}


class _CosineMargin(ClassHead):
    """Cross-entropy on cosines, the positive one lowered by a margin."""

    name: str

    def __init__(self, classes: int, dimension: int, *, margin: float, **options: Any) -> None:
        super().__init__(classes, dimension, **options)
        if not 0 <= margin < math.pi / 2:
            raise InputError(f"margin must be at least 0 and below pi / 2, got {margin}")
        self.margin = float(margin)

    def _lowered(self, cosine: Tensor) -> Tensor:
        raise NotImplementedError

    def _parts(self, features: Tensor, labels: Tensor, samples: Tensor | None) -> dict[str, Tensor]:
        positive, rows = self._compared(features, labels)
        lowered = self.scale * self._lowered(positive / self.scale)
        negatives = over_negatives(self._directed(features), rows.others, rows.own, None, "logsumexp", normalised=True)
        return {self.name: batch_mean(margin_softmax(negatives, lowered))}


class CosFaceLoss(_CosineMargin):
    """Cosines, the positive one minus ``margin`` (Wang et al., CVPR 2018, arXiv 1801.09414).

    Args:
        classes, dimension: see :class:`~medwave.losses.recognition.interface.ClassHead`.
        margin: on the cosine.
        options: ``scale``, ``sample_rate``, ``sparse_gradients``, ``seed`` of ``ClassHead``.

    Raises:
        InputError: for a margin outside [0, pi / 2), and as ``ClassHead``.
    """

    name = "cosface"

    def __init__(
        self, classes: int, dimension: int, *, margin: float = 0.4, scale: float = 64.0, sample_rate: float = 1.0,
        sparse_gradients: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(
            classes, dimension, margin=margin, scale=scale, sample_rate=sample_rate,
            sparse_gradients=sparse_gradients, seed=seed,
        )  # fmt: skip

    def _lowered(self, cosine: Tensor) -> Tensor:
        return cosine - self.margin


class ArcFaceLoss(_CosineMargin):
    """Cosines, the angle of the positive one plus ``margin`` radians (Deng et al., CVPR 2019, arXiv 1801.07698).

    Beyond ``pi - margin``, where a larger angle would raise the cosine again, ``cosine - margin sin(margin)`` goes on
    downward.

    Args:
        classes, dimension, margin, options: as :class:`CosFaceLoss`.
    """

    name = "arcface"

    def __init__(
        self, classes: int, dimension: int, *, margin: float = 0.5, scale: float = 64.0, sample_rate: float = 1.0,
        sparse_gradients: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(
            classes, dimension, margin=margin, scale=scale, sample_rate=sample_rate,
            sparse_gradients=sparse_gradients, seed=seed,
        )  # fmt: skip

    def _lowered(self, cosine: Tensor) -> Tensor:
        sine = (1 - cosine.square()).clamp_min(1e-7).sqrt()
        turned = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine - self.margin * math.sin(self.margin)
        return torch.where(cosine > math.cos(math.pi - self.margin), turned, beyond)
