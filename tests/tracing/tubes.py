"""Known trees as volumes, and how far a trace lies from them (brute force on fine samples)."""

import numpy as np
from scipy.spatial import KDTree

from medwave.core.tree import Tree
from medwave.core.tree_paths import densify, resample
from medwave.tracing import scale
from medwave.transforms.rasterise import draw_tubes


def tree_of(points_zyx: list[tuple[float, float, float]], parent: list[int], radius: float | list[float]) -> Tree:
    """A tree from positions (z, y, x)."""
    positions = np.array(points_zyx, dtype=float)[:, ::-1]
    return Tree(
        positions, np.broadcast_to(radius, len(parent)).astype(float), np.array(parent), np.zeros(len(parent), int)
    )


def line(start: tuple[float, float, float], stop: tuple[float, float, float], radius: float = 2.0) -> Tree:
    return tree_of([start, stop], [-1, 0], radius)


def y_shape(radius: float = 2.0) -> Tree:
    """A stem and two arms, in a volume of (24, 64, 80)."""
    return tree_of([(12, 32, 8), (12, 32, 40), (8, 12, 70), (16, 52, 70)], [-1, 0, 1, 1], radius)


def draw(*trees: Tree, shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1, 1, 1)) -> np.ndarray:
    """The union of the tubes of some trees (positions in voxels, radii in voxels of x), uint8 0 or 200."""
    mask = np.zeros(shape, bool)
    for tree in trees:
        mask |= draw_tubes(tree, shape, spacing=spacing, slack=0.0)
    return np.where(mask, np.uint8(200), np.uint8(0))


def distances(points_of: Tree, to: Tree, *, spacing: tuple[float, float, float] = (1, 1, 1)) -> np.ndarray:
    """Distance of points, about one per voxel, on the edges of one tree to the edges of another (to within 0.01)."""
    of, other = (scale(tree, spacing[::-1], radius_factor=1.0) for tree in (points_of, to))
    return KDTree(resample(other, 0.1).positions).query(densify(of))[0]


def mean_distance(one: Tree, other: Tree, *, spacing: tuple[float, float, float] = (1, 1, 1)) -> float:
    """Both ways, as ESA."""
    return float((distances(one, other, spacing=spacing).mean() + distances(other, one, spacing=spacing).mean()) / 2)


def f2(trace: Tree, gold: Tree, *, inside: tuple[int, int, int] | None = None) -> float:
    """F1 at 2 voxels of points one voxel apart; with ``inside`` (D, H, W) only points within that volume count."""
    shares = []
    for one, other in ((trace, gold), (gold, trace)):
        close = distances(one, other) <= 2
        if inside is not None:
            points = densify(one)
            close = close[((points >= 0) & (points <= np.array(inside[::-1]) - 1)).all(axis=1)]
        shares.append(close.mean())
    return 2 * shares[0] * shares[1] / (shares[0] + shares[1])
