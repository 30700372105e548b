"""Displacements as maps: compose two, and follow a velocity.

Conventions
    A displacement ``u`` stands for the map ``p -> p + u(p)``; layout and units are the room's. Between voxels a field
    is trilinear, so the group laws hold up to interpolation, not to the last digit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medwave.core.errors import GeometryError, InputError
from medwave.core.threads import run_slabs
from medwave.fields.sampling import check_field, runs_compiled, warp


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The displacement of "first ``inner``, then ``outer``": ``inner(p) + outer(p + inner(p))``.

    Args:
        outer: ``(N, 3, D, H, W)`` in voxels, the map applied last.
        inner: same shape, the map applied first.

    Returns:
        ``(N, 3, D, H, W)``, float32 (float64 where an input is).

    Raises:
        GeometryError: when the shapes differ.
    """
    last, first = check_field(outer), check_field(inner)
    if last.shape != first.shape:
        raise GeometryError(
            f"two displacements compose on one grid, got {tuple(outer.shape)} and {tuple(inner.shape)}; "
            "medwave.fields.resize brings one to the other's grid"
        )
    dtype = torch.promote_types(last.dtype, first.dtype)
    last, first = last.to(dtype), first.to(dtype)
    if runs_compiled(last, first):
        return _compose_compiled(last.contiguous(), first.contiguous())
    return first + warp(last, first, padding="border")


def _compose_compiled(outer: Tensor, inner: Tensor) -> Tensor:
    from medwave.fields.kernels import compose_scaled  # numba takes a second to import

    out = torch.empty_like(inner)
    for last, first, result in zip(outer.detach(), inner.detach(), out, strict=True):
        run_slabs(compose_scaled, inner.shape[2], last.numpy(), first.numpy(), 1.0, result.numpy())
    return out


def integrate(velocity: Tensor, squarings: int = 7) -> Tensor:
    """Displacement of the flow of a stationary velocity after unit time, ``exp(v) - id``, by scaling and squaring.

    ``v / 2^K`` is taken as a displacement and composed with itself ``K`` times (Arsigny et al. 2006,
    doi 10.1007/11866565_113). The error falls with ``2^-K`` until interpolation dominates; the map has no folds as
    long as the largest slope of ``v / 2^K`` stays below one. ``integrate(-velocity)`` is the inverse of
    ``integrate(velocity)``: for velocities, prefer it to :func:`medwave.fields.invert`.

    Args:
        velocity: ``(N, 3, D, H, W)`` in voxels per unit time.
        squarings: ``K``, zero or more; zero returns the velocity itself.

    Raises:
        InputError: when ``squarings`` is negative.
    """
    if squarings < 0:
        raise InputError(f"the number of squarings is zero or more, got {squarings}")
    displacement = check_field(velocity, "velocity") * 0.5**squarings
    for _ in range(squarings):
        displacement = compose(displacement, displacement)
    return displacement
