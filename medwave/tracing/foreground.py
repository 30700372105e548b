"""The foreground of a volume as a graph: its voxels above the threshold and their neighbours.

Only foreground voxels ("nodes") carry data, in arrays ordered by position, so that the work and most of the memory
follow the neuron and not the volume. Positions are flat indices into a copy of the volume padded by one voxel on
every side: a neighbour is found by adding one number, and no loop asks for bounds.

Lengths are in voxels of x: a step along axis a is ``spacing[a] / spacing[x]`` long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medwave.core.compiler import compiler

OUTSIDE, BACKGROUND = -2, -1


@dataclass(frozen=True)
class Foreground:
    """Nodes of a volume.

    Attributes:
        shape: of the padded volume, (D+2, H+2, W+2).
        image: flat padded volume, uint8.
        lookup: flat padded volume of node numbers, int32; -1 background, -2 outside the volume.
        flat: (N,) int64, padded flat position of each node, ascending.
        value: (N,) uint8, grey value of each node.
        dark: (N,) bool, nodes at or below the threshold (only there when gaps are bridged in the march).
        threshold: nodes are brighter than this, apart from dark ones.
        spacing: (3,) float64, voxel size along z, y, x in voxels of x.
    """

    shape: tuple[int, int, int]
    image: np.ndarray
    lookup: np.ndarray
    flat: np.ndarray
    value: np.ndarray
    dark: np.ndarray
    threshold: float
    spacing: np.ndarray

    def positions(self, nodes: np.ndarray) -> np.ndarray:
        """(n, 3) int64 positions (z, y, x) of ``nodes`` in the volume without padding."""
        return np.stack(np.unravel_index(self.flat[nodes], self.shape), axis=1) - 1

    def nodes_at(self, positions: np.ndarray) -> np.ndarray:
        """Node numbers at (n, 3) integer positions (z, y, x); negative where there is no node."""
        return self.lookup[np.ravel_multi_index(tuple(np.asarray(positions).T + 1), self.shape)]

    def neighbours(self, connectivity: int, *, in_plane: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Flat steps (K,) int64 to the allowed neighbours and their lengths (K,) float64.

        Args:
            connectivity: largest number of axes that change in one step: 1 (6 neighbours), 2 (18) or 3 (26).
            in_plane: only neighbours in the same slice (z).
        """
        moves = [
            (z, y, x)
            for z in ((0,) if in_plane else (-1, 0, 1))
            for y in (-1, 0, 1)
            for x in (-1, 0, 1)
            if 1 <= abs(z) + abs(y) + abs(x) <= connectivity
        ]
        offsets = np.array(moves, dtype=np.int64)
        strides = np.array([self.shape[1] * self.shape[2], self.shape[2], 1], dtype=np.int64)
        return offsets @ strides, np.sqrt(((offsets * self.spacing) ** 2).sum(axis=1))


def build_foreground(image: np.ndarray, threshold: float, spacing: np.ndarray, *, dark_rim: bool = False) -> Foreground:
    """Collect the voxels of ``image`` (D, H, W) uint8 above ``threshold``.

    Args:
        spacing: (3,) voxel size along z, y, x in voxels of x.
        dark_rim: also take the background voxels that touch the foreground (26 neighbours), so that a march may
            step over gaps of one voxel.
    """
    padded = np.pad(image, 1)
    shape = padded.shape
    marks = padded > threshold
    marks[0], marks[-1] = False, False
    marks[:, 0], marks[:, -1], marks[:, :, 0], marks[:, :, -1] = False, False, False, False
    if dark_rim:
        marks = _with_rim(marks)
    flat = np.flatnonzero(marks)
    lookup = np.full(shape, OUTSIDE, dtype=np.int32)
    lookup[1:-1, 1:-1, 1:-1] = BACKGROUND
    lookup = lookup.reshape(-1)
    lookup[flat] = np.arange(len(flat), dtype=np.int32)
    values = padded.reshape(-1)
    value = values[flat]
    return Foreground(shape, values, lookup, flat, value, value <= threshold, threshold, np.asarray(spacing, float))


def _with_rim(marks: np.ndarray) -> np.ndarray:
    """``marks`` (padded, bool) grown by one voxel along every axis, within the volume."""
    grown = marks
    for axis in range(3):
        wider = grown.copy()
        ahead, behind = [slice(None)] * 3, [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        wider[tuple(ahead)] |= grown[tuple(behind)]
        wider[tuple(behind)] |= grown[tuple(ahead)]
        grown = wider
    inside = np.zeros_like(marks)
    inside[1:-1, 1:-1, 1:-1] = grown[1:-1, 1:-1, 1:-1]
    return inside


@compiler()
def label_components(flat, lookup, dark, steps):
    """(N,) int32 component number of each node, numbered by their first node. Dark nodes do not join each other."""
    count = len(flat)
    label = np.full(count, -1, np.int32)
    stack = np.empty(count, np.int32)
    number = 0
    for start in range(count):
        if label[start] >= 0:
            continue
        label[start] = number
        stack[0] = start
        size = 1
        while size > 0:
            size -= 1
            node = stack[size]
            for k in range(len(steps)):
                other = lookup[flat[node] + steps[k]]
                if other < 0 or label[other] >= 0 or (dark[node] and dark[other]):
                    continue
                label[other] = number
                stack[size] = other
                size += 1
        number += 1
    return label
