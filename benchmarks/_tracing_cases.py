"""The volumes of the tracing benchmark and the scores of trees in them. Started by ``tracing.py``.

``python _tracing_cases.py make REQUEST``: write ``volume.tif`` and ``gold.swc`` of a case into its folder, and print
its kind, voxel size, contrast and medwave's automatic threshold as JSON.
``python _tracing_cases.py score REQUEST``: print the scores of a tree as JSON.

Scores are in voxels. Both trees are cut to the volume first: the label of neuron_a goes on beyond its crop.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from _tracing_methods import thinned

from medwave.core.tree import Tree
from medwave.metrics import score_trace, tolerance_score
from medwave.tracing import crop, translate
from medwave.tracing.grey import automatic_threshold, to_grey
from medwave.transforms import Microscope, draw_centre_lines, render_neuron
from medwave.volumes import read_swc, write_swc

SHAPE = (60, 512, 512)
SLICES = (3.0, 1.0, 1.0)
SEED = 0
LARGEST_SHARE = 0.1
SCOPES = {"easy": Microscope(), "hard": Microscope(signal_photons=14, background_photons=8, read_noise=3)}
CASES = {
    "OP_1 easy": "render of the gold tree, P 90, B 2, R 0.8",
    "OP_1 perfect mask": "the tubes themselves",
    "OP_1 hard": "render of the gold tree, P 14, B 8, R 3",
    "neuron_a": "real, silver label of the NeuTu family",
    "neuron_b": "real, silver label",
}


def make(request: dict[str, Any]) -> dict[str, Any]:
    """Write the volume and the gold tree of a case."""
    neurons, folder, case = Path(request["neurons"]), Path(request["folder"]), request["case"]
    kind, spacing = "image", (1.0, 1.0, 1.0)
    if case.startswith("OP_1"):
        gold = translate(read_swc(neurons / "gold_swc" / "OP_1.swc"), (0, 0, 2))
        scope, spacing = SCOPES["hard" if case.endswith("hard") else "easy"], SLICES
        neuron = render_neuron(gold, SHAPE, scope, seed=SEED, spacing=SLICES)
        volume = neuron.image
        if case.endswith("mask"):
            kind, volume = "mask", neuron.mask.astype(np.uint8) * np.uint8(255)
    else:
        gold = read_swc(neurons / "real_traced" / f"{case}.swc")
        volume = tifffile.imread(neurons / "real_traced" / f"{case}.tif")
    tifffile.imwrite(
        folder / "volume.tif", volume, imagej=True, resolution=(1 / spacing[2], 1 / spacing[1]),
        metadata={"axes": "ZYX", "spacing": spacing[0], "unit": "um"},
    )  # fmt: skip
    write_swc(folder / "gold.swc", gold, header=[case], units="voxels")
    line = draw_centre_lines(gold, volume.shape)
    background = volume[~line].astype(float)
    threshold = automatic_threshold(to_grey(volume, kind).grey)
    return {
        "kind": kind, "spacing": list(spacing), "shape": list(volume.shape),
        "contrast_per_sd": float((volume[line].mean() - background.mean()) / max(background.std(), 1e-9)),
        "threshold": threshold,
        "best_threshold": best_threshold(volume, gold, spacing, threshold),
    }  # fmt: skip


def best_threshold(
    volume: npt.NDArray[np.uint8], gold: Tree, spacing: tuple[float, float, float], middle: float
) -> float:
    """The threshold at which thinning has its best F2: of ``middle`` times 2 to the power of -2, -1.5, ... 3."""
    inside = crop(gold, (0, 0, 0), np.array(volume.shape[::-1]) - 1)
    found = {}
    for threshold in middle * 2 ** np.arange(-2, 3.01, 0.5):
        foreground = volume > threshold
        if 0 < foreground.mean() <= LARGEST_SHARE:
            voxels, parent = thinned(foreground, np.asarray(spacing))
            if (parent >= 0).any():
                tree = Tree(voxels[:, ::-1].astype(float), np.ones(len(parent)), parent, np.zeros(len(parent), int))
                found[float(threshold)] = tolerance_score(inside, tree).by_samples.f1
    return max(found, key=found.__getitem__)


def score(request: dict[str, Any]) -> dict[str, Any]:
    """Scores of a tree; those of a tree that is not there are the worst."""
    high = np.array(request["shape"][::-1]) - 1
    gold = crop(read_swc(request["gold"]), (0, 0, 0), high)
    tree = read_tree(Path(request["tree"])) if request.get("tree") else None
    row = score_trace(gold, tree and crop(tree, (0, 0, 0), high)).row()
    return {name: row[name] for name in ("f1", "precision", "recall", "esa", "dsa", "pds")}


def read_tree(path: Path) -> Tree:
    """A tree as a method left it."""
    if path.suffix == ".swc":
        return read_swc(path)
    with np.load(path) as arrays:
        kind = np.zeros(len(arrays["parent"]), dtype=np.int64)
        return Tree(arrays["positions"], arrays["radius"], arrays["parent"], kind)


if __name__ == "__main__":
    what = {"make": make, "score": score}[sys.argv[1]]
    print(json.dumps(what(json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))))
