"""Pairs of real images, prepared by others: skull stripped, affinely aligned, on grids of one voxel size.

Conventions
    A folder holds ``Train`` and, where wanted, ``Val``, each with ``NAME_image.nii.gz`` and, where known,
    ``NAME_labels.nii.gz`` on the same grid: what ``data_prep/ixi.py`` writes. With ``atlas_image.nii.gz`` beside them
    the atlas is the moving image of every pair (atlas to subject); without it pairs are of two different subjects.
    Grids are taken as they are: voxel i of one image lies on voxel i of another. Intensities from 0 to 1 stay; others
    are brought there, between the lowest value and the 99.9th percentile.
    An item is a dictionary of ``fixed`` and ``moving`` ``(1, D, H, W)`` float32 and, where labels are wanted and both
    have them, ``fixed_labels`` and ``moving_labels`` ``(1, D, H, W)`` int32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from medwave.core.errors import GeometryError, InputError, MissingFileError
from medwave.core.files import StrPath
from medwave.volumes import read_labels, read_volume

Item = dict[str, torch.Tensor]
Shape3 = tuple[int, int, int]

_IMAGE, _LABELS = "_image.nii.gz", "_labels.nii.gz"
_TOLERANCE_MM = 1e-3


@dataclass(frozen=True)
class BrainImage:
    """An image and, where there are any, its labels."""

    image: Path
    labels: Path | None

    def read(self, spacing_mm: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32] | None]:
        """Intensities from 0 to 1 and labels, ``(D, H, W)``.

        Raises:
            GeometryError: when voxels have another size, or the labels lie on another grid.
            VolumeFormatError: when a file cannot be read.
        """
        volume = read_volume(self.image)
        if np.abs(np.asarray(volume.grid.spacing_mm) - spacing_mm).max() > _TOLERANCE_MM:
            sizes = " x ".join(f"{size:g}" for size in volume.grid.spacing_mm)
            raise GeometryError(f"{self.image}: voxels of {spacing_mm:g} mm are needed, these have {sizes} mm")
        if self.labels is None:
            return _scaled(np.asarray(volume.data, dtype=np.float32)), None
        labels = read_labels(self.labels)
        if labels.data.shape != volume.data.shape:
            raise GeometryError(
                f"{self.labels}: has {labels.data.shape} voxels, its image {volume.data.shape}; one grid is needed"
            )
        return _scaled(np.asarray(volume.data, dtype=np.float32)), np.asarray(labels.data, dtype=np.int32)


@dataclass(frozen=True)
class BrainFolder:
    """What a folder holds: subjects to train on and to validate with, and the atlas if there is one."""

    training: tuple[BrainImage, ...]
    validation: tuple[BrainImage, ...]
    atlas: BrainImage | None


def read_brain_folder(folder: StrPath, *, held_back: int) -> BrainFolder:
    """List a folder.

    Args:
        folder: see the module.
        held_back: subjects of ``Train``, the last by name, that validate where there is no ``Val``.

    Raises:
        MissingFileError: when there is no image to train on.
        InputError: when too few subjects are left.
    """
    root = Path(folder)
    training, validation = _subjects(root / "Train"), _subjects(root / "Val")
    if not training:
        raise MissingFileError(f"{root / 'Train'}: no such folder, or it holds no *{_IMAGE}")
    if not validation:
        training, validation = training[:-held_back], training[-held_back:]
    atlas = next(iter(_subjects(root, "atlas")), None)
    least = 1 if atlas is not None else 2
    if min(len(training), len(validation)) < least:
        raise InputError(
            f"{root}: {len(training)} subjects to train on and {len(validation)} to validate with; {least} of each "
            f"are needed {'beside the atlas' if atlas else f'without an atlas{_IMAGE}'}"
        )
    return BrainFolder(training, validation, atlas)


class BrainPairs(Dataset[Item]):
    """Pairs of a folder: every subject once an epoch as the fixed image, in an order of its own.

    Args:
        subjects: the fixed images.
        atlas: the moving image; None takes another subject.
        length: number of items.
        size: of an item in voxels. Where an image is larger it is cut, at the same place in both, where it is smaller
            zeros surround it.
        spacing_mm: voxel size that images must have.
        varied: whether order, partners and cuts are drawn; without it they are in turn, and cuts are central.
        labels: whether items have labels, where there are any.
        seed: item ``i`` is drawn from ``(seed, i)`` alone.
    """

    def __init__(
        self, subjects: Sequence[BrainImage], atlas: BrainImage | None, length: int, size: Shape3, *,
        spacing_mm: float, varied: bool = True, labels: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        self.subjects, self.atlas, self.length, self.size = tuple(subjects), atlas, length, size
        self.spacing_mm, self.varied, self.labels, self.seed = spacing_mm, varied, labels, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng((self.seed, index))
        fixed, moving = self._pair(index, rng)
        (still, still_labels), (carried, carried_labels) = (each.read(self.spacing_mm) for each in (fixed, moving))
        if still.shape != carried.shape:
            raise GeometryError(
                f"{moving.image}: has {carried.shape} voxels, {fixed.image} {still.shape}; they need one grid"
            )
        spare = np.array(still.shape) - self.size
        start = np.where(
            spare > 0, rng.integers(0, np.maximum(spare, 0) + 1) if self.varied else spare // 2, spare // 2
        )
        arrays: dict[str, npt.NDArray[np.generic]] = {"fixed": still, "moving": carried}
        if self.labels and still_labels is not None and carried_labels is not None:
            arrays |= {"fixed_labels": still_labels, "moving_labels": carried_labels}
        return {name: torch.from_numpy(_window(array, start, self.size))[None] for name, array in arrays.items()}

    def _pair(self, index: int, rng: np.random.Generator) -> tuple[BrainImage, BrainImage]:
        count = len(self.subjects)
        epoch, place = divmod(index, count)
        order = np.random.default_rng((self.seed, epoch, 1)).permutation(count) if self.varied else np.arange(count)
        fixed = int(order[place])
        if self.atlas is not None:
            return self.subjects[fixed], self.atlas
        offset = 1 + (int(rng.integers(count - 1)) if self.varied else epoch % (count - 1))
        return self.subjects[fixed], self.subjects[(fixed + offset) % count]


def _subjects(folder: Path, name: str = "*") -> tuple[BrainImage, ...]:
    found = []
    for image in sorted(folder.glob(f"{name}{_IMAGE}")):
        labels = image.with_name(image.name.removesuffix(_IMAGE) + _LABELS)
        found.append(BrainImage(image, labels if labels.is_file() else None))
    return tuple(found)


def _scaled(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    low, high = float(image.min()), float(image.max())
    if low >= 0 and 0 < high <= 1:
        return image
    high = max(float(np.percentile(image, 99.9)), low + 1e-6)
    return np.clip((image - low) / (high - low), 0, 1).astype(np.float32)


def _window(array: npt.NDArray[np.generic], start: npt.NDArray[np.int64], size: Shape3) -> npt.NDArray[np.generic]:
    """``size`` voxels from ``start`` on, zeros where the array does not reach."""
    out = np.zeros(size, dtype=array.dtype)
    source, target = [], []
    for first, wanted, there in zip(start.tolist(), size, array.shape, strict=True):
        low, high = max(first, 0), min(first + wanted, there)
        source.append(slice(low, high))
        target.append(slice(low - first, high - first))
    out[tuple(target)] = array[tuple(source)]
    return out
