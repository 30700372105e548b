"""Overlap of label maps as a loss of the displacement that carries one onto the other."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn

from medwave.core.errors import GeometryError, InputError
from medwave.fields import positions

_TINY = 1e-6


class LabelOverlap(nn.Module):
    """One minus the mean soft Dice of all structures, after the moving label map went through a displacement.

    The indicator image of every structure is read linearly, as if each were warped on its own: with ``m`` the warped
    and ``f`` the fixed indicator, Dice is ``2 sum(m f) / (sum(m) + sum(f))``. Its cost does not depend on the number
    of structures: a warped voxel mixes at most eight labels, and where all eight are the same, nothing depends on
    the displacement.

    Args:
        structures: labels are 1 to this, 0 is background and does not count.

    Raises:
        InputError: when there is no structure.
    """

    def __init__(self, structures: int) -> None:
        super().__init__()
        if structures < 1:
            raise InputError(f"overlap needs at least one structure, got {structures}")
        self.structures = structures

    def forward(self, displacement: Tensor, moving: Tensor, fixed: Tensor) -> Tensor:
        """The loss, between 0 and 1: the mean over the batch; structures that neither map holds do not count.

        Args:
            displacement: ``(N, 3, D, H, W)`` in voxels.
            moving, fixed: label maps ``(N, 1, D, H, W)`` of whole numbers.

        Raises:
            GeometryError: when the shapes do not fit.
        """
        if moving.shape != fixed.shape or moving.shape[1] != 1 or moving.shape[2:] != displacement.shape[2:]:
            raise GeometryError(
                "label maps (N, 1, D, H, W) lie on the grid of the displacement, got "
                f"{tuple(moving.shape)}, {tuple(fixed.shape)} and {tuple(displacement.shape)}"
            )
        with torch.autocast(displacement.device.type, enabled=False):
            points = positions(displacement).flatten(2)
            items = zip(points, moving[:, 0], fixed[:, 0], strict=True)
            return 1 - torch.stack([self._dice(*item) for item in items]).mean()

    def _dice(self, points: Tensor, moving: Tensor, fixed: Tensor) -> Tensor:
        target = fixed.flatten().long()
        labels, part = _corners(moving, points)
        mixed = (labels != labels[0]).any(dim=0)
        same, own = labels[0][~mixed], target[~mixed]
        size = torch.bincount(same, minlength=self.structures + 1).to(points)
        shared = torch.bincount(same[same == own], minlength=self.structures + 1).to(points)
        labels, own = labels[:, mixed], target[mixed]
        weights = _weights(part[:, mixed])
        size = size.index_add(0, labels.flatten(), weights.flatten())
        agreeing = (weights * (labels == own)).sum(dim=0)
        shared = shared.index_add(0, own, agreeing)
        total = size + torch.bincount(target, minlength=self.structures + 1).to(points)
        present = (total > _TINY).to(points)[1:]
        return (2 * shared[1:] / total[1:].clamp_min(_TINY) * present).sum() / present.sum().clamp_min(1)


def _corners(labels: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Labels ``(8, M)`` of the voxels around points ``(3, M)``, and where between them the points lie, ``(3, M)``."""
    flat = torch.zeros_like(points[0], dtype=torch.long)
    part, steps = [], []
    for axis, n in enumerate(labels.shape):
        place = points[axis].clamp(0, n - 1)
        low = place.detach().floor().clamp(max=max(n - 2, 0))
        part.append(place - low)
        flat = flat * n + low.long()
        steps.append(1 if n > 1 else 0)
    _, height, width = labels.shape
    strides = (height * width * steps[0], width * steps[1], steps[2])
    values = labels.flatten()
    found = [values[flat + sum(c * s for c, s in zip(corner, strides, strict=True))] for corner in _CORNERS]
    return torch.stack(found).long(), torch.stack(part)


def _weights(part: Tensor) -> Tensor:
    """Trilinear weights ``(8, M)`` of the corners."""
    sides = (1 - part, part)
    return torch.stack([sides[a][0] * sides[b][1] * sides[c][2] for a, b, c in _CORNERS])


_CORNERS = tuple(product((0, 1), repeat=3))
