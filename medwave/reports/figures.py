"""The pictures of a registration: numpy and Pillow only, every function returns one picture per plane.

Conventions
    All images lie on the fixed grid of the given :class:`~medwave.reports.sections.Sections`. The displacement is
    in voxels, pull-back: the warped image takes at ``p`` what the moving image has at ``p + u(p)``.
    Pictures are uint8 RGB ``(height, width, 3)`` with direction letters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medwave.reports import colours
from medwave.reports.colours import FloatArray, UInt8Array
from medwave.reports.foreground import otsu_threshold
from medwave.reports.grey_values import finite, sample, smooth
from medwave.reports.sections import Section, Sections, enlarge, enlarge_labels, enlarge_part, letter

Array = npt.NDArray[np.generic]
Window = tuple[float, float]
GRID_PITCHES_MM = (0.5, 1.0, 2.0, 4.0, 5.0, 8.0, 10.0, 20.0, 40.0)


@dataclass(frozen=True)
class Scale:
    """A colour table with the values at its ends: what a colour bar needs."""

    table: UInt8Array
    low: float
    high: float


def grey_window(array: Array) -> Window:
    """Grey window: darkest half per cent to the 99.7th percentile of what lies above Otsu's threshold."""
    values = sample(array)
    bright = values[values > otsu_threshold(values)]
    low = float(np.percentile(values, 0.5))
    high = float(np.percentile(bright if bright.size else values, 99.7))
    return low, max(high, low + 1e-6)


def anatomy(sections: Sections, array: Array, window: Window) -> list[UInt8Array]:
    """The image alone in grey levels; letters grow with the width, since these pictures stand in columns."""
    return [
        letter(colours.grey(sections.picture(array, s), *window), s, size=max(1.0, s.width_px / s.height_px))
        for s in sections.items
    ]


class Matcher:
    """Monotone map of grey levels that gives an aligned image the intensity distribution of the fixed one.

    Both are sampled where both have something; equal quantiles correspond, and the two backgrounds correspond. It
    makes grey levels comparable without being drawn to places that do not match.
    """

    def __init__(self, fixed: Array, aligned: Array, threshold: float) -> None:
        target, source = sample(fixed), sample(aligned)
        bright = source > otsu_threshold(source)
        inside, outside = (target > threshold) & bright, (target <= threshold) & ~bright
        here = [float(np.median(source[outside]))] if outside.any() else []
        there = [float(np.median(target[outside]))] if outside.any() else []
        if inside.any():
            steps = (2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99.5, 100)
            here += np.percentile(source[inside], steps).tolist()
            there += np.percentile(target[inside], steps).tolist()
        self._source = np.maximum.accumulate(here or [0.0])
        self._target = np.maximum.accumulate(there or [0.0])

    def __call__(self, cut: FloatArray) -> FloatArray:
        """The values in grey levels of the fixed image."""
        return np.interp(cut, self._source, self._target).astype(np.float32)


def checkerboard(sections: Sections, fixed: Array, aligned: Array, match: Matcher, window: Window) -> list[UInt8Array]:
    """Fixed and aligned image in turn in squares of a seventh of the height."""
    pictures = []
    for s in sections.items:
        side = s.height_px / 7
        rows, columns = np.arange(s.height_px) // side, np.arange(s.width_px) // side
        odd = (rows[:, None] + columns[None]) % 2 == 1
        mixed = np.where(odd, enlarge(match(finite(sections.cut(aligned, s))), s), sections.picture(fixed, s))
        pictures.append(letter(colours.grey(mixed, *window), s))
    return pictures


def edges(sections: Sections, fixed: Array, image: Array, window: Window) -> list[UInt8Array]:
    """Edges of the fixed image drawn over another image."""
    return [
        letter(
            colours.paint(
                colours.grey(sections.picture(image, s), *window), edge_coverage(sections, fixed, s), colours.ORANGE
            ),
            s,
        )
        for s in sections.items
    ]


