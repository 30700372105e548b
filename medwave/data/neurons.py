"""Training cubes for fibre segmentation.

An item is a dictionary of tensors: ``image`` ``(1, D, H, W)`` float32 on the scale of
:class:`medwave.transforms.microscopy.IntensityScale`, ``label`` ``(1, D, H, W)`` int64 with 1 for fibre, 0 for
background and :data:`IGNORE` where nobody knows, and ``skeleton`` ``(1, D, H, W)`` uint8, the centre lines (all zero
where they are not known).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from medwave.core.errors import InputError
from medwave.core.tree import Tree
from medwave.transforms.microscopy import IntensityScale
from medwave.transforms.neuron_labels import IGNORE
from medwave.transforms.neurons import grow_tree, random_growth, random_microscope, render_neuron

Shape3 = tuple[int, int, int]
Item = dict[str, torch.Tensor]


class SyntheticNeurons(Dataset[Item]):
    """Cubes cut from synthetic volumes: grown trees under random microscopes, with exact truth.

    In every other volume slices are up to four times as thick as voxels are wide.

    Args:
        length: number of items.
        size: of a cube, ``(z, y, x)``.
        seed: item ``i`` is drawn from ``(seed, i)`` alone.
        black_levels: share of the volumes whose background has been taken off.
    """

    def __init__(self, length: int, size: Shape3 = (32, 64, 64), *, seed: int = 0, black_levels: float = 0.5) -> None:
        self.length, self.size, self.seed, self.black_levels = length, size, seed, black_levels

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng((self.seed, index))
        thickness = float(rng.uniform(1, 4)) if rng.random() < 0.5 else 1.0
        around: Shape3 = (round(2 * self.size[0] * thickness), 3 * self.size[1], 3 * self.size[2])
        trees = [grow_tree(around, random_growth(rng), seed=rng) for _ in range(rng.integers(1, 4))]
        tree = _together(trees)
        tree = Tree(tree.positions / (1, 1, thickness), tree.radius, tree.parent, tree.kind)
        scope = random_microscope(rng, black_levels=self.black_levels)
        neuron = render_neuron(_window(tree, self.size, rng), self.size, scope, seed=rng, spacing=(thickness, 1.0, 1.0))
        image = IntensityScale.of(neuron.image)(neuron.image)
        return _augmented(image, neuron.mask.astype(np.int64), neuron.centre_lines.astype(np.uint8), rng)


class AxonCubes(Dataset[Item]):
    """Random crops of labelled cubes, such as light-sheet cubes with sparse human labels.

    Every crop holds a labelled voxel, drawn from all of a cube: where a few planes are labelled, most crops that are
    laid anywhere would teach little or nothing.

    Args:
        cubes: pairs of image and label ``(z, y, x)``; labels: 1 fibre, 0 background, :data:`IGNORE` unknown.
        length: number of items.
        size: of a crop; a cube may not be smaller.
        seed: item ``i`` is drawn from ``(seed, i)`` alone.

    Raises:
        InputError: when a cube is smaller than a crop or has no label, or there is none.
    """

    def __init__(
        self, cubes: Sequence[tuple[npt.NDArray[np.generic], npt.NDArray[np.integer]]], length: int,
        size: Shape3 = (32, 64, 64), *, seed: int = 0,
    ) -> None:  # fmt: skip
        if not cubes or any(n < s for image, _ in cubes for n, s in zip(image.shape, size, strict=True)):
            raise InputError(f"crops of {size} need at least one cube, and none smaller")
        self.cubes = [(IntensityScale.of(image)(image), label) for image, label in cubes]
        self.known = [np.flatnonzero(label != IGNORE) for _, label in cubes]
        if not all(len(places) for places in self.known):
            raise InputError(f"a cube to learn from needs a label; one of the {len(cubes)} has none")
        self.length, self.size, self.seed = length, size, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng((self.seed, index))
        which = rng.integers(len(self.cubes))
        image, label = self.cubes[which]
        anchor = np.unravel_index(rng.choice(self.known[which]), image.shape)
        first = [max(0, p - s + 1) for p, s in zip(anchor, self.size, strict=True)]
        last = [min(p, n - s) for p, n, s in zip(anchor, image.shape, self.size, strict=True)]
        start = rng.integers(first, last, endpoint=True)
        box = tuple(slice(a, a + s) for a, s in zip(start, self.size, strict=True))
        noisy = image[box] * rng.uniform(0.8, 1.25) + rng.normal(0, 0.1, self.size)
        return _augmented(noisy.astype(np.float32), label[box].astype(np.int64), np.zeros(self.size, np.uint8), rng)


class Mixture(Dataset[Item]):
    """Items of several data sets in turn, each with a share: item ``i`` always comes from the same one.

    Args:
        parts: data sets with their shares (whole numbers, such as 3 and 1).
    """

    def __init__(self, parts: Sequence[tuple[Dataset[Item], int]]) -> None:
        self.parts = [part for part, share in parts for _ in range(share)]
        self.length = min(len(part) for part in self.parts) * len(self.parts)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        return self.parts[index % len(self.parts)][index // len(self.parts)]


def _together(trees: Sequence[Tree]) -> Tree:
    offsets = np.cumsum([0, *(len(t.parent) for t in trees)])
    parents = [np.where(t.parent < 0, -1, t.parent + o) for t, o in zip(trees, offsets, strict=False)]
    return Tree(
        np.concatenate([t.positions for t in trees]),
        np.concatenate([t.radius for t in trees]),
        np.concatenate(parents),
        np.concatenate([t.kind for t in trees]),
    )


def _window(tree: Tree, size: Shape3, rng: np.random.Generator) -> Tree:
    """The tree moved so that a window of ``size`` lies around one of its nodes, or anywhere in one of eight cases."""
    anchor = tree.positions[rng.integers(len(tree.parent))]
    if rng.random() < 0.125:
        anchor = rng.uniform(tree.positions.min(axis=0), tree.positions.max(axis=0))
    corner = anchor - rng.uniform(0.2, 0.8, 3) * np.array(size[::-1])
    return Tree(tree.positions - corner, tree.radius, tree.parent, tree.kind)


def _augmented(
    image: npt.NDArray[np.float32], label: npt.NDArray[np.int64], skeleton: npt.NDArray[np.uint8],
    rng: np.random.Generator,
) -> Item:  # fmt: skip
    """Flips along every axis and a transposition in the plane, the same for all three."""
    flips = tuple(axis for axis in range(3) if rng.random() < 0.5)
    swap = rng.random() < 0.5 and image.shape[1] == image.shape[2]
    out = {}
    for name, array in (("image", image), ("label", label), ("skeleton", skeleton)):
        turned = np.flip(array, flips)
        turned = turned.swapaxes(1, 2) if swap else turned
        out[name] = torch.from_numpy(np.ascontiguousarray(turned))[None]
    return out
