"""Trees as layers of napari, and back: SWC files.

A tree becomes two layers: vectors, each from a parent to its child, and points at the nodes with their diameter as
size. Both carry what the file says as features: ``type`` and ``radius``, the points also ``id``, ``parent`` (-1 for a
root) and the further columns of ESWC. The points are what is written: nodes may be moved and deleted, types and radii
changed; a node whose parent was deleted becomes a root.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from medwave.core.errors import InputError
from medwave.core.tree import Float64Array, Int64Array, Tree
from medwave.napari.stores import Layer, Paths, listed, shift_of
from medwave.volumes import open_stack, read_swc, read_swc_comments, read_swc_units, write_swc

BESIDE = "probability.ome.zarr"
"""The store in whose voxels a tree beside it is written, unless its file says micrometres."""

_COLOURS = np.array([
    [0.55, 0.55, 0.55, 1], [1.0, 1.0, 1.0, 1], [0.35, 0.72, 1.0, 1], [1.0, 0.62, 0.18, 1], [1.0, 0.35, 0.84, 1],
])  # fmt: skip
"""Undefined, soma, axon, dendrite, apical dendrite; other types are as undefined."""


def get_tree_reader(path: Paths) -> Callable[[Paths], list[Layer]] | None:
    """What reads a tree or several, or None where the name is not that of an SWC file."""
    return read_trees if all(name.lower().endswith((".swc", ".eswc")) for name in listed(path)) else None


def read_trees(path: Paths) -> list[Layer]:
    """The layers of SWC files, two for each.

    Raises:
        MedwaveError: as :func:`medwave.volumes.read_swc`.
    """
    return [layer for name in listed(path) for layer in _layers(Path(name))]


def write_tree(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write the nodes of a points layer as SWC, in the units of its data.

    Args:
        path: file to write.
        data: positions ``(N, 3)``, z y x.
        attributes: of the layer, with features ``id`` and ``parent``; ``type`` is 0 and ``radius`` half the size where
            they are missing.

    Returns:
        The files written.

    Raises:
        InputError: when the features do not make a tree.
        OutputError: when the file cannot be written.
    """
    features = attributes.get("features", {})
    positions = np.asarray(data, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != 3 or not {"id", "parent"} <= set(features):
        raise InputError(f"{path}: points (z, y, x) with features id and parent make a tree; take the nodes of an SWC")
    columns = {str(name): np.asarray(features[name], dtype=np.float64) for name in features}
    said = attributes.get("metadata", {})
    extra = [name for name in said.get("extra_names", ()) if name in columns]
    size = np.asarray(attributes.get("size", 0.0), dtype=np.float64)
    half = np.broadcast_to(size if size.ndim < 2 else size.mean(axis=1), len(positions)) / 2
    tree = Tree(
        positions[:, ::-1],
        columns.get("radius", half),
        _parent_rows(path, columns["id"], columns["parent"]),
        np.rint(columns.get("type", np.zeros(len(positions)))).astype(np.int64),
        np.column_stack([columns[name] for name in extra]) if extra else np.zeros((len(positions), 0)),
        tuple(extra),
    )
    write_swc(path, tree, header=said.get("comments", ()), units=said.get("units") or "voxels")
    return [path]


def _layers(path: Path) -> list[Layer]:
    tree, units = read_swc(path), read_swc_units(path)
    place = {"scale": (1.0, 1.0, 1.0)} if units == "um" else _place_beside(path)
    places = tree.positions[:, ::-1]
    colours = _COLOURS[np.where((tree.kind > 0) & (tree.kind < len(_COLOURS)), tree.kind, 0)]
    child = tree.edges
    start = places[tree.parent[child]]
    edges: dict[str, Any] = {
        "name": f"{path.stem} edges",
        **place,
        "features": {"type": tree.kind[child], "radius": tree.radius[child]},
        "edge_color": colours[child],
        "edge_width": 1.0,
        "vector_style": "line",
    }
    further = {name: tree.extra[:, k] for k, name in enumerate(tree.extra_names)}
    parent = np.where(tree.parent < 0, -1, tree.parent + 1)
    nodes: dict[str, Any] = {
        "name": f"{path.stem} nodes",
        **place,
        "features": further | {
            "id": np.arange(1, len(tree) + 1), "parent": parent, "type": tree.kind, "radius": tree.radius,
        },
        "size": np.where(tree.radius > 0, 2 * tree.radius, 1.0),
        "face_color": colours,
        "border_width": 0.0,
        "metadata": {"units": units, "comments": read_swc_comments(path), "extra_names": tree.extra_names},
    }  # fmt: skip
    return [(np.stack([start, places[child] - start], axis=1), edges, "vectors"), (places.copy(), nodes, "points")]


def _place_beside(path: Path) -> dict[str, Any]:
    """Scale and shift along z, y, x in micrometres of the probabilities in the same folder, where there are some."""
    store = path.parent / BESIDE
    if not store.is_dir():
        return {"scale": (1.0, 1.0, 1.0)}
    with open_stack(store) as volume:
        scale = volume.spacing_um or (1.0, 1.0, 1.0)
    return {"scale": scale, "translate": shift_of(store, scale)}


def _parent_rows(path: str, ids: Float64Array, parents: Float64Array) -> Int64Array:
    """Rows of the parents, -1 where there is none."""
    names, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        twice = names[counts > 1][0]
        raise InputError(f"{path}: ids are unique, {twice:g} is there twice; give each new node an id of its own")
    order = np.argsort(ids)
    place = np.clip(np.searchsorted(ids[order], parents), 0, max(len(ids) - 1, 0))
    rows = order[place] if len(ids) else np.zeros(0, np.int64)
    return np.where(ids[rows] == parents, rows, -1)
