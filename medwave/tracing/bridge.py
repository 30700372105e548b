"""Join broken pieces of a traced neuron.

An end of a piece may be joined to a node of another piece when they lie within a distance and when the way over
starts within an angle of the direction in which the end points (and, if the partner is an end too, arrives within
the same angle of its direction). Of all such pairs the least doubtful are taken first - short, straight, over bright
voxels - and no pair is taken that would close a loop or connect two somata. The new nodes follow the cheapest way
through the image inside a narrow corridor.

Conventions: trees here are in voxels of x along all axes (x y z); the image is (D, H, W) grey values with voxels of
``spacing`` (z, y, x) in voxels of x, read only where a gap may be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from medwave.core.tree import SOMA, Tree
from medwave.core.tree_walk import components
from medwave.tracing.foreground import build_foreground
from medwave.tracing.march import geodesic_weight, march
from medwave.tracing.tree import reroot
from medwave.tracing.voxels import GreyVoxels

DIRECTION_SPAN = 10.0
"""Length of the piece of branch, in voxels, that tells the direction of its end."""
SHORTEST_SPAN = 2.0
"""Pieces shorter than this have no direction, and gaps shorter than this need none."""
CHUNK = 2048
"""Ends looked at together: bounds the memory in volumes full of pieces."""


@dataclass(frozen=True)
class Links:
    """Possible connections, best first.

    Attributes:
        end: (K,) nodes at the end of a piece.
        partner: (K,) nodes of other pieces.
    """

    end: np.ndarray
    partner: np.ndarray


def bridge_gaps(
    tree: Tree, image: GreyVoxels, *, spacing: np.ndarray, distance: float, angle_degrees: float
) -> Tree:  # fmt: skip
    """Connect components of ``tree`` across gaps.

    The joined piece keeps the root of its component with a soma, or else of its first component.

    Args:
        tree: any tree, positions in voxels of x.
        image: the volume.
        spacing: (3,) voxel size along z, y, x in voxels of x.
        distance: longest gap between two nodes, in voxels of x.
        angle_degrees: largest angle between the direction of an end and the gap.
    """
    if len(tree.roots) < 2:
        return tree
    links = _find_links(tree, image, spacing, distance, np.cos(np.deg2rad(angle_degrees)))
    chosen = _without_loops(tree, links)
    if not chosen:
        return tree
    hanging = _hanging_order(tree, chosen)
    turned = reroot(tree, [child for child, _ in hanging])
    positions, radius = [turned.positions], [turned.radius]
    parent, kind = [turned.parent.copy()], [turned.kind]
    count = len(turned)
    for child, above in hanging:
        way = _cheapest_way(image, spacing, turned.positions[above], turned.positions[child])
        share = np.arange(1, len(way) + 1)[:, None] / (len(way) + 1)
        positions.append(way)
        radius.append(((1 - share) * turned.radius[above] + share * turned.radius[child]).reshape(-1))
        kind.append(np.full(len(way), turned.kind[child]))
        parent.append(np.concatenate([[above], np.arange(count, count + len(way) - 1)])[: len(way)])
        parent[0][child] = count + len(way) - 1 if len(way) else above
        count += len(way)
    return Tree(np.concatenate(positions), np.concatenate(radius), np.concatenate(parent), np.concatenate(kind))


def _find_links(tree: Tree, image: GreyVoxels, spacing: np.ndarray, distance: float, least_cosine: float) -> Links:
    """For every end and every other piece in reach, the best allowed partner."""
    label = components(tree.parent)
    ends = np.flatnonzero(tree.children_count + (tree.parent >= 0) <= 1)
    direction = np.full((len(tree), 3), np.nan)
    direction[ends] = _directions(tree, ends)
    nodes = KDTree(tree.positions)
    parts = [
        _partners(tree.positions, label, direction, nodes, ends[i : i + CHUNK], distance, least_cosine)
        for i in range(0, len(ends), CHUNK)
    ]
    end, partner, doubt = (np.concatenate(column) for column in zip(*parts, strict=True))
    doubt = doubt * (1.1 - _brightness_between(image, tree.positions[end], tree.positions[partner], spacing))
    order = np.lexsort((partner, end, doubt))
    return Links(end[order], partner[order])


def _partners(
    positions: np.ndarray,
    label: np.ndarray,
    direction: np.ndarray,
    nodes: KDTree,
    ends: np.ndarray,
    distance: float,
    least_cosine: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(end, partner, doubt) of the shortest and straightest link from each of ``ends`` to each piece in reach."""
    near = nodes.query_ball_point(positions[ends], distance)
    end = np.repeat(ends, [len(found) for found in near])
    partner = np.concatenate([np.array(found, dtype=np.int64) for found in near])
    foreign = label[end] != label[partner]
    end, partner = end[foreign], partner[foreign]
    gap = positions[partner] - positions[end]
    length = np.sqrt((gap**2).sum(axis=1))
    unit = gap / np.maximum(length, 1e-9)[:, None]
    cosine = np.fmin((direction[end] * unit).sum(axis=1), -(direction[partner] * unit).sum(axis=1))
    cosine = np.where(np.isnan(cosine) | (length <= SHORTEST_SPAN), 1.0, cosine)
    allowed = cosine >= least_cosine - 1e-9
    end, partner, doubt = end[allowed], partner[allowed], (length * (2 - cosine))[allowed]
    order = np.lexsort((partner, doubt, label[partner], end))
    end, partner, doubt = end[order], partner[order], doubt[order]
    first = (np.diff(end, prepend=-1) != 0) | (np.diff(label[partner], prepend=-1) != 0)
    return end[first], partner[first], doubt[first]


