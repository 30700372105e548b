"""Trees of a volume from its voxels to micrometres and back.

Voxels count from the centre of voxel 0 of the level that is open, micrometres from that of level 0, so that trees of
all levels of a volume lie on each other. Radii are in voxels of x, and follow the voxel size along x.
"""

from __future__ import annotations

import numpy as np

from medwave.core.tree import Tree
from medwave.tracing import scale, translate
from medwave.volumes.stack import Spacing


def to_micrometres(tree: Tree, spacing_um: Spacing, offset_voxels: Spacing) -> Tree:
    """A tree in voxels of a volume with this voxel size and offset (z, y, x) in micrometres."""
    moved = translate(tree, offset_voxels[::-1])
    return scale(moved, spacing_um[::-1], radius_factor=spacing_um[2])


def to_voxels(tree: Tree, spacing_um: Spacing, offset_voxels: Spacing) -> Tree:
    """A tree in micrometres in voxels of a volume with this voxel size and offset (z, y, x)."""
    moved = scale(tree, [1 / s for s in spacing_um[::-1]], radius_factor=1 / spacing_um[2])
    return translate(moved, -np.array(offset_voxels[::-1]))
