"""What a network that labels voxels is trained on: cross-entropy, overlap, and overlap of centre lines.

Conventions
    Logits are ``(N, classes, D, H, W)``; label 0 is background, labels from 1 up are fibre. Labels are
    ``(N, 1, D, H, W)`` of any integer type. Voxels with the ignore label (255 unless told) count in no sum: no loss,
    no gradient. Losses are scalars to minimise. Sums run over the whole batch, so that cubes without fibre do not
    weigh as much as full ones; a batch without any voxel that counts gives 0.
    Arithmetic is float32 (float64 for float64 logits), also under autocast and for half-precision logits.

Centre lines
    :class:`SoftClDice` and :class:`SkeletonRecall` ask about fibre against background only: with more than two
    classes, all labels from 1 up are one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medwave.core.errors import GeometryError, InputError

IGNORE_LABEL = 255
"""Label of voxels that nobody knows the truth of: uncertain radii, fibres that were not annotated."""

_TINY = 1e-12


class VoxelCrossEntropy(nn.Module):
    """Weighted mean over voxels of ``-log p``: ``sum(w[y] * -log p[y]) / sum(w[y])``.

    Args:
        class_weights: one per class; the published ones are 1 for background and 5 for fibre.
        ignore_label: see the module.

    Raises:
        InputError: when weights are negative, not finite, or all zero.
    """

    def __init__(self, class_weights: Sequence[float] = (1.0, 5.0), *, ignore_label: int = IGNORE_LABEL) -> None:
        super().__init__()
        weights = torch.tensor([float(w) for w in class_weights], dtype=torch.float64)
        if len(weights) < 2 or not torch.isfinite(weights).all() or (weights < 0).any() or not weights.any():
            raise InputError(f"class_weights needs one weight of at least 0 per class, not all 0; got {class_weights}")
        self.register_buffer("class_weights", weights, persistent=False)
        self.ignore_label = ignore_label

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss.

        Raises:
            GeometryError: when shapes do not fit.
            InputError: when labels are not whole numbers or no classes, or there are more classes than weights.
        """
        logits = _exact(logits, labels, self.ignore_label)
        with torch.autocast(logits.device.type, enabled=False):
            return self._of(F.log_softmax(logits, dim=1), labels)

    def _of(self, log_probabilities: Tensor, labels: Tensor) -> Tensor:
        classes = log_probabilities.shape[1]
        if len(self.class_weights) != classes:
            raise InputError(f"class_weights has {len(self.class_weights)} weights for {classes} classes")
        loss = amount = log_probabilities.new_zeros(())
        for label in range(classes):
            here = (labels[:, 0] == label) & (labels[:, 0] != self.ignore_label)
            weight = self.class_weights[label].to(log_probabilities.dtype)
            loss = loss - weight * torch.where(here, log_probabilities[:, label], 0).sum()
            amount = amount + weight * here.sum()
        return loss / amount.clamp_min(_TINY)


