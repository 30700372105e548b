"""One tracing method in a process of its own. Started by ``tracing.py``.

``python _tracing_methods.py METHOD REQUEST`` reads a JSON request (``volume``: a TIFF; ``kind``: image or mask;
``spacing``: z, y, x; ``threshold``: for methods that have no rule of their own; ``folder``: where to write) and leaves

``tree.swc`` or ``tree.npz``
    the tree in voxels: medwave's as SWC, others as ``positions`` x y z, ``radius``, ``parent``.
``method.json``
    ``trace_cpu_s``: CPU seconds of this process from the file on disk to the tree in memory.

Nothing but the method's own packages is imported, so that the cost of the process is the method's own. A process that
uses more CPU seconds than the request allows is ended by the system.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]
DUST_VOXELS = 10
"""Pieces below this are left out by all methods."""

SETTINGS: dict[str, Any] = {
    "medwave": "medwave.workflows.trace.trace_file, default options",
    "medwave-reconstruct": "medwave reconstruct VOLUME -o DIR, with its shipped network, all files and the report",
    "skeleton": f"scikit-image skeletonize (lee) at the given threshold, pieces of {DUST_VOXELS} voxels or more, "
    "minimum spanning tree over 26 neighbours",
    "skeleton-hindsight": "the same at the threshold, of eight or so, at which it scores best",
    "kimimaro": {
        "scale": 1.5,
        "const": 4,
        "dust_threshold": DUST_VOXELS,
        "fix_branching": True,
        "at": "the threshold best for thinning",
    },
}
PACKAGES = {
    "medwave": "medwave",
    "medwave-reconstruct": "medwave",
    "skeleton": "scikit-image",
    "skeleton-hindsight": "scikit-image",
    "kimimaro": "kimimaro",
}


def run_medwave(request: dict[str, Any]) -> float:
    """medwave's own function, from file to file."""
    from medwave.workflows.trace import trace_file

    start = time.process_time()
    trace_file(request["volume"], Path(request["folder"]) / "tree.swc", kind=request["kind"], on_warning=print)
    return time.process_time() - start


def run_skeleton(request: dict[str, Any]) -> float:
    """Thin the foreground to lines and hang them up as spanning trees."""
    for package in ("skimage.measure", "skimage.morphology", "scipy.sparse.csgraph", "scipy.spatial", "tifffile"):
        import_module(package)  # before the clock starts, as for the other methods
    start = time.process_time()
    voxels, parent = thinned(*_foreground(request))
    cost = time.process_time() - start
    _save(request, voxels[:, ::-1].astype(float), np.ones(len(voxels)), parent)
    return cost


def run_skeleton_hindsight(request: dict[str, Any]) -> float:
    """The same at the threshold that is known to be the best."""
    return run_skeleton({**request, "threshold": request["best_threshold"]})


def thinned(
    foreground: npt.NDArray[np.bool_], spacing: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Voxels (z, y, x) of the centre lines and their parents."""
    from skimage.measure import label
    from skimage.morphology import skeletonize

    pieces = label(foreground, connectivity=3)
    large = np.bincount(pieces.ravel()) >= DUST_VOXELS
    large[0] = False
    voxels = np.argwhere(skeletonize(large[pieces], method="lee"))
    return voxels, _spanning_forest(voxels, spacing)


def _spanning_forest(voxels: npt.NDArray[np.int64], spacing: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Parents of the minimum spanning trees over 26 neighbours, each hung up at its first voxel."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
    from scipy.spatial import KDTree

    pairs = KDTree(voxels).query_pairs(1.8, output_type="ndarray")
    length = np.linalg.norm((voxels[pairs[:, 0]] - voxels[pairs[:, 1]]) * spacing, axis=1)
    count = len(voxels)
    tree = minimum_spanning_tree(coo_array((length, pairs.T), shape=(count, count)).tocsr())
    _, piece = connected_components(tree, directed=False)
    firsts = np.unique(piece, return_index=True)[1]
    edges = tree.tocoo()
    top = np.full(len(firsts), count)  # one node above all pieces
    rows, columns = np.concatenate([edges.row, top]), np.concatenate([edges.col, firsts])
    whole = coo_array((np.ones(len(rows)), (rows, columns)), shape=(count + 1, count + 1)).tocsr()
    above = breadth_first_order(whole, count, directed=False)[1][:count].astype(np.int64)
    return np.where(above == count, -1, above)


def run_kimimaro(request: dict[str, Any]) -> float:
    """kimimaro (GPL, so never a dependency) on the foreground."""
    import kimimaro
    from skimage.measure import label

    start = time.process_time()
    foreground, spacing = _foreground({**request, "threshold": request["best_threshold"]})

    settings = SETTINGS["kimimaro"]
    skeletons = kimimaro.skeletonize(
        label(foreground, connectivity=3).astype(np.uint32),
        teasar_params={"scale": settings["scale"], "const": settings["const"]}, anisotropy=tuple(spacing),
        dust_threshold=settings["dust_threshold"], fix_branching=settings["fix_branching"], progress=False, parallel=1,
    )  # fmt: skip
    cost = time.process_time() - start
    places, parents, offset = [], [], 0
    for skeleton in skeletons.values():
        vertices = skeleton.vertices / spacing
        places.append(vertices[:, ::-1])
        own = _hung(len(vertices), skeleton.edges)
        parents.append(np.where(own >= 0, own + offset, -1))
        offset += len(vertices)
    _save(request, np.concatenate(places), np.ones(offset), np.concatenate(parents))
    return cost


def _hung(count: int, edges: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Parents of a forest given by its edges."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    graph = coo_array((np.ones(len(edges)), np.asarray(edges, dtype=np.int64).T), shape=(count, count)).tocsr()
    piece = connected_components(graph, directed=False)[1]
    parent = np.full(count, -1)
    for first in np.unique(piece, return_index=True)[1]:
        order, above = breadth_first_order(graph, first, directed=False)
        parent[order[1:]] = above[order[1:]]
    return parent


def _foreground(request: dict[str, Any]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    import tifffile

    volume = tifffile.imread(request["volume"])
    level = 0 if request["kind"] == "mask" else request["threshold"]
    return volume > level, np.asarray(request["spacing"], dtype=np.float64)


def _save(request: dict[str, Any], positions: npt.ArrayLike, radius: npt.ArrayLike, parent: npt.ArrayLike) -> None:
    np.savez(Path(request["folder"]) / "tree.npz", positions=positions, radius=radius, parent=parent)


METHODS: dict[str, Callable[[dict[str, Any]], float]] = {
    "medwave": run_medwave,
    "skeleton": run_skeleton,
    "skeleton-hindsight": run_skeleton_hindsight,
    "kimimaro": run_kimimaro,
}


def main(method: str, request_file: str) -> None:
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    limit = request["cpu_limit_s"]
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    cost = METHODS[method](request)
    (Path(request["folder"]) / "method.json").write_text(json.dumps({"trace_cpu_s": cost}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:3])
