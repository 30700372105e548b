"""Turn the preprocessed IXI brains of TransMorph into NIfTI, without running anything that a pickle holds.

    python data_prep/ixi.py IXI_data -o FOLDER
    medwave register FOLDER/Test/subject_1_image.nii.gz FOLDER/atlas_image.nii.gz --affine none -o RESULT
    medwave evaluate RESULT --labels-fixed FOLDER/Test/subject_1_labels.nii.gz \\
        --labels-moving FOLDER/atlas_labels.nii.gz

IXI_data holds ``atlas.pkl`` and ``Train``, ``Val`` and ``Test`` with ``subject_N.pkl``: each a pickled pair (image,
labels) of arrays on one grid of 160 x 192 x 224 voxels, skull stripped, affinely aligned, intensities in [0, 1]
(TransMorph, doi:10.1016/j.media.2022.102615; images: IXI, brain-development.org, CC BY-SA 3.0). For each file two are
written under the same folder: ``NAME_image.nii.gz`` and ``NAME_labels.nii.gz``. Started again it goes on with the
first pair that is not complete.

Pickles carry no geometry: voxels are taken to be 1 mm, the grid's centre is put at 0, and axes keep their order and
direction, whatever they are called in the header; brains of this set still lie on one another.

Labels are those 30 of FreeSurfer's 45 that the set is measured on; the mean Dice that ``medwave evaluate`` gives then
is the Dice of the published tables. ``--all-labels`` keeps the others too.

A pickle can run any program when it is opened carelessly. Here only numpy arrays can come out of one: whatever else
it names is refused before it is looked up.
"""

from __future__ import annotations

import argparse
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy._core import multiarray, numeric

from medwave.core.errors import InputError, MedwaveError, MissingFileError
from medwave.core.geometry import Grid, Volume
from medwave.volumes import write_volume

STRUCTURES = (
    1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 21, 22, 23, 25, 26, 27, 28, 29, 30, 31, 32, 34, 36,
)  # fmt: skip
"""The labels whose mean Dice is reported for this set."""

_LARGEST_FILE = 1 << 30


def main() -> None:
    options = parse()
    try:
        done = convert(options.source, options.output, all_labels=options.all_labels)
    except MedwaveError as error:
        raise SystemExit(f"ixi: {error}") from None
    print(f"{done} pairs of image and labels in {options.output}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Turn the IXI brains of TransMorph into NIfTI.")
    parser.add_argument("source", type=Path, help="folder with atlas.pkl, Train/, Val/ and Test/")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the NIfTI files")
    parser.add_argument("--all-labels", action="store_true", help="keep labels beyond the 30 that are measured")
    return parser.parse_args()


def convert(source: Path, output: Path, *, all_labels: bool = False) -> int:
    """Convert every pickle below a folder; returns how many pairs the output then holds.

    Raises:
        MissingFileError: when there is no pickle.
        InputError: when one is not a pair of arrays as described above.
    """
    paths = sorted(source.rglob("*.pkl"))
    if not paths:
        raise MissingFileError(f"{source}: no such folder, or it holds no *.pkl")
    for path in paths:
        stem = output / path.relative_to(source).with_suffix("")
        image_path, labels_path = (stem.with_name(f"{stem.name}_{kind}.nii.gz") for kind in ("image", "labels"))
        if labels_path.exists():  # it is written last
            continue
        image, labels = read_pair(path)
        if not all_labels:
            labels = np.where(np.isin(labels, STRUCTURES), labels, 0).astype(labels.dtype)
        stem.parent.mkdir(parents=True, exist_ok=True)
        grid = _centred(image.shape)
        write_volume(image_path, Volume(image, grid, path.stem))
        write_volume(labels_path, Volume(labels, grid, path.stem))
    return len(paths)


def read_pair(path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """Image and labels ``(D, H, W)`` of one pickle.

    Raises:
        InputError: when the file holds anything but two arrays of one 3-D shape, finite numbers and whole labels.
    """
    if path.stat().st_size > _LARGEST_FILE:
        raise InputError(f"{path}: is larger than a pair of brains can be")
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes())).load()
    except _Refused as error:
        raise InputError(f"{path}: holds more than arrays ({error}) and is not opened, as it could run code") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{path}: is damaged or no pickle ({type(error).__name__})") from None
    arrays = content if isinstance(content, tuple | list) else ()
    if len(arrays) != 2 or not all(isinstance(a, np.ndarray) and a.dtype.kind in "fiub" for a in arrays):
        raise InputError(f"{path}: an image and its labels are needed, as two arrays of numbers")
    image, labels = arrays
    if image.ndim != 3 or image.shape != labels.shape or image.size == 0:
        raise InputError(f"{path}: two arrays of one 3-D shape are needed, got {image.shape} and {labels.shape}")
    whole = (
        np.isfinite(labels).all() and (labels == np.floor(labels)).all() and 0 <= labels.min() <= labels.max() < 2**15
    )
    if not np.isfinite(image).all() or not whole:
        raise InputError(f"{path}: the image is finite and labels are whole numbers from 0 to {2**15 - 1}")
    return image.astype(np.float32), labels.astype(np.int16)


class _Refused(Exception):
    """A pickle names something that is no part of an array."""


def _latin1(text: str, codec: str = "latin1") -> bytes:
    """What old pickles call to get bytes from text."""
    if codec != "latin1":
        raise _Refused(f"codec {codec}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): multiarray._reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): numeric._frombuffer for core in ("core", "_core")},
}


class _ArraysOnly(pickle.Unpickler):
    """Looks nothing up but the functions that make numpy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def _centred(shape: tuple[int, ...]) -> Grid:
    affine = np.eye(4)
    affine[:3, 3] = -(np.array(shape) - 1) / 2
    return Grid((shape[0], shape[1], shape[2]), affine)


if __name__ == "__main__":
    main()
