"""Still pictures of a tree in its box, seen obliquely: what a page shows where nothing can turn.

Conventions
    Parallel projection. Places are x y z in the box (see :mod:`medwave.reports.neuron_frame`); up on the picture is
    against y, and small z is in front. ``azimuth`` turns the eye to the right around the upright axis, ``elevation``
    raises it. The projections of the volume hang on the three walls that are behind the tree from there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from medwave.core.tree import Float64Array
from medwave.reports.colours import UInt8Array
from medwave.reports.neuron_frame import AXES, Frame
from medwave.reports.tree_lines import Lines

WALL_LIGHT = 0.5
FAR_LIGHT = 0.55
FINER = 2
THINNEST_PX = 1.5
MARGIN = 0.04


class Eye:
    """Where a box is seen from: turns places into pixels of a square-pixel picture of a given size."""

    def __init__(self, frame: Frame, azimuth: float, elevation: float, size_px: tuple[int, int]) -> None:
        a, e = np.deg2rad([azimuth, elevation])
        right = np.array([np.cos(a), 0.0, np.sin(a)])
        down = np.array([np.sin(a) * np.sin(e), np.cos(e), -np.cos(a) * np.sin(e)])
        self.towards = np.array([np.sin(a) * np.cos(e), -np.sin(e), -np.cos(a) * np.cos(e)])
        corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * frame.size
        axes = np.stack([right, down], axis=1)
        seen = corners @ axes
        span = np.ptp(seen, axis=0)
        self.scale = float(min(np.array(size_px) * (1 - 2 * MARGIN) / span))
        self._axes = axes * self.scale
        self._shift = np.array(size_px) / 2 - (seen.min(0) + span / 2) * self.scale
        depth = corners @ self.towards
        self._near, self._far = float(depth.max()), float(depth.min())

    def place(self, points: Float64Array) -> Float64Array:
        """Columns and rows ``(M, 2)`` of places ``(M, 3)``."""
        return points @ self._axes + self._shift

    def light(self, points: Float64Array) -> Float64Array:
        """Brightness ``(M,)`` by nearness: 1 in front, :data:`FAR_LIGHT` at the back."""
        share = (points @ self.towards - self._far) / max(self._near - self._far, 1e-9)
        return FAR_LIGHT + (1 - FAR_LIGHT) * np.clip(share, 0, 1)


def oblique_view(
    frame: Frame,
    walls: Mapping[str, UInt8Array],
    lines: Lines,
    colours_of_points: UInt8Array,
    *,
    azimuth: float,
    elevation: float,
    size_px: tuple[int, int],
) -> UInt8Array:
    """Draw a tree in its box.

    Args:
        frame: the box.
        walls: grey levels of the projections by plane.
        lines: the tree, in the units of the frame.
        colours_of_points: ``(M, 3)`` RGB of the points of the lines.
        azimuth, elevation: degrees.
        size_px: width and height.
    """
    large = (size_px[0] * FINER, size_px[1] * FINER)
    eye = Eye(frame, azimuth, elevation, large)
    picture = Image.fromarray(np.maximum.reduce([_wall(frame, eye, name, walls[name], large) for name in walls]))
    pen = ImageDraw.Draw(picture)
    _draw_edges(pen, frame, eye)
    _draw_lines(pen, eye, lines, colours_of_points)
    return np.asarray(picture.resize(size_px, Image.Resampling.LANCZOS))


def _wall(frame: Frame, eye: Eye, plane: str, levels: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """One projection on the wall behind the tree: a parallelogram on black, ``(h, w, 3)``."""
    column, row = AXES[plane]
    across = ({0, 1, 2} - {column, row}).pop()
    origin = np.zeros(3)
    origin[across] = 0.0 if eye.towards[across] > 0 else frame.size[across]
    ends = np.stack([origin, origin, origin])
    ends[1, column] += frame.size[column]
    ends[2, row] += frame.size[row]
    start, right, down = eye.place(ends)
    height, width = levels.shape
    to_picture = np.column_stack([(right - start) / width, (down - start) / height])
    if abs(np.linalg.det(to_picture)) < 1e-6:
        return np.zeros((size[1], size[0], 3), np.uint8)
    back = np.linalg.inv(to_picture)
    shift = -back @ start
    data = (back[0, 0], back[0, 1], shift[0], back[1, 0], back[1, 1], shift[1])
    dim = Image.fromarray(np.rint(levels * WALL_LIGHT).astype(np.uint8))
    drawn = np.asarray(dim.transform(size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR))
    return np.repeat(drawn[..., None], 3, axis=2)


def _draw_edges(pen: ImageDraw.ImageDraw, frame: Frame, eye: Eye) -> None:
    """The nine edges of the three walls behind the tree."""
    corner = np.where(eye.towards > 0, 0.0, frame.size)
    opposite = np.array(frame.size) - corner
    for axis in range(3):
        for others in ((0, 0), (1, 0), (0, 1)):
            ends = np.stack([corner, corner])
            for other, moved in zip([a for a in range(3) if a != axis], others, strict=True):
                ends[:, other] = opposite[other] if moved else corner[other]
            ends[1, axis] = opposite[axis]
            pen.line([tuple(p) for p in eye.place(ends).tolist()], fill=(74, 80, 88), width=FINER)


def _draw_lines(pen: ImageDraw.ImageDraw, eye: Eye, lines: Lines, colours_of_points: UInt8Array) -> None:
    """All pieces of all lines, the far ones first."""
    begins = np.setdiff1d(np.arange(len(lines.points)), lines.starts[1:] - 1)
    middle = (lines.points[begins] + lines.points[begins + 1]) / 2
    seen = eye.place(lines.points)
    light = eye.light(middle)
    shade = np.rint(colours_of_points[begins + 1] * light[:, None]).astype(int)
    width = np.maximum(THINNEST_PX * FINER, 2 * lines.radius[begins + 1] * eye.scale)
    for i in np.argsort(middle @ eye.towards):
        first, thick, colour = begins[i], float(width[i]), tuple(shade[i].tolist())
        ends = [tuple(seen[first].tolist()), tuple(seen[first + 1].tolist())]
        pen.line(ends, fill=colour, width=round(thick))
        if thick > 2 * FINER:
            for x, y in ends:
                pen.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=colour)
    for x, y, z, radius in lines.somata.tolist():
        (column, row), half = eye.place(np.array([[x, y, z]]))[0].tolist(), max(radius * eye.scale, 2.0 * FINER)
        pen.ellipse((column - half, row - half, column + half, row + half), fill=(255, 246, 224))
