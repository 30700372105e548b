"""The box in which a neuron is shown: lengths for people, and pictures of the volume at one scale.

Conventions
    Lengths are in micrometres where the voxel size is known, else in voxels. Places are x y z from the outer corner
    of the first voxel, so a picture of the volume covers exactly 0 to ``size``. Rows of pictures run along y (or z in
    ``xz``) downwards, as in the file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from medwave.core.tree import Float64Array, Tree
from medwave.reports.colours import FloatArray, UInt8Array
from medwave.reports.figures import nice_limit
from medwave.reports.projections import Projections

LONGEST_PX = 860
LARGEST_ENLARGEMENT = 4
GAMMA = 0.6
PLANES = ("xy", "xz", "zy")
AXES = {"xy": (0, 1), "xz": (0, 2), "zy": (2, 1)}
"""Axis (x y z) of the columns and of the rows of each projection."""


@dataclass(frozen=True)
class Frame:
    """The box of a volume.

    Attributes:
        size: its extent along x, y, z.
        step: voxel size along x, y, z.
        unit: "µm" or "voxels".
        px_per_unit: scale of all pictures.
        origin: voxel x y z of the volume at which the box begins.
    """

    size: tuple[float, float, float]
    step: tuple[float, float, float]
    unit: str
    px_per_unit: float
    origin: tuple[int, int, int] = (0, 0, 0)

    @classmethod
    def of(
        cls,
        projections: Projections,
        spacing_um: tuple[float, float, float] | None,
        origin_zyx: tuple[int, int, int] = (0, 0, 0),
    ) -> Frame:
        """The frame of what was projected, with voxels of ``spacing_um`` (z, y, x), or cubes of unknown size."""
        step = (1.0, 1.0, 1.0) if spacing_um is None else tuple(float(s) for s in spacing_um[::-1])
        pixels = projections.xy.shape[1], projections.xy.shape[0], projections.xz.shape[0]
        size = tuple(n * b * s for n, b, s in zip(pixels, projections.bins[::-1], step, strict=True))
        scale = min(LONGEST_PX / max(size), LARGEST_ENLARGEMENT / min(step))
        unit = "voxels" if spacing_um is None else "µm"
        return cls(size, step, unit, scale, origin_zyx[::-1])  # type: ignore[arg-type]

    def placed(self, tree: Tree) -> Tree:
        """A tree in voxels, with positions and radii in the units of the frame; radii follow x."""
        places = (tree.positions - np.array(self.origin) + 0.5) * np.array(self.step)
        return Tree(places, tree.radius * self.step[0], tree.parent, tree.kind)

    def voxels(self, places: Float64Array) -> Float64Array:
        """Places x y z in the box as voxels of the volume."""
        return places / np.array(self.step) - 0.5 + np.array(self.origin)

    def pixels(self, plane: str) -> tuple[int, int]:
        """Width and height of the picture of a plane."""
        column, row = AXES[plane]
        return (
            max(2, round(self.size[column] * self.px_per_unit)),
            max(2, round(self.size[row] * self.px_per_unit)),
        )

    def on_picture(self, points: Float64Array, plane: str) -> tuple[Float64Array, Float64Array]:
        """Columns and rows of points ``(M, 3)``, in pixels from the outer edges."""
        (column, row), (width, height) = AXES[plane], self.pixels(plane)
        return points[:, column] * (width / self.size[column]), points[:, row] * (height / self.size[row])

    @property
    def scale_bar(self) -> tuple[float, str]:
        """A round length of about a sixth of the width: its share of the width, and its text."""
        length = nice_limit(self.size[0] / 8)
        return length / self.size[0], f"{length:g} {self.unit}"


def image_levels(projections: Projections) -> dict[str, UInt8Array]:
    """Grey levels ``(rows, columns)`` of an image per plane: dim fibres are lifted, one window for all planes."""
    values = projections.xy[np.isfinite(projections.xy)]
    low, high = np.percentile(values, (20, 99.8))
    high = high if high > low else float(values.max())
    return _levels(projections, float(low), float(high), GAMMA)


def share_levels(projections: Projections) -> dict[str, UInt8Array]:
    """Grey levels of a probability (0 to 1, or 0 to 255 as bytes) or a mask (0, and one other value)."""
    largest = float(projections.xy.max())
    return _levels(projections, 0.0, 1.0 if largest <= 1 else 255.0 if largest > 2 else largest, 1.0)


def _levels(projections: Projections, low: float, high: float, gamma: float) -> dict[str, UInt8Array]:
    span = max(high - low, 1e-12)
    return {
        plane: np.rint(255 * np.clip((getattr(projections, plane) - low) / span, 0, 1) ** gamma).astype(np.uint8)
        for plane in PLANES
    }


def to_size(levels: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Grey levels at a width and height, as RGB."""
    smooth = Image.fromarray(levels).resize(size, Image.Resampling.LANCZOS)
    return np.repeat(np.asarray(smooth)[..., None], 3, axis=2)


def as_float(levels: UInt8Array) -> FloatArray:
    """Grey levels as numbers from 0 to 1."""
    return levels.astype(np.float32) / 255
