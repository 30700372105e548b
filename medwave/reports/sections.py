"""Where a volume is cut for the reports, and how a cut becomes a picture.

Conventions
    Neurological display: left of the picture is left of the person. Axial: front is up; coronal: head is up;
    sagittal: head is up, front is right. A grid of any axis order, flip or obliqueness is shown in the
    anatomical directions nearest to its own axes, so a cut never needs interpolation; voxels keep their
    proportions in mm.
    A cut is float32 ``(rows, columns)`` in voxels, row 0 on top. A picture is a cut enlarged to
    ``height_px x width_px``. All three pictures of one set have one height.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from medwave.core.geometry import Grid, Volume
from medwave.core.orientation import canonical_axes
from medwave.reports.colours import FloatArray, UInt8Array
from medwave.reports.foreground import Foreground
from medwave.reports.grey_values import finite

PLANES = (("axial", 2, 0, 1, "LRAP"), ("coronal", 1, 0, 2, "LRSI"), ("sagittal", 0, 1, 2, "PASI"))
"""Name, canonical axis that is cut, canonical axis of the columns, of the rows, letters left right top bottom."""


@dataclass(frozen=True)
class Section:
    """One plane through a grid. Axes and indices are canonical (R, A, S); boxes are half-open voxel ranges."""

    plane: str
    axis: int
    index: int
    position_mm: float
    column_axis: int
    row_axis: int
    columns: tuple[int, int]
    rows: tuple[int, int]
    width_px: int
    height_px: int
    letters: str

    @property
    def px_per_voxel(self) -> tuple[float, float]:
        """Enlargement along rows (downwards) and columns."""
        return (
            self.height_px / (self.rows[1] - self.rows[0]),
            self.width_px / (self.columns[1] - self.columns[0]),
        )

    @property
    def title(self) -> str:
        """Such as ``Axial, z = 12 mm``."""
        value = f"{self.position_mm:.0f}".replace("-", "−")
        return f"{self.plane.capitalize()}, {'xyz'[self.axis]} = {'0' if value == '−0' else value} mm"


class Sections:
    """Three orthogonal planes near the middle of what is in an image, each where it shows most.

    Args:
        volume: image whose foreground (Otsu's threshold) sets the planes and the frame.
        height_px: height of every picture.
        margin: free space around the foreground, as a share of its size.
    """

    def __init__(self, volume: Volume, *, height_px: int = 340, margin: float = 0.09) -> None:
        self.grid: Grid = volume.grid
        self.order, flips = canonical_axes(volume.grid.affine)
        self.signs = tuple(-1 if flip else 1 for flip in flips)
        shape = np.array([self.grid.shape[a] for a in self.order])
        spacing = self.grid.spacing_mm[list(self.order)]
        self.subject = Foreground(self.canonical(volume.data), spacing)
        low, high = self.subject.low, self.subject.high
        pad = margin * np.max((high - low) * spacing) / spacing
        start = np.clip(np.floor(low - pad), 0, shape - 1).astype(int)
        stop = np.clip(np.ceil(high + pad), start + 1, shape).astype(int)
        self.spacing_mm = spacing
        self._bodies: dict[Section, npt.NDArray[np.bool_]] = {}
        self._drawn: dict[tuple[object, int, Section], tuple[object, FloatArray]] = {}
        self.items = tuple(self._section(plane, start, stop, height_px) for plane in PLANES)

    def _section(
        self,
        plane: tuple[str, int, int, int, str],
        start: np.ndarray,
        stop: np.ndarray,
        height: int,
    ) -> Section:
        name, axis, column, row, letters = plane
        size_mm = (stop - start) * self.spacing_mm
        width = int(np.clip(round(height * size_mm[column] / size_mm[row]), height // 4, height * 4))
        index = self.subject.telling_slice(axis)
        centre = self.subject.centre.copy()
        centre[axis] = index
        voxel = np.zeros(3)
        for world, (array_axis, sign) in enumerate(zip(self.order, self.signs, strict=True)):
            last = self.grid.shape[array_axis] - 1
            voxel[array_axis] = centre[world] if sign > 0 else last - centre[world]
        return Section(
            plane=name,
            axis=axis,
            index=index,
            position_mm=round(float(self.grid.to_mm(voxel)[axis]), 3),
            column_axis=column,
            row_axis=row,
            columns=(int(start[column]), int(stop[column])),
            rows=(int(start[row]), int(stop[row])),
            width_px=width,
            height_px=height,
            letters=letters,
        )

    def canonical(self, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """View of an array on the grid with axes in the order R, A, S."""
        return np.transpose(array, self.order)[tuple(slice(None, None, sign) for sign in self.signs)]

    def cut(self, array: npt.NDArray[np.generic], section: Section) -> npt.NDArray[np.generic]:
        """The cut ``(rows, columns)`` of an array on the grid, row 0 on top, in the array's dtype."""
        window: list[slice | int] = [0, 0, 0]
        window[section.axis] = section.index
        window[section.column_axis] = slice(*section.columns)
        window[section.row_axis] = slice(*section.rows)
        return self.canonical(array)[tuple(window)].T[::-1]

    def picture(self, array: npt.NDArray[np.generic], section: Section) -> FloatArray:
        """The cut of a scalar array, enlarged; values that are not finite count as 0."""
        return self.once(_enlarged, array, section)

    def once(
        self,
        draw: Callable[[Sections, npt.NDArray[np.generic], Section], FloatArray],
        array: npt.NDArray[np.generic],
        section: Section,
    ) -> FloatArray:
        """``draw(self, array, section)``, drawn once for all plates that show it."""
        key = draw, id(array), section
        if key not in self._drawn:
            self._drawn[key] = array, draw(self, array, section)  # the array is held: its id remains its own
        return self._drawn[key][1]

    def body(self, section: Section) -> npt.NDArray[np.bool_]:
        """Which pixels show the subject: clefts between its parts and holes in them belong to it; picture size."""
        if section not in self._bodies:
            cut = self.subject.body(section.axis, section.index, (section.columns, section.rows))
            self._bodies[section] = enlarge(cut.T[::-1], section) > 0.5
        return self._bodies[section]

    def displacement(self, displacement: npt.NDArray[np.floating], section: Section) -> FloatArray:
        """The cut ``(3, rows, columns)`` of a field in voxels, components along the canonical axes."""
        return np.stack([self.signs[c] * finite(self.cut(displacement[self.order[c]], section)) for c in range(3)])


def _enlarged(sections: Sections, array: npt.NDArray[np.generic], section: Section) -> FloatArray:
    return enlarge(finite(sections.cut(array, section)), section)


def enlarge(cut: FloatArray, section: Section) -> FloatArray:
    """Bicubic enlargement of a cut to the picture's size."""
    image = Image.fromarray(np.ascontiguousarray(cut, dtype=np.float32))
    return np.asarray(image.resize((section.width_px, section.height_px), Image.Resampling.BICUBIC))


def enlarge_part(cut: FloatArray, section: Section, rows: tuple[int, int], columns: tuple[int, int]) -> FloatArray:
    """The pixels ``rows x columns`` (half-open ranges) of the enlarged picture, bilinear."""
    down, right = section.px_per_voxel
    box = (columns[0] / right, rows[0] / down, columns[1] / right, rows[1] / down)
    size = (columns[1] - columns[0], rows[1] - rows[0])
    return np.asarray(Image.fromarray(cut).resize(size, Image.Resampling.BILINEAR, box=box))


def enlarge_labels(cut: npt.NDArray[np.generic], section: Section) -> npt.NDArray[np.generic]:
    """Nearest-neighbour enlargement of a cut of labels or marks."""
    rows = ((np.arange(section.height_px) + 0.5) * cut.shape[0] / section.height_px).astype(int)
    columns = ((np.arange(section.width_px) + 0.5) * cut.shape[1] / section.width_px).astype(int)
    return cut[rows[:, None], columns[None]]


def letter(rgb: UInt8Array, section: Section, *, size: float = 1.0) -> UInt8Array:
    """The picture with its direction letters at the middle of the four sides; ``size`` is relative."""
    image = Image.fromarray(rgb)
    pen = ImageDraw.Draw(image)
    font = _font(round(size * section.height_px / 18))
    width, height = section.width_px, section.height_px
    places = (
        ((6, height / 2), "lm"),
        ((width - 6, height / 2), "rm"),
        ((width / 2, 6), "mt"),
        ((width / 2, height - 6), "mb"),
    )
    for sign, (place, anchor) in zip(section.letters, places, strict=True):
        pen.text(place, sign, font=font, fill=(255, 255, 255), anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(image)


@functools.cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size_px)
