"""Reading volumes and label maps: NIfTI, MGH/MGZ, NRRD and MetaImage give the same kind of :class:`Volume`.

Conventions
    ``data[i, j, k]``: axis 0 is the first index of the file (ITK's x index too), whatever its anatomical direction.
    The affine is RAS+ mm; ITK files are turned from LPS. Arrays are C-contiguous, in native byte order, and finite.
    How a NIfTI file without sform and qform is placed is told in :mod:`medwave.volumes.nifti`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError, VolumeFormatError
from medwave.core.files import StrPath, input_file
from medwave.core.geometry import Grid, Volume
from medwave.volumes.itk import grid_affine, itk_reason
from medwave.volumes.nifti import Decoded, array_from, check_spacing, decode_nifti, read_bytes

MGH_DATA_OFFSET = 284


def read_volume(path: StrPath, *, dtype: npt.DTypeLike | None = np.float32) -> Volume:
    """Read a 3-D image.

    Args:
        path: ``.nii``, ``.nii.gz``, ``.mgh``, ``.mgz``, ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd`` file.
        dtype: type of the values; None keeps the stored one (scaled values are float64).

    Returns:
        Values ``(D, H, W)`` in file axis order and their grid; trailing axes of one element are dropped.

    Raises:
        MissingFileError: when the file does not exist.
        VolumeFormatError: when it is not an image of a known format, or is damaged.
        GeometryError: when it is not one scalar 3-D image, or its voxel sizes or affine are unusable.
        InputError: when it holds NaN or infinite values.
    """
    file = input_file(path)
    decoded = _decoder(file)(file)
    values = _scalar_3d(file, decoded.values)
    with np.errstate(over="ignore", invalid="ignore"):
        data = np.array(values, dtype=values.dtype if dtype is None else dtype, order="C")
    if data.dtype.kind == "f" and not (np.isfinite(data.min()) and np.isfinite(data.max())):
        bad = int(data.size - np.count_nonzero(np.isfinite(data)))
        raise InputError(f"{file}: image values are finite, {bad} voxels are NaN or infinite; replace them first")
    try:
        return Volume(data, Grid(data.shape, decoded.affine), file.name)
    except GeometryError as error:
        raise GeometryError(f"{file}: {error}; correct the header") from None


def read_labels(path: StrPath) -> Volume:
    """Read a label map: the values as int32 (int64 where they need it), floats only if they are whole numbers.

    Raises:
        InputError: when a value is not a whole number; otherwise as :func:`read_volume`.
    """
    volume = read_volume(path, dtype=None)
    data = volume.data
    if data.dtype.kind == "f":
        fractions = int(np.count_nonzero(data != np.rint(data)))
        if fractions:
            raise InputError(
                f"{path}: labels are whole numbers, {fractions} voxels hold others; is this an image, "
                "or a label map resampled with linear interpolation?"
            )
    low, high = data.min(), data.max()
    if high > np.iinfo(np.int64).max or low < np.iinfo(np.int64).min:
        raise InputError(f"{path}: labels lie within 64-bit integers, these range from {low} to {high}")
    small = np.iinfo(np.int32).min <= low and high <= np.iinfo(np.int32).max
    return Volume(data.astype(np.int32 if small else np.int64), volume.grid, volume.name)


def _decoder(path: Path) -> Callable[[Path], Decoded]:
    name = path.name.lower()
    for endings, decode in (
        ((".nii", ".nii.gz"), decode_nifti),
        ((".mgh", ".mgz", ".mgh.gz"), _decode_mgh),
        ((".nrrd", ".nhdr", ".mha", ".mhd"), _decode_itk),
    ):
        if name.endswith(endings):
            return decode
    raise VolumeFormatError(f"{path}: volumes are read from .nii, .nii.gz, .mgz, .mgh, .nrrd, .mha and .mhd files")


def _scalar_3d(path: Path, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    shape = values.shape
    kept = shape[:3] if set(shape[3:]) <= {1} else shape
    if values.dtype.kind not in "iufb":
        raise GeometryError(
            f"{path}: one number per voxel is needed, got {_kind(values.dtype)} values; convert it to a grey image"
        )
    if len(kept) != 3:
        way_out = "extract one 3-D image from it" if len(kept) > 3 else "stack its slices to a volume"
        raise GeometryError(f"{path}: a 3-D image is needed, got shape {shape}; {way_out}")
    return values.reshape(kept, order="F")


def _kind(dtype: np.dtype[Any]) -> str:
    return "complex" if dtype.kind == "c" else "colour or vector"


def _decode_mgh(path: Path) -> Decoded:
    content = read_bytes(path)
    try:
        header = nib.freesurfer.mghformat.MGHHeader.from_fileobj(io.BytesIO(content))
        dtype, shape, sizes = header.get_data_dtype(), header.get_data_shape(), header["delta"]
        affine = np.asarray(header.get_affine(), dtype=np.float64)
    except Exception as error:  # nibabel fails in many ways on foreign bytes
        reason = " ".join(str(error).split())
        raise VolumeFormatError(f"{path}: not an MGH or MGZ file ({reason})") from None
    check_spacing(path, np.asarray(sizes))
    return Decoded(array_from(path, content, dtype, shape, MGH_DATA_OFFSET), affine)


def _decode_itk(path: Path) -> Decoded:
    import SimpleITK as sitk  # a tenth of a second, spared where no file needs it

    _check_metaimage_spacing(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = itk_reason(error)
        if re.search("spacing|direction", reason, re.IGNORECASE):
            raise GeometryError(f"{path}: the voxel sizes or axis directions are unusable ({reason})") from None
        raise VolumeFormatError(f"{path}: not a readable image, or damaged ({reason})") from None
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise GeometryError(
            f"{path}: one number per voxel is needed, got {image.GetNumberOfComponentsPerPixel()} components; "
            "convert it to a grey image"
        )
    affine = grid_affine(image) if image.GetDimension() >= 3 else np.eye(4)  # a 2-D image is refused by its shape
    return Decoded(sitk.GetArrayFromImage(image).T, affine)


def _check_metaimage_spacing(path: Path) -> None:
    """ITK drops the sign of a negative MetaImage spacing, so look at the text of the header."""
    if path.suffix.lower() not in (".mha", ".mhd"):
        return
    with path.open("rb") as file:
        head = file.read(4096).split(b"ElementDataFile")[0]
    for field in re.findall(rb"^ElementSpacing\s*=\s*(.*?)\s*$", head, re.MULTILINE):
        try:
            sizes = np.array(field.split(), dtype=np.float64)
        except ValueError:  # what is no number is ITK's to refuse
            continue
        check_spacing(path, sizes)
