"""Does a tree lie on its image? Programs count y from the top or from the bottom, and files do not say which.

Conventions
    Image ``(D, H, W)`` = (z, y, x); tree in voxels of it, x y z, voxel centres on whole numbers.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError
from medwave.core.tree import Float64Array, Tree
from medwave.core.tree_paths import node_lengths, resample
from medwave.tracing.voxels import GreyVoxels, VoxelsInMemory


class Alignment(NamedTuple):
    """Mean image values along a tree and its mirror images.

    Attributes:
        best: the mirrored axes under which the tree lies on the brightest voxels: ``""`` as it is, ``"y"``, ``"xz"``...
        aligned: whether that is the tree as it is, and it is brighter there than beside it.
        values: mean value for each of the eight flips, by mirrored axes.
        beside: the same mean for the unflipped tree moved sideways, over four directions: what chance gives.
        inside: share of the tree's length that lies within the image.
    """

    best: str
    aligned: bool
    values: dict[str, float]
    beside: float
    inside: float


def check_alignment(tree: Tree, image: npt.NDArray[np.generic], *, shift_voxels: float = 12.0) -> Alignment:
    """Compare the image along a tree, along its mirror images, and beside it.

    The tree is sampled at every voxel of length and the nearest voxel is read; where it leaves the image it counts
    as the mean of the image, so that a flip gains nothing from lying mostly outside.

    Args:
        tree: at least one edge, in voxels.
        image: ``(D, H, W)`` with bright fibres.
        shift_voxels: how far the control is moved along x and y at once.

    Raises:
        GeometryError: when the image is not 3-D.
        InputError: when the tree has no edge, or lies wholly outside the image.
    """
    if image.ndim != 3:
        raise GeometryError(f"an image (D, H, W) is needed to check a tree, got shape {image.shape}")
    return alignment_within(tree, VoxelsInMemory(image), float(image.mean(dtype=np.float64)), shift_voxels=shift_voxels)


def alignment_within(
    tree: Tree, image: GreyVoxels, typical: float | None, *, shift_voxels: float = 12.0, most_samples: int = 0
) -> Alignment:  # fmt: skip
    """As :func:`check_alignment`, of voxels that are read where they are needed.

    Args:
        typical: value that counts outside the image; None: the mean of what is read beside the tree.
        most_samples: sample long trees in longer steps, so that there are about as many samples; 0: always 1 voxel.
    """
    if not len(tree.edges):
        raise InputError("a tree without edges lies nowhere; its alignment cannot be checked")
    samples = resample(tree, max(1.0, tree.length / most_samples if most_samples else 0.0))
    weights = node_lengths(samples)
    zyx = samples.positions[:, ::-1]
    last = np.array(image.shape) - 1.0
    inside = float(weights[_within(zyx, image.shape)].sum() / weights.sum())
    if inside == 0:
        raise InputError(f"the tree lies wholly outside the image of {image.shape} voxels (z, y, x): check its units")

    sideways = [np.array([0.0, dy, dx]) * shift_voxels for dy, dx in product((-1, 1), repeat=2)]
    if typical is None:
        near = [zyx + offset for offset in sideways]
        found = [image.at(np.rint(each[_within(each, image.shape)]).astype(np.int64)) for each in near]
        typical = float(np.concatenate(found).mean(dtype=np.float64)) if sum(map(len, found)) else 0.0

    def mean_at(places: Float64Array) -> float:
        within = _within(places, image.shape)
        values = np.full(len(places), typical)
        values[within] = image.at(np.rint(places[within]).astype(np.int64))
        return round(float(values @ weights / weights.sum()), 9)  # so that equal means tie whatever the order of sums

    flips = {
        "".join(name for name, flag in zip("xyz", flags, strict=True) if flag): np.array(flags[::-1])
        for flags in sorted(product((False, True), repeat=3), key=sum)
    }
    values = {name: mean_at(np.where(flag, last - zyx, zyx)) for name, flag in flips.items()}
    beside = float(np.mean([mean_at(zyx + offset) for offset in sideways]))
    best = max(values, key=values.__getitem__)  # on a tie the first: the fewest flips
    return Alignment(best, best == "" and values[""] > beside, values, beside, inside)


def _within(zyx: Float64Array, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    return ((np.rint(zyx) >= 0) & (np.rint(zyx) <= np.array(shape) - 1)).all(axis=1)