def edge_coverage(sections: Sections, fixed: Array, section: Section) -> FloatArray:
    """Thin lines where the image changes fastest: zeros of the Laplacian of Gaussian at steep places.

    Source: D. Marr, E. Hildreth 1980, doi:10.1098/rspb.1980.0020.
    """
    return sections.once(_edge_coverage, fixed, section)


def _edge_coverage(sections: Sections, fixed: Array, section: Section) -> FloatArray:
    cut = finite(sections.cut(fixed, section))
    if min(cut.shape) < 3:
        return np.zeros((section.height_px, section.width_px), dtype=np.float32)
    spacing = (sections.spacing_mm[section.row_axis], sections.spacing_mm[section.column_axis])
    extent_mm = cut.shape[0] * spacing[0]
    soft = smooth(cut, tuple(0.009 * extent_mm / s for s in spacing))
    first = np.gradient(soft, *spacing)
    slope = np.hypot(*first)
    laplacian = np.gradient(first[0], spacing[0], axis=0) + np.gradient(first[1], spacing[1], axis=1)
    steep = float(np.percentile(slope[slope > 0.02 * slope.max()], 60)) if slope.max() > 0 else 1.0
    strength = np.clip((enlarge(slope, section) / steep - 0.55) / 0.5, 0, 1)
    return line_coverage(enlarge(laplacian.astype(np.float32), section), width_px=1.5) * strength


def line_coverage(function: FloatArray, *, width_px: float) -> FloatArray:
    """How much of each pixel the line ``function = 0`` covers: |f| / |grad f| is the distance in pixels."""
    slope = np.hypot(*np.gradient(function))
    distance = np.abs(function) / np.maximum(slope, 1e-12)
    return np.clip(width_px / 2 + 0.5 - distance, 0, 1).astype(np.float32)


def differences(
    sections: Sections, fixed: Array, images: list[Array], match: Matcher, window: Window
) -> tuple[list[list[UInt8Array]], Scale]:
    """Image minus fixed, in per cent of the fixed image's grey window, all on one symmetric scale.

    Args:
        images: on the fixed grid; the first one (the least aligned) sets the scale by its 98th percentile.
    """
    percent = 100 / (window[1] - window[0])
    maps = [
        [
            (enlarge(match(finite(sections.cut(image, s))), s) - sections.picture(fixed, s)) * percent
            for s in sections.items
        ]
        for image in images
    ]
    limit = nice_limit(float(np.percentile(np.abs(np.concatenate([m.ravel() for m in maps[0]])), 98)))
    table = colours.DIVERGING_DARK
    pictures = [
        [letter(colours.colourise(m, table, -limit, limit), s) for m, s in zip(row, sections.items, strict=True)]
        for row in maps
    ]
    return pictures, Scale(table, -limit, limit)


def deformed_grid(
    sections: Sections, displacement: npt.NDArray[np.floating], warped: Array, window: Window
) -> tuple[list[UInt8Array], float]:
    """A square grid drawn on the moving image (after the affine) and carried along by the deformation.

    The line x = c of that grid appears at the points p with p_x + u_x(p) = c. Returns the pictures and the
    distance between lines in mm.
    """
    largest = max((s.rows[1] - s.rows[0]) * sections.spacing_mm[s.row_axis] for s in sections.items)
    pitch = min(GRID_PITCHES_MM, key=lambda p: abs(np.log(largest / 24 / p)))
    pictures = []
    for s in sections.items:
        under = (colours.grey(sections.picture(warped, s), *window) * 0.62).astype(np.uint8)
        lines = grid_coverage(sections, displacement, s, pitch)
        pictures.append(letter(colours.paint(under, 0.85 * lines, colours.CYAN), s))
    return pictures, pitch


