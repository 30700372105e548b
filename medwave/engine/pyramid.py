"""Coarser copies of a volume, finer ones of a field, and the foreground of an image.

Coarsening is by block means of whole voxels: no aliasing, exact geometry, and a few milliseconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.compiler import compiler
from medwave.core.geometry import Grid
from medwave.core.masks import filled, opened
from medwave.core.threads import run_slabs
from medwave.fields.kernels import enlarge_slab

_compile = compiler(fastmath={"contract", "arcp", "nsz", "reassoc"}, error_model="numpy")


@_compile
def _block_sums(start, stop, data, factors, scale, out):  # type: ignore[no-untyped-def]
    """``out(b) = scale`` times the sum over block b of ``data``; beyond the border its last voxel is repeated."""
    depth, height, width = data.shape
    whole = width // factors[2]  # blocks of a row that lie inside it
    line = np.empty(width, dtype=np.float64)  # so that a flat image stays flat up to its border
    for i in range(start, stop):
        for j in range(out.shape[1]):
            for k in range(width):
                line[k] = 0.0
            for a in range(i * factors[0], (i + 1) * factors[0]):
                for b in range(j * factors[1], (j + 1) * factors[1]):
                    row = data[min(a, depth - 1), min(b, height - 1)]
                    for k in range(width):
                        line[k] += row[k]
            into = out[i, j]
            for k in range(whole):
                total = 0.0
                for c in range(k * factors[2], (k + 1) * factors[2]):
                    total += line[c]
                into[k] = np.float32(total) * scale
            if whole < out.shape[2]:
                total = 0.0
                for c in range(whole * factors[2], out.shape[2] * factors[2]):
                    total += line[min(c, width - 1)]
                into[whole] = np.float32(total) * scale


def coarsen(data: npt.NDArray[Any], grid: Grid, factors: tuple[int, int, int]) -> tuple[npt.NDArray[np.float32], Grid]:
    """Means of blocks of ``factors`` voxels and the grid they lie on; a last incomplete block repeats the border."""
    affine = grid.affine @ np.diag([*factors, 1.0])
    affine[:3, 3] = grid.to_mm((np.asarray(factors) - 1) / 2)
    shape = (-(-data.shape[0] // factors[0]), -(-data.shape[1] // factors[1]), -(-data.shape[2] // factors[2]))
    return _block_means(data.astype(np.float32, copy=False), factors, shape), Grid(shape, affine)


def _block_means(
    data: npt.NDArray[np.float32], factors: tuple[int, int, int], shape: tuple[int, int, int]
) -> npt.NDArray[np.float32]:
    if data.flags.f_contiguous and not data.flags.c_contiguous:  # as files give it: read along its own rows
        return np.ascontiguousarray(_block_means(data.T, factors[::-1], shape[::-1]).T)
    blocks = np.empty(shape, dtype=np.float32)
    scale = np.float32(1 / np.prod(factors))
    run_slabs(_block_sums, shape[0], np.ascontiguousarray(data), np.asarray(factors), scale, blocks)
    return blocks


def block_means(image: npt.NDArray[np.float32], factor: int) -> npt.NDArray[np.float32]:
    """Means of cubes of ``factor`` voxels of ``(D, H, W)``; a last incomplete cube repeats the border."""
    if factor == 1:
        return image
    shape = (-(-image.shape[0] // factor), -(-image.shape[1] // factor), -(-image.shape[2] // factor))
    rows = np.ascontiguousarray(image, dtype=np.float32)  # sums of another memory order round otherwise
    return _block_means(rows, (factor, factor, factor), shape)


def enlarge(field: npt.NDArray[np.float32], shape: tuple[int, ...], ratio: int) -> npt.NDArray[np.float32]:
    """Interpolate a field onto a grid of voxels ``ratio`` times smaller; vectors are counted in the new voxels.

    The first voxels' outer faces coincide. The last blocks of the coarse grid may be incomplete: ``shape`` says how
    many voxels of the finer grid there are.
    """
    if ratio == 1:
        return field
    fine = np.empty((3, *shape), dtype=np.float32)
    run_slabs(enlarge_slab, shape[0], field, ratio, fine)
    return fine


def coarsen_to_spacing(data: npt.NDArray[Any], grid: Grid, spacing_mm: float) -> tuple[npt.NDArray[np.float32], Grid]:
    """Coarsen each axis by the whole number that brings it closest to ``spacing_mm`` from the fine side."""
    limits = np.maximum(np.asarray(data.shape) // 4, 1)
    factors = np.clip(np.floor(spacing_mm / grid.spacing_mm + 0.25), 1, limits).astype(int)
    return coarsen(data, grid, (int(factors[0]), int(factors[1]), int(factors[2])))


def foreground(data: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Where the subject is: everything but a constant background, or what Otsu's threshold keeps.

    A background counts as constant when at least a fifth of the voxels hold exactly the most common value of the
    border planes (skull-stripped images). Holes are filled and specks are dropped. Never empty.
    """
    border = [data.take(end, axis).ravel() for axis in range(data.ndim) for end in (0, -1)]
    values, counts = np.unique(np.concatenate(border), return_counts=True)
    background = values[counts.argmax()]
    mask = np.abs(data - background) > 1e-3 * (float(data.max()) - float(data.min()))
    if mask.mean() > 0.8:
        mask = data > otsu_threshold(data)
    cleaned = filled(opened(mask))
    if cleaned.sum() < 0.1 * mask.sum():
        cleaned = mask
    return cleaned if cleaned.any() else np.ones(data.shape, dtype=bool)


def otsu_threshold(data: npt.NDArray[np.floating]) -> float:
    """Otsu's threshold on 256 bins between the 0.5th and 99.5th percentile (doi 10.1109/TSMC.1979.4310076)."""
    low, high = np.percentile(data, [0.5, 99.5])
    counts, edges = np.histogram(np.clip(data, low, high), bins=256)
    centers = (edges[:-1] + edges[1:]) / 2
    weight = np.cumsum(counts).astype(float)
    mass = np.cumsum(counts * centers)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mass[-1] * weight / weight[-1] - mass) ** 2 / (weight * (weight[-1] - weight))
    return float(edges[1:][np.nanargmax(between[:-1])])
