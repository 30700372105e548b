"""A small synthetic neuron with its report, shared by the tests of the neuron page."""

import functools

import numpy as np

from medwave.core.tree import Tree
from medwave.metrics import score_trace
from medwave.reports import NeuronReport
from medwave.transforms.neurons import Growth, grow_tree, render_neuron

SHAPE = (24, 72, 84)


@functools.cache
def neuron():
    return render_neuron(grow_tree(SHAPE, Growth(soma_radius=4.0, stems=3), seed=3), SHAPE, seed=3)


def shifted(tree: Tree, by) -> Tree:
    return Tree(tree.positions + by, tree.radius, tree.parent, tree.kind)


def full_neuron_report(**changes) -> NeuronReport:
    """A report with every field filled; the tree is the truth, half of it three voxels aside."""
    truth = neuron().tree
    aside = np.where(np.arange(len(truth)) >= len(truth) // 2, 3.0, 0.0)[:, None] * (0, 1, 0)
    tree = shifted(truth, aside)
    fields = {
        "name": "stack.tif",
        "image": neuron().image,
        "tree": tree,
        "probability": np.where(neuron().mask, 240, 9).astype(np.uint8),
        "mask": neuron().mask.astype(np.uint8),
        "gold": truth,
        "scores": score_trace(truth, tree),
        "spacing_um": (2.0, 0.5, 0.5),
        "stages": [("segment", 9.25, 5.0, 700.0), ("trace", 1.5, 1.5, 910.0)],
        "options": {"threshold": 0.5, "root": None},
        "versions": {"medwave": "0.1.0"},
        "files": {"Tree": ("tree.swc", "the reconstruction")},
        "command_line": "medwave reconstruct stack.tif -o out",
    }
    return NeuronReport(**{**fields, **changes})
