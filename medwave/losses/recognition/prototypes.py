"""EPL: a learned prototype per class, and beside it an empirical one that no gradient moves.

Conventions
    As in :mod:`medwave.losses.recognition.interface`. An empirical prototype is a running mean direction of its class
    (:class:`~medwave.losses.recognition.memory.EmpiricalPrototypes`), updated before it is used, from the first step
    on. With ``s`` the cosine of a sample and its empirical prototype, the second term is a softmax over empirical
    prototypes with positive ``scale * (s - k s)``, where the margin ``k s`` has no gradient: normal samples get a
    large margin, hard ones a small one, and the slope stays ``scale``. That margin is the only one in this term.

Source
    arXiv 2405.12447; ``k`` and the epochs follow the authors' program.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from medwave.core.errors import InputError
from medwave.losses.recognition.interface import Draw, RecognitionLoss, batch_mean
from medwave.losses.recognition.margins import CosFaceLoss
from medwave.losses.recognition.memory import EmpiricalPrototypes
from medwave.losses.recognition.sample_to_sample import require_same_classes
from medwave.losses.recognition.scores import margin_softmax, over_negatives, unit

Keep = Callable[[Tensor], Tensor]

KEEP: dict[str, Keep] = {
    "sigmoid": torch.sigmoid,
    "softsign": lambda s: s / (1 + s.abs()),
    "sigmoid_shift": lambda s: torch.sigmoid(s - 1),
    "ema": lambda s: torch.full_like(s, 0.9),
    "direct": torch.zeros_like,
    "robust": lambda s: 1 - 0.5 * s.clamp_min(0),
}
"""How much of the old prototype is kept, from the similarity of the new sample to it; limited to [0, 1) on use.

With the first three a hard sample (small similarity) moves its prototype MORE than a normal one; "robust" is the
other way round. "sigmoid" is the rule of the paper, "softsign" the default of the authors' program.
"""


class EPLLoss(RecognitionLoss):
    """A loss on learned prototypes and a softmax with adaptive margin on empirical ones, averaged.

    Before ``start_epoch`` (told by ``set_progress``) the first stands alone and has full weight.

    Args:
        classes, dimension: number of classes, and length of a feature.
        learned: loss on learned prototypes (CosFace, ArcFace, UCE); default ``CosFaceLoss`` with margin 0.4,
            scale 64 and the draws below.
        alpha: a name in :data:`KEEP`, or a function of the similarities ``(classes in batch,)``.
        margin_factor: ``k``, margin over similarity.
        scale: of the cosines with empirical prototypes.
        start_epoch: first epoch, counted from 0, with the second term.
        sample_rate, sparse_gradients, seed: draws of negatives, see ``ClassHead``.

    Raises:
        InputError: for an unknown alpha, a factor outside [0, 1), a scale that is not positive, or losses that are
            not for the same classes.
    """

    def __init__(
        self, classes: int, dimension: int, *, learned: RecognitionLoss | None = None, alpha: str | Keep = "sigmoid",
        margin_factor: float = 0.7, scale: float = 64.0, start_epoch: int = 3, sample_rate: float = 1.0,
        sparse_gradients: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(classes, dimension)
        if not callable(alpha) and alpha not in KEEP:
            raise InputError(f"alpha is a function or one of {', '.join(KEEP)}, got {alpha!r}")
        if not 0 <= margin_factor < 1 or not 0 < scale < math.inf:
            raise InputError(f"margin_factor must lie in [0, 1), scale be above 0; got {margin_factor} and {scale}")
        self.learned = learned or CosFaceLoss(
            classes, dimension, sample_rate=sample_rate, sparse_gradients=sparse_gradients, seed=seed
        )
        require_same_classes(self, self.learned)
        self.keep = alpha if callable(alpha) else KEEP[alpha]
        self.margin_factor, self.scale = float(margin_factor), float(scale)
        self.start_epoch = int(start_epoch)
        self.draw = Draw(self.classes, sample_rate, seed + 1)
        self.empirical = EmpiricalPrototypes(self.classes, self.dimension)

    def _parts(self, features: Tensor, labels: Tensor, samples: Tensor | None) -> dict[str, Tensor]:
        if self.training:
            self.empirical.update(features.detach(), labels, self.keep)
        parts = self.learned._parts(features, labels, samples)
        if float(self.progress[0]) < self.start_epoch:
            return parts
        parts["empirical"] = self._against_empirical(features, labels)
        return {name: 0.5 * value for name, value in parts.items()}

    def _against_empirical(self, features: Tensor, labels: Tensor) -> Tensor:
        rows = self.empirical.compared(labels, self.draw())
        x = self.scale * unit(features)
        positive = (x * self.empirical.rows[labels].to(x.dtype)).sum(dim=1)
        lowered = positive - (self.margin_factor * positive).detach()
        negatives = over_negatives(x, rows.others.to(x.dtype), rows.own, None, "logsumexp", normalised=False)
        return batch_mean(torch.where(self.empirical.filled[labels], margin_softmax(negatives, lowered), 0))
