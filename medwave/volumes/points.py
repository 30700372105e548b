"""Point lists as CSV: landmarks, cell positions, electrode contacts.

Conventions
    The header names columns ``x``, ``y``, ``z`` (any case, any place) in mm; all other columns are kept as text, in
    order. In memory points are RAS+ mm; files are RAS (3D Slicer, nibabel) or LPS (ITK; ANTs writes
    ``x,y,z,t,label,comment`` in LPS). Which one a file is cannot be seen in it: say ``space``.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError
from medwave.core.files import StrPath, input_file, write_text
from medwave.core.geometry import RAS_TO_LPS, Float64Array, transform_points

Space = Literal["RAS", "LPS"]


@dataclass(frozen=True)
class PointTable:
    """Points ``(N, 3)`` in RAS+ mm and the table they came in.

    Attributes:
        points_mm: positions, RAS+ mm.
        columns: names of all columns, x, y and z among them.
        rows: the text of every row, one entry per column; those of x, y, z are replaced by the points on writing.

    Raises:
        GeometryError: when the points are not ``(N, 3)`` with one row each.
    """

    points_mm: Float64Array
    columns: tuple[str, ...] = ("x", "y", "z")
    rows: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        points = np.array(self.points_mm, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3:
            raise GeometryError(f"points are (N, 3), got shape {points.shape}")
        rows = self.rows if self.rows or len(self.columns) > 3 else (("", "", ""),) * len(points)
        if len(rows) != len(points):
            raise GeometryError(f"{len(points)} points for {len(rows)} rows")
        object.__setattr__(self, "points_mm", points)
        object.__setattr__(self, "rows", rows)

    def moved(self, points_mm: npt.ArrayLike) -> PointTable:
        """The same table with its points at other places."""
        return replace(self, points_mm=np.asarray(points_mm, dtype=np.float64))


def read_points(path: StrPath, *, space: Space = "RAS") -> PointTable:
    """Read a comma-separated table with columns x, y, z in mm.

    Args:
        path: the CSV file.
        space: the axes of the file's coordinates.

    Raises:
        MissingFileError: when the file does not exist.
        InputError: when a column is missing, a row is short or long, or a coordinate is not a finite number; the
            message names the line.
    """
    lines = list(_numbered_rows(Path(path)))
    if not lines:
        raise InputError(f"{path}: the file is empty; the first line names the columns x,y,z")
    header = lines[0][1]
    places = _xyz_places(path, header)
    for number, row in lines[1:]:
        if len(row) != len(header):
            raise InputError(f"{path}, line {number}: {len(header)} columns are named, {len(row)} values came")
    points = [[_coordinate(path, number, row[place]) for place in places] for number, row in lines[1:]]
    to_ras = _space_matrix(space)
    positions = transform_points(to_ras, np.array(points, dtype=np.float64).reshape(-1, 3))
    return PointTable(positions, tuple(header), tuple(tuple(row) for _, row in lines[1:]))


def write_points(path: StrPath, table: PointTable, *, space: Space = "RAS") -> None:
    """Write points as a comma-separated table, x, y, z in mm with six decimals, other columns as they came.

    Raises:
        InputError: when the space is unknown, or the table has no columns x, y, z.
        OutputError: when the file cannot be written.
    """
    places = _xyz_places(path, list(table.columns))
    positions = transform_points(_space_matrix(space), table.points_mm)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    for position, row in zip(positions, table.rows, strict=True):
        cells = list(row)
        for place, value in zip(places, position, strict=True):
            cells[place] = f"{value:.6f}"
        writer.writerow(cells)
    write_text(path, text.getvalue())


def _numbered_rows(path: Path) -> list[tuple[int, list[str]]]:
    try:
        with input_file(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            return [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV text file ({error})") from None


def _xyz_places(path: StrPath, header: list[str]) -> list[int]:
    names = [name.lower() for name in header]
    missing = [name for name in "xyz" if names.count(name) != 1]
    if missing:
        raise InputError(
            f"{path}, line 1: the columns x, y and z are needed once each, comma-separated; "
            f"{', '.join(missing)} came not so: {','.join(header)}"
        )
    return [names.index(name) for name in "xyz"]


def _coordinate(path: StrPath, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise InputError(f"{path}, line {line}: a coordinate is a finite number of mm, got {text!r}")
    return value


def _space_matrix(space: str) -> Float64Array:
    if space not in ("RAS", "LPS"):
        raise InputError(f'the space of points is "RAS" or "LPS", got {space!r}')
    return np.eye(4) if space == "RAS" else RAS_TO_LPS
