"""Flat pictures: PNG, JPEG and what else Pillow reads, as uint8 ``(h, w, c)`` with c = 1 (grey) or 3 (RGB).

Transparency is dropped, palettes are resolved, and a turn that a camera noted is carried out.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from medwave.core.errors import VolumeFormatError
from medwave.core.files import StrPath, input_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
"""Endings, in small letters, of the files that are taken for pictures in folders."""

_GREY = ("1", "L", "LA", "La")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_LARGEST_PIXELS = 1 << 26


def read_picture(path: StrPath) -> npt.NDArray[np.uint8]:
    """Read a picture.

    Raises:
        MissingFileError: when there is no such file.
        VolumeFormatError: when it is no picture, damaged, of more than 8 bits, or larger than 67 million pixels.
    """
    file = input_file(path)
    return decode_picture(file.read_bytes(), str(file))


def decode_picture(content: bytes, name: str) -> npt.NDArray[np.uint8]:
    """A picture from the bytes of its file; ``name`` is for messages, errors as in :func:`read_picture`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            with Image.open(io.BytesIO(content)) as image:
                if image.width * image.height > _LARGEST_PIXELS:
                    raise VolumeFormatError(f"{name}: {image.width} x {image.height} pixels are too many for a face")
                check_eight_bits(image, name)
                upright = ImageOps.exif_transpose(image).convert("L" if image.mode in _GREY else "RGB")
                array = np.asarray(upright)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, VolumeFormatError):
            raise
        raise VolumeFormatError(
            f"{name}: not a readable picture, or damaged ({type(error).__name__}); PNG and JPEG are sure to work"
        ) from None
    return array.reshape(*array.shape[:2], -1)


def check_eight_bits(image: Image.Image, name: str) -> None:
    """Raises VolumeFormatError for pixels of more than 8 bits per channel, which a conversion would cut off."""
    if image.mode not in _GREY + _COLOUR:
        raise VolumeFormatError(
            f"{name}: pictures have 8 bits per channel, this one has Pillow's mode {image.mode}; convert it"
        )


def picture_files(folder: Path) -> list[Path]:
    """All pictures below a folder, at any depth, in the order of their paths; hidden ones are left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))
