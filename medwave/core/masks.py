"""Masks: grow, shrink, fill, tell parts apart. Neighbours share a face; the world beyond an array counts as empty.

The answers are those of ``scipy.ndimage`` with its default structure, which takes a third of a CPU second to import
and several times as long to give them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.compiler import compiler

BoolArray = npt.NDArray[np.bool_]

_compile = compiler()


@_compile
def _label(cells, across, stack, labels, most):  # type: ignore[no-untyped-def]
    """Number the parts of ``cells`` in the order of their first cells, from 1, into ``labels``; returns how many.

    A part is filled row by row: of each run of cells along the last axis, what is noted of the rows beside it is where
    their runs begin.

    Args:
        cells: ``(N,)`` uint8, an array laid flat inside a rim of zeros.
        across: how far apart neighbours of other rows lie in it, ``(2 * (axes - 1),)``.
        stack: scratch, ``(axes * N,)`` int64; no run notes two cells in a row.
        labels: ``(N,)`` int32, zeros on entry.
        most: stop after so many parts.
    """
    count = 0
    begun = np.zeros(across.shape[0], dtype=np.bool_)
    for first in range(cells.shape[0]):
        if cells[first] == 0 or labels[first] != 0:
            continue
        if count == most:
            break
        count += 1
        stack[0] = first
        waiting = 1
        while waiting > 0:
            waiting -= 1
            here = stack[waiting]
            while cells[here - 1] != 0 and labels[here - 1] == 0:
                here -= 1
            begun[:] = False
            while cells[here] != 0 and labels[here] == 0:
                labels[here] = count
                for n in range(across.shape[0]):
                    beside = here + across[n]
                    free = cells[beside] != 0 and labels[beside] == 0
                    if free and not begun[n]:
                        stack[waiting] = beside
                        waiting += 1
                    begun[n] = free
                here += 1
    return count


def parts(mask: BoolArray, most: int = -1) -> tuple[npt.NDArray[np.int32], int]:
    """The connected parts of a mask of any shape: their numbers, 0 outside of them, and how many there are.

    With ``most`` only the first so many parts are looked for; others stay 0.
    """
    framed = np.ascontiguousarray(np.pad(mask.astype(np.uint8), 1))
    labels = np.zeros(framed.shape, dtype=np.int32)
    strides = np.array(framed.strides[:-1], dtype=np.int64)
    across, stack = np.concatenate([strides, -strides]), np.empty(mask.ndim * framed.size, dtype=np.int64)
    count = _label(framed.ravel(), across, stack, labels.reshape(-1), most)
    return labels[(slice(1, -1),) * mask.ndim], int(count)


def filled(mask: BoolArray) -> BoolArray:
    """The mask with what it encloses: background that no path joins to the border."""
    result = mask.copy()
    if box := box_of(mask):
        outside, _ = parts(~np.pad(mask[box], 1), most=1)  # the rim is the first part
        result[box] = outside[(slice(1, -1),) * mask.ndim] != 1
    return result


def box_of(mask: BoolArray, margin: int = 0) -> tuple[slice, ...]:
    """The smallest box that holds a mask, and a margin where there is room; empty where nothing is set."""
    box: tuple[slice, ...] = ()
    for axis in range(mask.ndim):
        held = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if held.size == 0:
            return ()
        box += (slice(max(0, int(held[0]) - margin), int(held[-1]) + margin + 1),)
    return box


def grown(mask: BoolArray, times: int = 1) -> BoolArray:
    """The mask and all neighbours of its voxels, ``times`` times over."""
    for _ in range(times):
        mask = _with_neighbours(mask, np.logical_or)
    return mask


def opened(mask: BoolArray) -> BoolArray:
    """The mask without specks: shrunk by the voxels that have a neighbour outside, then grown."""
    shrunk = _with_neighbours(mask, np.logical_and)
    for axis in range(mask.ndim):
        np.moveaxis(shrunk, axis, 0)[[0, -1]] = False
    return grown(shrunk)


def _with_neighbours(mask: BoolArray, join: Any) -> BoolArray:
    """Every voxel joined with its neighbours inside the array."""
    result = mask.copy()
    for axis in range(mask.ndim):
        source, target = np.moveaxis(mask, axis, 0), np.moveaxis(result, axis, 0)
        join(target[1:], source[:-1], out=target[1:])
        join(target[:-1], source[1:], out=target[:-1])
    return result