class SoftDice(nn.Module):
    """One minus the overlap ``2 sum(p t) / (sum(p) + sum(t))`` of probability and truth, mean over the fibre classes.

    Milletari et al. 2016, doi 10.1109/3DV.2016.79.

    Args:
        smooth: voxels added above and below the line, so that an empty truth has a finite slope.
        ignore_label: see the module.

    Raises:
        InputError: when ``smooth`` is not positive.
    """

    def __init__(self, *, smooth: float = 1.0, ignore_label: int = IGNORE_LABEL) -> None:
        super().__init__()
        self.smooth = _positive("smooth", smooth)
        self.ignore_label = ignore_label

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss; raises GeometryError when shapes do not fit, InputError for labels that are no classes."""
        logits = _exact(logits, labels, self.ignore_label)
        with torch.autocast(logits.device.type, enabled=False):
            return self._of(logits.softmax(dim=1), labels)

    def _of(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        counts = labels[:, 0] != self.ignore_label
        losses = []
        for label in range(1, probabilities.shape[1]):
            truth = ((labels[:, 0] == label) & counts).to(probabilities.dtype)
            p = torch.where(counts, probabilities[:, label], 0)
            losses.append(1 - (2 * (p * truth).sum() + self.smooth) / (p.sum() + truth.sum() + self.smooth))
        return torch.stack(losses).mean()


class SoftClDice(nn.Module):
    """One minus the clDice of probability and truth, with soft skeletons.

    The harmonic mean of how much of the predicted centre line lies in the truth and how much of the true centre line
    lies in the prediction (Shit et al., CVPR 2021, doi 10.1109/CVPR46437.2021.01629). Ignored voxels are background
    to the truth's skeleton and count in neither share. On a CPU three iterations, with their gradient, cost as much
    as a training step of a small network (0.4 s for a cube of 32x128x128); :class:`SkeletonRecall` costs 5 ms.

    Args:
        iterations: erosions of the soft skeleton: at least the largest fibre radius in voxels.
        smooth: as in :class:`SoftDice`.
        ignore_label: see the module.

    Raises:
        InputError: when ``iterations`` is below 0 or ``smooth`` is not positive.
    """

    def __init__(self, iterations: int = 3, *, smooth: float = 1.0, ignore_label: int = IGNORE_LABEL) -> None:
        super().__init__()
        if iterations < 0:
            raise InputError(f"iterations counts erosions and must be at least 0, got {iterations}")
        self.iterations = iterations
        self.smooth = _positive("smooth", smooth)
        self.ignore_label = ignore_label

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss; raises GeometryError when shapes do not fit, InputError for labels that are no classes."""
        logits = _exact(logits, labels, self.ignore_label)
        with torch.autocast(logits.device.type, enabled=False):
            return self._of(logits.softmax(dim=1), labels)

    def _of(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        counts = labels != self.ignore_label
        truth = ((labels > 0) & counts).to(probabilities.dtype)
        fibre = probabilities[:, 1:].sum(dim=1, keepdim=True)
        predicted_line = torch.where(counts, soft_skeleton(fibre, self.iterations), 0)
        true_line = soft_skeleton(truth, self.iterations)
        precision = ((predicted_line * truth).sum() + self.smooth) / (predicted_line.sum() + self.smooth)
        recall = ((true_line * fibre).sum() + self.smooth) / (true_line.sum() + self.smooth)
        return 1 - 2 * precision * recall / (precision + recall)


class SkeletonRecall(nn.Module):
    """One minus the share of the true centre line that the prediction covers.

    Kirchhoff et al., ECCV 2024, arXiv 2404.03010. Costs next to nothing, since the centre line, thickened to a thin
    tube, is made once with the training data. Use it beside a loss that punishes false fibre.

    Args:
        smooth: as in :class:`SoftDice`.
        ignore_label: see the module.

    Raises:
        InputError: when ``smooth`` is not positive.
    """

    def __init__(self, *, smooth: float = 1.0, ignore_label: int = IGNORE_LABEL) -> None:
        super().__init__()
        self.smooth = _positive("smooth", smooth)
        self.ignore_label = ignore_label

    def forward(self, logits: Tensor, labels: Tensor, skeleton: Tensor) -> Tensor:
        """The loss.

        Args:
            logits, labels: see the module.
            skeleton: thin tubes along the true centre lines, ``(N, 1, D, H, W)``: not 0 inside, 0 outside.

        Raises:
            GeometryError: when shapes do not fit.
            InputError: when labels are not whole numbers or no classes.
        """
        logits = _exact(logits, labels, self.ignore_label)
        with torch.autocast(logits.device.type, enabled=False):
            return self._of(logits.softmax(dim=1), labels, skeleton)

    def _of(self, probabilities: Tensor, labels: Tensor, skeleton: Tensor) -> Tensor:
        if skeleton.shape != labels.shape:
            raise GeometryError(
                f"the skeleton must have the shape of the labels {tuple(labels.shape)}, got {tuple(skeleton.shape)}"
            )
        line = (skeleton != 0) & (labels != self.ignore_label)
        covered = torch.where(line, probabilities[:, 1:].sum(dim=1, keepdim=True), 0).sum()
        return 1 - (covered + self.smooth) / (line.sum() + self.smooth)


class FibreLoss(nn.Module):
    """A weighted sum of the four losses; the softmax is done once, and losses of weight 0 are not computed.

    Args:
        cross_entropy, dice, cldice, skeleton_recall: weights of the parts.
        class_weights: of the cross-entropy, one per class.
        cldice_iterations: erosions of the soft skeleton.
        smooth: of the last three parts, in voxels.
        ignore_label: see the module.

    Raises:
        InputError: when a weight is negative or all are 0, and as the parts do.
    """

    def __init__(
        self,
        *,
        cross_entropy: float = 1.0,
        dice: float = 1.0,
        cldice: float = 0.0,
        skeleton_recall: float = 0.0,
        class_weights: Sequence[float] = (1.0, 5.0),
        cldice_iterations: int = 3,
        smooth: float = 1.0,
        ignore_label: int = IGNORE_LABEL,
    ) -> None:
        super().__init__()
        weights = {
            "cross_entropy": float(cross_entropy),
            "dice": float(dice),
            "cldice": float(cldice),
            "skeleton_recall": float(skeleton_recall),
        }
        if not all(0 <= w < float("inf") for w in weights.values()) or not any(weights.values()):
            raise InputError(f"weights of the losses must be finite, at least 0 and not all 0, got {weights}")
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.cross_entropy = VoxelCrossEntropy(class_weights, ignore_label=ignore_label)
        self.dice = SoftDice(smooth=smooth, ignore_label=ignore_label)
        self.cldice = SoftClDice(cldice_iterations, smooth=smooth, ignore_label=ignore_label)
        self.skeleton_recall = SkeletonRecall(smooth=smooth, ignore_label=ignore_label)

    def forward(self, logits: Tensor, labels: Tensor, skeleton: Tensor | None = None) -> Tensor:
        """The weighted sum; errors as those of the parts."""
        parts = self.parts(logits, labels, skeleton)
        return torch.stack([weight * parts[name] for name, weight in self.weights.items()]).sum()

    def parts(self, logits: Tensor, labels: Tensor, skeleton: Tensor | None = None) -> dict[str, Tensor]:
        """Each part by name, without its weight; parts of weight 0 are left out.

        Raises:
            InputError: when the skeleton is needed and missing, and as the parts do.
        """
        if "skeleton_recall" in self.weights and skeleton is None:
            raise InputError("skeleton_recall needs the skeleton of each cube: give it, or set its weight to 0")
        logits = _exact(logits, labels, self.dice.ignore_label)
        found = {}
        with torch.autocast(logits.device.type, enabled=False):
            log_probabilities = F.log_softmax(logits, dim=1)
            probabilities = log_probabilities.exp()
            for name in self.weights:
                if name == "cross_entropy":
                    found[name] = self.cross_entropy._of(log_probabilities, labels)
                elif name == "skeleton_recall":
                    found[name] = self.skeleton_recall._of(probabilities, labels, skeleton)
                else:
                    found[name] = getattr(self, name)._of(probabilities, labels)
        return found


def soft_skeleton(mask: Tensor, iterations: int) -> Tensor:
    """Centre lines of a soft mask by repeated erosion: what an opening would remove, collected over all widths.

    Args:
        mask: ``(N, C, D, H, W)`` in [0, 1].
        iterations: erosions, at least the largest radius in voxels.

    Returns:
        Soft skeleton of the same shape, in [0, 1].

    Source: Shit et al., CVPR 2021, doi 10.1109/CVPR46437.2021.01629, algorithm 1.
    """
    eroded = mask
    skeleton = torch.zeros_like(mask)
    for step in range(iterations + 1):
        smaller = _erode(eroded)
        ridge = F.relu(eroded - _dilate(smaller))
        skeleton = ridge if step == 0 else skeleton + F.relu(ridge - skeleton * ridge)
        eroded = smaller
    return skeleton


def _erode(mask: Tensor) -> Tensor:
    """Smallest value of a voxel and its six face neighbours (those inside the volume)."""
    smallest = mask
    for axis in (2, 3, 4):
        if mask.shape[axis] > 1:
            before, after = _neighbours(mask, axis)
            smallest = torch.minimum(smallest, torch.minimum(before, after))
    return smallest


def _dilate(mask: Tensor) -> Tensor:
    """Largest value of the 27 voxels around a voxel (those inside the volume), one axis after the other."""
    for axis in (2, 3, 4):
        if mask.shape[axis] > 1:
            before, after = _neighbours(mask, axis)
            mask = torch.maximum(mask, torch.maximum(before, after))
    return mask


def _neighbours(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The next lower and higher voxel along an axis; border voxels stand for what is missing."""
    n = x.shape[axis]
    before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, n - 1)], dim=axis)
    after = torch.cat([x.narrow(axis, 1, n - 1), x.narrow(axis, n - 1, 1)], dim=axis)
    return before, after


def _positive(name: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise InputError(f"{name} must be above 0 and finite, got {value}")
    return float(value)


def _exact(logits: Tensor, labels: Tensor, ignore_label: int) -> Tensor:
    """Logits as float32 or better, after a look at shapes and labels (on a GPU that would stop the work)."""
    if logits.dim() != 5 or labels.shape != (logits.shape[0], 1, *logits.shape[2:]):
        raise GeometryError(
            "losses take logits (N, classes, D, H, W) and labels (N, 1, D, H, W), got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.is_complex():
        raise InputError(f"labels must be whole numbers, got {labels.dtype}; convert them, such as with .long()")
    if labels.device.type == "cpu":
        strange = labels[((labels < 0) | (labels >= logits.shape[1])) & (labels != ignore_label)]
        if len(strange):
            raise InputError(
                f"labels of {logits.shape[1]} classes lie in 0 to {logits.shape[1] - 1}, or are {ignore_label} where "
                f"nobody knows, got {int(strange[0])}"
            )
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
