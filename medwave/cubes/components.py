"""Connected components of a mask that is only ever seen in blocks.

Conventions
    Voxels of a component touch along ``connectivity`` axes at most (1: faces, 2: and edges, 3: and corners). Components
    are numbered from 1 by their first voxel (z slowest), as ``scipy.ndimage.label`` numbers them.

A block is labelled together with the voxels just beyond its far sides. Any two voxels that touch lie in one of these
widened blocks, so nothing else has to be looked at: labels that two blocks gave to one voxel are one component. A block
leaves the table of its labels and the labels on its rims; the merge needs these alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError
from medwave.cubes.plan import Box, Triple

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BlockLabels:
    """What a block tells about its components.

    Attributes:
        voxels: (n,) of each label within the block.
        first: (n,) flat index, in the volume, of the first voxel that has it.
        start, stop: (n, 3) bounds of its voxels, those beyond the far sides included.
        rim, rim_label: (m,) flat indices of voxels that other blocks see too, and their labels from 0.
    """

    voxels: Ints
    first: Ints
    start: Ints
    stop: Ints
    rim: Ints
    rim_label: Ints


@dataclass(frozen=True)
class Components:
    """All components of a volume, in the order of their numbers.

    Attributes:
        voxels: (n,).
        first: (n,) flat index of the first voxel.
        start, stop: (n, 3) bounds, z y x.
        of: per block, (its labels,) number of the component from 0.
    """

    voxels: Ints
    first: Ints
    start: Ints
    stop: Ints
    of: tuple[Ints, ...]

    def __len__(self) -> int:
        return len(self.voxels)

    def box(self, number: int) -> Box:
        """The box about a component, numbered from 0."""
        (a, b, c), (d, e, f) = (tuple(map(int, each[number])) for each in (self.start, self.stop))
        return Box((a, b, c), (d, e, f))


def widened(block: Box, whole: Box) -> Box:
    """A block with the voxels just beyond its far sides, within the whole."""
    z, y, x = (min(b + 1, w) for b, w in zip(block.stop, whole.stop, strict=True))
    return Box(block.start, (z, y, x))


def label_mask(mask: npt.NDArray[np.bool_], connectivity: int) -> tuple[npt.NDArray[np.int32], int]:
    """Labels from 1 of the components of a mask, 0 elsewhere, and how many there are."""
    from scipy import ndimage

    if connectivity not in (1, 2, 3):
        raise InputError(f"connectivity: 1, 2 or 3 axes, got {connectivity}")
    labels, count = ndimage.label(mask, ndimage.generate_binary_structure(3, connectivity), output=np.int32)
    return labels, int(count)


def label_block(mask: npt.NDArray[np.bool_], block: Box, shape: Triple, *, connectivity: int = 2) -> BlockLabels:
    """Label a block.

    Args:
        mask: the voxels of :func:`widened` of the block.
        block: without the voxels beyond.
        shape: of the volume, for flat indices.
        connectivity: 1, 2 or 3.
    """
    labels, count = label_mask(mask, connectivity)
    at = np.flatnonzero(labels)
    places = [p + s for p, s in zip(np.unravel_index(at, mask.shape), block.start, strict=True)]
    return labels_of(np.stack(places, axis=1), labels.reshape(-1)[at].astype(np.int64) - 1, count, block, shape)


def labels_of(places: Ints, label: Ints, count: int, block: Box, shape: Triple) -> BlockLabels:
    """What a block tells about components that were found in another way.

    Args:
        places: (n, 3) voxels (z, y, x) of the volume within :func:`widened` of the block.
        label: (n,) of each, from 0.
        count: of labels.
        block, shape: as for :func:`label_block`.
    """
    flat = np.ravel_multi_index(tuple(places.T), shape).astype(np.int64)
    inside = (places < block.stop).all(axis=1)
    rim = ~inside | (places == block.start).any(axis=1)
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, label, flat)
    start, stop = np.full((count, 3), np.iinfo(np.int64).max), np.zeros((count, 3), np.int64)
    np.minimum.at(start, label, places)
    np.maximum.at(stop, label, places + 1)
    return BlockLabels(np.bincount(label[inside], minlength=count), first, start, stop, flat[rim], label[rim])


def merge_labels(blocks: Sequence[BlockLabels]) -> Components:
    """The components of all blocks of a volume."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    counts = [len(block.voxels) for block in blocks]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    total = int(offsets[-1])
    if not total:
        none = np.zeros(0, np.int64)
        return Components(
            none, none, np.zeros((0, 3), np.int64), np.zeros((0, 3), np.int64), tuple(none for _ in blocks)
        )
    where = np.concatenate([block.rim for block in blocks])
    who = np.concatenate([block.rim_label + offset for block, offset in zip(blocks, offsets, strict=False)])
    order = np.argsort(where, kind="stable")
    where, who = where[order], who[order]
    same = np.flatnonzero(where[1:] == where[:-1])
    links = coo_array((np.ones(len(same), np.int8), (who[same], who[same + 1])), shape=(total, total))
    count, group = connected_components(links, directed=False)
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, group, np.concatenate([block.first for block in blocks]))
    number = np.empty(count, np.int64)
    number[np.argsort(first)] = np.arange(count)
    of = number[group]
    voxels = np.zeros(count, np.int64)
    np.add.at(voxels, of, np.concatenate([block.voxels for block in blocks]))
    start, stop = np.full((count, 3), np.iinfo(np.int64).max), np.zeros((count, 3), np.int64)
    np.minimum.at(start, of, np.concatenate([block.start for block in blocks]))
    np.maximum.at(stop, of, np.concatenate([block.stop for block in blocks]))
    return Components(voxels, np.sort(first), start, stop, tuple(np.split(of, offsets[1:-1])))
