"""A pair of made-up heads known everywhere in the world, so that any grid can look at them without resampling.

The fixed anatomy is a function of world points (RAS+ mm): an ellipsoid split into cells, each of its own mean
intensity, with a texture.
The moving anatomy is the same under ``T(x) = A(x + u(x))``, which is known in closed form.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medwave.core.geometry import Grid, Volume, transform_points
from medwave.volumes import write_volume

RADII_MM = np.array([50.0, 60.0, 45.0])
CELLS = 12
_rng = np.random.default_rng(5)
_SEEDS = _rng.normal(size=(400, 3))
_SEEDS = _SEEDS / np.linalg.norm(_SEEDS, axis=1, keepdims=True) * _rng.uniform(0.3, 0.85, (400, 1)) * RADII_MM
_VALUES = 0.35 + 0.65 * _rng.permutation(CELLS) / (CELLS - 1)


def _spread(points, count):
    """Points that are far from each other, greedily."""
    chosen = [points[0]]
    while len(chosen) < count:
        nearest = np.min([np.linalg.norm(points - c, axis=1) for c in chosen], axis=0)
        chosen.append(points[nearest.argmax()])
    return np.array(chosen)


_SEEDS = _spread(_SEEDS, CELLS)

MATRIX = np.array([[1.04, 0.06, -0.03, 4.0], [-0.05, 0.97, 0.04, -3.0], [0.02, -0.05, 1.02, 5.0], [0.0, 0.0, 0.0, 1.0]])


def steps_mm(points):
    """u at fixed points ``(N, 3)``: smooth, up to about 6 mm, zero far outside."""
    waves = np.stack([np.sin(points @ w + p) for w, p in zip(_WAVES, _PHASES, strict=True)], axis=-1)
    fade = np.exp(-0.5 * (np.linalg.norm(points / RADII_MM, axis=-1) / 0.9) ** 4)
    return 5.0 * waves * fade[..., None]


_WAVES = np.array([[0.02, 0.05, -0.03], [0.05, -0.02, 0.03], [-0.03, 0.04, 0.05]])
_PHASES = (0.3, 1.4, 2.2)


def to_moving(points):
    """T: fixed points to moving points."""
    return transform_points(MATRIX, points + steps_mm(points))


def to_fixed(points):
    """T^-1 by fixed-point steps (u's slopes are about a third)."""
    targets = transform_points(np.linalg.inv(MATRIX), points)
    found = targets
    for _ in range(40):
        found = targets - steps_mm(found)
    return found


def intensity(points):
    """Fixed image at world points: soft edges, so that every grid samples it well."""
    distance = _cell_distances(points)
    weight = np.exp(-(distance - distance.min(-1, keepdims=True)) / 150.0)
    inside = 1 / (1 + np.exp((np.linalg.norm(points / RADII_MM, axis=-1) - 1) * 40))
    texture = np.sin(points @ (0.3, 0.1, 0.05)) * np.sin(points @ (-0.1, 0.25, 0.2)) * np.sin(points @ (0.1, -0.2, 0.3))
    values = ((weight @ _VALUES) / weight.sum(-1) + 0.3 * texture) * inside
    return np.where(values < 0.02, 0, values)


def label(points):
    """Fixed labels at world points: 1..12 inside, 0 outside."""
    inside = np.linalg.norm(points / RADII_MM, axis=-1) < 1
    return np.where(inside, _cell_distances(points).argmin(-1) + 1, 0)


def _cell_distances(points):
    return ((points[..., None, :] - _SEEDS) ** 2).sum(-1)


def turned(*, order=(0, 1, 2), signs=(1, 1, 1), spacing_mm=(3.0, 3.0, 3.0), angle=0.0, reach_mm=72.0):
    """A grid about the origin whose axis w runs along world axis order[w], turned by an angle about (1, 1, 1)."""
    axis = np.ones(3) / np.sqrt(3)
    cross = np.cross(np.eye(3), axis)
    rotation = np.eye(3) - np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    linear = rotation @ np.eye(3)[:, list(order)] * np.array(signs) @ np.diag(spacing_mm)
    shape = tuple(int(2 * reach_mm / s) for s in spacing_mm)
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = -linear @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def world(grid):
    """World points ``(D, H, W, 3)`` of all voxels."""
    return grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1))


@dataclass(frozen=True)
class Pair:
    """The two heads on two grids."""

    fixed: Volume
    moving: Volume
    fixed_labels: Volume
    moving_labels: Volume

    def write(self, folder: Path):
        """Files of all four, by role."""
        roles = {name: getattr(self, name) for name in ("fixed", "moving", "fixed_labels", "moving_labels")}
        for name, volume in roles.items():
            write_volume(folder / f"{name}.nii.gz", volume)
        return {name: folder / f"{name}.nii.gz" for name in roles}


def make_pair(fixed_grid=None, moving_grid=None):
    """The pair on any grids; by default LAS and RAS at 3 mm."""
    fixed_grid = fixed_grid or turned(signs=(-1, 1, 1))
    moving_grid = moving_grid or turned(reach_mm=75.0)
    fixed, moving = world(fixed_grid), to_fixed(world(moving_grid).reshape(-1, 3)).reshape(*moving_grid.shape, 3)
    return Pair(
        Volume(np.float32(1000 * intensity(fixed)), fixed_grid, "fixed"),
        Volume(np.float32(1000 * intensity(moving)), moving_grid, "moving"),
        Volume(label(fixed).astype(np.uint8), fixed_grid, "fixed labels"),
        Volume(label(moving).astype(np.uint8), moving_grid, "moving labels"),
    )


INSIDE = turned(spacing_mm=(2.5, 2.5, 2.5), angle=0.4)
"""A grid of its own on which transforms are judged, whatever grids they were found on."""


def inside_points():
    """World points inside the fixed head."""
    points = world(INSIDE).reshape(-1, 3)
    return points[label(points) > 0]


def true_error_mm(transform):
    """Mean distance in mm between a map of points and the true one, inside the head."""
    points = inside_points()
    return float(np.linalg.norm(transform(points) - to_moving(points), axis=1).mean())


def anatomy_dice(transform):
    """Mean Dice of the labels, read from the anatomy itself at world points and at their images."""
    points = world(INSIDE).reshape(-1, 3)
    a, b = label(points), label(to_fixed(transform(points)))
    return float(np.mean([2 * ((a == n) & (b == n)).sum() / ((a == n).sum() + (b == n).sum()) for n in range(1, 13)]))
