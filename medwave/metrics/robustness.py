"""How much worse a classifier does on corrupted images, and how often it stays with its answer.

Conventions
    Errors are shares of wrong answers in [0, 1], by kind of corruption, one for each severity. The corruption error of
    a kind is the sum of its errors over that of a reference network; mCE is 100 times the mean over all kinds. Where no
    AlexNet was measured on the same images, the twin without wavelets is the reference: then 100 means "as the twin".

Source
    Hendrycks & Dietterich, arXiv:1903.12261; shift consistency: Zhang, arXiv:1904.11486.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medwave.core.errors import GeometryError, InputError

ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640, "defocus_blur": 0.819880,
    "glass_blur": 0.826268, "motion_blur": 0.785948, "zoom_blur": 0.798360, "snow": 0.866816, "frost": 0.826572,
    "fog": 0.819324, "brightness": 0.564592, "contrast": 0.853204, "elastic": 0.646056, "pixelate": 0.717840,
    "jpeg": 0.606500,
}  # fmt: skip
"""Published mean errors of AlexNet on ImageNet-C; for ImageNet and the published images only."""


class CorruptionErrors(NamedTuple):
    """Corruption errors in per cent of the reference.

    Attributes:
        mce: mean over all kinds.
        by_kind: of each kind.
        by_group: mean over the kinds of each group.
        relative_mce: mean over all kinds of the loss against clean images over that of the reference; NaN without
            the reference's clean error, infinite where the reference lost nothing.
    """

    mce: float
    by_kind: dict[str, float]
    by_group: dict[str, float]
    relative_mce: float


def corruption_errors(
    errors: Mapping[str, Sequence[float]],
    reference: Mapping[str, Sequence[float]],
    groups: Mapping[str, Sequence[str]],
    *,
    clean: float | None = None,
    reference_clean: float | None = None,
) -> CorruptionErrors:
    """Errors of a network against those of a reference.

    Args:
        errors: kind -> error at each severity.
        reference: the same of the reference network; :data:`ALEXNET_ERRORS` has one mean, which counts for all.
        groups: group -> its kinds.
        clean, reference_clean: errors on clean images.

    Raises:
        InputError: when kinds differ, there are none, or the reference makes no error.
    """
    if not errors or errors.keys() != reference.keys():
        raise InputError(f"both networks need errors of the same kinds, got {list(errors)} and {list(reference)}")
    mine = {kind: float(np.mean(values)) for kind, values in errors.items()}
    theirs = {kind: float(np.mean(values)) for kind, values in reference.items()}
    if min(theirs.values()) <= 0:
        best = min(theirs, key=theirs.__getitem__)
        raise InputError(f"the reference makes no error under {best}: nothing can be measured against it")
    by_kind = {kind: 100 * mine[kind] / theirs[kind] for kind in mine}
    present = {group: [by_kind[k] for k in kinds if k in by_kind] for group, kinds in groups.items()}
    by_group = {group: float(np.mean(values)) for group, values in present.items() if values}
    relative = float("nan")
    if clean is not None and reference_clean is not None:
        lost = [theirs[k] - reference_clean for k in mine]
        relative = 100 * float(
            np.mean([(mine[k] - clean) / r if r else np.inf for k, r in zip(mine, lost, strict=True)])
        )
    return CorruptionErrors(float(np.mean(list(by_kind.values()))), by_kind, by_group, relative)


def confusion_matrix(truth: Any, answers: Any, classes: int, *, ignore: int | None = None) -> np.ndarray:
    """Counts ``(classes, classes)``: row the true class, column the answer.

    Args:
        truth, answers: whole numbers of one shape.
        classes: how many there are.
        ignore: value of the truth where nobody knows.

    Raises:
        GeometryError: when shapes differ.
        InputError: when a class is out of range.
    """
    t, a = np.asarray(truth).ravel(), np.asarray(answers).ravel()
    if t.shape != a.shape:
        raise GeometryError(f"truth and answers have one shape, got {np.shape(truth)} and {np.shape(answers)}")
    if ignore is not None:
        a, t = a[t != ignore], t[t != ignore]
    for name, values in (("truth", t), ("answers", a)):
        if values.size and not (values.min() >= 0 and values.max() < classes):
            raise InputError(f"{name}: classes lie in 0 to {classes - 1}, got {values.min()} to {values.max()}")
    joint = t.astype(np.int64) * classes + a.astype(np.int64)
    return np.bincount(joint, minlength=classes**2).reshape(classes, classes)


class OverlapScores(NamedTuple):
    """What one confusion matrix over a whole set says; shares in [0, 1].

    Attributes:
        pixel_accuracy: share of the samples that are right.
        class_accuracy: mean over the classes that occur of their share that is right.
        mean_iou: mean intersection over union of the classes that occur in truth or answers.
        weighted_iou: mean weighted by how often a class occurs.
        iou: of each class; NaN where it occurs in neither.
        accuracy: of each class; NaN where it does not occur.
    """

    pixel_accuracy: float
    class_accuracy: float
    mean_iou: float
    weighted_iou: float
    iou: np.ndarray
    accuracy: np.ndarray


def overlap_scores(matrix: Any) -> OverlapScores:
    """Scores of a confusion matrix ``(classes, classes)``, row the true class.

    Raises:
        InputError: when it counts nothing.
    """
    counts = np.asarray(matrix, dtype=np.float64)
    if not counts.sum():
        raise InputError("there is nothing to score: no sample has a known class")
    right, true, made = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    with np.errstate(invalid="ignore"):
        iou, accuracy = right / (true + made - right), right / true
    share = true / true.sum()
    return OverlapScores(
        float(right.sum() / counts.sum()),
        float(np.nanmean(accuracy)),
        float(np.nanmean(iou)),
        float(np.nansum(share * iou)),
        iou,
        accuracy,
    )


def shift_consistency(first: Any, second: Any) -> float:
    """Share of pairs of crops of one image with the same answer.

    Raises:
        GeometryError: when shapes differ.
        InputError: when there is none.
    """
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape:
        raise GeometryError(f"each crop has one answer, got {a.shape} and {b.shape}")
    if not a.size:
        raise InputError("there are no answers to compare")
    return float(np.mean(a == b))
