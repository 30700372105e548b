"""Overlap of label maps as a loss of the displacement that carries one onto the other."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medwave.core.errors import GeometryError, InputError
from medwave.fields import warp

_TINY = 1e-3


class LabelOverlap(nn.Module):
    """One minus the mean soft Dice of all structures, after the moving label map went through a displacement.

    Each structure becomes an image of its share of the voxels around, and these images are compared: with ``m`` the
    warped and ``f`` the fixed one, Dice is ``2 sum(m f) / sum(m^2 + f^2)`` (Milletari et al. 2016,
    doi 10.1109/3DV.2016.79), which is 1 only where they are equal. Shares are means over cubes of four voxels at every
    second voxel. They matter: whole labels read linearly between voxels lose overlap with any small motion, whichever
    way it goes, so that no motion is a best answer that training does not leave.

    Args:
        structures: labels are 1 to this; 0 is background and does not count, as little as other labels.

    Raises:
        InputError: when there is no structure.
    """

    def __init__(self, structures: int) -> None:
        super().__init__()
        if structures < 1:
            raise InputError(f"overlap needs at least one structure, got {structures}")
        self.structures = structures

    def forward(self, displacement: Tensor, moving: Tensor, fixed: Tensor) -> Tensor:
        """The loss, between 0 and 1: the mean over structures and batch; structures in neither map do not count.

        Args:
            displacement: ``(N, 3, D, H, W)`` in voxels, two voxels or more along each axis.
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
            half = F.avg_pool3d(displacement, 2) / 2
            warped, target = warp(self.shares(moving, half), half), self.shares(fixed, half)
            over = (2, 3, 4)
            shared, total = (warped * target).sum(over), (warped.square() + target.square()).sum(over)
            present = (total > _TINY).to(total)
            dice = (2 * shared / total.clamp_min(_TINY) * present).sum(1) / present.sum(1).clamp_min(1)
            return 1 - dice.mean()

    @torch.no_grad()
    def shares(self, labels: Tensor, like: Tensor) -> Tensor:
        """``(N, structures, D // 2, H // 2, W // 2)``: share of each structure around every second voxel.

        Each of these cubes of four voxels is made of eight cubes of two, whose labels are counted once.
        """
        half = [n // 2 for n in labels.shape[2:]]
        labels = labels.long()
        labels = labels.where((labels > 0) & (labels <= self.structures), 0)
        padded = F.pad(labels, (1, 1) * 3)[(..., *(slice(2 * n + 2) for n in half))]
        cells, kinds = [len(labels), *(n + 1 for n in half)], self.structures + 1
        place = torch.arange(math.prod(cells), device=labels.device).view(cells) * kinds
        for axis in range(1, 4):
            place = place.repeat_interleave(2, axis)
        place = (place + padded[:, 0]).flatten()
        counts = like.new_zeros(math.prod(cells) * kinds).scatter_add_(0, place, like.new_ones(1).expand(len(place)))
        shares = counts.view(*cells, kinds)[..., 1:].movedim(-1, 1) / 64
        for axis in range(2, 5):
            shares = shares.narrow(axis, 0, cells[axis - 1] - 1) + shares.narrow(axis, 1, cells[axis - 1] - 1)
        return shares
