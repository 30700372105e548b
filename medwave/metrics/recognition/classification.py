"""Accuracy when each sample, each class, or everybody shares a threshold.

Conventions
    Scores are ``(n, classes)``, those that the network decides by: with a bias per class it is taken off, a bias
    common to all classes is NOT, so that the best threshold can be compared with it. For a sample of class ``y``,
    ``p`` is its score for ``y`` and ``q`` the largest of the others. A threshold ``t`` is right about it when
    ``p > t >= q``.

        sample-wise  share with ``p > q``: each sample has its own threshold; ordinary top-1, ties are wrong
        class-wise   share that is right when each true class has its own best threshold
        uniform      share that is right at the one best threshold

    Each is at most the one before. No grid and no softmax is involved: a sweep over the intervals ``[q, p)``.

Source
    arXiv 2403.07289.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from medwave.core.errors import InputError
from medwave.metrics.recognition.arrays import Float64Array, IntArray, finite, midpoint, whole, widest_run


class UniformAccuracy(NamedTuple):
    """Share of samples that one threshold is right about, and that threshold (NaN when the share is 0)."""

    accuracy: float
    threshold: float


@dataclass(frozen=True)
class ClassificationAccuracies:
    """Accuracies of the module.

    Attributes:
        samples: how many were scored.
        sample_wise, class_wise, uniform: see the module.
        threshold: the best one for all; the middle of the widest best interval, NaN when none is right about anybody.
        learned_threshold: what the network learned, None where it was not given.
        at_learned: share that is right at the learned threshold, None likewise.
        distance: ``|threshold - learned_threshold|``, None likewise.
    """

    samples: int
    sample_wise: float
    class_wise: float
    uniform: float
    threshold: float
    learned_threshold: float | None = None
    at_learned: float | None = None
    distance: float | None = None


class ClassificationScores:
    """Scores that come in parts; two numbers per sample are kept."""

    def __init__(self) -> None:
        self._parts: list[tuple[Float64Array, Float64Array, IntArray]] = []

    def update(self, scores: Any, labels: Any) -> None:
        """Take scores ``(n, classes)`` and labels ``(n,)`` in.

        Raises:
            GeometryError: when shapes do not fit.
            InputError: for fewer than two classes, NaN or infinity, or labels that are no classes.
        """
        z = finite(scores, 2, "scores (n, classes)")
        y = whole(labels, len(z), "labels")
        if z.shape[1] < 2:
            raise InputError(f"scores of two classes or more are compared, got {z.shape[1]}")
        if len(y) and not (y.min() >= 0 and y.max() < z.shape[1]):
            raise InputError(f"labels must lie in 0 to {z.shape[1] - 1}, got {y.min()} to {y.max()}")
        rows = np.arange(len(y))
        own = z[rows, y]
        z[rows, y] = -np.inf
        self._parts.append((own, z.max(axis=1), y))

    def merge(self, other: ClassificationScores) -> None:
        """Take in what another one holds, such as that of another process."""
        self._parts.extend(other._parts)

    def uniform_accuracy(self) -> UniformAccuracy:
        """The best threshold for all; raises InputError without samples."""
        own, other, _ = self._all()
        right, threshold = _sweep(own, other)
        return UniformAccuracy(right / len(own), threshold)

    def result(self, learned_threshold: float | None = None) -> ClassificationAccuracies:
        """All accuracies; raises InputError without samples, or for a learned threshold that is not finite."""
        own, other, labels = self._all()
        uniform, threshold = self.uniform_accuracy()
        order = np.argsort(labels, kind="stable")
        starts = np.flatnonzero(np.diff(labels[order])) + 1
        by_class = sum(_sweep(own[members], other[members])[0] for members in np.split(order, starts))
        learned = {}
        if learned_threshold is not None:
            b = float(learned_threshold)
            if not np.isfinite(b):
                raise InputError(f"the learned threshold must be finite, got {b}")
            at = float(np.mean((own > b) & (b >= other)))
            learned = {"learned_threshold": b, "at_learned": at, "distance": abs(threshold - b)}
        return ClassificationAccuracies(
            len(own), float(np.mean(own > other)), by_class / len(own), uniform, threshold, **learned
        )

    def _all(self) -> tuple[Float64Array, Float64Array, IntArray]:
        if not sum(len(labels) for _, _, labels in self._parts):
            raise InputError("there are no scores to measure")
        own, other, labels = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
        return own, other, labels


def uniform_accuracy(scores: Any, labels: Any) -> UniformAccuracy:
    """Largest share of samples that one threshold for all is right about (see the module), and that threshold.

    Args:
        scores: ``(n, classes)``.
        labels: ``(n,)``, whole numbers in [0, classes).

    Raises:
        GeometryError: when shapes do not fit.
        InputError: for no samples, one class, NaN or infinity, or labels that are no classes.
    """
    store = ClassificationScores()
    store.update(scores, labels)
    return store.uniform_accuracy()


def _sweep(own: Float64Array, other: Float64Array) -> tuple[int, float]:
    """How many of the intervals ``[other, own)`` share a point at most, and such a point."""
    possible = own > other
    lows, highs = np.sort(other[possible]), np.sort(own[possible])
    if not len(lows):
        return 0, float("nan")
    edges = np.unique(np.concatenate([lows, highs]))
    inside = np.searchsorted(lows, edges, "right") - np.searchsorted(highs, edges, "right")
    first, last = widest_run(inside[:-1] == inside.max(), edges)
    return int(inside.max()), midpoint(float(edges[first]), float(edges[last + 1]))
