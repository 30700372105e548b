"""The foreground of a volume that is only ever seen in blocks, and groups of pieces that fit in memory.

Each block gives its foreground voxels and what it tells about their pieces (:mod:`medwave.cubes.components`); the
pieces of all blocks are merged, small ones are left out, and the others are put into groups of neighbours. A group is
traced from the voxels that its blocks gave. Trees are those of the whole volume at once, whatever blocks and groups
are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from medwave.core.errors import InputError
from medwave.cubes import Box
from medwave.cubes.components import BlockLabels, labels_of, merge_labels, widened
from medwave.cubes.plan import Triple
from medwave.tracing.foreground import Voxels, bright_voxels, foreground_of, unpack
from medwave.tracing.guard import MOST_FOREGROUND_VOXELS
from medwave.tracing.options import TraceOptions

GROUP_VOXELS = 4_000_000
"""Of a group of several pieces, at most; tracing takes up to 300 bytes for each."""


class BlockVoxels(NamedTuple):
    """The foreground of a block.

    Attributes:
        voxels: those of the block.
        label: (n,) int32 piece of each, as in ``labels``.
        labels: what the block tells about its pieces.
    """

    voxels: Voxels
    label: np.ndarray
    labels: BlockLabels


class Part(NamedTuple):
    """What a group needs of a block: its number, and which of its labels."""

    block: int
    labels: np.ndarray


def block_voxels(
    read: Callable[[Box], np.ndarray], block: Box, shape: Triple, threshold: float, spacing: np.ndarray,
    options: TraceOptions,
) -> BlockVoxels:  # fmt: skip
    """Collect the foreground of a block of a volume.

    Args:
        read: gives the grey values of a box, uint8.
        shape: of the volume.
        threshold: grey level; voxels above it are foreground.
        spacing: (3,) voxel size along z, y, x in voxels of x.
    """
    whole = Box((0, 0, 0), shape)
    seen = widened(block, whole)
    around = _grown(seen, whole)
    voxels = bright_voxels(
        read(around), threshold, spacing, connectivity=options.connectivity, dark_rim=options.cross_gaps,
        start=around.start,
    )  # fmt: skip
    voxels = voxels.at(_within(voxels, seen))
    piece = foreground_of(voxels, shape, threshold, spacing, connectivity=options.connectivity).piece
    count = int(piece.max()) + 1 if len(piece) else 0
    labels = labels_of(unpack(voxels.place), piece.astype(np.int64), count, block, shape)
    own = _within(voxels, block)
    return BlockVoxels(voxels.at(own), piece[own], labels)


def group_pieces(
    labels: Mapping[int, BlockLabels], options: TraceOptions, given: Sequence[tuple[int, int]], most: int = GROUP_VOXELS
) -> list[tuple[Part, ...]]:
    """Groups of pieces, each as the parts of blocks that it consists of.

    Args:
        labels: of all blocks with foreground, by their numbers.
        given: block and label of the voxel at each root that was asked for; these pieces are kept, small or not.
        most: voxels of a group, if it is more than one piece.

    Raises:
        InputError: when a piece is too large to be traced.
    """
    pieces = merge_labels(list(labels.values()))
    of_block = dict(zip(labels, pieces.of, strict=True))
    stays = pieces.voxels >= options.smallest_component_voxels
    for block, label in given:
        stays[of_block[block][label]] = True
    if len(pieces) and pieces.voxels.max() > MOST_FOREGROUND_VOXELS:
        raise InputError(
            f"a connected piece of foreground has {pieces.voxels.max()} voxels, at most {MOST_FOREGROUND_VOXELS} may "
            "be: a trace would run for long and be a tangle. Raise the threshold, or trace a segmentation."
        )
    home = np.zeros(len(pieces), np.int64)
    for number in sorted(labels, reverse=True):
        home[of_block[number]] = number
    order = np.flatnonzero(stays)
    order = order[np.argsort(home[order], kind="stable")]
    before = np.cumsum(pieces.voxels[order]) - pieces.voxels[order]
    _, group = np.unique(before // most, return_inverse=True)
    group_of = np.full(len(pieces), -1, np.int64)
    group_of[order] = group
    groups: list[list[Part]] = [[] for _ in range(int(group.max()) + 1 if len(group) else 0)]
    for number, of in of_block.items():
        there = group_of[of]
        for g in np.unique(there[there >= 0]):
            groups[g].append(Part(number, np.flatnonzero(there == g)))
    return [tuple(parts) for parts in groups]


def group_voxels(parts: Sequence[tuple[Voxels, np.ndarray, np.ndarray]]) -> Voxels:
    """The voxels of a group.

    Args:
        parts: voxels of each block, their labels, and the labels that belong to the group.
    """
    chosen = [voxels.at(np.isin(label, labels)) for voxels, label, labels in parts]
    together = Voxels(*(np.concatenate(columns) for columns in zip(*chosen, strict=True)))
    return together.at(np.argsort(together.place))


def _grown(box: Box, whole: Box) -> Box:
    """A box with the voxels around it, within the whole."""
    z, y, x = (max(a - 1, 0) for a in box.start)
    u, v, w = (min(b + 1, n) for b, n in zip(box.stop, whole.stop, strict=True))
    return Box((z, y, x), (u, v, w))


def _within(voxels: Voxels, box: Box) -> np.ndarray:
    at = unpack(voxels.place)
    return ((at >= box.start) & (at < box.stop)).all(axis=1)
