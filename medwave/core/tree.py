"""The tree that tracing makes, SWC files hold and neuron metrics compare.

Conventions
    A tree is a forest in index form: node ``i`` hangs on node ``parent[i]``, ``-1`` marks a root; there are no ids.
    Positions are ``(x, y, z)`` rows as in SWC files: x runs along the LAST axis of an array ``(D, H, W)``, z along
    the first; voxel ``(0, 0, 0)`` has its centre at the origin. Units are voxels or micrometres, the same for
    positions and radii: the tree does not know which, its file's header says so.
    An edge is named by its child node. A component of one node has no edge and no length.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

UNDEFINED, SOMA, AXON, DENDRITE, APICAL = 0, 1, 2, 3, 4
"""SWC types of nodes."""


def _no_columns() -> Float64Array:
    return np.zeros((0, 0))


@dataclass(frozen=True, eq=False)
class Tree:
    """A neuron as nodes with parents: always a valid forest (no cycle, every parent there, all values finite).

    Attributes:
        positions: ``(N, 3)`` float64, x y z in voxels or micrometres.
        radius: ``(N,)`` float64, not negative, same unit; 0 where unknown.
        parent: ``(N,)`` int64, index of the parent, -1 for a root. Parents may come after their children.
        kind: ``(N,)`` int64, SWC type (:data:`SOMA`, :data:`AXON`, ...; 0 undefined).
        extra: ``(N, K)`` float64, further columns (those of ESWC files).
        extra_names: their K names.

    All arrays are copied and made read-only. An empty tree (N = 0) is allowed.

    Raises:
        InputError: when shapes do not fit, a value is not finite, a radius is negative, a parent does not exist, or
            the parents run in a circle.
    """

    positions: Float64Array
    radius: Float64Array
    parent: Int64Array
    kind: Int64Array
    extra: Float64Array = field(default_factory=_no_columns)
    extra_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        positions = np.array(self.positions, dtype=np.float64)
        count = len(positions)
        names = tuple(self.extra_names)
        extra = np.array(self.extra, dtype=np.float64)
        extra = extra if extra.shape != (0, 0) else np.zeros((count, 0))
        columns = {
            "positions": (positions.reshape(0, 3) if count == 0 else positions, (count, 3)),
            "radius": (np.array(self.radius, dtype=np.float64), (count,)),
            "parent": (_whole("parent", self.parent), (count,)),
            "kind": (_whole("kind", self.kind), (count,)),
            "extra": (extra, (count, len(names))),
        }
        for name, (array, shape) in columns.items():
            if array.shape != shape:
                raise InputError(f"a tree of {count} nodes needs {name} of shape {shape}, got {array.shape}")
            if name in ("positions", "radius") and not np.isfinite(array).all():
                node = int(np.argwhere(~np.isfinite(array))[0, 0])
                raise InputError(f"a tree needs finite numbers: {name} of node {node} is {array[node]}")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "extra_names", names)
        if count and self.radius.min() < 0:
            node = int(self.radius.argmin())
            raise InputError(f"a radius is 0 or more: that of node {node} is {self.radius[node]}")
        _check_parents(self.parent)

    def __len__(self) -> int:
        return len(self.parent)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Tree)
            and self.extra_names == other.extra_names
            and all(
                np.array_equal(getattr(self, name), getattr(other, name), equal_nan=name == "extra")
                for name in ("positions", "radius", "parent", "kind", "extra")
            )
        )

    def __hash__(self) -> int:
        return hash((self.positions.tobytes(), self.radius.tobytes(), self.parent.tobytes(), self.kind.tobytes()))

    @property
    def roots(self) -> Int64Array:
        """Indices of the nodes without a parent."""
        return np.flatnonzero(self.parent < 0)

    @property
    def edges(self) -> Int64Array:
        """Indices of the nodes with a parent: each names the edge from it to its parent."""
        return np.flatnonzero(self.parent >= 0)

    @property
    def children_count(self) -> Int64Array:
        """Number of children of every node, ``(N,)``."""
        return np.bincount(self.parent[self.edges], minlength=len(self)).astype(np.int64)

    @property
    def edge_lengths(self) -> Float64Array:
        """Distance from every node to its parent, ``(N,)``; 0 for roots."""
        lengths = np.zeros(len(self))
        child = self.edges
        lengths[child] = np.linalg.norm(self.positions[child] - self.positions[self.parent[child]], axis=1)
        return lengths

    @property
    def length(self) -> float:
        """Total length of all edges."""
        return float(self.edge_lengths.sum())

    def select(self, nodes: npt.ArrayLike) -> Tree:
        """The tree of some nodes, in the order given; a node whose parent is left out becomes a root.

        Args:
            nodes: indices, each at most once, or a mask of ``(N,)`` booleans.
        """
        chosen = np.asarray(nodes)
        chosen = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64)
        place = np.full(len(self) + 1, -1, dtype=np.int64)  # the last entry answers for parent -1
        place[chosen] = np.arange(len(chosen))
        return Tree(
            self.positions[chosen],
            self.radius[chosen],
            place[self.parent[chosen]],
            self.kind[chosen],
            self.extra[chosen],
            self.extra_names,
        )


def empty_tree() -> Tree:
    """A tree without nodes."""
    nothing = np.zeros(0, dtype=np.int64)
    return Tree(np.zeros((0, 3)), np.zeros(0), nothing, nothing)


def nodes_without_root(parent: npt.ArrayLike) -> Int64Array:
    """Indices of the nodes from which no root can be reached, in increasing order.

    Args:
        parent: ``(N,)`` indices of parents, -1 for roots, all of them existing.
    """
    upward = np.append(np.asarray(parent, dtype=np.int64), -1)  # the last entry, also index -1, stands above all roots
    steps = 1
    while steps < len(upward):
        upward = upward[upward]
        steps *= 2
    return np.flatnonzero(upward >= 0)


def _whole(name: str, values: npt.ArrayLike) -> Int64Array:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise InputError(f"{name} of a tree holds whole numbers, got values of type {array.dtype}")
    return np.array(array, dtype=np.int64)


def _check_parents(parent: Int64Array) -> None:
    if not len(parent):
        return
    if parent.min() < -1 or parent.max() >= len(parent):
        node = int(np.flatnonzero((parent < -1) | (parent >= len(parent)))[0])
        raise InputError(f"node {node} hangs on node {parent[node]}, but the nodes are 0 to {len(parent) - 1}")
    lost = nodes_without_root(parent)
    if len(lost):
        raise InputError(f"the parents of node {lost[0]} run in a circle; {len(lost)} nodes reach no root")
