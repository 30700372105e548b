"""Same or different: measures of pairs of images with one score each.

Conventions
    ``scores`` ``(n,)``, higher is more alike, and ``same`` ``(n,)`` boolean. A pair is accepted when its score is
    ABOVE the threshold. FAR: share of different pairs that are accepted; TAR: share of same pairs that are; FRR is
    ``1 - TAR``. A threshold learned in training is not a threshold for pairs.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from medwave.core.errors import GeometryError, InputError
from medwave.metrics.recognition.arrays import (
    BoolArray,
    Float64Array,
    finite,
    midpoint,
    to_numpy,
    unit_rows,
    whole,
    widest_run,
)

_BLOCK = 1024


class Roc(NamedTuple):
    """Operating points from "accept nothing" to "accept everything".

    Attributes:
        far, tar: ``(m,)``, both rising from 0 to 1.
        thresholds: ``(m,)``, each different score falling, then minus infinity.
    """

    far: Float64Array
    tar: Float64Array
    thresholds: Float64Array


class EqualErrorRate(NamedTuple):
    """The rate where FAR and FRR cross, between two points of the curve, and the threshold of the nearer of the two."""

    rate: float
    threshold: float


class TarAtFar(NamedTuple):
    """Share of same pairs accepted, at which threshold, and the FAR it really has (below the wanted one)."""

    tar: float
    threshold: float
    far: float


class FoldedAccuracy(NamedTuple):
    """Accuracy over folds.

    Attributes:
        mean, std: over the folds; the standard deviation divides by their number.
        accuracies: ``(folds,)``.
        thresholds: ``(folds,)``, each chosen on the other folds.
    """

    mean: float
    std: float
    accuracies: Float64Array
    thresholds: Float64Array


class VerificationScores:
    """Scores of pairs that come in parts.

    Args:
        largest_negatives: keep this many of the scores of different pairs, the largest, and count the others: enough
            for :meth:`tar_at_far` at small FAR over billions of pairs. Default: keep all.

    Raises:
        InputError: when ``largest_negatives`` is below 1.
    """

    def __init__(self, largest_negatives: int | None = None) -> None:
        if largest_negatives is not None and largest_negatives < 1:
            raise InputError(f"largest_negatives must be 1 or more, got {largest_negatives}")
        self._limit = largest_negatives
        self._same: list[Float64Array] = []
        self._different: list[Float64Array] = []
        self._held = 0
        self._complete: float = math.inf  # so many of the largest different pairs are here whatever was dropped
        self.negatives = 0
        """Number of different pairs, also of those that are not kept."""

    def update(self, scores: Any, same: Any) -> None:
        """Take pairs in; raises GeometryError when shapes do not fit, InputError for NaN or infinity."""
        values, alike = _pairs(scores, same)
        self._same.append(values[alike])
        self._keep(values[~alike], int((~alike).sum()))

    def update_all_pairs(self, embeddings: Any, labels: Any) -> None:
        """Take in each pair of different images of a set once, scored by cosine.

        Args:
            embeddings: ``(n, d)``.
            labels: ``(n,)``, identity of each.

        Raises:
            GeometryError: when shapes do not fit.
            InputError: for a row of zeros, NaN or infinity.
        """
        rows = unit_rows(embeddings, "embeddings (n, d)")
        identity = whole(labels, len(rows), "labels")
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            for other in range(start, len(rows), _BLOCK):
                cosine = rows[block] @ rows[other : other + _BLOCK].T
                pairs = np.triu(np.ones(cosine.shape, dtype=bool), k=1) if other == start else slice(None)
                alike = identity[block, None] == identity[other : other + _BLOCK]
                self.update(cosine[pairs].ravel(), alike[pairs].ravel())

    def merge(self, other: VerificationScores) -> None:
        """Take in what another one holds, such as that of another process."""
        self._same.extend(other._same)
        count = other.negatives
        self._complete = min(self._complete, other._complete)
        for values in other._different:
            self._keep(values, 0)
        self.negatives += count

    def arrays(self) -> tuple[Float64Array, BoolArray]:
        """All scores and whether they are of the same identity; raises InputError when some were not kept."""
        same, different = np.concatenate([[], *self._same]), np.concatenate([[], *self._different])
        if len(different) < self.negatives:
            raise InputError(
                f"only the {self._complete} largest of {self.negatives} negatives were kept; this measure needs all: "
                "leave largest_negatives out"
            )
        return np.concatenate([same, different]), np.arange(len(same) + len(different)) < len(same)

    def tar_at_far(self, far: float) -> TarAtFar:
        """As :func:`tar_at_far`; raises InputError also when too few negatives were kept."""
        same, different = np.concatenate([[], *self._same]), np.concatenate([[], *self._different])
        return _tar_at_far(same, different, self.negatives, far, self._complete)

    def _keep(self, values: Float64Array, count: int) -> None:
        self._different.append(values)
        self.negatives += count
        self._held += len(values)
        if self._limit is not None and self._held > 2 * self._limit + _BLOCK**2:
            held = np.concatenate(self._different)
            self._different = [np.partition(held, len(held) - self._limit)[-self._limit :]]
            self._held = self._limit
            self._complete = min(self._complete, self._limit)


def roc(scores: Any, same: Any) -> Roc:
    """The whole curve, one point per different score.

    Raises:
        GeometryError: when shapes do not fit.
        InputError: when there are no same or no different pairs, or scores are NaN or infinite.
    """
    positive, negative = _both_kinds(scores, same)
    values = np.unique(np.concatenate([positive, negative]))[::-1]
    tar, far = (1 - np.searchsorted(np.sort(x), values, "right") / len(x) for x in (positive, negative))
    return Roc(np.append(far, 1.0), np.append(tar, 1.0), np.append(values, -np.inf))


def auroc(scores: Any, same: Any) -> float:
    """Chance that a same pair scores above a different one, ties counting half: the area under the curve.

    Errors as in :func:`roc`.
    """
    positive, negative = _both_kinds(scores, same)
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(below.mean() / (2 * len(negative)))


def equal_error_rate(scores: Any, same: Any) -> EqualErrorRate:
    """Where FAR and FRR are equal; linear between neighbouring points of the curve. Errors as in :func:`roc`."""
    curve = roc(scores, same)
    excess = curve.far - (1 - curve.tar)
    after = int(np.argmax(excess >= 0))
    before = after - 1  # the first point, where nothing is accepted, has an excess of -1
    share = -excess[before] / (excess[after] - excess[before])
    rate = curve.far[before] + share * (curve.far[after] - curve.far[before])
    nearer = before if -excess[before] <= excess[after] else after
    return EqualErrorRate(float(rate), float(curve.thresholds[nearer]))


def tar_at_far(scores: Any, same: Any, far: float) -> TarAtFar:
    """Share of same pairs accepted when at most a share ``far`` of the different pairs is.

    The threshold is the ``ceil(far * m)``-th largest of the ``m`` scores of different pairs, with ``far`` read as the
    decimal number it is written as.

    Raises:
        GeometryError: when shapes do not fit.
        InputError: when there are too few different pairs for this FAR (``far * m < 1``), none of a kind, or ``far``
            is not in (0, 1).
    """
    positive, negative = _both_kinds(scores, same)
    return _tar_at_far(positive, negative, len(negative), far)


def folded_accuracy(scores: Any, same: Any, folds: Any = 10) -> FoldedAccuracy:
    """Accuracy on each fold at the threshold that is best on the others.

    Args:
        scores, same: see the module, in the order of the protocol.
        folds: number of folds, which are then consecutive and of equal length (as in LFW's lists of pairs), or the
            fold of each pair ``(n,)``.

    Raises:
        GeometryError: when shapes do not fit.
        InputError: for fewer than two folds, or when the other folds of one lack a kind of pair.
    """
    values, alike = _pairs(scores, same)
    if np.ndim(folds) == 0:
        if not 2 <= int(folds) <= len(values):
            raise InputError(f"folds must be at least 2 and at most the {len(values)} pairs, got {folds}")
        member = np.repeat(np.arange(int(folds)), [len(p) for p in np.array_split(values, int(folds))])
    else:
        member = whole(folds, len(values), "folds")
    names = np.unique(member)
    if len(names) < 2:
        raise InputError("cross-validation needs two folds or more")
    accuracies, thresholds = [], []
    for name in names:
        held_out = member == name
        threshold = _most_accurate(*_both_kinds(values[~held_out], alike[~held_out]))
        accuracies.append(np.mean((values[held_out] > threshold) == alike[held_out]))
        thresholds.append(threshold)
    found = np.array(accuracies)
    return FoldedAccuracy(float(found.mean()), float(found.std()), found, np.array(thresholds))


def _most_accurate(positive: Float64Array, negative: Float64Array) -> float:
    """The middle of the widest interval of thresholds that judge most pairs rightly."""
    positive, negative = np.sort(positive), np.sort(negative)
    edges = np.concatenate([[-np.inf], np.unique(np.concatenate([positive, negative])), [np.inf]])
    right = len(positive) - np.searchsorted(positive, edges, "right") + np.searchsorted(negative, edges, "right")
    first, last = widest_run(right[:-1] == right.max(), edges)
    low, high = float(edges[first]), float(edges[last + 1])
    return midpoint(low, high) if math.isfinite(low) and math.isfinite(high) else low


def _tar_at_far(
    positive: Float64Array, kept: Float64Array, negatives: int, far: float, complete: float = math.inf
) -> TarAtFar:
    if not 0 < far < 1:
        raise InputError(f"far is a share between 0 and 1, got {far}")
    if not len(positive) or not negatives:
        raise InputError(f"verification needs same and different pairs, got {len(positive)} and {negatives}")
    wanted = Fraction(repr(float(far))) * negatives
    if wanted < 1:
        raise InputError(
            f"a FAR of {far:g} cannot be measured with {negatives} different pairs: bring "
            f"{math.ceil(1 / Fraction(repr(float(far))))} or more, or ask for a larger FAR"
        )
    rank = math.ceil(wanted)
    if rank > complete:
        raise InputError(f"a FAR of {far:g} needs the {rank} largest negatives, {complete} were kept: keep more")
    threshold = np.partition(kept, len(kept) - rank)[len(kept) - rank]
    accepted = np.count_nonzero(kept > threshold) / negatives
    return TarAtFar(float(np.mean(positive > threshold)), float(threshold), float(accepted))


def _pairs(scores: Any, same: Any) -> tuple[Float64Array, BoolArray]:
    values = finite(scores, 1, "scores (n,)")
    alike = to_numpy(same)
    if alike.shape != values.shape:
        raise GeometryError(f"there is one answer for each of {len(values)} scores, got shape {alike.shape}")
    if alike.dtype != np.bool_ and not np.isin(alike, (0, 1)).all():
        raise InputError("same holds True or False (1 or 0) for each pair, got other values")
    return values, alike.astype(bool)


def _both_kinds(scores: Any, same: Any) -> tuple[Float64Array, Float64Array]:
    values, alike = _pairs(scores, same)
    if not alike.any() or alike.all():
        raise InputError(
            f"verification needs same and different pairs, got {int(alike.sum())} and {int((~alike).sum())}"
        )
    return values[alike], values[~alike]
