"""The foreground of a volume as a graph: its voxels above the threshold and their neighbours.

Only foreground voxels ("nodes") carry data, in arrays ordered by position, so that work and memory follow the neurons
and not the volume. A position is one number, z, y and x plus one in 21 bits each; such numbers are in the order of the
voxels. Which node lies at a position is looked up in bricks of 16 x 16 x 16 voxels, of which there are only those that
hold a node, and in a table of bricks: a byte for 1024 voxels of the box around all nodes.

Nodes that are connected are a piece. What is not in a piece is nothing to it, be it background or another piece: all
that is made of a foreground is the same for a piece by itself and among others.

Lengths are in voxels of x: a step along axis a is ``spacing[a] / spacing[x]`` long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from medwave.core.compiler import compiler
from medwave.core.errors import GeometryError

AXIS_BITS = 21
"""Of a position; an axis may have 2 097 150 voxels."""
_LAST = (1 << AXIS_BITS) - 1
BRICK_BITS = 4
BRICK_SIDE = 1 << BRICK_BITS
_INSIDE = BRICK_SIDE - 1


class Index(NamedTuple):
    """Where nodes lie.

    Attributes:
        table: (Z, Y, X) int32 number of the brick at each place, -1 where none is.
        bricks: (B, 4096) int32 node at each voxel of a brick, -1 where none is.
        corner: (3,) int64 brick at the corner of the table, counted from that of the volume.
    """

    table: np.ndarray
    bricks: np.ndarray
    corner: np.ndarray


@dataclass(frozen=True)
class Foreground:
    """Nodes of a volume.

    Attributes:
        shape: of the volume, (D, H, W).
        place: (N,) int64, position of each node, ascending.
        value: (N,) uint8, grey value of each node.
        edge: (N,) float64, what it costs to come from beside the foreground: the least, over neighbours in the volume
            that are no nodes, of their grey value plus the node's times the length of the step; inf without such.
        dark: (N,) bool, nodes at or below the threshold (only there when gaps are bridged in the march).
        piece: (N,) int32, number of the piece of each node, in the order of their first nodes.
        threshold: nodes are brighter than this, apart from dark ones.
        spacing: (3,) float64, voxel size along z, y, x in voxels of x.
        index: where nodes lie.
    """

    shape: tuple[int, int, int]
    place: np.ndarray
    value: np.ndarray
    edge: np.ndarray
    dark: np.ndarray
    piece: np.ndarray
    threshold: float
    spacing: np.ndarray
    index: Index

    def __len__(self) -> int:
        return len(self.place)

    def positions(self, nodes: np.ndarray) -> np.ndarray:
        """(n, 3) int64 positions (z, y, x) of ``nodes`` in the volume."""
        return unpack(self.place[nodes])

    def nodes_at(self, positions: np.ndarray) -> np.ndarray:
        """(n,) node numbers at (n, 3) integer positions (z, y, x); negative where there is no node."""
        wanted = pack(np.asarray(positions, dtype=np.int64).reshape(-1, 3))
        found = np.minimum(np.searchsorted(self.place, wanted), max(len(self) - 1, 0))
        there = self.place[found] == wanted if len(self) else np.zeros(len(wanted), bool)
        return np.where(there, found, -1)

    def voxels_of_pieces(self) -> np.ndarray:
        """(P,) number of nodes of each piece."""
        return np.bincount(self.piece)


def pack(positions: np.ndarray) -> np.ndarray:
    """(n,) int64 of (n, 3) voxels (z, y, x)."""
    z, y, x = (positions[:, axis].astype(np.int64) + 1 for axis in range(3))
    return (z << 2 * AXIS_BITS) | (y << AXIS_BITS) | x


def unpack(places: np.ndarray) -> np.ndarray:
    """(n, 3) int64 voxels (z, y, x) of positions."""
    return np.stack([places >> 2 * AXIS_BITS, places >> AXIS_BITS & _LAST, places & _LAST], axis=1) - 1


def neighbour_steps(spacing: np.ndarray, connectivity: int, *, in_plane: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Steps (K, 3) int64 (z, y, x) to the allowed neighbours of a voxel and their lengths (K,) float64.

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
    steps = np.array(moves, dtype=np.int64)
    return steps, np.sqrt(((steps * spacing) ** 2).sum(axis=1))


def build_foreground(
    image: np.ndarray, threshold: float, spacing: np.ndarray, *, connectivity: int = 2, dark_rim: bool = False
) -> Foreground:
    """Collect the voxels of ``image`` (D, H, W) uint8 above ``threshold``.

    Args:
        spacing: (3,) voxel size along z, y, x in voxels of x.
        connectivity: of pieces: 1, 2 or 3 axes may change from a voxel to its neighbour.
        dark_rim: also take the background voxels that touch the foreground (26 neighbours), so that a march may
            step over gaps of one voxel.
    """
    voxels = bright_voxels(image, threshold, spacing, connectivity=connectivity, dark_rim=dark_rim)
    return foreground_of(voxels, image.shape, threshold, spacing, connectivity=connectivity)


class Voxels(NamedTuple):
    """Foreground voxels in the order of their positions; attributes as of :class:`Foreground`."""

    place: np.ndarray
    value: np.ndarray
    edge: np.ndarray

    def at(self, keep: np.ndarray) -> Voxels:
        """Those that are marked, or numbered, in ``keep``."""
        return Voxels(*(column[keep] for column in self))


def bright_voxels(
    image: np.ndarray, threshold: float, spacing: np.ndarray, *, connectivity: int, dark_rim: bool = False,
    start: tuple[int, ...] = (0, 0, 0),
) -> Voxels:  # fmt: skip
    """The voxels of an image above a threshold, as for :func:`build_foreground`.

    Args:
        start: voxel of the volume at which the image begins.
    """
    marks = image > threshold
    if dark_rim:
        marks = _with_rim(marks)
    count = int(np.count_nonzero(marks))
    voxels = Voxels(np.empty(count, np.int64), np.empty(count, np.uint8), np.empty(count))
    steps, lengths = neighbour_steps(spacing, connectivity)
    _collect(image, marks, np.array(start, np.int64), steps, lengths, *voxels)
    return voxels


def foreground_of(
    voxels: Voxels, shape: tuple[int, ...], threshold: float, spacing: np.ndarray, *, connectivity: int
) -> Foreground:  # fmt: skip
    """The graph of voxels; what else the volume holds is background.

    Raises:
        GeometryError: when an axis of the volume is too long.
    """
    if max(shape) >= _LAST:
        raise GeometryError(f"a volume with up to {_LAST - 1} voxels along each axis can be traced, got {shape}")
    index = _indexed(voxels.place)
    dark = voxels.value <= threshold
    steps, _ = neighbour_steps(spacing, connectivity)
    piece = label_pieces(voxels.place, *index, dark, steps)
    z, y, x = map(int, shape)
    return Foreground((z, y, x), *voxels, dark, piece, threshold, np.asarray(spacing, float), index)


def selected(foreground: Foreground, keep: np.ndarray, *, connectivity: int) -> Foreground:
    """The foreground of whole pieces, or of other nodes, that are marked in ``keep`` (N,)."""
    fg = foreground
    if keep.all():
        return fg
    voxels = Voxels(fg.place, fg.value, fg.edge).at(keep)
    return foreground_of(voxels, fg.shape, fg.threshold, fg.spacing, connectivity=connectivity)


def _with_rim(marks: np.ndarray) -> np.ndarray:
    """``marks`` (bool) grown by one voxel along every axis."""
    grown = marks
    for axis in range(3):
        wider = grown.copy()
        ahead, behind = [slice(None)] * 3, [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        wider[tuple(ahead)] |= grown[tuple(behind)]
        wider[tuple(behind)] |= grown[tuple(ahead)]
        grown = wider
    return grown


def _indexed(place: np.ndarray) -> Index:
    """The bricks of nodes at ascending positions."""
    if not len(place):
        return Index(np.full((1, 1, 1), -1, np.int32), np.empty((0, BRICK_SIDE**3), np.int32), np.zeros(3, np.int64))
    low, high = _bounds(place)
    table = np.full(high - low + 1, -1, np.int32)
    bricks = np.full((_number_bricks(place, low, table), BRICK_SIDE**3), -1, np.int32)
    _fill_bricks(place, low, table, bricks)
    return Index(table, bricks, low)


@compiler()
def _collect(image, marks, start, steps, lengths, place, value, edge):
    """Write the marked voxels into ``place``, ``value`` and ``edge``, in order."""
    depth, height, width = image.shape
    count = 0
    for z in range(depth):
        for y in range(height):
            row = ((z + start[0] + 1) << 2 * AXIS_BITS) | ((y + start[1] + 1) << AXIS_BITS)
            for x in range(width):
                if not marks[z, y, x]:
                    continue
                place[count] = row | (x + start[2] + 1)
                value[count] = image[z, y, x]
                least = np.inf
                for k in range(len(steps)):
                    u, v, w = z + steps[k, 0], y + steps[k, 1], x + steps[k, 2]
                    if u < 0 or v < 0 or w < 0 or u >= depth or v >= height or w >= width or marks[u, v, w]:
                        continue
                    least = min(least, image[u, v, w] + image[z, y, x] * lengths[k])
                edge[count] = least
                count += 1


@compiler()
def _bounds(place):
    """First and last brick along each axis."""
    low, high = np.full(3, 1 << AXIS_BITS), np.zeros(3, np.int64)
    for p in place:
        for axis in range(3):
            at = ((p >> (2 - axis) * AXIS_BITS) & _LAST) >> BRICK_BITS
            low[axis] = min(low[axis], at)
            high[axis] = max(high[axis], at)
    return low, high


@compiler()
def _number_bricks(place, corner, table):
    """Number the bricks that hold a node, in the order of their first nodes; returns how many there are."""
    count = 0
    for p in place:
        a = (p >> (2 * AXIS_BITS + BRICK_BITS)) - corner[0]
        b = ((p >> AXIS_BITS & _LAST) >> BRICK_BITS) - corner[1]
        c = ((p & _LAST) >> BRICK_BITS) - corner[2]
        if table[a, b, c] < 0:
            table[a, b, c] = count
            count += 1
    return count


@compiler()
def _fill_bricks(place, corner, table, bricks):
    for node in range(len(place)):
        z, y, x = coordinates(place[node])
        brick = table[(z >> BRICK_BITS) - corner[0], (y >> BRICK_BITS) - corner[1], (x >> BRICK_BITS) - corner[2]]
        bricks[brick, inside_brick(z, y, x)] = node


@compiler(inline="always")
def coordinates(place):
    """z, y, x, each plus one, of a position."""
    return place >> 2 * AXIS_BITS, place >> AXIS_BITS & _LAST, place & _LAST


@compiler(inline="always")
def inside_brick(z, y, x):
    """Where in its brick a voxel lies."""
    return ((z & _INSIDE) << 2 * BRICK_BITS) | ((y & _INSIDE) << BRICK_BITS) | (x & _INSIDE)


@compiler(inline="always")
def node_at(z, y, x, table, bricks, corner):
    """The node at :func:`coordinates`, -1 where none is."""
    a = (z >> BRICK_BITS) - corner[0]
    b = (y >> BRICK_BITS) - corner[1]
    c = (x >> BRICK_BITS) - corner[2]
    if a < 0 or b < 0 or c < 0 or a >= table.shape[0] or b >= table.shape[1] or c >= table.shape[2]:
        return np.int32(-1)
    brick = table[a, b, c]
    if brick < 0:
        return np.int32(-1)
    return bricks[brick, inside_brick(z, y, x)]


@compiler()
def label_pieces(place, table, bricks, corner, dark, steps):
    """(N,) int32 piece of each node, numbered by their first node. Dark nodes do not join each other."""
    count = len(place)
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
            z, y, x = coordinates(place[node])
            for k in range(len(steps)):
                other = node_at(z + steps[k, 0], y + steps[k, 1], x + steps[k, 2], table, bricks, corner)
                if other < 0 or label[other] >= 0 or (dark[node] and dark[other]):
                    continue
                label[other] = number
                stack[size] = other
                size += 1
        number += 1
    return label
