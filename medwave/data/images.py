"""Images with a class each: folders in the layout of ImageNet, and arrays.

Conventions
    A folder holds ``SPLIT/CLASS/*.jpg`` (or png, bmp, tif, webp); the classes are those of the folder ``train``, in
    alphabetical order.
    An array file (``.npz``, never a pickle) holds ``SPLIT_images`` uint8 ``(N, H, W)`` or ``(N, H, W, C)``,
    ``SPLIT_labels`` and, if wanted, ``classes``. Images come as uint8 ``(H, W, C)``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from medwave.core.errors import InputError, MissingFileError, VolumeFormatError
from medwave.core.files import StrPath, input_file
from medwave.volumes.pictures import check_eight_bits

Bytes = npt.NDArray[np.uint8]
T = TypeVar("T")

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""Files that are taken for images."""

ON_CORRUPT = ("refuse", "skip")
"""What happens at an image that cannot be read: an error that names it, or a warning and the next one."""


@dataclass(frozen=True)
class ClassifiedImages:
    """Images by number, each with a class.

    Attributes:
        labels: ``(N,)`` class of each.
        classes: their names.
        name: says what image i is, for messages.
        read: image i, uint8 ``(H, W, C)``; raises InputError where it cannot be read. Both can be pickled, since
            processes that prepare images may be spawned.
        on_corrupt: a word of :data:`ON_CORRUPT`.
    """

    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    name: Callable[[int], str]
    read: Callable[[int], Bytes]
    on_corrupt: str = "refuse"
    _bad: set[int] = field(default_factory=set, compare=False)

    def __len__(self) -> int:
        return len(self.labels)

    def item(self, index: int) -> tuple[Bytes, int]:
        """Image and class; under ``skip`` those of the next image that can be read.

        Raises:
            InputError: when the image cannot be read, or none can.
        """
        for offset in range(len(self)):
            at = (index + offset) % len(self)
            try:
                return self.read(at), int(self.labels[at])
            except InputError as error:
                if self.on_corrupt == "refuse":
                    raise
                if at not in self._bad:
                    self._bad.add(at)
                    warnings.warn(f"skipped: {error}", UserWarning, stacklevel=2)
        raise InputError(f"none of the {len(self)} images can be read")

    def subset(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> ClassifiedImages:
        """The images of some numbers, in their order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return ClassifiedImages(
            self.labels[chosen], self.classes, partial(_chosen, self.name, chosen), partial(_chosen, self.read, chosen),
            self.on_corrupt,
        )  # fmt: skip


def read_classified(path: StrPath, split: str, *, on_corrupt: str = "refuse") -> ClassifiedImages:
    """A split of a data set.

    Args:
        path: a folder or an array file, see the module.
        split: such as ``train``, ``val`` or ``test``.
        on_corrupt: a word of :data:`ON_CORRUPT`.

    Raises:
        MissingFileError: when data or split are not there.
        InputError: when they are damaged, a class folder is empty, or a label is no class.
    """
    if on_corrupt not in ON_CORRUPT:
        raise InputError(f"on_corrupt is one of {', '.join(ON_CORRUPT)}, got {on_corrupt!r}")
    source = Path(path)
    return _folder(source, split, on_corrupt) if source.is_dir() else _arrays(input_file(source), split, on_corrupt)


def splits_of(path: StrPath) -> tuple[str, ...]:
    """Names of the splits that a folder or array file holds."""
    source = Path(path)
    if source.is_dir():
        return tuple(sorted(p.name for p in source.iterdir() if p.is_dir()))
    with _opened(input_file(source)) as arrays:
        return tuple(n.removesuffix("_images") for n in arrays.files if n.endswith("_images"))


def read_image(path: StrPath, *, upright: bool = True) -> Bytes:
    """Pixels of an image file, uint8 ``(H, W, 3)``.

    Args:
        path: the file.
        upright: whether a turn that a camera noted is carried out. Labels of pixels lie on those that are stored.

    Raises:
        InputError: when it cannot be read or has more than 8 bits per channel; the file is named.
    """

    def colours(image: Image.Image) -> Bytes:
        check_eight_bits(image, str(path))
        return np.asarray((ImageOps.exif_transpose(image) if upright else image).convert("RGB"))

    return _pixels(path, colours)


def read_labels(path: StrPath) -> npt.NDArray[np.integer[Any]]:
    """Whole numbers ``(H, W)`` of a file of labels, of 8 bits or more; of a palette its indices. Never turned.

    Raises:
        InputError: when it cannot be read or holds no whole numbers, one per pixel; the file is named.
    """
    codes: npt.NDArray[np.integer[Any]] = _pixels(path, np.asarray)
    if codes.ndim != 2 or codes.dtype.kind not in "biu":
        raise InputError(
            f"{path}: labels are one whole number per pixel, got {codes.dtype} {codes.shape}; write them as grey values"
        )
    return codes.astype(np.uint8) if codes.dtype.kind == "b" else codes


def _pixels(path: StrPath, convert: Callable[[Image.Image], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    try:
        with Image.open(path) as image:
            return convert(image)
    except VolumeFormatError as error:
        raise InputError(str(error)) from None
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: is no image that can be read ({reason}); replace or remove it") from None


def _folder(source: Path, split: str, on_corrupt: str) -> ClassifiedImages:
    if not (source / split).is_dir():
        there = ", ".join(splits_of(source)) or "none"
        raise MissingFileError(f"{source / split}: no such folder; the folders of {source} are {there}")
    base = source / "train" if (source / "train").is_dir() else source / split
    classes = tuple(sorted(p.name for p in base.iterdir() if p.is_dir()))
    if not classes:
        raise InputError(f"{base}: holds no folder of a class; the layout is SPLIT/CLASS/IMAGE")
    strangers = sorted({p.name for p in (source / split).iterdir() if p.is_dir()} - set(classes))
    if strangers:
        raise InputError(f"{source / split / strangers[0]}: is no class of {base}; rename or remove it")
    files, labels = [], []
    for number, name in enumerate(classes):
        folder = source / split / name
        found = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
        if not found:
            raise InputError(f"{folder}: holds no image of its class ({', '.join(SUFFIXES)}); fill or remove it")
        files += found
        labels += [number] * len(found)
    return ClassifiedImages(
        np.array(labels, dtype=np.int64), classes, partial(_of_file, str, files), partial(_of_file, read_image, files),
        on_corrupt,
    )  # fmt: skip


def _arrays(source: Path, split: str, on_corrupt: str) -> ClassifiedImages:
    with _opened(source) as arrays:
        wanted = (f"{split}_images", f"{split}_labels")
        if any(name not in arrays.files for name in wanted):
            raise MissingFileError(f"{source}: holds no {' and '.join(wanted)}; it has {', '.join(arrays.files)}")
        try:
            images, labels = (arrays[name] for name in wanted)
            names = arrays["classes"] if "classes" in arrays.files else None
        except (ValueError, OSError, BadZipFile) as error:
            raise InputError(f"{source}: is damaged or holds objects instead of numbers ({error})") from None
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or labels.shape != images.shape[:1]:
        raise InputError(
            f"{source}: images are uint8 (N, H, W) or (N, H, W, C) with N labels, got {images.dtype} {images.shape} "
            f"and {labels.shape}"
        )
    if not len(labels) or labels.dtype.kind not in "iu":
        raise InputError(f"{source}: {split}_labels are whole numbers, one at least, got {labels.dtype} {labels.shape}")
    classes = tuple(map(str, range(int(labels.max()) + 1) if names is None else names))
    if labels.min() < 0 or labels.max() >= len(classes):
        bad = int(np.flatnonzero((labels < 0) | (labels >= len(classes)))[0])
        raise InputError(
            f"{source}: image {bad} of {split} has class {labels[bad]}; 0 to {len(classes) - 1} have names"
        )
    images = images[..., None] if images.ndim == 3 else images
    return ClassifiedImages(
        labels.astype(np.int64), classes, partial(_array_name, source, split), images.__getitem__, on_corrupt
    )


def _chosen(of: Callable[[int], T], numbers: npt.NDArray[np.int64], index: int) -> T:
    return of(int(numbers[index]))


def _of_file(of: Callable[[Path], T], files: Sequence[Path], index: int) -> T:
    return of(files[index])


def _array_name(source: Path, split: str, index: int) -> str:
    return f"{source}: image {index} of {split}"


def _opened(source: Path) -> np.lib.npyio.NpzFile:
    try:
        file = np.load(source, allow_pickle=False)
    except (ValueError, OSError, BadZipFile, EOFError) as error:
        raise InputError(f"{source}: a folder or an .npz file of arrays is needed ({error})") from None
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise InputError(f"{source}: one array; an .npz file with images and labels by name is needed")
    return file
