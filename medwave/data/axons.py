"""Folders of axon cubes with sparse human labels, as TRAILMAP publishes them.

``volume_3.tif`` is an image, ``labels_3.tif`` its labels: 1 background, 2 axon, 4 the edge of an axon, 0 for the planes
that nobody labelled (Friedmann et al. 2020, doi 10.1073/pnas.1918465117). Here fibre is 1, background 0 and
:data:`medwave.data.neurons.IGNORE` what is unknown.

The edge is a ring about as large as the axons inside it. In the light-sheet cubes its median brightness lies at 0.35
of the way from background to axon, and a third of its voxels lie above the half of that way, where an edge belongs:
it is neither, so that by default it is unknown. Counted as fibre it would double the width of an axon.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError, MissingFileError, VolumeFormatError
from medwave.core.files import StrPath
from medwave.data.neurons import IGNORE
from medwave.volumes import open_stack

AxonCube = tuple[npt.NDArray[np.generic], npt.NDArray[np.uint8]]
"""Image and label of a cube, both ``(z, y, x)``."""

EDGES = {"ignore": IGNORE, "fibre": 1, "background": 0}
"""What the edge of an axon can count as."""

_UNLABELLED, _BACKGROUND, _AXON, _EDGE = 0, 1, 2, 4


def read_axon_cubes(folder: StrPath, *, edge: str = "ignore") -> list[AxonCube]:
    """All cubes of a folder, in the order of their numbers.

    Args:
        folder: holds ``volume_N.tif`` and ``labels_N.tif``.
        edge: what the edge of an axon counts as, a key of :data:`EDGES`.

    Returns:
        Pairs of image ``(z, y, x)``, in its own type, and label uint8: 1 fibre, 0 background,
        :data:`medwave.data.neurons.IGNORE` unknown.

    Raises:
        InputError: when ``edge`` is not one of the words.
        MissingFileError: when the folder, its cubes or a label file are not there.
        GeometryError: when a label has another shape than its image.
        VolumeFormatError: when a label has another code.
    """
    if edge not in EDGES:
        raise InputError(f"edge counts as one of {', '.join(EDGES)}, got {edge!r}")
    images = sorted(Path(folder).glob("volume_*.tif"), key=lambda path: (len(path.name), path.name))
    if not images:
        raise MissingFileError(f"{folder}: holds no volume_N.tif; name a folder of cubes, such as .../training")
    return [_cube(image, EDGES[edge]) for image in images]


def _cube(path: Path, edge: int) -> AxonCube:
    partner = path.with_name(path.name.replace("volume_", "labels_", 1))
    with open_stack(path) as volume, open_stack(partner) as labels:
        image, codes = volume.read(), labels.read()
    if image.shape != codes.shape:
        raise GeometryError(f"{partner}: has {codes.shape} voxels (z, y, x), its image {image.shape}; they must agree")
    meaning = {_UNLABELLED: IGNORE, _BACKGROUND: 0, _AXON: 1, _EDGE: edge}
    strangers = np.setdiff1d(codes, list(meaning))
    if len(strangers):
        raise VolumeFormatError(
            f"{partner}: labels are 0 unknown, 1 background, 2 axon, 4 edge, got {strangers[0]}; recode it"
        )
    label = np.full(codes.shape, IGNORE, dtype=np.uint8)
    for code, value in meaning.items():
        label[codes == code] = value
    return image, label
