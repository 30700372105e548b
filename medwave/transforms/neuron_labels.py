"""Voxel labels of a traced neuron: fibre, background, and what nobody knows.

The tree is drawn as exact round cones (:mod:`medwave.transforms.rasterise`). Two things are not known and marked
:data:`IGNORE`, so that losses leave them out: voxels that are fibre or not depending on a radius that is uncertain,
and everything outside the boxes in which all fibres are annotated.

Arrays are ``(z, y, x)``; positions ``(x, y, z)`` voxels; radii in voxels of x.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError
from medwave.core.tree import Tree
from medwave.transforms.rasterise import draw_tubes

IGNORE = 255
BACKGROUND, FIBRE = 0, 1
Shape3 = tuple[int, int, int]
Slices = tuple[slice, slice, slice]


def fibre_labels(
    tree: Tree,
    shape: Shape3,
    *,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    slack: float = 0.25,
    unknown_radius: float = 1.0,
    radius_uncertainty: float = 0.0,
    clean: Sequence[Slices] | None = None,
) -> npt.NDArray[np.uint8]:
    """Label every voxel of a volume from its tree.

    Args:
        tree: in voxels of the volume; what lies outside is left out.
        shape: of the volume.
        spacing: voxel size in voxels of x.
        slack: added to every radius, see :func:`medwave.transforms.draw_tubes`.
        unknown_radius: what a radius of 0 is taken to be.
        radius_uncertainty: share u: voxels in the tubes of radius ``r (1 + u)`` but not of ``r (1 - u)`` are unknown.
            The centre line stays fibre.
        clean: boxes in which every fibre is annotated; the rest is unknown. Without any, all is taken as annotated.

    Returns:
        uint8: 1 fibre, 0 background, :data:`IGNORE` unknown.

    Raises:
        InputError: when the uncertainty is not from 0 to below 1.
    """
    if not 0 <= radius_uncertainty < 1:
        raise InputError(f"the uncertainty of radii is a share from 0 to below 1, got {radius_uncertainty}")
    radius = np.where(tree.radius > 0, tree.radius, unknown_radius)

    def drawn(factor: float) -> npt.NDArray[np.bool_]:
        thick = Tree(tree.positions, radius * factor, tree.parent, tree.kind)
        return draw_tubes(thick, shape, spacing=spacing, slack=slack)

    labels = np.zeros(shape, dtype=np.uint8)
    if radius_uncertainty > 0:
        labels[drawn(1 + radius_uncertainty)] = IGNORE
    labels[drawn(1 - radius_uncertainty)] = FIBRE
    if clean is not None:
        dirty = np.ones(shape, dtype=np.bool_)
        for box in clean:
            dirty[box] = False
        labels[dirty] = IGNORE
    return labels


def parse_boxes(text: str) -> tuple[Slices, ...]:
    """Boxes written as ``z0:z1,y0:y1,x0:x1``, joined by ``;``; -1 after the colon means to the end.

    Raises:
        InputError: when a box is written otherwise.
    """
    boxes = []
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        try:
            (z0, z1), (y0, y1), (x0, x1) = (map(int, axis.split(":")) for axis in part.split(","))
        except ValueError:
            raise InputError(f"a box is written z0:z1,y0:y1,x0:x1 in whole numbers, got {part!r}") from None
        sides = [slice(a, None if b == -1 else b) for a, b in ((z0, z1), (y0, y1), (x0, x1))]
        if any(s.start < 0 or (s.stop is not None and s.stop <= s.start) for s in sides):
            raise InputError(f"a box runs from 0 or more to a larger number, or to -1 for the end, got {part!r}")
        boxes.append((sides[0], sides[1], sides[2]))
    return tuple(boxes)
