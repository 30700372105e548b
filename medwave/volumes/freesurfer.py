"""Linear transforms of FreeSurfer: LTA files, and the older register.dat.

Conventions
    An LTA sends points of its source (the image that moves) to points of its destination, between voxels (type 0) or
    between scanner RAS mm (type 1), and describes the geometry of both. Here matrices send fixed points to moving
    points, the other way. FreeSurfer places an image by the RAS position of voxel ``shape / 2``, half a voxel from
    the middle of the grid.
    A ``register.dat`` sends "tkregister RAS" of the anatomical (fixed) image to that of the movable one: coordinates
    that know of an image's voxel sizes and shape only.
    Deformations: FreeSurfer's ``mri_warp_convert`` makes its own m3z file of an ITK field; see :func:`m3z_command`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medwave.core.errors import GeometryError, OutputError, VolumeFormatError
from medwave.core.files import StrPath, input_file, write_text
from medwave.core.geometry import Float64Array, Grid

_VOXELS, _SCANNER = 0, 1


def read_lta(path: StrPath, fixed: Grid | None = None, moving: Grid | None = None) -> Float64Array:
    """Read an LTA file as 4x4 RAS+ mm, fixed to moving points.

    Args:
        path: the file; its source is the moving image and its destination the fixed one.
        fixed, moving: grids of the images, when known: a file whose source is plainly the fixed image and whose
            destination is the moving one is then read the other way round.

    Raises:
        MissingFileError: when the file does not exist.
        VolumeFormatError: when it is not an LTA file with one matrix of type 0 or 1, or is damaged.
        GeometryError: when the matrix cannot be inverted.
    """
    file = input_file(path)
    lines = [line.split("#")[0].strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    try:
        kind, matrix, source, destination = _parse_lta([line for line in lines if line])
    except (ValueError, IndexError, KeyError, StopIteration):
        raise VolumeFormatError(f"{file}: not an LTA file with one 4x4 matrix, or damaged; write it again") from None
    if kind not in (_VOXELS, _SCANNER):
        raise VolumeFormatError(
            f"{file}: an LTA between voxels (type 0) or scanner RAS (type 1) is needed, this one has type {kind}; "
            f"convert it: lta_convert --inlta {file} --outlta new.lta"
        )
    if kind == _VOXELS:
        if source is None or destination is None:
            raise VolumeFormatError(f"{file}: an LTA between voxels must describe both volumes (valid = 1)")
        matrix = destination.affine @ matrix @ np.linalg.inv(source.affine)
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        raise GeometryError(f"{file}: the matrix cannot be inverted")
    backwards = _same(source, fixed) and _same(destination, moving) and not (
        _same(source, moving) and _same(destination, fixed)
    )  # fmt: skip
    return matrix if backwards else np.asarray(np.linalg.inv(matrix))


def write_lta(
    path: StrPath, matrix_ras: Float64Array, fixed: Grid, moving: Grid, *, fixed_name: str = "", moving_name: str = ""
) -> None:
    """Write a 4x4 matrix (RAS+ mm, fixed to moving points) as an LTA from moving to fixed, scanner RAS (type 1).

    Raises:
        OutputError: when it cannot be written, or the name has another ending.
    """
    if Path(path).suffix.lower() != ".lta":
        raise OutputError(f"{path}: a linear transform for FreeSurfer is written as .lta")
    rows = "\n".join(" ".join(f"{value:.15e}" for value in row) for row in np.linalg.inv(matrix_ras))
    write_text(
        path,
        "# linear transform, source to destination, scanner RAS mm\n"
        f"type      = {_SCANNER}\nnxforms   = 1\nmean      = 0.0000 0.0000 0.0000\nsigma     = 1.0000\n1 4 4\n{rows}\n"
        f"{_described('src', moving, moving_name)}{_described('dst', fixed, fixed_name)}",
    )


def read_register_dat(path: StrPath, fixed: Grid, moving: Grid) -> Float64Array:
    """Read a register.dat (fixed is the anatomical, moving the movable image) as 4x4 RAS+ mm, fixed to moving points.

    Raises:
        MissingFileError: when the file does not exist.
        VolumeFormatError: when it is not such a file.
    """
    file = input_file(path)
    matrix = register_dat_matrix(file.read_text(encoding="utf-8", errors="replace"))
    if matrix is None:
        raise VolumeFormatError(f"{file}: not a register.dat (subject, two sizes, a factor, four rows of numbers)")
    anatomical = tkregister_affine(fixed) @ np.linalg.inv(fixed.affine)
    movable = moving.affine @ np.linalg.inv(tkregister_affine(moving))
    return np.asarray(movable @ matrix @ anatomical)


def register_dat_matrix(text: str) -> Float64Array | None:
    """The matrix of a register.dat, or None when the text is something else."""
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        [float(line) for line in lines[1:4]]
        matrix = np.array([[float(word) for word in line.split()] for line in lines[4:8]])
    except ValueError:
        return None
    good = matrix.shape == (4, 4) and np.isfinite(matrix).all() and np.allclose(matrix[3], [0, 0, 0, 1])
    return matrix if good and abs(np.linalg.det(matrix[:3, :3])) > 1e-12 else None


def tkregister_affine(grid: Grid) -> Float64Array:
    """Voxels of a grid to tkregister RAS: as if its axes ran to the left, down and to the front about the origin."""
    x, y, z = grid.spacing_mm
    columns, rows, slices = grid.shape
    return np.array([
        [-x, 0, 0, columns * x / 2], [0, 0, z, -slices * z / 2], [0, -y, 0, rows * y / 2], [0, 0, 0, 1.0],
    ])  # fmt: skip


def m3z_command(field: StrPath, moving: StrPath) -> str:
    """The command of FreeSurfer that makes an m3z file of an ITK field that holds a whole transform."""
    name = str(field).removesuffix(".gz").removesuffix(".nii")
    words = ["mri_warp_convert", "--initk", str(field), "--outm3z", f"{name}.m3z", "--insrcgeom", str(moving)]
    return shlex.join(words)


def _parse_lta(lines: list[str]) -> tuple[int, Float64Array, Grid | None, Grid | None]:
    head = next(number for number, line in enumerate(lines) if line.split() == ["1", "4", "4"])
    values = dict(_assignments(lines[:head]))
    if int(values["nxforms"]) != 1:
        raise ValueError
    matrix = np.array([[float(word) for word in line.split()] for line in lines[head + 1 : head + 5]])
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], [0, 0, 0, 1]):
        raise ValueError
    rest = lines[head + 5 :]
    parts = {name: n for n, line in enumerate(rest) for name in ("src", "dst") if line.startswith(f"{name} volume")}
    if len(parts) < 2:
        return int(values["type"]), matrix, None, None
    source = _grid(dict(_assignments(rest[parts["src"] : parts["dst"]])))
    return int(values["type"]), matrix, source, _grid(dict(_assignments(rest[parts["dst"] :])))


def _assignments(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, equals, value = line.partition("=")
        if equals:
            yield name.strip(), value.strip()


def _grid(values: dict[str, str]) -> Grid | None:
    if not int(values.get("valid", "0")):
        return None
    numbers = {name: np.array([float(word) for word in values[name].split()]) for name in _GEOMETRY}
    shape = numbers["volume"].astype(int)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([numbers["xras"], numbers["yras"], numbers["zras"]], axis=1) * numbers["voxelsize"]
    affine[:3, 3] = numbers["cras"] - affine[:3, :3] @ (shape / 2)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


_GEOMETRY = ("volume", "voxelsize", "xras", "yras", "zras", "cras")


def _described(role: str, grid: Grid, name: str) -> str:
    def line(key: str, values: object) -> str:
        return f"{key:<9} = {' '.join(f'{value:.15e}' for value in np.asarray(values))}\n"

    axes = grid.affine[:3, :3] / grid.spacing_mm
    middle = grid.to_mm(np.asarray(grid.shape) / 2)
    return (
        f"{role} volume info\nvalid = 1  # volume info valid\nfilename = {name or 'unknown'}\n"
        f"volume = {' '.join(map(str, grid.shape))}\n{line('voxelsize', grid.spacing_mm)}"
        f"{line('xras', axes[:, 0])}{line('yras', axes[:, 1])}{line('zras', axes[:, 2])}{line('cras', middle)}"
    )


def _same(one: Grid | None, other: Grid | None) -> bool:
    return one is not None and other is not None and one.matches(other)
