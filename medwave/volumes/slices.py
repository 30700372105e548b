"""A folder of numbered 2-D images as one volume; a slice is read when a box touches it.

Conventions
    Slices are ordered by the last number in their names, lowest z first. TIFF, PNG, JPEG and BMP are known; other
    files in the folder are passed over. Nothing in such a folder tells a voxel size.
"""

from __future__ import annotations

import functools
import itertools
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, UnidentifiedImageError

from medwave.core.errors import GeometryError, InputError, VolumeFormatError
from medwave.volumes.stack import Box, LazyVolume, one_line
from medwave.volumes.tiff import check_chain, quiet_tifffile, read_slice

TIFF_ENDINGS = (".tif", ".tiff")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp")
GREY_MODES = {"L": np.uint8, "I;16": np.uint16, "I;16L": np.uint16, "I;16B": np.uint16, "I": np.int32, "F": np.float32}
"""Pillow's grey modes and the type each holds."""


def open_slices(folder: Path) -> LazyVolume:
    """Open a folder of slices.

    Raises:
        InputError: when it holds no images, more than one numbering, or a number twice.
        GeometryError: when a number is missing, or the shapes or types differ.
        VolumeFormatError: when a slice is damaged, in colour, or has several pages.
    """
    files = _ordered(folder)
    shape, dtype = _probe(files[0])
    for file in files[1:]:
        other = _probe(file)
        if other != (shape, dtype):
            raise GeometryError(
                f"{folder}: the slices of a volume are equal in shape and type, {files[0].name} is {shape} "
                f"{dtype.name}, {file.name} is {other[0]} {other[1].name}; crop or convert them alike"
            )
    fetch = functools.partial(_fetch, files)
    return LazyVolume(folder, (len(files), *shape), dtype, fetch, chunks=(1, *shape))


def _ordered(folder: Path) -> list[Path]:
    """The images by number, after making sure that they are one gapless sequence."""
    numbered: dict[int, Path] = {}
    series: set[tuple[str, str, str]] = set()
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or file.suffix.lower() not in TIFF_ENDINGS + PICTURE_ENDINGS:
            continue
        match = re.fullmatch(r"(.*?)(\d+)(\D*)", file.stem)
        if match is None:
            raise InputError(f"{folder}: slices are ordered by a number in the name, {file.name} has none; rename it")
        before, number, after = match.groups()
        series.add((before, after, file.suffix.lower()))
        if int(number) in numbered and len(series) == 1:
            twice = f"{numbered[int(number)].name} and {file.name}"
            raise InputError(f"{folder}: two slices have the same number, {twice}; keep one of them")
        numbered[int(number)] = file
    if not numbered:
        known = ", ".join(TIFF_ENDINGS + PICTURE_ENDINGS)
        raise InputError(f"{folder}: a folder of slices holds numbered images ({known}), this has none; check the name")
    if len(series) > 1:
        names = ", ".join(f"{a}#{b}{c}" for a, b, c in sorted(series)[:3])
        raise InputError(f"{folder}: one series of slices is needed, found {names}; put each in a folder of its own")
    order = sorted(numbered)
    gaps = [n for a, b in itertools.pairwise(order) for n in range(a + 1, min(b, a + 4))]
    if gaps:
        raise GeometryError(
            f"{folder}: slices are numbered without gaps, number {gaps[0]} is missing between {order[0]} and "
            f"{order[-1]} ({len(order)} files); copy the missing ones or renumber them"
        )
    return [numbered[n] for n in order]


def _probe(file: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape (y, x) and type of a slice, from its header."""
    if file.suffix.lower() in TIFF_ENDINGS:
        check_chain(file)
        with quiet_tifffile(file), tifffile.TiffFile(file) as tif:
            page = tif.pages.first
            if len(tif.pages) > 1:
                raise VolumeFormatError(
                    f"{file}: a slice is one page, this file has {len(tif.pages)}; open the file itself as a volume"
                )
            if page.ndim != 2 or page.photometric not in (0, 1):
                raise _not_grey(file, f"{page.photometric.name}, shape {page.shape}")
            return page.shape, page.dtype
    with _picture(file) as picture:
        return picture.size[::-1], np.dtype(GREY_MODES[picture.mode])


def _picture(file: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # slices of microscopes are that large
            picture = Image.open(file)
    except Image.DecompressionBombError:
        raise VolumeFormatError(
            f"{file}: a slice of more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels is read from TIFF only, whose "
            "parts need not be unpacked all at once; save the slices as TIFF"
        ) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise VolumeFormatError(
            f"{file}: not a readable image, or damaged ({one_line(error)}); copy or download it again"
        ) from None
    if picture.mode not in GREY_MODES:
        picture.close()
        raise _not_grey(file, f"mode {picture.mode}")
    return picture


def _not_grey(file: Path, what: str) -> VolumeFormatError:
    return VolumeFormatError(f"{file}: slices are grey images, this is in colour ({what}); convert it to grey")


def _fetch(files: list[Path], box: Box) -> npt.NDArray[Any]:
    return np.stack([_read(file, *box[1:]) for file in files[box[0]]])


def _read(file: Path, ys: slice, xs: slice) -> npt.NDArray[Any]:
    if file.suffix.lower() in TIFF_ENDINGS:
        return read_slice(file, ys, xs)
    with _picture(file) as picture:
        try:
            return np.asarray(picture)[ys, xs]
        except (OSError, ValueError, SyntaxError) as error:
            raise VolumeFormatError(
                f"{file}: the slice is damaged ({one_line(error)}); copy or download it again"
            ) from None
