"""Affine transforms as ITK files.

Conventions
    In memory: 4x4, RAS+ mm, maps points of the fixed image to points of the moving one. On disk: LPS mm, the same
    direction (``.tfm`` and ``.txt`` are text, ``.mat`` is ITK's binary form, as antsRegistration writes it).
"""

from __future__ import annotations

from pathlib import Path

from medwave.core.errors import GeometryError, OutputError
from medwave.core.files import StrPath, atomic_path, write_text
from medwave.core.geometry import Float64Array
from medwave.volumes.itk import affine_text, affine_to_itk, linear_matrix, load_transform, save_linear

AFFINE_SUFFIXES = (".tfm", ".txt", ".mat")


def write_affine(path: StrPath, matrix_ras: Float64Array) -> None:
    """Write a 4x4 matrix (RAS+ mm, fixed to moving points) as an ITK ``AffineTransform``: ``.tfm``, ``.txt``, ``.mat``.

    Raises:
        GeometryError: when the matrix is not a finite, invertible affine one.
        OutputError: when it cannot be written, or the name has another ending.
    """
    if Path(path).suffix.lower() not in AFFINE_SUFFIXES:
        raise OutputError(f"{path}: an affine transform is written as {', '.join(AFFINE_SUFFIXES)}")
    if Path(path).suffix.lower() != ".mat":
        write_text(path, affine_text(matrix_ras))
        return
    transform = affine_to_itk(matrix_ras)
    with atomic_path(path) as partial:
        save_linear(transform, partial)


def read_affine(path: StrPath) -> Float64Array:
    """Read a linear ITK transform (affine, rigid, similarity, translation, or a composite of such) as 4x4 RAS+ mm.

    Returns:
        The matrix that maps fixed points to moving points.

    Raises:
        MissingFileError: when the file does not exist.
        VolumeFormatError: when it is not an ITK transform file.
        GeometryError: when the transform is not linear, not 3-D or not invertible.
    """
    transform = load_transform(path)
    if not transform.IsLinear():
        raise GeometryError(
            f"{path}: a linear transform is needed, this {transform.GetName()} bends space; "
            "give it as a whole transform instead of an affine"
        )
    return linear_matrix(path, transform)
