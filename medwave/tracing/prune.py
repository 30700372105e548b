"""Pruning of hierarchical segments (APP2, step 5): what the image does not support, or what is there already.

In order: dark tips and dark segments; segments whose voxels lie mostly in the balls of stronger segments
(coverage); tips whose ball lies in their parent's ball; tips whose ball is covered by others. Balls are of physical
shape (ellipsoids in voxels). Only foreground voxels of the same piece count.

Differences from Vaa3D: dark segments are truly dropped (there a later step works on an older list), which
``drop_dark_segments=False`` undoes; a kept segment covers its balls from its top down, so that a soma's large ball
counts before the small ones inside it and no spikes stay in a soma; and a tip recedes by at most its own radius,
since in a fibre more than seven voxels thick neighbouring balls always overlap by 90 % and the fibre would be eaten
up whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medwave.core.compiler import compiler
from medwave.tracing.foreground import BRICK_SIDE, Foreground, coordinates, node_at
from medwave.tracing.segments import Segments

OVERLAP = 0.9
DARK_SHARE = 0.2


@dataclass(frozen=True)
class Skeleton:
    """A forest of foreground nodes, parents before children.

    Attributes:
        nodes: (n,) int64 foreground node numbers.
        parent: (n,) int64 index into ``nodes``; -1 at roots.
        radius: (n,) float64 in voxels of x.
    """

    nodes: np.ndarray
    parent: np.ndarray
    radius: np.ndarray


def trim_dark(foreground: Foreground, segments: Segments, *, drop_dark_segments: bool = True) -> Segments:
    """Cut dark nodes off the tips; drop dark segments and all that hang on them.

    A segment is dark when its mean grey value is at or below the threshold, or at least 20 % of its nodes are.
    Without a dark rim there are no dark nodes and nothing changes.
    """
    if not foreground.dark.any():
        return segments
    runs: list[np.ndarray] = []
    parents, strengths, renumber = [], [], np.full(len(segments.parent), -1)
    for i, above in enumerate(segments.parent):
        run = segments.nodes[segments.start[i] : segments.start[i + 1]]
        bright = np.flatnonzero(~foreground.dark[run])
        if len(bright) == 0 or (above >= 0 and renumber[above] < 0):
            continue
        run = run[bright[0] :]
        dim = foreground.value[run].mean() <= foreground.threshold or foreground.dark[run].mean() >= DARK_SHARE
        if drop_dark_segments and dim:
            continue
        renumber[i] = len(runs)
        runs.append(run)
        parents.append(renumber[above] if above >= 0 else -1)
        strengths.append(segments.strength[i])
    start = np.cumsum([0] + [len(run) for run in runs], dtype=np.int64)
    nodes = np.concatenate(runs) if runs else np.empty(0, np.int64)
    return Segments(nodes, start, np.array(parents, dtype=np.int64), np.array(strengths, dtype=np.float64))


@compiler()
def _ball(centre, radius, place, piece, table, bricks, corner, spacing, found):
    """Write the nodes within ``radius`` of a node and of its piece into ``found``; returns their number."""
    z, y, x = coordinates(place[centre])
    own = piece[centre]
    first_z, first_y, first_x = corner[0] * BRICK_SIDE, corner[1] * BRICK_SIDE, corner[2] * BRICK_SIDE
    end_z, end_y, end_x = (
        first_z + table.shape[0] * BRICK_SIDE, first_y + table.shape[1] * BRICK_SIDE,
        first_x + table.shape[2] * BRICK_SIDE,
    )  # fmt: skip
    reach_z = int(radius / spacing[0])
    count = 0
    for u in range(max(z - reach_z, first_z), min(z + reach_z + 1, end_z)):
        rest_z = radius * radius - ((u - z) * spacing[0]) ** 2
        reach_y = int(np.sqrt(max(rest_z, 0.0)) / spacing[1])
        for v in range(max(y - reach_y, first_y), min(y + reach_y + 1, end_y)):
            rest_y = rest_z - ((v - y) * spacing[1]) ** 2
            reach_x = int(np.sqrt(max(rest_y, 0.0)) / spacing[2])
            for w in range(max(x - reach_x, first_x), min(x + reach_x + 1, end_x)):
                node = node_at(u, v, w, table, bricks, corner)
                if node >= 0 and piece[node] == own:
                    found[count] = node
                    count += 1
    return count


@compiler()
def _ball_room(radius, spacing):
    """An upper bound of the number of voxels in the largest ball."""
    reach = radius.max()
    return int((2 * reach / spacing[0] + 1) * (2 * reach / spacing[1] + 1) * (2 * reach / spacing[2] + 1)) + 1


@compiler()
def _coverage(nodes, start, above, radius, place, piece, table, bricks, corner, value, spacing, ratio):
    """Which segments to keep; ``radius`` runs along ``nodes``."""
    keep = np.zeros(len(above), np.bool_)
    covered = np.zeros(len(place), np.bool_)
    found = np.empty(_ball_room(radius, spacing), np.int64)
    for i in range(len(above)):
        if above[i] >= 0 and not keep[above[i]]:
            continue
        signal, redundant = 0.0, 0.0
        for j in range(start[i], start[i + 1]):
            node = nodes[j]
            is_new = not covered[node]
            if is_new:
                count = _ball(node, radius[j], place, piece, table, bricks, corner, spacing, found)
                taken = 0
                for k in range(count):
                    taken += covered[found[k]]
                is_new = taken <= 0.1 * count
            if is_new:
                signal += value[node]
            else:
                redundant += value[node]
        keep[i] = above[i] < 0 or redundant == 0 or (signal >= ratio * redundant and signal >= 2)
        if not keep[i]:
            continue
        for j in range(start[i + 1] - 1, start[i] - 1, -1):
            if not covered[nodes[j]]:
                count = _ball(nodes[j], radius[j], place, piece, table, bricks, corner, spacing, found)
                for k in range(count):
                    covered[found[k]] = True
    return keep


def drop_covered(
    foreground: Foreground, segments: Segments, radius: np.ndarray, parent: np.ndarray, *, ratio: float = 1 / 3
) -> Skeleton:
    """Keep segments that bring enough voxels that no stronger segment covers.

    Args:
        radius: (n,) along ``segments.nodes``, in voxels of x.
        parent: (N,) predecessor of each foreground node.
        ratio: a segment is kept when the brightness sum of its new nodes is at least ``ratio`` times that of its
            redundant nodes (a node is redundant when covered, or when over 10 % of its ball is).
    """
    fg = foreground
    keep = _coverage(
        segments.nodes, segments.start, segments.parent, radius, fg.place, fg.piece, *fg.index, fg.value, fg.spacing,
        ratio,
    )  # fmt: skip
    runs = [np.arange(segments.start[i + 1] - 1, segments.start[i] - 1, -1) for i in np.flatnonzero(keep)]
    index = np.concatenate(runs) if runs else np.empty(0, np.int64)
    nodes = segments.nodes[index]
    number = np.full(len(fg), -1, np.int64)
    number[nodes] = np.arange(len(nodes))
    above = parent[nodes]
    return Skeleton(nodes, np.where(above >= 0, number[np.maximum(above, 0)], -1), radius[index])


@compiler()
def _prune_tips(nodes, parent, radius, step, place, piece, table, bricks, corner, value, spacing, joint):
    """Which nodes stay when covered tips are removed one after the other."""
    count = len(nodes)
    alive = np.ones(count, np.bool_)
    children = np.zeros(count, np.int64)
    for i in range(count):
        if parent[i] >= 0:
            children[parent[i]] += 1
    found = np.empty(_ball_room(radius, spacing), np.int64)
    balls = np.zeros(len(place) if joint else 0, np.int32)
    if joint:
        for i in range(count):
            for k in range(_ball(nodes[i], radius[i], place, piece, table, bricks, corner, spacing, found)):
                balls[found[k]] += 1
    inside = np.zeros(0 if joint else len(place), np.bool_)
    other = np.empty(0 if joint else len(found), np.int64)
    for first in range(count):
        tip = first
        if children[tip] > 0 or not alive[tip]:
            continue
        receded = 0.0
        while parent[tip] >= 0 and children[tip] == 0 and receded + step[tip] <= radius[first]:
            above = parent[tip]
            size = _ball(nodes[tip], radius[tip], place, piece, table, bricks, corner, spacing, found)
            total, shared = 0.0, 0.0
            if joint:
                for k in range(size):
                    total += value[found[k]]
                    if balls[found[k]] >= 2:
                        shared += value[found[k]]
            else:
                around = _ball(nodes[above], radius[above], place, piece, table, bricks, corner, spacing, other)
                for k in range(around):
                    inside[other[k]] = True
                for k in range(size):
                    total += value[found[k]]
                    if inside[found[k]]:
                        shared += value[found[k]]
                for k in range(around):
                    inside[other[k]] = False
            if shared < OVERLAP * total:
                break
            alive[tip] = False
            if joint:
                for k in range(size):
                    balls[found[k]] -= 1
            receded += step[tip]
            children[above] -= 1
            tip = above
    return alive


def prune_tips(foreground: Foreground, skeleton: Skeleton, *, joint: bool) -> Skeleton:
    """Remove tips of which 90 % lie in their parent's ball or, with ``joint``, in any other ball."""
    fg = foreground
    moves = (fg.positions(skeleton.nodes) - fg.positions(skeleton.nodes[skeleton.parent])) * fg.spacing
    step = np.where(skeleton.parent >= 0, np.sqrt((moves**2).sum(axis=1)), 0.0)
    alive = _prune_tips(
        skeleton.nodes, skeleton.parent, skeleton.radius, step, fg.place, fg.piece, *fg.index, fg.value, fg.spacing,
        joint,
    )  # fmt: skip
    number = np.cumsum(alive) - 1
    parent = skeleton.parent[alive]
    return Skeleton(
        skeleton.nodes[alive], np.where(parent >= 0, number[np.maximum(parent, 0)], -1), skeleton.radius[alive]
    )
