"""A traced neuron on the grid that a network learns from: cropped, made smaller, made noisier; image and tree alike.

Arrays are ``(z, y, x)``; positions ``(x, y, z)`` voxels with centres on whole numbers, so that the corner of the first
voxel lies at -0.5: making a volume smaller by a factor f takes p to ``f (p + 0.5) - 0.5``. Radii are in voxels of x.
``spacing`` ``(z, y, x)`` is the size of a voxel in voxels of x.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medwave.core.errors import GeometryError, InputError
from medwave.core.tree import Tree

Shape3 = tuple[int, int, int]
Spacing3 = tuple[float, float, float]

CROP_MARGIN: Shape3 = (5, 10, 10)
LONGEST_AXIS = 1024
LEAST_DEPTH = 32


@dataclass(frozen=True, eq=False)
class TracedImage:
    """An image and its tree.

    Attributes:
        image: ``(z, y, x)``, in the type of its file.
        tree: in voxels of the image, radii in voxels of x.
        spacing: see the module.
    """

    image: npt.NDArray[np.generic]
    tree: Tree
    spacing: Spacing3 = (1.0, 1.0, 1.0)


def crop_box(tree: Tree, shape: Shape3, *, margin: Shape3 = CROP_MARGIN) -> tuple[slice, slice, slice]:
    """The box of an image that holds all nodes that lie in it, and a margin.

    Args:
        tree: in voxels of the image; nodes outside the image are not counted.
        shape: of the image.
        margin: voxels on each side, where the image has them.

    Raises:
        InputError: when no node lies in the image.
    """
    zyx = tree.positions[:, ::-1]
    zyx = zyx[((zyx >= -0.5) & (zyx <= np.array(shape) - 0.5)).all(axis=1)]
    if not len(zyx):
        raise InputError(f"no node of the tree lies in the image of {shape} voxels (z, y, x): check its units")
    low = np.maximum(np.floor(zyx.min(axis=0)) - margin, 0).astype(int)
    high = np.minimum(np.ceil(zyx.max(axis=0)) + margin + 1, shape).astype(int)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def smaller_shape(shape: Shape3, *, longest: int = LONGEST_AXIS, least_depth: int = LEAST_DEPTH) -> Shape3:
    """The shape of a volume made smaller until no axis is longer than ``longest``; a volume that fits stays.

    y and x shrink alike. z shrinks with them unless fewer than ``least_depth`` planes would be left and z itself fits.
    """
    ratio = min(1.0, longest / max(shape))
    depth = shape[0] if shape[0] * ratio <= least_depth and shape[0] <= longest else round(shape[0] * ratio)
    return max(1, depth), max(1, round(shape[1] * ratio)), max(1, round(shape[2] * ratio))


def made_smaller(traced: TracedImage, shape: Shape3) -> TracedImage:
    """Image and tree on a coarser grid over the same field of view.

    The image is blurred first (Gaussian of half the number of old voxels that a new one gains along each axis), so
    that thin bright fibres grow dim and do not break, then interpolated linearly at the centres of the new voxels.

    Args:
        traced: what is made smaller.
        shape: of the result, along no axis larger.

    Raises:
        GeometryError: when an axis would grow.
    """
    old = np.array(traced.image.shape)
    if (np.array(shape) > old).any() or min(shape) < 1:
        raise GeometryError(f"a volume of {tuple(old)} voxels (z, y, x) is made smaller, not to {shape}")
    if tuple(old) == tuple(shape):
        return traced
    factor = np.array(shape) / old
    values = ndimage.gaussian_filter(traced.image.astype(np.float32), (1 / factor - 1) / 2, mode="nearest")
    offset = 0.5 / factor - 0.5
    values = ndimage.affine_transform(values, 1 / factor, offset, shape, order=1, mode="nearest", output=np.float32)
    tree = traced.tree
    positions = (tree.positions + 0.5) * factor[::-1] - 0.5
    spacing = np.array(traced.spacing) / factor
    z, y, x = (float(s) for s in spacing / spacing[2])
    return TracedImage(
        _as_type(values, traced.image.dtype),
        Tree(positions, tree.radius * factor[2], tree.parent, tree.kind, tree.extra, tree.extra_names),
        (z, y, x),
    )


def with_noise(traced: TracedImage, sigma: float, *, seed: int | np.random.Generator) -> TracedImage:
    """Add Gaussian noise and round back to the type of the image.

    Args:
        traced: what becomes noisy.
        sigma: standard deviation as a share of the range: 255 for 8 bits, the largest value for other types.
        seed: of the noise.

    Raises:
        InputError: when sigma is negative or not finite.
    """
    if not 0 <= sigma < np.inf:
        raise InputError(f"the noise is a share of the range, 0 or more, got {sigma}")
    image = traced.image
    top = 255.0 if image.dtype == np.uint8 else float(image.max())
    noise = np.random.default_rng(seed).standard_normal(image.shape, dtype=np.float32)
    noisy = np.clip(image + np.float32(sigma * top) * noise, min(0.0, float(image.min())), top)
    return replace(traced, image=_as_type(noisy, image.dtype))


def _as_type(values: npt.NDArray[np.float32], dtype: np.dtype[np.generic]) -> npt.NDArray[np.generic]:
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
