"""The demo neuron: grown and rendered on the spot, so that its true tree is known exactly.

A tree grows by persistent random walks (:func:`medwave.transforms.neurons.grow_tree`) and is imaged with blur, beading,
dim stretches, gaps, an uneven background, blobs, photon and read noise. No file and no network are used; the same seed
gives the same files.

The image is uint8 ``(z, y, x)``, the tree x y z in its voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medwave.core.errors import OutputError
from medwave.core.files import StrPath, atomic_path
from medwave.transforms.neurons import Growth, Microscope, RenderedNeuron, grow_tree, render_neuron
from medwave.volumes import write_swc

SHAPE = (64, 320, 320)
VOXEL_UM = 0.5
SEED = 47
"""Gives a neuron that has its soma near the middle and fills the volume."""
GROWTH = Growth(
    stems=5, branch_every=55, length=230, soma_radius=7, stem_radius=2.4, tip_radius=0.9, flatness=0.3
)  # fmt: skip
MICROSCOPE = Microscope(
    signal_photons=26, background_photons=4, read_noise=1.5, dim_share=0.12, gap_share=0.015, blobs=2
)  # fmt: skip


@dataclass(frozen=True)
class NeuronSample:
    """A demo neuron and the files that hold it.

    Attributes:
        neuron: image, mask and tree.
        image_path: TIFF with its voxel size.
        tree_path: SWC file of the true tree, in voxels.
    """

    neuron: RenderedNeuron
    image_path: Path
    tree_path: Path


def make_neuron_sample(folder: StrPath, *, seed: int = SEED, shape: tuple[int, int, int] = SHAPE) -> NeuronSample:
    """Grow and image the demo neuron and write it to a folder.

    Args:
        folder: made when absent; ``neuron.tif`` and ``true_tree.swc`` are written there.
        seed: of the tree and of the noise.
        shape: of the volume, ``(z, y, x)``.

    Raises:
        OutputError: when the folder cannot be made.
    """
    import tifffile

    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target}: cannot make this folder ({error.strerror})") from error
    neuron = render_neuron(grow_tree(shape, GROWTH, seed=seed), shape, MICROSCOPE, seed=seed)
    sample = NeuronSample(neuron, target / "neuron.tif", target / "true_tree.swc")
    with atomic_path(sample.image_path) as partial:
        tifffile.imwrite(
            partial,
            neuron.image,
            imagej=True,
            resolution=(1 / VOXEL_UM, 1 / VOXEL_UM),
            metadata={"axes": "ZYX", "spacing": VOXEL_UM, "unit": "um"},
        )
    write_swc(sample.tree_path, neuron.tree, header=["synthetic neuron, exact truth"], units="voxels")
    return sample
