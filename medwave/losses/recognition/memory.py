"""One stored row per class, filled by what training meets: no gradient, saved and loaded, empty rows never seen.

Conventions
    Rows are ``(classes, d)`` of length one; a class counts from its first row on. Updates are vectorised and follow a
    rule for classes that come more than once in a batch. Features that are not finite, or zero, are passed over, so
    that a step that overflowed leaves no trace. What a loss compares with is a copy: the next update may come before
    the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from medwave.losses.recognition.interface import Rows, columns_of
from medwave.losses.recognition.scores import unit

_SHORT = 1e-6


class ClassRows(nn.Module):
    """Rows of the classes that were met so far.

    Attributes:
        rows: ``(classes, d)``, unit length where filled, 0 elsewhere.
        filled: ``(classes,)``, which classes were met.
    """

    rows: Tensor
    filled: Tensor

    def __init__(self, classes: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(classes, dimension))
        self.register_buffer("filled", torch.zeros(classes, dtype=torch.bool))

    def compared(self, labels: Tensor, drawn: Tensor | None) -> Rows:
        """Copies of the filled rows, of the drawn classes only where there are such."""
        ids = self.filled.nonzero().squeeze(1) if drawn is None else drawn[self.filled[drawn]]
        if len(ids) == len(self.filled):
            return Rows(self.rows.clone(), None, labels)
        return Rows(self.rows[ids], ids, columns_of(labels, ids))

    def _write(self, classes: Tensor, rows: Tensor) -> None:
        self.rows.index_copy_(0, classes, rows.to(self.rows.dtype))
        self.filled.index_fill_(0, classes, True)


class FeatureMemory(ClassRows):
    """The last feature of each class.

    Directions are stored: cosines do not depend on lengths.

    Attributes:
        sources: ``(classes,)``, number of the sample that each row came from, -1 where it has none.
    """

    sources: Tensor

    def __init__(self, classes: int, dimension: int) -> None:
        super().__init__(classes, dimension)
        self.register_buffer("sources", torch.full((classes,), -1))

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor, samples: Tensor | None) -> None:
        """Store the features of a batch; of a class that comes more than once, the last."""
        usable = _usable(features)
        features, labels = features[usable], labels[usable]
        classes, group = labels.unique(return_inverse=True)
        places = torch.arange(len(labels), device=labels.device)
        last = torch.zeros_like(classes).scatter_reduce(0, group, places, "amax", include_self=False)
        self._write(classes, unit(features[last]))
        self.sources[classes] = -1 if samples is None else samples[usable][last]

    def partners(self, labels: Tensor, samples: Tensor | None) -> tuple[Tensor, Tensor]:
        """Row of each sample's class ``(B, d)``, and whether it is one to compare with: filled, by another sample."""
        there = self.filled[labels]
        if samples is not None:
            there = there & (self.sources[labels] != samples)
        return self.rows[labels], there


class EmpiricalPrototypes(ClassRows):
    """A running mean direction per class."""

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor, keep: Callable[[Tensor], Tensor]) -> None:
        """Take a batch in: ``P <- unit(a P + (1 - a) x)``.

        ``x`` is the mean direction of the class in this batch, so that the order of a batch does not matter; the first
        one becomes the row. Where nothing is left to normalise, the row stays.

        Args:
            features: ``(B, d)``.
            labels: ``(B,)``.
            keep: similarity ``s = cos(x, P)`` -> how much of P is kept, ``a``; limited to [0, 1).
        """
        usable = _usable(features)
        features, labels = unit(features[usable]), labels[usable]
        classes, group, counts = labels.unique(return_inverse=True, return_counts=True)
        summed = features.new_zeros(len(classes), features.shape[1]).index_add_(0, group, features)
        met = unit(summed / counts[:, None])
        old = self.rows[classes].to(met.dtype)
        share = keep((met * old).sum(dim=1)).clamp(0, 1 - torch.finfo(self.rows.dtype).eps)
        share = torch.where(self.filled[classes], share, 0)[:, None]
        new = share * old + (1 - share) * met
        alive = _usable(new)
        self._write(classes[alive], unit(new[alive]))


def _usable(features: Tensor) -> Tensor:
    length = features.norm(dim=1)
    return length.isfinite() & (length > _SHORT)
