"""Measures of a registration: overlap and distance of structures, regularity and inverse consistency of fields.

Conventions
    Everything is numpy. Label maps are ``(D, H, W)`` of whole numbers (any dtype), 0 is background and never measured.
    Displacements are ``(3, D, H, W)`` in voxels, pull-back, as in :mod:`medwave.fields`. Masks are boolean
    ``(D, H, W)``. Measures of volume change count interior voxels only (not the outermost layer of the grid), where
    derivatives are central.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError
from medwave.core.threads import run_slabs
from medwave.fields.kernels import composed_length, determinants

Array = npt.NDArray[np.generic]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_LONGEST_TABLE = 1 << 20  # label ids up to here are counted as they are; beyond, they are renumbered first


def dice(labels_a: Array, labels_b: Array, structures: Iterable[int] | None = None) -> dict[int, float]:
    """Dice overlap ``2 |A and B| / (|A| + |B|)`` of every structure (Dice 1945, doi 10.2307/1932409).

    Args:
        labels_a: label map ``(D, H, W)``.
        labels_b: label map of the same shape.
        structures: labels to measure; default: all that are in either map.

    Returns:
        Label -> Dice between 0 and 1, in increasing order of labels; ``nan`` for a structure that is in neither map.

    Raises:
        GeometryError: when the shapes differ.
        InputError: when a map holds values that are not whole numbers.
    """
    ids, a, b = _renumber(labels_a, labels_b)
    size_a, size_b, shared = (np.bincount(x.ravel(), minlength=len(ids)) for x in (a, b, a[a == b]))
    overlap = {
        int(label): float(2 * shared[n] / (size_a[n] + size_b[n]))
        for n, label in enumerate(ids)
        if label != 0 and size_a[n] + size_b[n] > 0
    }
    return overlap if structures is None else {int(s): overlap.get(int(s), np.nan) for s in sorted(structures)}


def surface_distances(
    labels_a: Array,
    labels_b: Array,
    spacing_mm: npt.ArrayLike,
    structures: Iterable[int] | None = None,
) -> dict[int, dict[str, float]]:
    """Distances between the surfaces of every structure.

    The surface of a structure is made of its voxels that touch another label, or the edge of the grid, with a face.
    From each surface voxel of A the distance to the nearest surface voxel of B is taken, and the other way round.

    Args:
        labels_a: label map ``(D, H, W)``.
        labels_b: label map of the same shape.
        spacing_mm: voxel size along each array axis.
        structures: labels to measure; default: all that are in either map.

    Returns:
        Label -> ``{"hd95_mm": ..., "assd_mm": ...}``. hd95 is the larger of the two directed 95th percentiles;
        assd is the mean over the surface voxels of both. Both are ``inf`` for a structure that is in one map only and
        ``nan`` for one that is in neither.

    Raises:
        GeometryError: when the shapes differ or a spacing is not positive.
        InputError: when a map holds values that are not whole numbers.
    """
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (3,) or not (spacing > 0).all():
        raise GeometryError(f"spacing_mm is one positive voxel size per array axis, got {spacing_mm}")
    ids, a, b = _renumber(labels_a, labels_b)
    surfaces_a, surfaces_b = (_surfaces(x, len(ids), spacing) for x in (a, b))
    number = {int(label): n for n, label in enumerate(ids)}
    wanted = [label for label in number if label != 0] if structures is None else sorted({int(s) for s in structures})
    empty = np.empty((0, 3))
    return {
        label: _compare(surfaces_a[number[label]], surfaces_b[number[label]])
        if label in number
        else _compare(empty, empty)
        for label in wanted
    }


class Folding(NamedTuple):
    """Voxels where a displacement folds: ``share`` of those that were looked at, and their ``count``."""

    share: float
    count: int


def folding(
    displacement: npt.ArrayLike, mask: npt.ArrayLike | None = None, *, jacobian: npt.ArrayLike | None = None
) -> Folding:
    """Where the map ``p + u(p)`` is not one-to-one: voxels whose Jacobian determinant is zero or less.

    Args:
        displacement: ``(3, D, H, W)`` in voxels.
        mask: ``(D, H, W)``, where to look; default: everywhere. The outermost layer is left out in any case.
        jacobian: determinants ``(D, H, W)`` of the displacement, where they are known already.

    Raises:
        GeometryError: when shapes do not fit together.
        InputError: when the mask has no interior voxel.
    """
    determinant = _interior_determinant(displacement, mask, jacobian)
    count = int(np.count_nonzero(determinant <= 0))
    return Folding(count / determinant.size, count)


def log_jacobian_sd(
    displacement: npt.ArrayLike, mask: npt.ArrayLike | None = None, *, jacobian: npt.ArrayLike | None = None
) -> float:
    """Standard deviation of the log Jacobian determinant (clipped at 1e-9): how unevenly the map changes volume.

    Args and errors as in :func:`folding`.
    """
    return float(np.log(np.maximum(_interior_determinant(displacement, mask, jacobian), 1e-9)).std(dtype=np.float64))


def inverse_consistency_mm(
    forward: npt.ArrayLike, inverse: npt.ArrayLike, affine: npt.ArrayLike, mask: npt.ArrayLike | None = None
) -> float:
    """Mean length of ``forward o inverse``, in mm: how far a point lands from home.

    Args:
        forward: displacement ``(3, D, H, W)`` in voxels, applied last.
        inverse: displacement of the same grid, applied first.
        affine: 4x4 voxel-to-world matrix (mm) of the grid.
        mask: ``(D, H, W)`` where to average; default: everywhere.

    Raises:
        GeometryError: when shapes do not fit together.
        InputError: when the mask is empty.
    """
    outer, inner = _field(forward), _field(inverse)
    if outer.shape != inner.shape:
        raise GeometryError(f"two displacements compose on one grid, got {outer.shape} and {inner.shape}")
    inside = _mask(mask, outer.shape[1:])
    matrix = np.ascontiguousarray(np.asarray(affine, dtype=np.float64)[:3, :3], dtype=np.float32)
    sums = np.empty(len(inside))
    run_slabs(composed_length, len(inside), outer, inner, matrix, inside, sums)
    return float(sums.sum() / np.count_nonzero(inside))


def target_registration_error_mm(points_a: npt.ArrayLike, points_b: npt.ArrayLike) -> Float64Array:
    """Distance of each landmark from its counterpart, in mm.

    Args:
        points_a: ``(M, 3)`` world points in mm, such as the fixed landmarks sent through the transform.
        points_b: ``(M, 3)`` the same landmarks on the moving image, in the same world axes.

    Returns:
        ``(M,)``; its mean is the usual target registration error.

    Raises:
        GeometryError: when the points are not two lists of equal length of three coordinates.
    """
    a, b = (np.asarray(points, dtype=np.float64) for points in (points_a, points_b))
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != 3:
        raise GeometryError(f"landmarks are two arrays (M, 3) with the same M, got {a.shape} and {b.shape}")
    return np.asarray(np.linalg.norm(a - b, axis=1))


def _whole(labels: Array) -> npt.NDArray[np.integer]:
    array = np.asarray(labels)
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if np.issubdtype(array.dtype, np.integer):
        return array
    whole = array.astype(np.int64) if np.isfinite(array).all() else None
    if whole is None or not np.array_equal(whole, array):
        raise InputError(
            "a label map holds whole numbers, got fractions or NaN; was it warped with linear interpolation? "
            'Use "label" or "nearest"'
        )
    return whole


def _renumber(labels_a: Array, labels_b: Array) -> tuple[Array, npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """Label of each number, and both maps in those numbers, which are small enough to index a table."""
    a, b = _whole(labels_a), _whole(labels_b)
    if a.shape != b.shape or a.size == 0:
        raise GeometryError(f"two label maps are compared voxel by voxel on one grid, got {a.shape} and {b.shape}")
    low, high = min(int(a.min()), int(b.min())), max(int(a.max()), int(b.max()))
    if low < 0 or high >= _LONGEST_TABLE:
        ids = np.union1d(np.unique(a), np.unique(b))
        return ids, np.searchsorted(ids, a), np.searchsorted(ids, b)
    present = np.zeros(high + 1, dtype=bool)
    present[a] = True
    present[b] = True
    ids = np.flatnonzero(present)
    number = np.zeros(high + 1, dtype=np.int32)
    number[ids] = np.arange(len(ids))
    return ids, number[a], number[b]


def _surfaces(labels: npt.NDArray[np.integer], count: int, spacing: Float64Array) -> list[Float64Array]:
    """Surface voxels of every label in one pass: ``count`` arrays ``(M, 3)`` in mm."""
    edge = np.zeros(labels.shape, dtype=bool)
    for axis in range(labels.ndim):
        line, on_edge = np.moveaxis(labels, axis, 0), np.moveaxis(edge, axis, 0)
        change = line[1:] != line[:-1]
        on_edge[1:] |= change
        on_edge[:-1] |= change
        on_edge[0] = on_edge[-1] = True
    voxels = np.argwhere(edge)
    owner = labels[edge]
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=count))
    return np.split(voxels[order] * spacing, ends[:-1])


def _compare(surface_a: Float64Array, surface_b: Float64Array) -> dict[str, float]:
    if len(surface_a) == 0 or len(surface_b) == 0:
        nothing = float("nan") if len(surface_a) == len(surface_b) else float("inf")
        return {"hd95_mm": nothing, "assd_mm": nothing}
    from scipy.spatial import KDTree

    a_to_b = KDTree(surface_b).query(surface_a)[0]
    b_to_a = KDTree(surface_a).query(surface_b)[0]
    return {
        "hd95_mm": float(max(np.percentile(a_to_b, 95), np.percentile(b_to_a, 95))),
        "assd_mm": float(np.concatenate([a_to_b, b_to_a]).mean()),
    }


def _field(displacement: npt.ArrayLike) -> npt.NDArray[np.floating]:
    array = np.asarray(displacement)
    if array.ndim != 4 or array.shape[0] != 3:
        raise GeometryError(f"a displacement is an array (3, D, H, W) in voxels, got shape {array.shape}")
    dtype = np.float64 if array.dtype == np.float64 else np.float32  # the loops work in either
    return np.require(array, dtype, ["C", "W"])


def _mask(mask: npt.ArrayLike | None, shape: tuple[int, ...]) -> BoolArray:
    if mask is None:
        return np.ones(shape, dtype=bool)
    inside = np.asarray(mask).astype(bool)
    if inside.shape != shape:
        raise GeometryError(f"a mask lies on the grid of the displacement: {shape}, got {inside.shape}")
    if not inside.any():
        raise InputError("the mask is empty: there is nothing to measure")
    return inside


def _interior_determinant(
    displacement: npt.ArrayLike, mask: npt.ArrayLike | None, jacobian: npt.ArrayLike | None
) -> npt.NDArray[np.floating]:
    field = _field(displacement)
    inside = _mask(mask, field.shape[1:])
    interior = (slice(1, -1),) * 3
    if not inside[interior].any():
        raise InputError("no voxel to measure: the grid or the mask has only voxels of the outermost layer")
    found = determinants(field) if jacobian is None else np.asarray(jacobian)
    if found.shape != inside.shape:
        raise GeometryError(f"determinants lie on the grid of the displacement: {inside.shape}, got {found.shape}")
    return found[interior][inside[interior]]
