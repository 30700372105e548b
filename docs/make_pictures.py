"""Make the pictures of the documentation: register the demo pair, and show it in one dark strip.

    python docs/make_pictures.py                 # writes docs/images/registration.jpg, a minute of CPU time

The moving image is shown on its own grid, near its own middle; all panels have one scale in pixels per mm. The
template is the one that nilearn carries (see :mod:`medwave.workflows.demo_brains`); nothing is downloaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

import medwave
from medwave.core.geometry import Volume
from medwave.reports import colours, figures
from medwave.reports.colours import UInt8Array
from medwave.reports.sections import Section, Sections
from medwave.workflows.demo_brains import make_brain_sample, true_error_mm

WIDTH_PX = 1600
GAP_PX = 10
CAPTION_PX = 74
PX_PER_MM = 2.04
GRID_PITCH_MM = 8.0
LONGEST_MM = 8.0
LENGTHS = colours.SEQUENTIAL[np.linspace(48, 255, 256).astype(int)]
CAPTION_COLOUR = (226, 230, 234)
REMARK_COLOUR = (150, 157, 165)
JPEG_QUALITY = 90
PLANES = ("axial", "sagittal")


def main() -> None:
    """Register the demo pair and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "images")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        sample = make_brain_sample(scratch)
        result = medwave.register(sample.fixed_path, sample.moving_path)
    before = true_error_mm(sample).mean_mm
    after = true_error_mm(sample, result.transform.apply_points_mm).mean_mm
    captions = (
        ("Fixed image", "MNI152 template"),
        ("Moving image", "another pose, shape and contrast"),
        ("Registered", f"mean true error {after:.1f} mm, {before:.1f} mm before"),
        ("Deformation after the affine", f"{LONGEST_MM:g} mm"),
    )
    panels = panel_rows(result.fixed, result.moving, np.asarray(result.warped.data), result.displacement_voxels)
    picture = composed(panels, captions)
    path = folder / "registration.jpg"
    picture.save(path, quality=JPEG_QUALITY, subsampling=0, optimize=True)
    print(f"{path}: {picture.width} x {picture.height} pixels, {path.stat().st_size // 1000} kB")


def panel_rows(
    fixed: Volume, moving: Volume, warped: npt.NDArray[np.generic], displacement: npt.NDArray[np.floating]
) -> list[list[UInt8Array]]:
    """Panels, columns: fixed, moving, warped, deformation. Rows: :data:`PLANES`.

    Args:
        fixed, moving: the two images, each on its own grid.
        warped: moving image on the fixed grid ``(D, H, W)``.
        displacement: ``(3, D, H, W)``, voxels of the fixed grid, pull-back.
    """
    here, there = Sections(fixed, margin=0.06), Sections(moving, margin=0.06)
    window, other_window = figures.grey_window(fixed.data), figures.grey_window(warped)
    rows = []
    for plane in PLANES:
        ours, theirs = to_scale(here, plane), to_scale(there, plane)
        rows.append(
            [
                colours.grey(here.picture(fixed.data, ours), *window),
                colours.grey(there.picture(moving.data, theirs), *other_window),
                colours.grey(here.picture(warped, ours), *other_window),
                deformation(here, ours, warped, other_window, displacement),
            ]
        )
    return rows


def to_scale(sections: Sections, plane: str) -> Section:
    """The section of a plane with :data:`PX_PER_MM` pixels per mm."""
    section = next(s for s in sections.items if s.plane == plane)
    height_mm = (section.rows[1] - section.rows[0]) * sections.spacing_mm[section.row_axis]
    width_mm = (section.columns[1] - section.columns[0]) * sections.spacing_mm[section.column_axis]
    return dataclasses.replace(section, height_px=round(height_mm * PX_PER_MM), width_px=round(width_mm * PX_PER_MM))


def deformation(
    sections: Sections,
    section: Section,
    warped: npt.NDArray[np.generic],
    window: figures.Window,
    displacement: npt.NDArray[np.floating],
) -> UInt8Array:
    """The deformed grid over the warped image, which is tinted by the length of the displacement."""
    matrix = np.asarray(sections.grid.affine[:3, :3], dtype=np.float32)
    steps = np.stack([sections.picture(component, section) for component in displacement])
    length_mm = np.linalg.norm(np.tensordot(matrix, steps, axes=1), axis=0)
    light = 0.35 + 0.65 * colours.grey(sections.picture(warped, section), *window) / 255
    shaded = (colours.colourise(length_mm, LENGTHS, 0.0, LONGEST_MM) * light).astype(np.uint8)
    lines = figures.grid_coverage(sections, displacement, section, GRID_PITCH_MM)
    drawn = colours.paint(shaded, 0.75 * lines, (255, 255, 255))
    return np.where(sections.body(section)[..., None], drawn, np.uint8(0))


def composed(rows: list[list[UInt8Array]], captions: Sequence[tuple[str, str]]) -> Image.Image:
    """Panels centred in columns of equal width under caption and remark, on black.

    The last remark is the end of the colour bar of :data:`LENGTHS`, which stands in its place.
    """
    pitch = WIDTH_PX / len(captions)
    heights = [max(panel.shape[0] for panel in row) for row in rows]
    strip = Image.new("RGB", (WIDTH_PX, CAPTION_PX + sum(heights) + GAP_PX * len(rows)))
    pen = ImageDraw.Draw(strip)
    large, small = ImageFont.load_default(size=21), ImageFont.load_default(size=16)
    for place, (caption, remark) in enumerate(captions):
        middle = (place + 0.5) * pitch
        pen.text((middle, 32), caption, font=large, fill=CAPTION_COLOUR, anchor="mm")
        if place < len(captions) - 1:
            pen.text((middle, 60), remark, font=small, fill=REMARK_COLOUR, anchor="mm")
        else:
            bar = Image.fromarray(LENGTHS[None]).resize((110, 8))
            strip.paste(bar, (round(middle) - 55, 56))
            pen.text((middle - 63, 60), "0", font=small, fill=REMARK_COLOUR, anchor="rm")
            pen.text((middle + 63, 60), remark, font=small, fill=REMARK_COLOUR, anchor="lm")
        top = CAPTION_PX
        for row, height in zip(rows, heights, strict=True):
            panel = Image.fromarray(row[place])
            strip.paste(panel, (round(middle - panel.width / 2), top + (height - panel.height) // 2))
            top += height + GAP_PX
    return strip


if __name__ == "__main__":
    main()
