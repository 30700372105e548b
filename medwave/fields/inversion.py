"""Invert a displacement field.

The inverse at ``p`` is the root of ``F(x) = x + u(p + x)``, a problem of its own for each voxel. The well-known fixed
point ``x <- -u(p + x)`` (Chen et al. 2008, doi 10.1118/1.2816107) converges only where slopes of ``u`` stay below one;
registered brains break that in a fifth of their voxels. Therefore Newton steps with backtracking,
``x <- x - a J(p + x)^-1 F(x)``: in a compiled loop for float32 on CPU; elsewhere in torch, after a few damped
fixed-point steps for all voxels, for those that are not there yet.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medwave.core.errors import InputError
from medwave.fields.jacobian import determinant, jacobian_matrix
from medwave.fields.sampling import check_field, positions, sample, warp

_DAMPED_STEPS = 4


@torch.no_grad()
def invert(displacement: Tensor, *, iterations: int = 30, tolerance_voxels: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Inverse of the map ``p -> p + u(p)`` on the same grid.

    Each voxel stops when its residual is below the tolerance. At folds (no unique inverse) and where the inverse
    leaves the grid the best vector found stays; the residual tells. Not differentiable: for velocities use
    ``integrate(-velocity)``, which is.

    Args:
        displacement: ``u``, ``(N, 3, D, H, W)`` in voxels.
        iterations: most Newton steps for a voxel.
        tolerance_voxels: residual at which a voxel is done.

    Returns:
        ``(inverse, residual_voxels)``: the displacement ``u_inv``, ``(N, 3, D, H, W)``, and the map
        ``|u_inv(p) + u(p + u_inv(p))|``, ``(N, 1, D, H, W)``, zero for an exact inverse.

    Raises:
        InputError: when ``tolerance_voxels`` is not positive or ``iterations`` is negative.
    """
    if iterations < 0 or tolerance_voxels <= 0:
        raise InputError(
            "invert needs iterations >= 0 and tolerance_voxels > 0, "
            f"got iterations={iterations}, tolerance_voxels={tolerance_voxels}"
        )
    field = check_field(displacement).detach().contiguous()
    if field.device.type == "cpu" and field.dtype == torch.float32:
        return _invert_compiled(field, iterations, tolerance_voxels)
    return _invert_torch(field, iterations, tolerance_voxels)


def _invert_compiled(field: Tensor, iterations: int, tolerance: float) -> tuple[Tensor, Tensor]:
    from medwave.fields.inversion_kernel import invert_array  # numba takes a second to import

    inverse, residual = torch.empty_like(field), torch.empty_like(field[:, :1])
    for u, x, r in zip(field, inverse, residual, strict=True):
        found = invert_array(u.numpy(), iterations=iterations, tolerance_voxels=tolerance)
        x.copy_(torch.from_numpy(found[0]))
        r[0].copy_(torch.from_numpy(found[1]))
    return inverse, residual


def _invert_torch(field: Tensor, iterations: int, tolerance: float) -> tuple[Tensor, Tensor]:
    inverse = -field
    for _ in range(_DAMPED_STEPS):
        inverse = inverse - 0.5 * (inverse + warp(field, inverse))
    error = inverse + warp(field, inverse)
    residual = torch.linalg.vector_norm(error, dim=1, keepdim=True)
    for item in range(field.shape[0]):
        _refine(field[item : item + 1], inverse[item], error[item], residual[item, 0], iterations, tolerance)
    return inverse, residual


def _refine(field: Tensor, inverse: Tensor, error: Tensor, residual: Tensor, iterations: int, tolerance: float) -> None:
    """Newton steps, in place, at the voxels of one item whose residual exceeds the tolerance. Contiguous tensors."""
    todo = (residual > tolerance).flatten().nonzero()[:, 0]
    if todo.numel() == 0 or iterations == 0:
        return
    slopes = torch.stack([entry for row in jacobian_matrix(field) for entry in row], dim=1)
    start = positions(torch.zeros_like(field)).flatten(2)[0][:, todo]
    x, r, size = inverse.flatten(1)[:, todo], error.flatten(1)[:, todo], residual.flatten()[todo]
    damping = torch.ones_like(size)
    for _ in range(iterations):
        tried = x - damping * _solve(sample(slopes, (start + x)[None])[0], r)
        r_tried = tried + sample(field, (start + tried)[None])[0]
        size_tried = torch.linalg.vector_norm(r_tried, dim=0)
        good = size_tried < size
        x, r, size = torch.where(good, tried, x), torch.where(good, r_tried, r), torch.where(good, size_tried, size)
        damping = torch.where(good, (2 * damping).clamp_max(1), damping / 2)
        inverse.view(3, -1)[:, todo], residual.view(-1)[todo] = x, size
        open_ = size > tolerance
        if not bool(open_.any()):
            return
        todo, start, x, r, size, damping = (t[..., open_] for t in (todo, start, x, r, size, damping))


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve 3x3 systems by Cramer's rule: matrices ``(9, M)`` row by row, right-hand sides ``(3, M)``.

    A determinant near zero is kept away from zero, which turns a blow-up into a long step that backtracking shortens.
    """
    m = list(matrix.view(3, 3, -1).unbind(0))
    rows = [list(row.unbind(0)) for row in m]
    volume = determinant(rows)
    volume = torch.where(volume.abs() < 1e-3, torch.full_like(volume, 1e-3), volume)
    replaced = [[[right[i] if j == column else rows[i][j] for j in range(3)] for i in range(3)] for column in range(3)]
    return torch.stack([determinant(system) for system in replaced]) / volume