def grid_coverage(
    sections: Sections, displacement: npt.NDArray[np.floating], section: Section, pitch_mm: float
) -> FloatArray:
    """How much of each pixel of one plane the lines of the deformed grid cover."""
    field = sections.displacement(displacement, section)
    coverage = np.zeros((section.height_px, section.width_px), dtype=np.float32)
    for axis, span, pixels, down in (
        (section.column_axis, section.columns, section.width_px, False),
        (section.row_axis, section.rows, section.height_px, True),
    ):
        place = (np.arange(pixels) + 0.5) * (span[1] - span[0]) / pixels - 0.5
        place = span[1] - 1 - place[:, None] if down else span[0] + place[None]
        phi = (place + enlarge(field[axis], section)) * (sections.spacing_mm[axis] / pitch_mm)
        slope = np.hypot(*np.gradient(phi))
        distance = np.abs(phi - np.rint(phi)) / np.maximum(slope, 1e-6)
        coverage = np.maximum(coverage, np.clip(1.1 - distance, 0, 1))
    return coverage


def overlay(
    sections: Sections, fixed: Array, maps: list[FloatArray], scale: Scale, line: tuple[int, int, int]
) -> list[UInt8Array]:
    """Enlarged maps in colour inside the body, black outside, with the fixed edges in a thin line."""
    pictures = []
    for s, values in zip(sections.items, maps, strict=True):
        rgb = colours.colourise(values, scale.table, scale.low, scale.high)
        rgb = colours.paint(rgb, 0.45 * edge_coverage(sections, fixed, s), line)
        pictures.append(np.where(sections.body(s)[..., None], rgb, np.uint8(0)))
    return pictures


def jacobian(
    sections: Sections, fixed: Array, determinant: npt.NDArray[np.floating]
) -> tuple[list[UInt8Array], Scale, int]:
    """log2 of the Jacobian determinant, white where volume is kept; folds (determinant <= 0) in magenta.

    Returns the pictures, the scale in log2 units and the number of folded voxels in the whole volume.
    """
    cuts = [np.nan_to_num(sections.cut(determinant, s), nan=1.0).astype(np.float32) for s in sections.items]
    maps = [enlarge(np.log2(np.clip(cut, 1 / 16, 16)), s) for cut, s in zip(cuts, sections.items, strict=True)]
    unfolded = [
        np.where(np.logical_and(enlarge_labels(c > 0, s), sections.body(s)), np.abs(m), 0)
        for c, m, s in zip(cuts, maps, sections.items, strict=True)
    ]
    high = max(float(np.percentile(u, 98)) for u in unfolded)
    limit = next((x for x in (0.5, 1.0, 2.0, 3.0) if x >= 0.98 * high), 4.0)
    scale = Scale(colours.DIVERGING_LIGHT, -limit, limit)
    pictures = []
    for s, cut, rgb in zip(sections.items, cuts, overlay(sections, fixed, maps, scale, (40, 40, 40)), strict=True):
        folded = enlarge_labels(cut <= 0, s)
        pictures.append(letter(np.where(folded[..., None], np.array(colours.FOLD, dtype=np.uint8), rgb), s))
    return pictures, scale, int(np.count_nonzero(determinant <= 0))


def magnitude(
    sections: Sections, fixed: Array, displacement: npt.NDArray[np.floating]
) -> tuple[list[UInt8Array], Scale, Window]:
    """Length of the displacement in mm. Returns pictures, scale, and (median, 95th percentile) in the body."""
    matrix = np.asarray(sections.grid.affine[:3, :3], dtype=np.float32)
    thin = np.stack([sample(component) for component in displacement])
    lengths = np.linalg.norm(np.tensordot(matrix, thin, axes=1), axis=0)
    inside = sample(fixed) > sections.subject.threshold
    lengths = lengths[inside] if inside.any() else lengths.ravel()
    median, high = np.percentile(lengths, (50, 95))
    maps = []
    for s in sections.items:
        field = np.stack([finite(sections.cut(component, s)) for component in displacement])
        maps.append(enlarge(np.linalg.norm(np.tensordot(matrix, field, axes=1), axis=0), s))
    scale = Scale(colours.SEQUENTIAL, 0.0, nice_limit(float(np.percentile(lengths, 99))))
    pictures = overlay(sections, fixed, maps, scale, (0, 0, 0))
    return [letter(p, s) for p, s in zip(pictures, sections.items, strict=True)], scale, (float(median), float(high))


