"""Pairs of made-up brain images, drawn from label maps of real anatomy, for training a pair network.

An item is a dictionary of tensors on one grid: ``fixed`` and ``moving`` ``(1, D, H, W)`` float32 in [0, 1], and
``fixed_labels`` and ``moving_labels`` ``(1, D, H, W)`` uint8: 0, or 1 + the place of a structure in
:data:`medwave.transforms.label_images.STRUCTURES`.

The pair is two people as an affine registration leaves them: their label maps are aligned by the centroids of their
structures, up to a small error, turned and scaled together, and each is deformed smoothly.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.utils.data import Dataset

from medwave.core.errors import InputError, MissingFileError
from medwave.core.files import StrPath
from medwave.core.geometry import Float64Array, Grid, Volume, transform_points
from medwave.core.orientation import canonical_axes, reorient, reorient_grid
from medwave.core.threads import run_slabs
from medwave.transforms.label_images import STRUCTURES, image_of_labels, random_contrast, strip_skull
from medwave.transforms.synthetic import random_affine, random_velocity
from medwave.volumes import read_labels

Item = dict[str, torch.Tensor]
Shape3 = tuple[int, int, int]
_Labels = npt.NDArray[np.int16]

_LABELS = 1024
_FEWEST_SHARED = 8
_WITH_HEAD = 0.25
_SAME_CONTRAST = 0.5


def read_label_maps(folder: StrPath) -> list[Volume]:
    """All label maps of a folder (NIfTI), by name: RAS+ axis order, int16, cropped to what is not background.

    Raises:
        MissingFileError: when the folder is missing or holds no NIfTI file.
        InputError: when a map holds too few of the structures, or labels that no contrast covers.
    """
    paths = sorted(path for path in Path(folder).glob("*.nii*") if path.is_file())
    if not paths:
        raise MissingFileError(f"{folder}: no such folder, or it holds no label map (*.nii, *.nii.gz)")
    return [_read(path) for path in paths]


def _read(path: Path) -> Volume:
    volume = read_labels(path)
    axes = canonical_axes(volume.grid.affine)
    data, grid = reorient(np.asarray(volume.data), *axes), reorient_grid(volume.grid, *axes)
    low, high = data.min(), data.max()
    held = np.bincount(data.ravel(), minlength=_LABELS)[list(STRUCTURES)] > 0 if 0 <= low <= high < _LABELS else []
    if np.sum(held) < _FEWEST_SHARED:
        raise InputError(
            f"{path}: a label map to train on uses FreeSurfer's numbers from 0 to {_LABELS - 1} and shows at least "
            f"{_FEWEST_SHARED} of {', '.join(map(str, STRUCTURES))}"
        )
    box = ndimage.find_objects((data > 0).astype(np.uint8))[0]
    shape = (box[0].stop - box[0].start, box[1].stop - box[1].start, box[2].stop - box[2].start)
    cropped = np.ascontiguousarray(data[box], dtype=np.int16)
    return Volume(cropped, grid.crop([s.start for s in box], shape), volume.name)


def common_space(maps: Sequence[Volume]) -> list[Float64Array]:
    """For each map the affine (4x4, mm) from a space that all share to its own world.

    In the common space the centroid of each structure lies where it lies in the mean of all maps, and the box around
    the structures is centred at 0, in the mean of all maps; affines are least squares fits of the centroids.

    Raises:
        InputError: when there are no maps, or they share too few structures.
    """
    shared = [s for s in STRUCTURES if all((m.data == s).any() for m in maps)]
    if not maps or len(shared) < _FEWEST_SHARED:
        raise InputError(f"{len(maps)} label maps share {len(shared)} structures, at least {_FEWEST_SHARED} are needed")
    points = np.stack([m.grid.to_mm(ndimage.center_of_mass(m.data > 0, m.data, shared)) for m in maps])
    mean = (points - points.mean(axis=1, keepdims=True)).mean(axis=0)
    padded = np.c_[mean, np.ones(len(shared))]
    matrices = [np.eye(4) for _ in maps]
    for matrix, own in zip(matrices, points, strict=True):
        matrix[:3] = np.linalg.lstsq(padded, own, rcond=None)[0].T
    boxes = [transform_points(np.linalg.inv(a), _corners_mm(m)) for m, a in zip(maps, matrices, strict=True)]
    center = np.eye(4)
    center[:3, 3] = np.mean([(box.min(axis=0) + box.max(axis=0)) / 2 for box in boxes], axis=0)
    return [matrix @ center for matrix in matrices]


def _corners_mm(volume: Volume) -> Float64Array:
    """Corners ``(8, 3)`` of the box around the structures of a label map."""
    held = np.zeros(_LABELS, dtype=np.uint8)
    held[list(STRUCTURES)] = 1
    box = ndimage.find_objects(held[volume.data])[0]
    return volume.grid.to_mm(list(product(*((s.start, s.stop - 1) for s in box))))


class LabelMapPairs(Dataset[Item]):
    """Pairs of images of different people, made as they are needed.

    Args:
        maps: at least two label maps, as :func:`read_label_maps` gives them.
        length: number of items.
        size: of an item in voxels; smaller than a brain means that it is cut at random.
        spacing_mm: voxel size.
        varied: whether anatomy varies (deformation, pose, place of the cut). Without it every ordered pair comes in
            turn, aligned as well as centroids allow: to measure overlap on.
        strength: how far the two differ: a factor of the deformations and of the error of the affine, 1 as people do.
        contrast: a kind of :func:`medwave.transforms.random_contrast` that both images of every pair
            have, alike and without a head: the easier task. None draws each image's contrast, and heads, anew.
        seed: item ``i`` is drawn from ``(seed, i)`` alone.

    Raises:
        InputError: when there are fewer than two maps, they share too few structures, or there is no such contrast.
    """

    def __init__(
        self, maps: Sequence[Volume], length: int, size: Shape3 = (80, 96, 80), *, spacing_mm: float = 2.0,
        varied: bool = True, strength: float = 1.0, contrast: str | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        if len(maps) < 2:
            raise InputError(f"a pair needs two label maps, got {len(maps)}")
        random_contrast(seed=0, kind=contrast)
        self.contrast = contrast
        self.maps, self.matrices = list(maps), common_space(maps)
        self.length, self.size, self.spacing_mm, self.seed = length, size, spacing_mm, seed
        self.varied, self.strength = varied, strength
        self.numbers = np.zeros(_LABELS, dtype=np.uint8)
        self.numbers[list(STRUCTURES)] = np.arange(1, len(STRUCTURES) + 1)
        affine = np.diag([spacing_mm] * 3 + [1.0])
        affine[:3, 3] = -spacing_mm * (np.array(size) - 1) / 2
        self.grid = Grid(size, affine)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng((self.seed, index))
        people = self._people(index, rng)
        pose, error = self._pose(rng)
        with_head, fluid = rng.random() < _WITH_HEAD and self.contrast is None, rng.random() < 0.5
        contrast = random_contrast(seed=rng, kind=self.contrast)
        item = {}
        for role, who, matrix in zip(("fixed", "moving"), people, (pose, pose @ error), strict=True):
            labels = self._labels(who, matrix, rng)
            item[f"{role}_labels"] = torch.from_numpy(self.numbers[labels])[None]
            shown = labels if with_head else strip_skull(labels, fluid=bool(fluid))
            image = image_of_labels(shown, contrast, seed=rng, spacing_mm=(self.spacing_mm,) * 3)
            item[role] = torch.from_numpy(image)[None]
            if rng.random() > _SAME_CONTRAST and self.contrast is None:
                contrast = random_contrast(seed=rng)
        return item

    def _people(self, index: int, rng: np.random.Generator) -> tuple[int, int]:
        """Fixed and moving: drawn at random, or each ordered pair in turn where anatomy does not vary."""
        if self.varied:
            fixed, moving = rng.choice(len(self.maps), 2, replace=False)
            return int(fixed), int(moving)
        pairs = list(permutations(range(len(self.maps)), 2))
        return pairs[index % len(pairs)]

    def _pose(self, rng: np.random.Generator) -> tuple[Float64Array, Float64Array]:
        """How the pair lies in the common space, and how the affine between the two errs."""
        if not self.varied:
            return np.eye(4), np.eye(4)
        pose = random_affine(seed=rng, rotation_degrees=8.0, scale=0.12, shear=0.03, translation_mm=12.0)
        most = {"rotation_degrees": 2.5, "scale": 0.04, "shear": 0.02, "translation_mm": 3.0}
        return pose, random_affine(seed=rng, **{name: self.strength * value for name, value in most.items()})

    def _labels(self, who: int, pose: Float64Array, rng: np.random.Generator) -> _Labels:
        """One person's label map on the grid of the items."""
        from medwave.fields.kernels import nearest_through  # numba takes a second to import

        field = np.zeros((3, *self.size), dtype=np.float32)
        if self.varied:
            smoothness = rng.uniform(10.0, 25.0)
            field = random_velocity(
                self.size, seed=rng, amplitude_mm=self.strength * rng.uniform(0.0, 0.4) * smoothness,
                smoothness_mm=smoothness, spacing_mm=(self.spacing_mm,) * 3,
            )  # fmt: skip
        source = self.maps[who]
        voxels = np.linalg.inv(source.grid.affine) @ self.matrices[who] @ pose @ self.grid.affine
        out = np.empty(self.size, dtype=np.int16)
        run_slabs(nearest_through, self.size[0], source.data, field, np.ascontiguousarray(voxels[:3]), out)
        return out
