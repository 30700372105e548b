"""Images with boxes around objects, in 2-D and 3-D: files of arrays, and items to train on.

Conventions
    An array file (``.npz``, never a pickle) holds for each split ``SPLIT_images`` uint8 ``(N, ...)`` or, with channels,
    ``(N, ..., C)``; ``SPLIT_boxes`` ``(K, 2 * ndim)``, first corner and far corner of each box in samples along the
    axes; ``SPLIT_labels`` ``(K,)``, and ``SPLIT_owner`` ``(K,)``, the image of each box; and ``classes``, the names.
    A box of one sample at the origin is ``0, 0, 1, 1``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from medwave.core.errors import InputError, MissingFileError
from medwave.core.files import StrPath, atomic_path, input_file
from medwave.transforms.box_scenes import KINDS, BoxScene, box_scene
from medwave.transforms.images import normaliser

Item = dict[str, torch.Tensor]

_PARTS = ("images", "boxes", "labels", "owner")


@dataclass(frozen=True)
class BoxedImages:
    """Images by number, each with its boxes.

    Attributes:
        images: uint8 ``(N, ..., C)``.
        boxes: of each image, ``(K, 2 * ndim)`` float32.
        labels: of each image, ``(K,)`` int64.
        classes: names of the kinds of objects.
    """

    images: npt.NDArray[np.uint8]
    boxes: tuple[npt.NDArray[np.float32], ...]
    labels: tuple[npt.NDArray[np.int64], ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def ndim(self) -> int:
        """Spatial axes of an image."""
        return self.images.ndim - 2

    def tensor(self, index: int) -> torch.Tensor:
        """An image as networks see it: float32 ``(C, ...)``, in [0, 1] and normalised."""
        mean, deviation = normaliser(self.images.shape[-1], self.ndim)
        image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(self.images[index], -1, 0))).float() / 255
        return (image - mean) / deviation


def read_boxed(path: StrPath, split: str) -> BoxedImages:
    """A split of an array file.

    Raises:
        MissingFileError: when file or split are not there.
        InputError: when they are damaged, or boxes do not fit the images.
    """
    source = input_file(path)
    try:
        with np.load(source, allow_pickle=False) as arrays:
            names = [f"{split}_{part}" for part in _PARTS]
            if missing := [name for name in (*names, "classes") if name not in arrays.files]:
                raise MissingFileError(f"{source}: holds no {', '.join(missing)}; it has {', '.join(arrays.files)}")
            images, boxes, labels, owner = (arrays[name] for name in names)
            classes = tuple(map(str, arrays["classes"]))
    except MissingFileError:
        raise
    except (ValueError, OSError, BadZipFile, EOFError, AttributeError, TypeError) as error:
        raise InputError(f"{source}: an .npz file of numbers by name is needed ({error})") from None
    ndim = boxes.shape[1] // 2 if boxes.ndim == 2 else 0
    images = images[..., None] if images.ndim == ndim + 1 else images
    if images.dtype != np.uint8 or ndim not in (2, 3) or images.ndim != ndim + 2 or not len(images):
        raise InputError(
            f"{source}: {split}_images are uint8 (N, ...) or (N, ..., C) and {split}_boxes (K, 4) or (K, 6), got "
            f"{images.dtype} {images.shape} and {boxes.shape}"
        )
    _check(f"{source}: {split}", images.shape[1:-1], boxes, labels, owner, len(images), len(classes))
    each = [np.flatnonzero(owner == i) for i in range(len(images))]
    return BoxedImages(
        images, tuple(boxes[i].astype(np.float32) for i in each), tuple(labels[i].astype(np.int64) for i in each),
        classes,
    )  # fmt: skip


def _check(
    name: str, shape: Sequence[int], boxes: npt.NDArray[Any], labels: npt.NDArray[Any], owner: npt.NDArray[Any],
    images: int, classes: int,
) -> None:  # fmt: skip
    if not labels.shape == owner.shape == boxes.shape[:1] or {labels.dtype.kind, owner.dtype.kind} - set("iu"):
        raise InputError(f"{name}_labels and {name.split()[-1]}_owner are one whole number for each of the boxes")
    near, far = boxes[:, : len(shape)], boxes[:, len(shape) :]
    rules = {
        f"belongs to an image from 0 to {images - 1}": (owner >= 0) & (owner < images),
        f"has a class from 0 to {classes - 1}": (labels >= 0) & (labels < classes),
        f"has corners in the image {tuple(shape)}, the far one beyond the first": (
            (near >= 0) & (far > near) & (far <= np.array(shape))
        ).all(axis=1),
    }
    for rule, held in rules.items():
        if not held.all():
            bad = int(np.flatnonzero(~held)[0])
            raise InputError(
                f"{name}: box {bad} is {boxes[bad].tolist()} of class {labels[bad]} in image {owner[bad]}; a box {rule}"
            )


def write_boxed(path: StrPath, splits: Mapping[str, Sequence[BoxScene]], classes: Sequence[str] = KINDS) -> None:
    """Write scenes as an array file.

    Args:
        path: the file, ``.npz``.
        splits: scenes of one size by the name of their split.
        classes: names of the labels.

    Raises:
        InputError: when a split is empty or its images have several sizes.
        OutputError: when it cannot be written.
    """
    arrays: dict[str, npt.NDArray[Any]] = {"classes": np.array(classes)}
    for split, scenes in splits.items():
        if len({scene.image.shape for scene in scenes}) != 1:
            raise InputError(f"split {split}: needs images, all of one size")
        arrays[f"{split}_images"] = np.stack([scene.image for scene in scenes])
        arrays[f"{split}_boxes"] = np.concatenate([scene.boxes for scene in scenes])
        arrays[f"{split}_labels"] = np.concatenate([scene.labels for scene in scenes])
        arrays[f"{split}_owner"] = np.repeat(np.arange(len(scenes)), [len(scene.labels) for scene in scenes])
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def synthetic_boxes(path: StrPath, shape: Sequence[int], counts: Mapping[str, int], *, seed: int, **how: Any) -> None:
    """Write an array file of scenes of :func:`medwave.transforms.box_scene`.

    Args:
        path: the file, ``.npz``.
        shape: of the images.
        counts: number of images by split.
        seed: scene i of split s follows from ``(seed, s, i)`` alone.
        how: options of a scene.

    Raises:
        InputError: for unusable options of a scene.
        OutputError: when it cannot be written.
    """
    write_boxed(
        path,
        {
            split: [box_scene(shape, seed=np.random.default_rng((seed, s, i)), **how) for i in range(count)]
            for s, (split, count) in enumerate(counts.items())
        },
    )


class BoxItems(Dataset[Item]):
    """Items of training: each epoch has every image once, in an order of its own, flipped at random.

    An item holds ``image`` ``(C, ...)``, and ``boxes`` ``(most, 2 * ndim)`` and ``labels`` ``(most,)`` of as many rows
    as the fullest image has boxes; label -1 means that there is none.

    Args:
        source: images with boxes.
        length: number of items, that of all epochs together.
        seed: item ``i`` follows from ``(seed, i)`` alone.
    """

    def __init__(self, source: BoxedImages, length: int, *, seed: int = 0) -> None:
        self.source, self.length, self.seed = source, length, seed
        self._most = max(1, *map(len, source.labels))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        epoch, place = divmod(index, len(self.source))
        number = int(np.random.default_rng((self.seed, epoch)).permutation(len(self.source))[place])
        image, ndim = self.source.tensor(number), self.source.ndim
        boxes = torch.zeros(self._most, 2 * ndim)
        labels = torch.full((self._most,), -1, dtype=torch.int64)
        count = len(self.source.labels[number])
        boxes[:count] = torch.from_numpy(self.source.boxes[number])
        labels[:count] = torch.from_numpy(self.source.labels[number])
        for axis in np.flatnonzero(np.random.default_rng((self.seed, index, 1)).random(ndim) < 0.5).tolist():
            image = image.flip(1 + axis)
            corners = image.shape[1 + axis] - boxes[:count, [ndim + axis, axis]]
            boxes[:count, axis], boxes[:count, ndim + axis] = corners[:, 0], corners[:, 1]
        return {"image": image, "boxes": boxes, "labels": labels}