def error_map(sections: Sections, fixed: Array, error_mm: npt.NDArray[np.floating]) -> tuple[list[UInt8Array], Scale]:
    """Distance to the known true position in mm."""
    maps = [sections.picture(error_mm, s) for s in sections.items]
    inside = sample(fixed) > sections.subject.threshold
    values = sample(error_mm)
    high = float(np.percentile(values[inside] if inside.any() else values, 98))
    scale = Scale(colours.WARM, 0.0, nice_limit(high))
    pictures = overlay(sections, fixed, maps, scale, (0, 0, 0))
    return [letter(p, s) for p, s in zip(pictures, sections.items, strict=True)], scale


def label_contours(
    sections: Sections, fixed: Array, fixed_labels: Array, labels: Array, window: Window, *, at_most: int = 16
) -> list[UInt8Array]:
    """Borders of the fixed labels in blue and of the warped labels in orange over the fixed image.

    Args:
        at_most: number of structures per slice, the most compact ones: thin ribbons would hide the picture.
    """
    pictures = []
    for s in sections.items:
        rgb = (colours.grey(sections.picture(fixed, s), *window) * 0.8).astype(np.uint8)
        chosen = compact_labels(sections.cut(fixed_labels, s), at_most)
        for array, colour in ((fixed_labels, colours.BLUE), (labels, colours.ORANGE)):
            cut = sections.cut(array, s)
            coverage = np.zeros((s.height_px, s.width_px), dtype=np.float32)
            for label in chosen:
                _draw_outline(coverage, cut == label, s)
            rgb = colours.paint(rgb, 0.95 * coverage, colour)
        pictures.append(letter(rgb, s))
    return pictures


def compact_labels(cut: Array, at_most: int) -> list[int]:
    """Labels of a cut (0 is background) with at least 16 voxels, by the share of voxels that touch no other label."""
    inner = np.zeros(cut.shape, dtype=bool)
    middle = cut[1:-1, 1:-1]
    inner[1:-1, 1:-1] = (
        (middle == cut[:-2, 1:-1]) & (middle == cut[2:, 1:-1]) & (middle == cut[1:-1, :-2]) & (middle == cut[1:-1, 2:])
    )
    labels, place = np.unique(cut, return_inverse=True)
    total = np.bincount(place.ravel(), minlength=len(labels))
    share = np.bincount(place.ravel(), weights=inner.ravel(), minlength=len(labels)) / total
    ranked = sorted(zip(share.tolist(), labels.tolist(), total.tolist(), strict=True), reverse=True)
    return [label for part, label, count in ranked if label != 0 and count >= 16 and part >= 0.6][:at_most]


def _draw_outline(coverage: FloatArray, mask: npt.NDArray[np.bool_], section: Section) -> None:
    """Add the smooth outline of a mask (a cut) to a picture-sized coverage, working in the mask's box only."""
    if not mask.any():
        return
    spans = []
    for axis, scale, pixels in zip((0, 1), section.px_per_voxel, coverage.shape, strict=True):
        hit = np.flatnonzero(mask.any(axis=1 - axis))
        spans.append((max(0, int((hit[0] - 2) * scale)), min(pixels, int((hit[-1] + 3) * scale))))
    soft = enlarge_part(mask.astype(np.float32), section, *spans)
    part = coverage[slice(*spans[0]), slice(*spans[1])]
    near = (soft > 0.02) & (soft < 0.98)  # flat places have no slope to measure a distance by
    np.maximum(part, np.where(near, line_coverage(soft - 0.5, width_px=1.3), 0), out=part)


def nice_limit(value: float) -> float:
    """The next round number: 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten."""
    if not np.isfinite(value) or value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(n for n in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if n * power >= value * 0.999) * power)
