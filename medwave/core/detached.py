"""Images in several files: the header of a MetaImage or NRRD may name the files that hold the values.

Names are relative to the header. A header gives one name; ``LIST`` and then a name per line; or a pattern such as
``slice%03d.raw 1 20 1``, with the first number, the last and, where it is not 1, the step.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_HEADERS = (".mhd", ".mha", ".nhdr", ".nrrd")
_LARGEST_HEADER_BYTES = 1 << 20
_DATA = re.compile(r"^(?:ElementDataFile\s*=|data ?file:)[ \t]*(.*?)\s*$", re.MULTILINE | re.IGNORECASE)
_END_OF_NRRD = re.compile(r"\r?\n\r?\n")


def data_files(image: Path) -> list[Path]:
    """The files that hold the values of an image and are there, in order; none where its own file holds them.

    Raises:
        OSError: when the image cannot be read.
    """
    if image.suffix.lower() not in _HEADERS:
        return []
    with image.open("rb") as stream:
        text = os.fsdecode(stream.read(_LARGEST_HEADER_BYTES))
    if text.startswith("NRRD"):
        text = _END_OF_NRRD.split(text, maxsplit=1)[0]
    found = _DATA.search(text)
    if not found or found[1].lower() in ("", "local"):
        return []
    listed = text[found.end() :].splitlines() if found[1].startswith("LIST") else _numbered(found[1])
    files = [image.parent / name.strip() for name in listed if name.strip()]
    return [file for file in files if file.is_file()]


def _numbered(said: str) -> list[str]:
    """The names that a pattern stands for; what is no pattern is a name."""
    pattern, *numbers = said.split()
    try:
        first, last, step = (*map(int, numbers[:3]), 1)[:3]
        return [pattern % number for number in range(first, last + (1 if step > 0 else -1), step)]
    except (ValueError, TypeError):
        return [said]
