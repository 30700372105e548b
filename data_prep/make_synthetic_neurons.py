"""Write synthetic light microscopy volumes with exact truth: image, tree and mask of each.

    python data_prep/make_synthetic_neurons.py -o FOLDER --count 20 --shape 64,256,256
    python data_prep/make_synthetic_neurons.py -o FOLDER --swc traced.swc --photons 14 --background 8 --read-noise 3

Trees are grown, or taken from SWC files in voxels (moved so that they fit). ``neuron_000.tif`` is the image (uint8,
z y x), ``neuron_000.swc`` the tree in its voxels, ``neuron_000_mask.tif`` the voxels of its tubes. The same seed gives
the same files.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile

from medwave.core.files import atomic_path
from medwave.core.tree import Tree
from medwave.transforms import grow_tree, random_growth, random_microscope, render_neuron
from medwave.volumes import read_swc, write_swc

MARGIN_VOXELS = 6


def main() -> None:
    options = parse()
    options.output.mkdir(parents=True, exist_ok=True)
    sources = options.swc or [None] * options.count
    for number, source in enumerate(sources):
        rng = np.random.default_rng((options.seed, number))
        if source is None:
            shape = options.shape
            tree = grow_tree(shape, random_growth(rng), seed=rng)
        else:
            tree, shape = fitted(read_swc(source))
        given = {
            "signal_photons": options.photons,
            "background_photons": options.background,
            "read_noise": options.read_noise,
        }
        scope = replace(random_microscope(rng), **{name: value for name, value in given.items() if value is not None})
        neuron = render_neuron(tree, shape, scope, seed=rng)
        stem = options.output / f"neuron_{number:03d}"
        write_swc(stem.with_suffix(".swc"), neuron.tree, header=["synthetic neuron, exact truth"], units="voxels")
        for path, volume in ((f"{stem}.tif", neuron.image), (f"{stem}_mask.tif", neuron.mask.astype(np.uint8) * 255)):
            with atomic_path(path) as partial:
                tifffile.imwrite(partial, volume, imagej=True, metadata={"axes": "ZYX"}, compression=None)
        print(f"{stem}.tif  {' x '.join(map(str, shape))}, {len(neuron.tree.parent)} nodes")


def fitted(tree: Tree) -> tuple[Tree, tuple[int, int, int]]:
    """The tree moved to a margin from the origin, and the shape ``(z, y, x)`` that holds it."""
    moved = tree.positions - tree.positions.min(axis=0) + MARGIN_VOXELS
    x, y, z = (int(n) for n in np.ceil(moved.max(axis=0)) + MARGIN_VOXELS + 1)
    return Tree(moved, tree.radius, tree.parent, tree.kind), (z, y, x)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the files")
    parser.add_argument("--count", type=int, default=10, help="volumes to make, when no SWC is given")
    parser.add_argument("--shape", type=triple, default=(64, 256, 256), help="z,y,x (default: 64,256,256)")
    parser.add_argument("--swc", type=Path, nargs="+", help="render these trees in place of grown ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photons", type=float, help="brightness of a tube, in photons; random when left out")
    parser.add_argument("--background", type=float, help="background, in photons")
    parser.add_argument("--read-noise", type=float, help="noise of the camera, in photons")
    return parser.parse_args()


def triple(text: str) -> tuple[int, int, int]:
    z, y, x = (int(part) for part in text.split(","))
    return z, y, x


if __name__ == "__main__":
    main()
