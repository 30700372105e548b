"""A made-up head known at every point of the world, so that any grid can look at it from anywhere without resampling.

An ellipsoid of brain size with darker and brighter ellipsoids in it, none of them symmetric, and soft edges.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from medwave.core.geometry import Grid, Volume

# centre and half axes in mm, RAS; degrees about the first axis; intensity added inside
PARTS = [
    ((0, 0, 0), (62, 78, 56), 0, 0.50),
    ((0, 6, 4), (48, 60, 42), 0, 0.25),
    ((-14, 12, 10), (9, 26, 12), 20, -0.45),
    ((16, 8, 12), (7, 20, 9), -15, -0.40),
    ((30, -30, -8), (16, 12, 18), 30, -0.25),
    ((-30, 34, -14), (14, 18, 10), -25, 0.22),
    ((10, -52, -30), (26, 16, 13), 10, 0.20),
    ((-36, -26, 20), (10, 16, 8), 40, -0.30),
    ((24, 44, 18), (12, 9, 16), 0, 0.25),
    ((0, 70, -20), (12, 14, 10), 0, 0.30),
]


def intensity(points):
    """Brightness at world points ``(..., 3)``, 0 outside the head."""
    total = np.zeros(points.shape[:-1])
    for center, axes, degrees, value in PARTS:
        local = (points - center) @ Rotation.from_euler("x", degrees, degrees=True).as_matrix() / axes
        distance = (np.linalg.norm(local, axis=-1) - 1) * min(axes)  # about mm from the surface
        total += value / (1 + np.exp(np.clip(distance / 0.8, -50, 50)))
    return np.where(total < 0.01, 0, total)


def grid_of(spacing_mm=(4.0, 4.0, 4.0), shape=(48, 52, 44), turn=None, center_mm=(0.0, 0.0, 0.0)):
    """A grid about a point of the world whose axes are turned by a 3x3 matrix."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) @ np.diag(spacing_mm)
    affine[:3, 3] = np.asarray(center_mm) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)


def head(grid, matrix=None, contrast=None, noise=0.01, seed=0):
    """The head on a grid, moved by a 4x4 matrix; the rows of a contrast map intensities."""
    back = np.linalg.inv(np.eye(4) if matrix is None else matrix)
    points = grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1)) @ back[:3, :3].T + back[:3, 3]
    values = intensity(points)
    inside = values > 0
    if contrast is not None:
        values = np.where(inside, contrast(values), 0)
    values = np.where(inside, values + noise * np.random.default_rng(seed).normal(size=grid.shape), 0)
    return Volume(np.float32(1000 * values), grid, "head")


def motion(degrees=(0.0, 0.0, 0.0), shift_mm=(0.0, 0.0, 0.0), stretch=(1.0, 1.0, 1.0), shear=0.0):
    """A 4x4 world matrix: stretch and shear about the middle of the head, then turn, then shift."""
    matrix = np.eye(4)
    bent = np.diag(stretch)
    bent[0, 1] = shear
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ bent
    matrix[:3, 3] = shift_mm
    return matrix


def points_inside():
    """World points of the head, 8 mm apart."""
    lines = [np.arange(-80, 81, 8.0)] * 3
    points = np.stack(np.meshgrid(*lines), -1).reshape(-1, 3)
    return points[intensity(points) > 0]


def error_mm(found, true):
    """Mean and largest distance between two matrices' images of the points inside the head."""
    points = points_inside()
    apart = np.linalg.norm(points @ (found - true)[:3, :3].T + (found - true)[:3, 3], axis=1)
    return float(apart.mean()), float(apart.max())
