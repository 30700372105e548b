"""Pairs of made-up brain images, drawn from label maps of real anatomy, for training a pair network.

An item is a dictionary of tensors on one grid: ``fixed`` and ``moving`` ``(1, D, H, W)`` float32 in [0, 1], and
``fixed_labels`` and ``moving_labels`` ``(1, D, H, W)`` uint8: 0, or 1 + the place of a structure in
:data:`medwave.transforms.label_images.STRUCTURES`.

The pair is two people as an affine registration leaves them: their label maps are aligned by the centroids of their
structures, up to a small error, turned and scaled together, and each is deformed smoothly.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
from medwave.transforms.label_images import STRUCTURES, images_of_labels, random_contrast, strip_skull
from medwave.transforms.smooth_fields import on_device, random_velocities
from medwave.transforms.synthetic import random_affine
from medwave.volumes import read_labels

Item = dict[str, torch.Tensor]
Shape3 = tuple[int, int, int]

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
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:
        return list(readers.map(_read, paths))


def _read(path: Path) -> Volume:
    volume = read_labels(path)
    axes = canonical_axes(volume.grid.affine)
    data, grid = reorient(np.asarray(volume.data), *axes), reorient_grid(volume.grid, *axes)
    box = ndimage.find_objects((data != 0).view(np.uint8), max_label=1)[0] or (slice(0, 0),) * 3
    data = data[box]
    usable = data.size > 0 and data.min() >= 0 and data.max() < _LABELS
    held = np.bincount(data.ravel(), minlength=_LABELS)[list(STRUCTURES)] > 0 if usable else []
    if np.sum(held) < _FEWEST_SHARED:
        raise InputError(
            f"{path}: a label map to train on uses FreeSurfer's numbers from 0 to {_LABELS - 1} and shows at least "
            f"{_FEWEST_SHARED} of {', '.join(map(str, STRUCTURES))}"
        )
    cropped = np.ascontiguousarray(data, dtype=np.int16)
    return Volume(cropped, grid.crop([s.start for s in box], data.shape), volume.name)


def common_space(maps: Sequence[Volume]) -> list[Float64Array]:
    """For each map the affine (4x4, mm) from a space that all share to its own world.

    In the common space the centroid of each structure lies where it lies in the mean of all maps, and the box around
    the structures is centred at 0, in the mean of all maps; affines are least squares fits of the centroids.

    Raises:
        InputError: when there are no maps, or they share too few structures.
    """
    centers = np.array([_centroids_mm(m) for m in maps]).reshape(len(maps), len(STRUCTURES), 3)
    shared = np.isfinite(centers).all(axis=(0, 2))
    if not maps or shared.sum() < _FEWEST_SHARED:
        raise InputError(
            f"{len(maps)} label maps share {shared.sum()} structures, at least {_FEWEST_SHARED} are needed"
        )
    points = centers[:, shared]
    mean = (points - points.mean(axis=1, keepdims=True)).mean(axis=0)
    padded = np.c_[mean, np.ones(len(mean))]
    matrices = [np.eye(4) for _ in maps]
    for matrix, own in zip(matrices, points, strict=True):
        matrix[:3] = np.linalg.lstsq(padded, own, rcond=None)[0].T
    boxes = [transform_points(np.linalg.inv(a), _corners_mm(m)) for m, a in zip(maps, matrices, strict=True)]
    center = np.eye(4)
    center[:3, 3] = np.mean([(box.min(axis=0) + box.max(axis=0)) / 2 for box in boxes], axis=0)
    return [matrix @ center for matrix in matrices]


def _numbers() -> npt.NDArray[np.uint8]:
    """For each label 1 + its place in STRUCTURES, or 0."""
    numbers = np.zeros(_LABELS, dtype=np.uint8)
    numbers[list(STRUCTURES)] = np.arange(1, len(STRUCTURES) + 1)
    return numbers


def _centroids_mm(volume: Volume) -> Float64Array:
    """Centroid of each structure, ``(structures, 3)``; NaN where there is none."""
    numbers = _numbers()[volume.data].ravel()
    held = np.flatnonzero(numbers)  # an eighth of the voxels of a head
    kinds = numbers[held] - 1
    places = np.unravel_index(held, volume.grid.shape)
    counts, *sums = (np.bincount(kinds, weights, len(STRUCTURES)) for weights in (None, *places))
    with np.errstate(invalid="ignore"):
        return volume.grid.to_mm(np.stack(sums, axis=1) / counts[:, None])


def _corners_mm(volume: Volume) -> Float64Array:
    """Corners ``(8, 3)`` of the box around the structures of a label map."""
    box = ndimage.find_objects((_numbers()[volume.data] > 0).view(np.uint8))[0]
    return volume.grid.to_mm(list(product(*((s.start, s.stop - 1) for s in box))))


class LabelMapPairs(Dataset[Item]):
    """Pairs of images of different people, made as they are needed, a batch at a time.

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
        seed: a batch is drawn from the seed and the index of its first item.
        device: where the maps lie and the pairs are made and stay: a GPU makes hundreds a second.

    Raises:
        InputError: when there are fewer than two maps, they share too few structures, or there is no such contrast.
    """

    def __init__(
        self, maps: Sequence[Volume], length: int, size: Shape3 = (80, 96, 80), *, spacing_mm: float = 2.0,
        varied: bool = True, strength: float = 1.0, contrast: str | None = None, seed: int = 0, device: str = "cpu",
    ) -> None:  # fmt: skip
        if len(maps) < 2:
            raise InputError(f"a pair needs two label maps, got {len(maps)}")
        random_contrast(seed=0, kind=contrast)
        self.contrast = contrast
        self.to_map = [np.linalg.inv(m.grid.affine) @ a for m, a in zip(maps, common_space(maps), strict=True)]
        self.length, self.size, self.spacing_mm, self.seed = length, size, spacing_mm, seed
        self.varied, self.strength = varied, strength
        self.device = torch.device(device)
        self.numbers = torch.from_numpy(_numbers()).to(self.device)
        stack = np.zeros((len(maps), *np.max([m.data.shape for m in maps], axis=0)), dtype=np.int16)
        for out, volume in zip(stack, maps, strict=True):
            out[tuple(slice(n) for n in volume.data.shape)] = volume.data
        self.stack = torch.from_numpy(stack).to(self.device)
        affine = np.diag([spacing_mm] * 3 + [1.0])
        affine[:3, 3] = -spacing_mm * (np.array(size) - 1) / 2
        self.grid = Grid(size, affine)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Item]:
        """The items of a batch, in order: what torch's loader asks for."""
        if not all(0 <= index < self.length for index in indices):
            raise IndexError(indices)
        rng = np.random.default_rng((self.seed, indices[0]))
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(1 << 62)))
        people = np.array([self._people(index, rng) for index in indices])
        labels = self._labels(people, rng, generator)
        shown = strip_skull(labels, fluid=self._flags(0.5, len(people), rng))
        if self.contrast is None:
            shown = torch.where(self._flags(_WITH_HEAD, len(people), rng).view(-1, 1, 1, 1), labels, shown)
        means = np.concatenate([self._contrasts(rng) for _ in indices])
        images = images_of_labels(shown, means, rng=rng, generator=generator, spacing_mm=self.spacing_mm)
        channels = {"": images[:, None], "_labels": self.numbers[labels.long()][:, None]}
        return [
            {f"{role}{kind}": tensor[2 * n + side] for kind, tensor in channels.items()
             for side, role in enumerate(("fixed", "moving"))}
            for n in range(len(indices))
        ]  # fmt: skip

    def _flags(self, share: float, pairs: int, rng: np.random.Generator) -> torch.Tensor:
        """``(2 pairs,)``, true for a share of the pairs."""
        return on_device(np.repeat(rng.random(pairs) < share, 2), self.device) > 0

    def _contrasts(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Mean of each label ``(2, labels)`` in the fixed and in the moving image."""
        first = random_contrast(seed=rng, kind=self.contrast)
        alike = self.contrast is not None or rng.random() < _SAME_CONTRAST
        return np.stack([first, first if alike else random_contrast(seed=rng)])

    def _people(self, index: int, rng: np.random.Generator) -> tuple[int, int]:
        """Fixed and moving: drawn at random, or each ordered pair in turn where anatomy does not vary."""
        if self.varied:
            fixed, moving = rng.choice(len(self.to_map), 2, replace=False)
            return int(fixed), int(moving)
        pairs = list(permutations(range(len(self.to_map)), 2))
        return pairs[index % len(pairs)]

    def _poses(self, rng: np.random.Generator) -> tuple[Float64Array, Float64Array]:
        """How the fixed and the moving image of a pair lie in the common space; the affine between them errs."""
        if not self.varied:
            return np.eye(4), np.eye(4)
        pose = random_affine(seed=rng, rotation_degrees=8.0, scale=0.12, shear=0.03, translation_mm=12.0)
        most = {"rotation_degrees": 2.5, "scale": 0.04, "shear": 0.02, "translation_mm": 3.0}
        return pose, pose @ random_affine(seed=rng, **{name: self.strength * value for name, value in most.items()})

    def _labels(
        self, people: npt.NDArray[np.integer], rng: np.random.Generator, generator: torch.Generator
    ) -> torch.Tensor:
        """Label maps ``(2 pairs, D, H, W)`` of people ``(pairs, 2)`` on the grid of the items, nearest voxel."""
        poses = [pose for _ in people for pose in self._poses(rng)]
        to_map = [self.to_map[who] @ pose @ self.grid.affine for who, pose in zip(people.ravel(), poses, strict=True)]
        places = torch.zeros(len(poses), 3, *self.size, device=self.device)
        if self.varied:
            smoothness = rng.uniform(10.0, 25.0, len(poses)) / self.spacing_mm
            amplitude = self.strength * rng.uniform(0.0, 0.4, len(poses)) * smoothness
            places = random_velocities(self.size, amplitude, smoothness, generator)
        for axis, n in enumerate(self.size):
            places[:, axis] += torch.arange(n, device=self.device).view([n if a == axis else 1 for a in range(3)])
        return self._look_up(people.ravel(), np.stack(to_map), places)

    def _look_up(
        self, who: npt.NDArray[np.integer], to_map: npt.NDArray[np.float64], places: torch.Tensor
    ) -> torch.Tensor:
        """Labels of maps ``who`` at places ``(N, 3, D, H, W)`` that matrices ``(N, 4, 4)`` bring to their voxels."""
        matrix = on_device(to_map, self.device)
        index = on_device(who, self.device).long().view(-1, 1, 1, 1)
        inside = torch.ones((), dtype=torch.bool, device=self.device)
        for axis, n in enumerate(self.stack.shape[1:]):
            row = matrix[:, axis].view(-1, 4, 1, 1, 1)
            line = torch.floor((row[:, :3] * places).sum(1) + row[:, 3] + 0.5)
            inside = inside & (line >= 0) & (line <= n - 1)
            index = index * n + line.clamp(0, n - 1).long()
        return torch.where(inside, self.stack.flatten()[index], 0)
