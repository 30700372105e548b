"""Lists of pairs for verification: LFW's ``pairs.txt``, and plain ones.

LFW's form: an optional first line with the number of folds and of pairs per fold (and kind), then
``NAME 3 7`` (pictures 3 and 7 of one person) or ``NAME 3 OTHER 5`` (of two), separated by tabs or spaces; picture 3 of
NAME is ``NAME/NAME_0003`` with any ending of a picture. A fold has its pairs of one person first.

The plain form: ``PATH PATH 1`` (one person) or ``0``, paths without spaces or separated by tabs, from the folder of
the pictures.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError
from medwave.core.files import StrPath, input_file


class PairList(NamedTuple):
    """Pairs in the order of the file.

    Attributes:
        first, second: path of each picture from the folder of pictures; without its ending in LFW's form.
        same: ``(n,)``, whether they show one person.
        folds: number of folds that the file names, 0 where it names none.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    same: npt.NDArray[np.bool_]
    folds: int


def read_pair_list(path: StrPath) -> PairList:
    """Read a list of pairs.

    Raises:
        MissingFileError: when there is no such file.
        InputError: when a line is of neither form, or there is none; the message names the line.
    """
    file = input_file(path)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{file}: a list of pairs is a text file in UTF-8; this is not") from None
    rows = [(number, _fields(line)) for number, line in enumerate(lines, start=1) if line.strip()]
    folds = 0
    if rows and len(rows[0][1]) <= 2 and all(field.isdigit() for field in rows[0][1]):
        folds = int(rows[0][1][0]) if len(rows[0][1]) == 2 else 0
        rows = rows[1:]
    if not rows:
        raise InputError(f"{file}: names no pair")
    pairs = [_pair(f"{file}, line {number}", fields) for number, fields in rows]
    first, second, same = zip(*pairs, strict=True)
    if folds and len(pairs) % folds:
        raise InputError(f"{file}: the first line names {folds} folds, which do not divide {len(pairs)} pairs")
    return PairList(first, second, np.array(same, dtype=np.bool_), folds)


def _fields(line: str) -> list[str]:
    return [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]


def _pair(where: str, fields: list[str]) -> tuple[str, str, bool]:
    match fields:
        case [name, one, other] if one.isdigit() and other.isdigit():
            return _lfw(name, one), _lfw(name, other), True
        case [name, one, other_name, other] if one.isdigit() and other.isdigit():
            return _lfw(name, one), _lfw(other_name, other), False
        case [first, second, "0" | "1" as answer]:
            return first, second, answer == "1"
    raise InputError(
        f"{where}: a pair is `NAME 3 7`, `NAME 3 OTHER 5`, or `PATH PATH 1` (or 0), got {' '.join(fields)!r}"
    )


def _lfw(name: str, number: str) -> str:
    return f"{name}/{name}_{int(number):04d}"
