"""Between ITK's world (LPS, mm, index x first) and medwave's (RAS+, mm, same index order).

Conventions
    An ITK transform file maps points of the fixed image to points of the moving one (pull-back), in LPS mm. A matrix
    changes sides by ``F A F`` with ``F = diag(-1, -1, 1, 1)``, a vector or a point by ``F`` alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medwave.core.errors import GeometryError, VolumeFormatError
from medwave.core.files import StrPath, input_file
from medwave.core.geometry import RAS_TO_LPS, Float64Array

if TYPE_CHECKING:
    import SimpleITK as sitk  # a tenth of a second, spared where no file needs it


def itk_reason(error: Exception) -> str:
    """The telling line of one of ITK's long messages."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    telling = [line for line in lines if "ERROR" in line or "Refusing" in line or "direction" in line] or lines
    if not telling:
        return "no reason given"
    return re.sub(r"\w+\(0x[0-9a-f]+\):\s*", "", telling[-1].split("ERROR:")[-1]).strip()  # names an object in memory


def grid_affine(image: sitk.Image) -> Float64Array:
    """Voxel-to-world matrix (RAS+ mm) of the first three axes of an ITK image."""
    size = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(size, size)[:3, :3]
    lps = np.eye(4)
    lps[:3, :3] = direction * np.array(image.GetSpacing())[:3]
    lps[:3, 3] = image.GetOrigin()[:3]
    return np.asarray(RAS_TO_LPS @ lps)


def affine_parameters(matrix_ras: Float64Array) -> Float64Array:
    """The twelve parameters of ITK's ``AffineTransform`` about the origin for a 4x4 RAS+ mm matrix.

    Raises:
        GeometryError: when it is not a finite, invertible affine matrix.
    """
    matrix = np.asarray(matrix_ras, dtype=np.float64)
    usable = matrix.shape == (4, 4) and np.isfinite(matrix).all() and np.allclose(matrix[3], [0, 0, 0, 1])
    if not usable or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        raise GeometryError(
            f"an affine is a finite, invertible 4x4 matrix with last row 0 0 0 1, got {matrix.tolist()}"
        )
    lps = RAS_TO_LPS @ matrix @ RAS_TO_LPS
    return np.concatenate([lps[:3, :3].ravel(), lps[:3, 3]])


def affine_to_itk(matrix_ras: Float64Array) -> sitk.AffineTransform:
    """A 4x4 RAS+ mm matrix as an ITK transform; errors as of :func:`affine_parameters`."""
    import SimpleITK as sitk

    transform = sitk.AffineTransform(3)
    transform.SetParameters(affine_parameters(matrix_ras).tolist())
    return transform


def affine_text(matrix_ras: Float64Array) -> str:
    """A 4x4 RAS+ mm matrix as the content of ITK's ``.tfm`` and ``.txt``; errors as of :func:`affine_parameters`."""
    numbers = " ".join(repr(float(value)).removesuffix(".0") for value in affine_parameters(matrix_ras))
    return (
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {numbers}\nFixedParameters: 0 0 0\n"
    )


def affine_from_itk(transform: sitk.Transform) -> Float64Array:
    """The 4x4 RAS+ mm matrix of a linear ITK transform of any kind, by where it sends four points."""
    offset = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    lps = np.eye(4)
    lps[:3, 3] = offset
    for axis in range(3):
        lps[:3, axis] = np.array(transform.TransformPoint(np.eye(3)[axis].tolist())) - offset
    return np.asarray(RAS_TO_LPS @ lps @ RAS_TO_LPS)


def linear_matrix(path: StrPath, transform: sitk.Transform) -> Float64Array:
    """What :func:`affine_from_itk` gives for a transform that was read from a file.

    Raises:
        GeometryError: when it is not invertible; the message names the file.
    """
    matrix = affine_from_itk(transform)
    try:
        affine_parameters(matrix)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from None
    return matrix


def load_transform(path: StrPath) -> sitk.Transform:
    """Read a 3-D transform file of ITK.

    Raises:
        MissingFileError: when it does not exist.
        VolumeFormatError: when it is not an ITK transform file, or is damaged.
        GeometryError: when it is a transform of another dimension.
    """
    import SimpleITK as sitk

    file = input_file(path)
    try:
        transform: Any = sitk.ReadTransform(str(file))
    except (RuntimeError, KeyError) as error:  # SimpleITK 2.5 has no Python class for a few rare kinds: KeyError
        raise VolumeFormatError(
            f"{file}: not an ITK transform file (.tfm, .txt, .mat or .h5 as ANTs, SimpleITK and 3D Slicer write), "
            f"or damaged ({itk_reason(error)})"
        ) from None
    if file.suffix.lower() in (".tfm", ".txt"):
        text = file.read_text(encoding="utf-8", errors="replace")
        plain = text.count("\nTransform:") - text.count("\nTransform: Composite")
        if plain > text.count("\nParameters:"):  # ITK would take the identity in silence
            raise VolumeFormatError(f"{file}: damaged: a transform without its Parameters line; write the file again")
    if transform.GetDimension() != 3:
        raise GeometryError(f"{file}: a 3-D transform is needed, this one has {transform.GetDimension()} dimensions")
    return transform


def save_linear(transform: sitk.Transform, partial: Path) -> None:
    """Write a linear transform; a failure becomes the operating system error that ``atomic_path`` reports.

    ITK writes text and MATLAB files without looking whether the disk took them, so they are read back.
    """
    import SimpleITK as sitk

    try:
        sitk.WriteTransform(transform, str(partial))
        written = affine_from_itk(sitk.ReadTransform(str(partial)))
    except RuntimeError as error:
        raise OSError(itk_reason(error)) from None
    if not np.allclose(written, affine_from_itk(transform)):
        raise OSError("the file came out incomplete")
