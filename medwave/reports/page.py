"""The design system that all reports share: one page, its tokens, pictures, colour bars, tiles and tables.

A page is one HTML file without any reference to the outside: styles, scripts and pictures are in it. Text given to
these classes is plain text; the templates escape it. Pictures are JPEG with full colour resolution (a third to a
half of PNG's size on brain slices and a fifth of its time); colour bars are PNG.
"""

from __future__ import annotations

import base64
import functools
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from medwave.core.files import write_text
from medwave.reports.colours import UInt8Array
from medwave.reports.template_cache import TemplateCache

JPEG_QUALITY = 88
NOT_KNOWN = "–"


@dataclass(frozen=True)
class Picture:
    """An embedded picture: ``data:`` address, alternative text, caption, size in pixels."""

    address: str
    alt: str
    caption: str
    width: int
    height: int
    stage: str = ""
    plane: str = ""


@dataclass(frozen=True)
class ColourBar:
    """A strip of colours with tick texts (position in [0, 1], text) and what is shown."""

    address: str
    label: str
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Strip:
    """A row of pictures of one height, with its heading."""

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Figure:
    """A titled group of strips. ``by_plane``: strips are planes and their pictures the images to compare."""

    name: str
    title: str
    text: str
    strips: Sequence[Strip]
    bar: ColourBar | None = None
    keys: Sequence[tuple[str, str]] = ()
    by_plane: bool = False


@dataclass(frozen=True)
class Tile:
    """One key figure on top of the page. ``tone`` is "", "good" or "bad"."""

    label: str
    value: str
    unit: str = ""
    detail: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Cell:
    """A table cell: text, smaller text below it, a bar (share in [0, 1]), a tone, a relative file it links to."""

    text: str
    detail: str = ""
    bar: float | None = None
    tone: str = ""
    file: str = ""


@dataclass(frozen=True)
class Table:
    """A table. The first column heads its rows; ``numeric`` columns are aligned right."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    numeric: frozenset[int] = field(default_factory=frozenset)
    folded: bool = False
    summary: str = ""

    @property
    def cells(self) -> list[list[Cell]]:
        """Rows with every entry a :class:`Cell`."""
        return [[c if isinstance(c, Cell) else Cell(str(c)) for c in row] for row in self.rows]


@dataclass(frozen=True)
class Chapter:
    """A part of the page with its own address ``#name``; the contents list it by its title."""

    name: str
    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


def picture(
    rgb: UInt8Array, *, alt: str, caption: str = "", stage: str = "", plane: str = "", quality: int = JPEG_QUALITY
) -> Picture:
    """Embed an RGB picture ``(h, w, 3)``; ``stage`` and ``plane`` let scripts find it."""
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=quality, subsampling=0)  # optimize: twice the time for 6 %
    return Picture(_address("jpeg", stream), alt, caption, rgb.shape[1], rgb.shape[0], stage, plane)


def colour_bar(table: UInt8Array, *, label: str, ticks: Sequence[tuple[float, str]]) -> ColourBar:
    """Embed a colour table ``(256, 3)`` as a bar that grows to the right."""
    stream = io.BytesIO()
    Image.fromarray(np.repeat(table[None], 2, axis=0)).save(stream, "PNG", optimize=True)
    return ColourBar(_address("png", stream), label, tuple(ticks))


def _address(kind: str, stream: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def number(value: object, digits: int = 3) -> str:
    """A number for people: ``digits`` significant ones, thin thousands, a true minus sign; ``–`` for None or NaN."""
    if value is None or isinstance(value, str):
        return value or NOT_KNOWN
    x = float(value)  # type: ignore[arg-type]
    if math.isnan(x):
        return NOT_KNOWN
    if math.isinf(x):
        return "−∞" if x < 0 else "∞"
    if x == 0:
        return "0"
    if abs(x) >= 10**digits or (isinstance(value, int | np.integer) and not isinstance(value, bool)):
        text = f"{round(x):,}".replace(",", "\u202f")
    elif abs(x) < 1e-4:
        mantissa, exponent = f"{x:.1e}".split("e")
        text = f"{mantissa} × 10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    else:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(x))))
        text = f"{x:.{decimals}f}"
    return text.replace("-", "−")


def measured(value: float | None, unit: str = "") -> str:
    """A measured value for people: lengths in mm to the micrometre at most, all else as :func:`number`."""
    if unit != "mm" or value is None or not math.isfinite(value) or abs(value) >= 1:
        return number(value)
    if 0 < abs(value) < 0.0005:
        return "< 0.001"
    return f"{value:.3f}".replace("-", "−") if value else "0"


def breaking(name: str) -> Markup:
    """A name that may break after ``/`` and ``_`` and before its endings, never within them (``.nii.gz``)."""
    stem = re.sub(r"(\.[A-Za-z]\w*)+$", "", name)
    parts = [*re.split(r"(?<=[/_])", stem), name[len(stem) :]]
    return Markup("<wbr>").join(part for part in parts if part)


def render(template: str, **content: object) -> str:
    """Fill a template of this package.

    Args:
        template: file name in ``medwave/reports/templates``.
    """
    html = _environment().get_template(template).render(content)
    return html.encode("utf-8", "replace").decode("utf-8")  # file names may hold bytes that are not UTF-8


@functools.cache
def _environment() -> jinja2.Environment:
    """The templates; what is compiled once serves all pages of this process."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("medwave.reports"),
        bytecode_cache=TemplateCache(Path(__file__).with_name("templates") / "__pycache__"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["breaking"] = breaking
    environment.filters["href"] = lambda name: quote(str(name).replace("\\", "/"), errors="surrogateescape")
    return environment


def write_page(path: str | Path, template: str, **content: object) -> Path:
    """Fill a template of this package and write it in one step: the file is complete or not there.

    Args:
        path: the HTML file to write; its folder must exist.
        template: file name in ``medwave/reports/templates``.

    Raises:
        OutputError: when the file cannot be written.
    """
    write_text(path, render(template, **content))
    return Path(path)


def served_script() -> str:
    """The script that a server of results puts into the head of its pages: links to what it offers beside them."""
    return resources.files("medwave.reports").joinpath("templates", "served.js").read_text(encoding="utf-8")
