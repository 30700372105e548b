"""Local volume change of the map ``p -> p + u(p)``.

Conventions
    Derivatives are central differences inside and one-sided at the border, per voxel; along an axis of one voxel the
    field does not change. The determinant is 1 where the map keeps volume, above 1 where it expands the fixed grid
    into the moving image, and zero or less where it folds.
"""

from __future__ import annotations

import numpy.typing as npt
import torch
from torch import Tensor

from medwave.core.threads import run_slabs
from medwave.fields.sampling import check_field, runs_compiled


def jacobian_matrix(displacement: Tensor) -> list[list[Tensor]]:
    """Entries ``[i][j]`` = d(p + u)_i / dp_j, each ``(N, D, H, W)``."""
    field = check_field(displacement)
    rows: list[list[Tensor]] = [[], [], []]
    for axis in range(3):
        flat = field.shape[2 + axis] == 1
        slopes = torch.zeros_like(field) if flat else torch.gradient(field, dim=2 + axis)[0]
        for i in range(3):
            rows[i].append(slopes[:, i] + 1 if i == axis else slopes[:, i])
    return rows


def determinant(m: list[list[Tensor]]) -> Tensor:
    """Determinant of 3x3 matrices given entry by entry."""
    return (
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
        - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
        + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    )


def jacobian_determinant(displacement: Tensor, *, affine: Tensor | npt.ArrayLike | None = None) -> Tensor:
    """Determinant of the Jacobian of ``p + u(p)``, or of a whole transform ``A(p + u(p))``.

    Args:
        displacement: ``(N, 3, D, H, W)`` in voxels.
        affine: 4x4 matrix ``A`` that follows the field (mm to mm, or voxels to voxels); its determinant multiplies.

    Returns:
        ``(N, 1, D, H, W)``.
    """
    field = check_field(displacement)
    if runs_compiled(field) and min(field.shape[2:]) > 1:
        volume = _determinant_compiled(field.contiguous())
    else:
        volume = determinant(jacobian_matrix(field))[:, None]
    if affine is not None:
        matrix = torch.as_tensor(affine, device=volume.device, dtype=volume.dtype)
        volume = volume * torch.linalg.det(matrix[:3, :3])
    return volume


def _determinant_compiled(field: Tensor) -> Tensor:
    from medwave.fields.kernels import jacobian_determinant as loop  # numba takes a second to import

    out = torch.empty_like(field[:, :1])
    for u, result in zip(field.detach(), out[:, 0], strict=True):
        run_slabs(loop, field.shape[2], u.numpy(), result.numpy())
    return out
