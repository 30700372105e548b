"""How well boxes were found: average precision, by MONAI's metric of COCO.

Conventions
    Boxes ``(K, 2 * ndim)``, first corner and far corner. A found box is right when a true box of its class, which no
    surer one has taken, overlaps it by the given intersection over union. Precision is averaged over 101 recalls.

References
    Lin et al., COCO, doi:10.1007/978-3-319-10602-1_48; for volumes Baumgartner et al., nnDetection, arXiv:2106.00817.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating | np.integer]

MOST_BOXES = 100
"""So many boxes of an image are looked at, the surest first."""


class FoundBoxes(NamedTuple):
    """Boxes ``(K, 2 * ndim)``, their labels ``(K,)`` and scores ``(K,)``."""

    boxes: Array
    labels: Array
    scores: Array


class OperatingPoint(NamedTuple):
    """The score from which boxes count, with what they are worth there: the highest F1 over all images."""

    score: float
    precision: float
    recall: float
    f1: float


class AveragePrecision(NamedTuple):
    """Mean over the classes that occur, and each by its name; NaN for a class without a true box."""

    mean: float
    by_class: dict[str, float]


def average_precision(
    found: Sequence[FoundBoxes], boxes: Sequence[Array], labels: Sequence[Array], classes: Sequence[str],
    *, overlap: float = 0.5,
) -> AveragePrecision:  # fmt: skip
    """Average precision over images.

    Args:
        found: what was found in each image.
        boxes, labels: what is there in each image.
        classes: names of the labels.
        overlap: intersection over union from which a box is right.
    """
    from monai.apps.detection.metrics.coco import COCOMetric
    from monai.apps.detection.metrics.matching import matching_batch
    from monai.data.box_utils import box_iou

    metric = COCOMetric(
        list(classes), iou_list=(overlap,), iou_range=(overlap, overlap, 1.0), max_detection=(MOST_BOXES,),
        verbose=False,
    )  # fmt: skip
    matches = matching_batch(
        box_iou, metric.iou_thresholds, [f.boxes for f in found], [f.labels for f in found],
        [f.scores for f in found], list(boxes), list(labels), max_detections=MOST_BOXES,
    )  # fmt: skip
    ending = f"AP_IoU_{overlap:.2f}_MaxDet_{MOST_BOXES}"
    values = metric(matches)[0]
    there = {int(label) for each in labels for label in each}
    by_class = {
        name: float(values[f"{name}_{ending}"]) if number in there else float("nan")
        for number, name in enumerate(classes)
    }
    return AveragePrecision(float(np.mean([by_class[classes[number]] for number in sorted(there)])), by_class)


def right_boxes(
    found: FoundBoxes, boxes: Array, labels: Array, *, overlap: float = 0.5
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
    """Which boxes found in an image are right, and which true box each of them takes.

    The surest box chooses first, and takes the true box of its class that it overlaps most of those still free. What
    a box takes depends on surer ones only, so that the answer holds from any score on.

    Returns:
        ``(K,)`` whether it is right, and ``(K,)`` number of the true box, -1 for none.
    """
    from monai.data.box_utils import box_iou

    taken = np.full(len(found.boxes), -1, np.intp)
    if not len(found.boxes) or not len(boxes):
        return taken >= 0, taken
    shared = np.asarray(box_iou(found.boxes.astype(np.float32), boxes.astype(np.float32)), np.float64)
    shared[found.labels[:, None] != labels[None]] = 0
    for each in np.argsort(-found.scores, kind="stable"):
        best = int(shared[each].argmax())
        if shared[each, best] >= overlap:
            taken[each] = best
            shared[:, best] = 0
    return taken >= 0, taken


def operating_point(
    found: Sequence[FoundBoxes], boxes: Sequence[Array], labels: Sequence[Array], *, overlap: float = 0.5
) -> OperatingPoint:
    """The score from which the boxes of all images together have the highest F1, and precision and recall there.

    Without any box that is right, no box counts: the score is infinite, precision and recall are 0.
    """
    right = np.concatenate([
        right_boxes(each, b, n, overlap=overlap)[0] for each, b, n in zip(found, boxes, labels, strict=True)
    ])  # fmt: skip
    scores = np.concatenate([each.scores for each in found])
    there = sum(map(len, labels))
    if not right.any():
        return OperatingPoint(float("inf"), 0.0, 0.0, 0.0)
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + there)
    last = np.append(np.diff(scores[order]) != 0, True)  # boxes of one score count together
    best = int(np.where(last, f1, -1).argmax())
    return OperatingPoint(
        float(scores[order[best]]), float(hits[best] / (best + 1)), float(hits[best] / there), float(f1[best])
    )
