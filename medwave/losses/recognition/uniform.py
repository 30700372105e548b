"""One threshold for all samples: binary cross-entropy over the classes with a learned bias.

Conventions
    As in :mod:`medwave.losses.recognition.interface`. For a sample with positive score ``p`` and negatives ``z_j``

        softplus(b - p) + sum_j softplus(z_j - b)

    summed over classes (not averaged) and averaged over samples. Where the gradient in ``b`` vanishes, the predicted
    positives ``sum_j sigmoid(z_j - b)`` (own class included) average to one per sample.

Sources
    Unified and diverse bias: arXiv 2403.07289. UCE: Zhou et al., ICCV 2023 (UniFace). Ideal bias: arXiv 2311.02523.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from medwave.core.errors import InputError
from medwave.losses.recognition.interface import ClassHead, batch_mean
from medwave.losses.recognition.scores import over_negatives, softplus


class _BinaryHead(ClassHead):
    """Binary cross-entropy over classes; ``bias`` is one number or one per class."""

    def __init__(
        self, classes: int, dimension: int, *, diverse: bool, margin: float, balance: float,
        initial_bias: float | None, normalised: bool, scale: float, sample_rate: float, sparse_gradients: bool,
        seed: int,
    ) -> None:  # fmt: skip
        super().__init__(
            classes, dimension, scale=scale, normalised=normalised, sample_rate=sample_rate,
            sparse_gradients=sparse_gradients, seed=seed,
        )  # fmt: skip
        if not 0 <= margin < 2 or not 0 < balance < math.inf:
            raise InputError(f"margin must lie in [0, 2) and balance be above 0, got {margin} and {balance}")
        if initial_bias is None:
            negatives = self.draw.rate * (10 * self.classes if normalised else self.classes - 1)
            initial_bias = math.log(negatives)
        self.margin, self.balance = float(margin), float(balance)
        self.bias = nn.Parameter(torch.full((self.classes,) if diverse else (), float(initial_bias)))

    @torch.no_grad()
    def predicted_positives(self, features: Tensor) -> float:
        """Classes above the threshold per sample, softly counted: 1 for a bias at its optimum."""
        scores = self.class_scores(features)
        scores = scores if self.bias.ndim else scores - self.bias.to(scores.dtype)
        return float(scores.sigmoid().sum(dim=1).mean())

    def _offsets(self) -> Tensor | None:
        return self.bias if self.bias.ndim else None

    def _parts(self, features: Tensor, labels: Tensor, samples: Tensor | None) -> dict[str, Tensor]:
        positive, rows = self._compared(features, labels)
        bias = self.bias.to(features.dtype)
        own_bias = bias[labels] if bias.ndim else bias
        if bias.ndim and rows.ids is not None:
            bias = bias[rows.ids]
        negatives = over_negatives(
            self._directed(features), rows.others, rows.own, bias, "softplus", normalised=self.normalised
        )
        return {
            "positive": batch_mean(softplus(own_bias - positive + self.scale * self.margin)),
            "negative": self.balance * batch_mean(negatives),
        }


class UnifiedBCELoss(_BinaryHead):
    """Binary cross-entropy over the classes, with one bias for all of them or one for each.

    Args:
        classes, dimension: see :class:`~medwave.losses.recognition.interface.ClassHead`.
        bias: ``"unified"`` learns one threshold, ``"diverse"`` one per class.
        normalised: on ``scale`` times cosines; otherwise on inner products.
        scale: of the cosines.
        initial_bias: where the bias starts; default ``log(classes - 1)`` for inner products and ``log(10 classes)``
            for cosines, each times the sample rate: the negatives then weigh little at the start.
        sample_rate, sparse_gradients, seed: see ``ClassHead``.

    Raises:
        InputError: for another name of a bias, and as ``ClassHead``.
    """

    def __init__(
        self, classes: int, dimension: int, *, bias: Literal["unified", "diverse"] = "unified",
        normalised: bool = False, scale: float = 64.0, initial_bias: float | None = None, sample_rate: float = 1.0,
        sparse_gradients: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        if bias not in ("unified", "diverse"):
            raise InputError(f'bias is "unified" or "diverse", got {bias!r}')
        super().__init__(
            classes, dimension, diverse=bias == "diverse", margin=0.0, balance=1.0, initial_bias=initial_bias,
            normalised=normalised, scale=scale, sample_rate=sample_rate, sparse_gradients=sparse_gradients, seed=seed,
        )  # fmt: skip


class UCELoss(_BinaryHead):
    """Unified cross-entropy of UniFace: cosines, one bias, a margin on the positive, a weight on the negatives.

    Args:
        classes, dimension: see :class:`~medwave.losses.recognition.interface.ClassHead`.
        margin: taken off the positive cosine.
        balance: weight of the negatives (lambda).
        scale: of the cosines.
        initial_bias: where the bias starts; default ``log(10 * classes * sample_rate)``.
        sample_rate, sparse_gradients, seed: see ``ClassHead``.

    Raises:
        InputError: for a margin outside [0, 2) or a balance that is not positive, and as ``ClassHead``.
    """

    def __init__(
        self, classes: int, dimension: int, *, margin: float = 0.4, balance: float = 1.0, scale: float = 64.0,
        initial_bias: float | None = None, sample_rate: float = 1.0, sparse_gradients: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(
            classes, dimension, diverse=False, margin=margin, balance=balance, initial_bias=initial_bias,
            normalised=True, scale=scale, sample_rate=sample_rate, sparse_gradients=sparse_gradients, seed=seed,
        )  # fmt: skip


def ideal_bias(classes: int, scale: float) -> float:
    """The bias that minimises the loss when positives have cosine 1 and negatives -1.

    With ``a = (classes - 2) e^-scale`` it is ``log((a + sqrt(a^2 + 4 (classes - 1))) / 2)``, which tends to
    ``log(classes - 1) / 2`` for a large scale (arXiv 2311.02523). The threshold is ``bias / scale``.
    """
    a = (classes - 2) * math.exp(-scale)
    return math.log((a + math.sqrt(a * a + 4 * (classes - 1))) / 2)
