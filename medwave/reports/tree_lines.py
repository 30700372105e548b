"""A tree as lines to draw: thinned to what can be seen, each unbranched path one line.

Conventions
    Trees are x y z. A line runs from the key node above a path down to the one at its end, both included, so that
    lines meet at forks. Lines carry what colours them: branch order (1 at the root), radius, and where a second tree
    is given the distance to it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medwave.core.tree import SOMA, Float64Array, Int64Array, Tree
from medwave.core.tree_paths import unbranched_paths
from medwave.tracing import branch_table

MOST_POINTS = 6_000
"""More than these cannot be told apart on a page; the lines of larger trees are thinned harder."""


@dataclass(frozen=True)
class Lines:
    """The lines of a tree, one after the other.

    Attributes:
        points: ``(M, 3)`` x y z.
        radius: ``(M,)``.
        value: ``(M,)`` what :func:`tree_lines` was given for each node, 0 otherwise.
        starts: ``(L + 1,)``: line ``l`` has the points ``starts[l]`` to ``starts[l + 1] - 1``.
        order: ``(L,)`` branch order, 1 at a root.
        somata: ``(S, 4)`` x, y, z and radius of roots that are somata.
        roots: ``(R, 3)`` x y z of all roots.
    """

    points: Float64Array
    radius: Float64Array
    value: Float64Array
    starts: Int64Array
    order: Int64Array
    somata: Float64Array
    roots: Float64Array

    def __len__(self) -> int:
        return len(self.order)


def tree_lines(
    tree: Tree, *, tolerance: float, value: npt.ArrayLike | None = None, most_points: int = MOST_POINTS
) -> Lines:
    """The lines of a tree without the points that change nothing.

    Args:
        tree: positions and radii in one unit.
        tolerance: how far a line may be moved by leaving points out (Douglas and Peucker 1973,
            doi 10.3138/FM57-6770-U75U-7727); a radius may change by as much. Raised until ``most_points`` suffice.
        value: ``(N,)`` a number per node that is carried along; it may change by ``tolerance``, too.
        most_points: largest number of points, where the number of lines allows it.
    """
    carried = np.zeros(len(tree)) if value is None else np.asarray(value, dtype=np.float64)
    paths = unbranched_paths(tree)
    lines = [
        np.concatenate([[top], paths.nodes[start:stop]])
        for top, start, stop in zip(paths.top, paths.starts[:-1], paths.starts[1:], strict=True)
    ]
    space = np.column_stack([tree.positions, tree.radius, carried])
    while True:
        kept = [nodes[thinned(space[nodes], tolerance)] for nodes in lines]
        count = sum(map(len, kept))
        if count <= max(most_points, 2 * len(kept)):
            break
        tolerance *= 1.5
    nodes = np.concatenate([*kept, np.zeros(0, dtype=np.int64)]).astype(np.int64)
    roots = tree.roots
    soma = roots[(tree.kind[roots] == SOMA) & (tree.radius[roots] > 0)]
    return Lines(
        points=tree.positions[nodes],
        radius=_slender(tree.positions[nodes], tree.radius[nodes], tree, soma),
        value=carried[nodes],
        starts=np.cumsum([0, *map(len, kept)]).astype(np.int64),
        order=branch_table(tree).order,
        somata=np.column_stack([tree.positions[soma], tree.radius[soma]]),
        roots=tree.positions[roots],
    )


def _slender(points: Float64Array, radius: Float64Array, tree: Tree, somata: Int64Array) -> Float64Array:
    """Radii without those of the somata, which are drawn as balls: inside a ball a fibre has its middle radius."""
    if not len(points):
        return radius
    drawn, usual = radius.copy(), float(np.median(radius))
    for soma in somata.tolist():
        within = np.linalg.norm(points - tree.positions[soma], axis=1) <= 1.2 * tree.radius[soma]
        drawn[within] = np.minimum(drawn[within], usual)
    return drawn


def thinned(points: Float64Array, tolerance: float) -> Int64Array:
    """Indices of the points of a polyline ``(M, K)`` that stay when it may move by ``tolerance``; both ends stay."""
    keep = np.zeros(len(points), dtype=bool)
    keep[[0, -1]] = True
    waiting = [(0, len(points) - 1)]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        inner, run = points[first + 1 : last] - points[first], points[last] - points[first]
        square = float(run @ run)
        share = np.clip(inner @ run / square, 0, 1) if square > 0 else np.zeros(len(inner))
        away = np.linalg.norm(inner - share[:, None] * run, axis=1)
        worst = int(away.argmax())
        if away[worst] > tolerance:
            middle = first + 1 + worst
            keep[middle] = True
            waiting += [(first, middle), (middle, last)]
    return np.flatnonzero(keep)


def part_of(lines: Lines, chosen: npt.NDArray[np.bool_]) -> Lines:
    """Lines without the pieces between neighbouring points ``i`` and ``i + 1`` where ``chosen`` ``(M,)`` is False."""
    piece = chosen.copy()
    piece[lines.starts[1:] - 1] = False  # no piece leaves the end of a line
    before = np.concatenate([[False], piece[:-1]]) if len(piece) else piece
    kept = np.flatnonzero(piece | before)
    first = ~before[kept]
    line = np.searchsorted(lines.starts, kept, side="right") - 1
    return Lines(
        points=lines.points[kept],
        radius=lines.radius[kept],
        value=lines.value[kept],
        starts=np.append(np.flatnonzero(first), len(kept)).astype(np.int64),
        order=lines.order[line[first]],
        somata=lines.somata,
        roots=lines.roots,
    )


def svg_path(lines: Lines, columns: Float64Array, rows: Float64Array) -> str:
    """The ``d`` of one SVG path with all lines, at whole numbers.

    Args:
        columns, rows: ``(M,)`` places of the points in the picture.
    """
    places = np.rint(np.column_stack([columns, rows])).astype(np.int64)
    parts = []
    for start, stop in zip(lines.starts[:-1], lines.starts[1:], strict=True):
        line = places[start:stop]
        steps = np.diff(line, axis=0)
        steps = steps[(steps != 0).any(axis=1)]
        if len(steps):
            moves = " ".join(f"{x} {y}" for x, y in steps.tolist()).replace(" -", "-")
            parts.append(f"M{line[0, 0]} {line[0, 1]}l{moves}")
    return "".join(parts)


def packed(values: npt.ArrayLike, kind: str) -> str:
    """Numbers as base64 of little-endian bytes: ``kind`` is ``"u1"``, ``"u2"`` or ``"u4"``."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=f"<{kind}").tobytes()).decode("ascii")
