"""Samples against stored samples: softmax, binary cross-entropy, and the unified threshold of UniTSFace.

Conventions
    As in :mod:`medwave.losses.recognition.interface`. The partner of a sample is the last feature met of its class,
    its negatives are the last features of all other classes, kept by a
    :class:`~medwave.losses.recognition.memory.FeatureMemory`. The memory takes a batch in after the loss of the batch;
    it has no gradient. A pair without a stored feature does not exist: it adds 0 to a sum, and the softmax of a sample
    needs its partner and one negative at least.
    A batch without any pair has a loss of 0.

Source
    Li et al., NeurIPS 2023, arXiv 2311.02523.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from medwave.core.errors import InputError
from medwave.losses.recognition.interface import Draw, RecognitionLoss, Rows, batch_mean
from medwave.losses.recognition.margins import CosFaceLoss
from medwave.losses.recognition.memory import FeatureMemory
from medwave.losses.recognition.scores import has_negatives, margin_softmax, over_negatives, softplus, unit


class _Pairs(NamedTuple):
    """Samples against the memory: scaled features, positive scores, which of them exist, and the stored negatives."""

    x: Tensor
    positive: Tensor
    exists: Tensor
    rows: Rows


class _SampleToSample(RecognitionLoss):
    """What the three losses share: the memory, the draws, and the order of loss and update."""

    def __init__(
        self, classes: int, dimension: int, *, margin: float, scale: float, sample_rate: float, seed: int
    ) -> None:
        super().__init__(classes, dimension)
        if not 0 <= margin < 2 or not 0 < scale < math.inf:
            raise InputError(f"margin must lie in [0, 2) and scale be above 0, got {margin} and {scale}")
        self.margin, self.scale = float(margin), float(scale)
        self.draw = Draw(self.classes, sample_rate, seed)
        self.memory = FeatureMemory(self.classes, self.dimension)

    def _parts(self, features: Tensor, labels: Tensor, samples: Tensor | None) -> dict[str, Tensor]:
        parts = self._against_memory(features, labels, samples)
        self._store(features, labels, samples)
        return parts

    def _against_memory(self, features: Tensor, labels: Tensor, samples: Tensor | None) -> dict[str, Tensor]:
        rows = self.memory.compared(labels, self.draw())
        rows = rows._replace(others=rows.others.to(features.dtype))
        partners, exists = self.memory.partners(labels, samples)
        x = self.scale * unit(features)
        positive = (x * partners.to(x.dtype)).sum(dim=1) - self.scale * self.margin
        return self._of_pairs(_Pairs(x, positive, exists, rows), labels)

    def _store(self, features: Tensor, labels: Tensor, samples: Tensor | None) -> None:
        if self.training:
            self.memory.update(features.detach(), labels, samples)

    def _of_pairs(self, pairs: _Pairs, labels: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError


class S2SSoftmaxLoss(_SampleToSample):
    """Cross-entropy over the stored samples: mean over the samples that have a partner and a negative.

    Args:
        classes, dimension: number of classes, and length of a feature.
        margin: taken off the positive cosine.
        scale: of the cosines.
        sample_rate: share of the classes whose stored features are the negatives of a step.
        seed: of the draws.

    Raises:
        InputError: when an option is out of its range.
    """

    def __init__(
        self, classes: int, dimension: int, *, margin: float = 0.0, scale: float = 64.0, sample_rate: float = 1.0,
        seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(classes, dimension, margin=margin, scale=scale, sample_rate=sample_rate, seed=seed)

    def _of_pairs(self, pairs: _Pairs, labels: Tensor) -> dict[str, Tensor]:
        negatives = over_negatives(pairs.x, pairs.rows.others, pairs.rows.own, None, "logsumexp", normalised=False)
        counts = pairs.exists & has_negatives(negatives)
        losses = torch.where(counts, margin_softmax(negatives, pairs.positive), 0)
        return {"s2s_softmax": losses.sum() / counts.sum().clamp_min(1)}


class _SampleToSampleBinary(_SampleToSample):
    """Binary cross-entropy over pairs; the bias is one number or one per class, and starts from the data.

    Unless it is given, it starts once, at the first batch in training mode with a negative, as the mean over samples
    of the log-sum-exp of their negatives.
    """

    name: str
    bias_set: Tensor

    def __init__(
        self, classes: int, dimension: int, *, diverse: bool, initial_bias: float | None, margin: float, scale: float,
        sample_rate: float, seed: int,
    ) -> None:  # fmt: skip
        super().__init__(classes, dimension, margin=margin, scale=scale, sample_rate=sample_rate, seed=seed)
        start = 0.0 if initial_bias is None else float(initial_bias)
        self.bias = nn.Parameter(torch.full((self.classes,) if diverse else (), start))
        self.register_buffer("bias_set", torch.tensor(initial_bias is not None))

    def _of_pairs(self, pairs: _Pairs, labels: Tensor) -> dict[str, Tensor]:
        if self.training and not bool(self.bias_set):
            self._start_bias(pairs)
        bias, rows = self.bias.to(pairs.x.dtype), pairs.rows
        own_bias = bias[labels] if bias.ndim else bias
        if bias.ndim and rows.ids is not None:
            bias = bias[rows.ids]
        negatives = over_negatives(pairs.x, rows.others, rows.own, bias, "softplus", normalised=False)
        positives = torch.where(pairs.exists, softplus(own_bias - pairs.positive), 0)
        return {f"{self.name}_positive": batch_mean(positives), f"{self.name}_negative": batch_mean(negatives)}

    @torch.no_grad()
    def _start_bias(self, pairs: _Pairs) -> None:
        levels = over_negatives(pairs.x, pairs.rows.others, pairs.rows.own, None, "logsumexp", normalised=False)
        levels = levels[has_negatives(levels) & levels.isfinite()]
        if len(levels):
            self.bias.fill_(float(levels.mean()))
            self.bias_set.fill_(True)


class S2SBCELoss(_SampleToSampleBinary):
    """Binary cross-entropy over pairs with one bias per class: a pair is judged by the bias of the stored sample.

    Args:
        classes, dimension, margin, scale, sample_rate, seed: as :class:`S2SSoftmaxLoss`.
        initial_bias: where the biases start; default: from the first batch.
    """

    name = "s2s_bce"

    def __init__(
        self, classes: int, dimension: int, *, margin: float = 0.0, scale: float = 64.0,
        initial_bias: float | None = None, sample_rate: float = 1.0, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(
            classes, dimension, diverse=True, initial_bias=initial_bias, margin=margin, scale=scale,
            sample_rate=sample_rate, seed=seed,
        )  # fmt: skip


class USSLoss(_SampleToSampleBinary):
    """Unified threshold over sample pairs: ``softplus(b - (g_own - m)) + sum softplus(g_other - b)``, g on the scale.

    Args:
        classes, dimension, margin, scale, sample_rate, seed: as :class:`S2SSoftmaxLoss`; the margin of USS-m is 0.1,
            USS has none.
        initial_bias: where the bias starts; default: from the first batch.
    """

    name = "uss"

    def __init__(
        self, classes: int, dimension: int, *, margin: float = 0.1, scale: float = 64.0,
        initial_bias: float | None = None, sample_rate: float = 1.0, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(
            classes, dimension, diverse=False, initial_bias=initial_bias, margin=margin, scale=scale,
            sample_rate=sample_rate, seed=seed,
        )  # fmt: skip


class UniTSFaceLoss(RecognitionLoss):
    """A loss on prototypes and USS on stored samples, added.

    Before ``start_epoch`` (told by ``set_progress``) the memory is filled and the loss on prototypes stands alone.

    Args:
        classes, dimension: number of classes, and length of a feature.
        sample_to_class: loss on prototypes; default ``CosFaceLoss`` with margin 0.4, scale 64 and the draws below.
        margin: of USS.
        scale: of USS.
        weights: of the two losses; (1, 1) is the sum of the authors' program, (0.5, 0.5) the average of their text.
        start_epoch: first epoch, counted from 0, with USS.
        initial_bias, sample_rate, seed: as in :class:`USSLoss`.
        sparse_gradients: of the default loss on prototypes, see ``ClassHead``.

    Raises:
        InputError: when weights are not two positive numbers, or the losses are not for the same classes.
    """

    def __init__(
        self, classes: int, dimension: int, *, sample_to_class: RecognitionLoss | None = None, margin: float = 0.1,
        scale: float = 64.0, weights: Sequence[float] = (1.0, 1.0), start_epoch: int = 1,
        initial_bias: float | None = None, sample_rate: float = 1.0, sparse_gradients: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(classes, dimension)
        if len(weights) != 2 or not all(0 < w < math.inf for w in weights):
            raise InputError(f"weights are two positive numbers, prototypes first, got {tuple(weights)}")
        self.sample_to_class = sample_to_class or CosFaceLoss(
            classes, dimension, sample_rate=sample_rate, sparse_gradients=sparse_gradients, seed=seed
        )
        require_same_classes(self, self.sample_to_class)
        self.uss = USSLoss(
            classes, dimension, margin=margin, scale=scale, initial_bias=initial_bias, sample_rate=sample_rate,
            seed=seed + 1,
        )  # fmt: skip
        self.weights = (float(weights[0]), float(weights[1]))
        self.start_epoch = int(start_epoch)

    def _parts(self, features: Tensor, labels: Tensor, samples: Tensor | None) -> dict[str, Tensor]:
        first, second = self.weights
        parts = {name: first * v for name, v in self.sample_to_class._parts(features, labels, samples).items()}
        if float(self.progress[0]) >= self.start_epoch:
            against = self.uss._against_memory(features, labels, samples)
        else:  # every parameter takes part, so that DistributedDataParallel waits for none
            against = {"uss_positive": 0 * self.uss.bias, "uss_negative": 0 * self.uss.bias}
        self.uss._store(features, labels, samples)
        return parts | {name: second * v for name, v in against.items()}


def require_same_classes(whole: RecognitionLoss, part: RecognitionLoss) -> None:
    """Raise InputError unless two losses are for the same classes and features."""
    if (part.classes, part.dimension) != (whole.classes, whole.dimension):
        raise InputError(
            f"the inner loss is for {part.classes} classes and {part.dimension} features, the outer one for "
            f"{whole.classes} and {whole.dimension}: build both for the same"
        )
