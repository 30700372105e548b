"""Tables of five points per face: ``image,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5``, a line per picture.

Points are x y in pixels of the picture, centres of pixels at whole numbers: left eye, right eye, nose, left and right
corner of the mouth, left and right as seen in the picture.
"""

from __future__ import annotations

import csv

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError
from medwave.core.files import StrPath, input_file

COLUMNS = ("image", *(f"{axis}{n}" for n in range(1, 6) for axis in "xy"))


def read_face_points(path: StrPath) -> dict[str, npt.NDArray[np.float64]]:
    """Points ``(5, 2)`` by the name of the picture.

    Raises:
        MissingFileError: when there is no such file.
        InputError: when a column is missing, a picture comes twice, or a value is no finite number.
    """
    file = input_file(path)
    points: dict[str, npt.NDArray[np.float64]] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{file}: the first line names the columns {','.join(COLUMNS)}; {missing[0]} is not")
            for row in reader:
                where = f"{file}, line {reader.line_num}"
                name = (row["image"] or "").strip()
                if not name or name in points:
                    raise InputError(f"{where}: each picture comes once, by its name; got {name!r} again or nothing")
                points[name] = _five(where, [row[column] for column in COLUMNS[1:]])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: not a CSV text file ({error})") from None
    return points


def _five(where: str, cells: list[str | None]) -> npt.NDArray[np.float64]:
    try:
        values = np.array([float(cell or "") for cell in cells])
    except ValueError:
        values = np.array([np.nan])
    if not np.isfinite(values).all():
        raise InputError(f"{where}: five points are ten finite numbers, got {','.join(str(c) for c in cells)}")
    return values.reshape(5, 2)
