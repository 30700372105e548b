"""Seeded scenes with exact boxes, in 2-D and 3-D: balls, rings and rods over a noisy, uneven background.

Conventions
    An image is uint8 with any two or three axes; boxes are ``(K, 2 * ndim)`` float32, first corner and far corner in
    samples, taken from the samples that the object covers, so that they are exact. Objects never overlap: each is
    visible as a whole. A ring is the hull of a ball (in 3-D a shell); a rod has any direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medwave.core.errors import InputError

KINDS = ("ball", "ring", "rod")
"""Names of the classes, by label."""

_TRIES = 40


class BoxScene(NamedTuple):
    """An image uint8, boxes ``(K, 2 * ndim)`` float32 and labels ``(K,)`` int64."""

    image: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def box_scene(
    shape: Sequence[int],
    *,
    seed: int | np.random.Generator,
    objects: int = 4,
    side_voxels: tuple[float, float] = (8.0, 24.0),
    contrast: tuple[float, float] = (0.2, 0.5),
    noise: float = 0.15,
) -> BoxScene:
    """Draw a scene.

    Args:
        shape: samples along each of two or three axes.
        seed: integer or generator.
        objects: most of them in a scene, one at least; where there is no room there are fewer.
        side_voxels: smallest and largest diameter or length.
        contrast: least and most that an object is brighter than what is behind it; the image reaches from 0 to 1.
        noise: standard deviation of the Gaussian noise of each sample.

    Raises:
        InputError: for another number of axes, or sizes that do not fit into the image.
    """
    low, high = side_voxels
    if len(shape) not in (2, 3) or objects < 1:
        raise InputError(f"a scene has two or three axes and an object at least, got {tuple(shape)} and {objects}")
    if not 3 <= low <= high < min(shape) - 2:
        raise InputError(f"side_voxels: from 3 to below the image {tuple(shape)} less 2, got {side_voxels}")
    rng = np.random.default_rng(seed)
    image = 0.3 + 0.1 * _smooth_noise(shape, rng)
    taken = np.zeros(shape, dtype=bool)
    boxes, labels = [], []
    for _ in range(int(rng.integers(1, objects + 1))):
        for _ in range(_TRIES):
            label, side = int(rng.integers(len(KINDS))), rng.uniform(low, high)
            mask = _object(KINDS[label], side, shape, rng)
            box = ndimage.find_objects(mask.astype(np.uint8))[0]
            around = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
            if not taken[around].any():
                break
        else:
            continue
        taken[box] = True
        image += rng.uniform(*contrast) * mask
        boxes.append([*(s.start for s in box), *(s.stop for s in box)])
        labels.append(label)
    image += noise * rng.standard_normal(shape)
    return BoxScene(
        np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8), np.array(boxes, np.float32), np.array(labels, np.int64)
    )


def _smooth_noise(shape: Sequence[int], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Noise of deviation 1 whose waves are about a third of the image."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), [n / 6 for n in shape], mode="wrap")
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-12))


def _object(kind: str, side: float, shape: Sequence[int], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """The samples of one object, all of them inside the image."""
    half = side / 2
    centre = np.array([rng.uniform(half, n - 1 - half) for n in shape])
    offsets = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) - centre
    distance = np.linalg.norm(offsets, axis=-1)
    if kind == "ball":
        return np.asarray(distance <= half)
    if kind == "ring":
        return np.asarray((distance <= half) & (distance >= max(half - 3, 0.6 * half)))
    direction = rng.standard_normal(len(shape))
    direction /= np.linalg.norm(direction)
    along = offsets @ direction
    across = np.sqrt(np.maximum(distance**2 - along**2, 0))
    return np.asarray((np.abs(along) <= half) & (across <= 1.5) & (distance <= half))
