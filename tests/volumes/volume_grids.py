"""Grids and fields that many tests of this room share: every kind of orientation, spacing and obliqueness."""

import itertools

import numpy as np

from medwave.core.geometry import Grid


def rotation(angles):
    """A 3x3 rotation about the three axes in turn."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = matrix @ turn
    return matrix


def make_grid(shape, *, spacing_mm=(1, 1, 1), order=(0, 1, 2), signs=(1, 1, 1), angles=(0, 0, 0), origin_mm=(0, 0, 0)):
    """A grid whose axis w lies along world axis order[w], turned by angles."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) @ np.eye(3)[:, list(order)] * np.array(signs) @ np.diag(spacing_mm)
    affine[:3, 3] = origin_mm
    return Grid(shape, affine)


GRIDS = {
    "ras": make_grid((13, 11, 9), origin_mm=(-6, -5, -4)),
    "las": make_grid((13, 11, 9), signs=(-1, 1, 1), origin_mm=(7, -20, 3)),
    "lps anisotropic": make_grid((12, 10, 7), signs=(-1, -1, 1), spacing_mm=(0.7, 1.1, 2.5), origin_mm=(3, 90, -40)),
    "permuted": make_grid((9, 12, 8), order=(2, 0, 1), signs=(1, -1, 1), spacing_mm=(1.5, 1, 0.8)),
    "oblique": make_grid((10, 12, 9), angles=(0.3, -0.4, 0.2), spacing_mm=(1, 0.9, 1.3), origin_mm=(-10, 12, 33)),
    "oblique permuted flipped": make_grid(
        (8, 9, 11), order=(1, 2, 0), signs=(-1, 1, -1), angles=(-0.2, 0.5, 1.1), spacing_mm=(2, 1, 1.2)
    ),
}

ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


def smooth_field(grid, *, largest_voxels=1.5, seed=0):
    """A smooth displacement ``(3, D, H, W)`` float32 in voxels: a few cosine waves."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*[np.linspace(0, 1, n) for n in grid.shape], indexing="ij"))
    field = np.zeros((3, *grid.shape))
    for component, _ in itertools.product(range(3), range(3)):
        waves = np.tensordot(rng.uniform(-6, 6, 3), places, axes=1)
        field[component] += rng.normal() * np.cos(waves + rng.uniform(0, 6))
    return (field * largest_voxels / np.abs(field).max()).astype(np.float32)


def some_affine(center_mm):
    """A matrix with rotation, scales, shear and shift, RAS+ mm, that keeps the surroundings of a point in view."""
    linear = rotation((0.1, -0.15, 0.2)) @ np.array([[1.1, 0.1, 0], [0, 0.95, -0.05], [0, 0, 1.03]])
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.asarray(center_mm) - linear @ np.asarray(center_mm) + (0.8, -0.6, 0.4)
    return matrix
