"""Affine maps as displacements, and displacements in millimetres.

Conventions
    Matrices are 4x4, or ``(N, 4, 4)`` for one per batch item, and act on column points. Arrays and tensors both work.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medwave.core.errors import GeometryError
from medwave.fields.sampling import check_field


def affine_displacement(
    matrix_voxels: Tensor | npt.ArrayLike, shape: Sequence[int], *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The displacement ``u(p) = M p - p`` of an affine map between voxel coordinates.

    Args:
        matrix_voxels: ``M``, 4x4 or ``(N, 4, 4)``, fixed voxels to moving voxels. From an affine ``A`` in mm:
            ``inv(moving.affine) @ A @ fixed.affine``. A tensor keeps its device and its gradient.
        shape: ``(D, H, W)`` of the fixed grid.
        dtype: of the result; sums are made in the precision of the matrix.

    Returns:
        ``(N, 3, D, H, W)`` in voxels, N = 1 for a single matrix.

    Raises:
        GeometryError: when the matrix is not 4x4 or the shape has not three axes.
    """
    matrix = _matrices(matrix_voxels)
    if len(shape) != 3:
        raise GeometryError(f"a grid has three axes, got shape {tuple(shape)}")
    slope = matrix[:, :3, :3] - torch.eye(3, device=matrix.device, dtype=matrix.dtype)
    field = matrix[:, :3, 3].view(-1, 3, 1, 1, 1)
    for axis, n in enumerate(shape):
        line = torch.arange(n, device=matrix.device, dtype=matrix.dtype)
        along = [-1 if a == axis else 1 for a in range(3)]
        field = field + slope[:, :, axis].view(-1, 3, 1, 1, 1) * line.view(1, 1, *along)
    return field.to(dtype)


def to_mm(displacement: Tensor, affine: Tensor | npt.ArrayLike) -> Tensor:
    """Displacement vectors in world millimetres.

    Args:
        displacement: ``(N, 3, D, H, W)`` in voxels.
        affine: 4x4 voxel-to-world matrix of the grid; the translation does not matter.

    Returns:
        ``(N, 3, D, H, W)``, channel ``i`` along world axis ``i`` of the affine (RAS+ for a medwave grid).

    Raises:
        GeometryError: when the matrix is not 4x4.
    """
    return _turn(displacement, _matrices(affine))


def to_voxels(vectors_mm: Tensor, affine: Tensor | npt.ArrayLike) -> Tensor:
    """Displacement vectors in voxels: the way back from :func:`to_mm`, with the same arguments."""
    return _turn(vectors_mm, torch.linalg.inv(_matrices(affine)))


def _matrices(matrix: Tensor | npt.ArrayLike) -> Tensor:
    tensor = matrix if isinstance(matrix, Tensor) else torch.tensor(np.asarray(matrix))  # a copy: may be read-only
    tensor = tensor if tensor.is_floating_point() else tensor.double()
    if tensor.ndim not in (2, 3) or tensor.shape[-2:] != (4, 4):
        raise GeometryError(f"an affine is a 4x4 matrix (or N of them), got shape {tuple(tensor.shape)}")
    return tensor.view(-1, 4, 4)


def _turn(field: Tensor, matrix: Tensor) -> Tensor:
    vectors = check_field(field)
    turn = matrix[:, :3, :3].to(vectors.device, vectors.dtype)
    with torch.autocast(vectors.device.type, enabled=False):
        turned = turn @ vectors.flatten(2)
    return turned.view_as(vectors)