def _directions(tree: Tree, ends: np.ndarray) -> np.ndarray:
    """(n, 3) unit vectors out of the tree at ``ends``; NaN where the branch is too short to tell."""
    only_child = np.full(len(tree), -1)
    only_child[tree.parent[tree.edges]] = tree.edges
    only_child[tree.children_count != 1] = -1
    node, away = ends.copy(), np.zeros(len(ends))
    while True:
        inward = np.where(tree.parent[ends] >= 0, tree.parent[node], only_child[node])
        walking = np.flatnonzero((inward >= 0) & (away < DIRECTION_SPAN))
        if len(walking) == 0:
            break
        node[walking] = inward[walking]
        away = np.sqrt(((tree.positions[ends] - tree.positions[node]) ** 2).sum(axis=1))
    along = (tree.positions[ends] - tree.positions[node]) / np.maximum(away, SHORTEST_SPAN)[:, None]
    return np.where(away[:, None] >= SHORTEST_SPAN, along, np.nan)


def _brightness_between(image: GreyVoxels, start: np.ndarray, stop: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """(n,) mean brightness on straight lines, 0 .. 1, as a share of the darker of their two ends."""

    def sample(points: np.ndarray) -> np.ndarray:
        place = np.clip(np.rint(points[..., ::-1] / spacing).astype(np.int64), 0, np.array(image.shape) - 1)
        return image.at(place.reshape(-1, 3)).reshape(place.shape[:-1]).astype(np.float64)

    shares = np.linspace(0, 1, 22)[1:-1, None, None]
    between = sample(start + shares * (stop - start))
    darker = np.maximum(np.minimum(sample(start), sample(stop)), 1.0)
    return np.minimum(between / darker, 1.0).mean(axis=0)


def _without_loops(tree: Tree, links: Links) -> list[tuple[int, int]]:
    """The links that connect pieces not yet connected, best first (Kruskal), never two somata."""
    label = components(tree.parent)
    group = np.arange(len(tree.roots))
    has_soma = tree.kind[tree.roots] == SOMA
    chosen = []
    for end, partner in zip(links.end.tolist(), links.partner.tolist(), strict=True):
        one, other = sorted((group[label[end]], group[label[partner]]))
        if one == other or (has_soma[one] and has_soma[other]):
            continue
        has_soma[one] |= has_soma[other]
        group[group == other] = one
        chosen.append((end, partner))
    return chosen


def _hanging_order(tree: Tree, chosen: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Each link as (node that becomes the top of its piece, node above it), outward from the piece that leads."""
    label = components(tree.parent)
    at: dict[int, list[tuple[int, int]]] = {}
    for a, b in chosen:
        at.setdefault(int(label[a]), []).append((b, a))
        at.setdefault(int(label[b]), []).append((a, b))
    seen: set[int] = set()
    hanging = []
    no_soma = tree.kind[tree.roots] != SOMA
    for lead in sorted(at, key=lambda piece: (no_soma[piece], piece)):
        queue = [] if lead in seen else [lead]
        seen.add(lead)
        for piece in queue:
            for child, above in at[piece]:
                if int(label[child]) not in seen:
                    seen.add(int(label[child]))
                    hanging.append((child, above))
                    queue.append(int(label[child]))
    return hanging


def _cheapest_way(image: GreyVoxels, spacing: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """(n, 3) positions x y z strictly between two points, along bright voxels in a corridor around their line."""
    length = float(np.linalg.norm(stop - start))
    half_width = 2.0 + 0.2 * length
    ends = np.clip(np.rint(np.stack([start, stop])[:, ::-1] / spacing).astype(np.int64), 0, np.array(image.shape) - 1)
    margin = np.ceil(half_width / spacing).astype(np.int64)
    low = np.maximum(ends.min(axis=0) - margin, 0)
    high = np.minimum(ends.max(axis=0) + margin + 1, image.shape)
    box = image.box(low, high)
    places = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"), axis=-1)
    away = _distance_to_line(places * spacing, ends[0] * spacing, ends[1] * spacing)
    corridor = away <= half_width
    field = build_foreground(np.where(corridor, np.uint8(1), np.uint8(0)), 0, spacing, connectivity=3)
    bright = min(box[tuple(ends[0] - low)], box[tuple(ends[1] - low)])
    one = np.zeros(len(field), np.int32)
    weight = geodesic_weight(np.minimum(box[corridor], bright), one) * (1 + 0.02 * away[corridor] ** 2)
    first, last = field.nodes_at(ends - low)
    parent = march(field, weight, np.array([first]), connectivity=3).parent
    way = [parent[last]] if first != last else []
    while way and way[-1] != first:
        way.append(parent[way[-1]])
    inner = np.array(way[:-1][::-1], dtype=np.int64)
    return ((field.positions(inner) + low) * spacing)[:, ::-1]


def _distance_to_line(points: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Distance of (..., 3) points to a line segment."""
    run = stop - start
    share = np.clip(((points - start) @ run) / max(float(run @ run), 1e-12), 0.0, 1.0)
    return np.sqrt(((points - start - share[..., None] * run) ** 2).sum(axis=-1))
