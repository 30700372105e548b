"""The units of an NRRD header, which ITK passes over.

Source: https://teem.sourceforge.net/nrrd/format.html, fields ``space units`` and ``units``.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from medwave.core.geometry import Float64Array
from medwave.volumes.stack import micrometres

_UM_PER_MM = 1000.0
_UNITS = re.compile(r'^(?:space )?units:((?:\s*"[^"]*")*)', re.IGNORECASE)


def nrrd_units_um(path: Path) -> Float64Array:
    """Micrometres in the units of the three axes of space of an NRRD file, in file order.

    A unit that is not there, or is not known, is taken for mm, as are those of files of other formats.
    """
    words = _unit_words(path) if path.suffix.lower() in (".nrrd", ".nhdr") else []
    return np.array([micrometres(word) or _UM_PER_MM for word in (*words[:3], "", "", "")[:3]])


def _unit_words(path: Path) -> list[str]:
    """The words of the header's line of units; a blank line ends the header."""
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                break
            found = _UNITS.match(_text(line))
            if found:
                return re.findall(r'"([^"]*)"', found[1])
    return []


def _text(line: bytes) -> str:
    """A line of UTF-8, or of Latin-1, in which some writers put the mu."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")
