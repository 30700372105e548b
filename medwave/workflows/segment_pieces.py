"""Pieces of a mask with few voxels, left out: those of the whole mask, though it is only ever seen in blocks.

Voxels of one piece touch by faces or edges (18 neighbours), as those that a trace takes together. Each block is
labelled by itself, on a cluster in a task (:mod:`medwave.cubes.components`); what the blocks tell about their labels is
merged here, in memory that grows with the voxels of the mask on the faces of blocks and with the number of pieces; and
the mask is written once, without the small pieces. Labels are those of the probability, which does not change
meanwhile, so that a block has the same ones when it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medwave.cubes import Box
from medwave.cubes.components import BlockLabels, label_block, label_mask, merge_labels, widened
from medwave.volumes import OmeZarrImage

CONNECTIVITY = 2
"""Axes that may change in a step from a voxel to its neighbour."""

Small = npt.NDArray[np.int64]
"""Labels, from 1, of the pieces of a block that are left out."""

NONE_SMALL: Small = np.zeros(0, np.int64)
"""Of a block that keeps all its pieces."""


@dataclass(frozen=True)
class Pieces:
    """What became of the pieces of a mask.

    Attributes:
        kept, left_out: how many.
        voxels_left_out: in all.
    """

    kept: int
    left_out: int
    voxels_left_out: int


def label_fibre(probability: OmeZarrImage, block: Box, threshold: float) -> BlockLabels:
    """What a block tells about the pieces within it."""
    seen = widened(block, Box((0, 0, 0), probability.shape))
    return label_block(_fibre(probability, seen, threshold), block, probability.shape, connectivity=CONNECTIVITY)


def small_pieces(blocks: Sequence[BlockLabels], smallest_voxels: int) -> tuple[Pieces, list[Small]]:
    """The pieces of all blocks with fewer voxels, and per block the labels of those."""
    pieces = merge_labels(blocks)
    small = pieces.voxels < smallest_voxels
    count = Pieces(int((~small).sum()), int(small.sum()), int(pieces.voxels[small].sum()))
    return count, [np.flatnonzero(small[of]) + 1 for of in pieces.of]


def fibre_without(probability: OmeZarrImage, block: Box, threshold: float, small: Small) -> npt.NDArray[np.bool_]:
    """Where a block is fibre, the pieces of these labels left out."""
    if not len(small):
        return _fibre(probability, block, threshold)
    seen = widened(block, Box((0, 0, 0), probability.shape))
    labels, count = label_mask(_fibre(probability, seen, threshold), CONNECTIVITY)
    stays = np.ones(count + 1, dtype=bool)
    stays[0] = stays[small] = False
    return stays[labels[tuple(slice(0, n) for n in block.shape)]]


def _fibre(probability: OmeZarrImage, box: Box, threshold: float) -> npt.NDArray[np.bool_]:
    return np.asarray(probability.read(box.slices) > threshold * 255)
