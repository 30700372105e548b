"""Make the pictures of the documentation, dark strips of panels under captions.

    python docs/make_pictures.py                 # writes all of docs/images, two minutes of CPU time
    python docs/make_pictures.py --only bands    # one of them

``registration``: the demo pair registered. The moving image is shown on its own grid, near its own middle; all panels
have one scale in pixels per mm. ``bands``: an axial section under the wavelet transforms, samples as squares; low
bands in grey, details blue where negative and orange where positive, each level with a range of its own.
``reconstruction``: the demo neuron (synthetic, :mod:`medwave.workflows.demo_neurons`) segmented, traced and compared
with its true tree. ``pooling``, ``fields`` and ``cubes``: see :mod:`concept_pictures`.
The template is the one that nilearn carries (see :mod:`medwave.workflows.demo_brains`); nothing is downloaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from concept_pictures import SIDE_PX, cube_panels, field_panels, pooling_panels
from PIL import Image, ImageDraw, ImageFont

import medwave
from medwave.core.geometry import Volume
from medwave.core.tree import Tree
from medwave.reports import colours, figures, neuron_plates, project
from medwave.reports.colours import UInt8Array
from medwave.reports.neuron_frame import Frame, image_levels, share_levels, to_size
from medwave.reports.oblique import oblique_view
from medwave.reports.sections import Section, Sections
from medwave.reports.tree_lines import Lines, part_of
from medwave.tracing import branch_table
from medwave.volumes import LazyVolume, open_stack
from medwave.wavelets import Pyramid, dwt, named_bands, swt, wavedec, wpdec
from medwave.workflows.demo_brains import make_brain_sample, true_error_mm
from medwave.workflows.demo_neurons import make_neuron_sample

WIDTH_PX = 1600
GAP_PX = 10
CAPTION_PX = 74
PX_PER_MM = 2.04
NEURON_PX = 384
TOLERANCE_VOXELS = 2.0
GRID_PITCH_MM = 8.0
LONGEST_MM = 8.0
LENGTHS = colours.SEQUENTIAL[np.linspace(48, 255, 256).astype(int)]
CAPTION_COLOUR = (226, 230, 234)
REMARK_COLOUR = (150, 157, 165)
JPEG_QUALITY = {
    "registration": 90,
    "bands": 78,
    "pooling": 82,
    "reconstruction": 86,
    "fields": 84,
    "cubes": 84,
}  # squares of samples compress badly and forgive much
PLANES = ("axial", "sagittal")
WAVELET = "bior4.4"
WORDS = {"L": "low", "H": "high"}


class Panel(NamedTuple):
    """A picture ``(h, w, 3)`` and the two lines above it."""

    caption: str
    remark: str
    picture: UInt8Array


def main() -> None:
    """Write the pictures that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "images")
    parser.add_argument("--only", choices=sorted(PICTURES), action="append", help="by default all")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.only or PICTURES:
        picture = PICTURES[name]()
        path = options.folder / f"{name}.jpg"
        picture.save(path, quality=JPEG_QUALITY[name], subsampling=0, optimize=True)
        print(f"{path}: {picture.width} x {picture.height} pixels, {path.stat().st_size // 1000} kB")


def registration() -> Image.Image:
    """Register the demo pair and show it."""
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
    return composed(panels, captions)


def reconstruction() -> Image.Image:
    """Reconstruct the demo neuron and show it."""
    with tempfile.TemporaryDirectory() as scratch:
        sample = make_neuron_sample(Path(scratch) / "sample")
        made = medwave.reconstruct(sample.image_path, Path(scratch) / "made", gold=sample.tree_path)
        with open_stack(made.segmentation.probability) as probability:
            panels = neuron_panels(sample.neuron.image, probability, made.tree, sample.neuron.tree)
    found = made.scores.scores.at_tolerance.by_samples
    captions = (
        ("Volume", "synthetic neuron, dim stretches, gaps"),
        ("Probability of fibre", "by the 3-D wavelet network"),
        ("Tree; blue: missed, pink: extra", f"F1 {found.f1:.2f} within {TOLERANCE_VOXELS:g} voxels of the true tree"),
        ("In space, by branch order", str(int(branch_table(made.tree).order.max()))),
    )
    return composed([panels], captions, bar=(neuron_plates.ORDERS, "1"))


def neuron_panels(
    image: npt.NDArray[np.generic], probability: LazyVolume | npt.NDArray[np.generic], tree: Tree, truth: Tree
) -> list[UInt8Array]:
    """Panels: volume, probability, tree over truth (each from the top and from the front), tree in space.

    Args:
        image, probability: ``(z, y, x)``.
        tree, truth: in voxels of the image.
    """
    seen = project(image)
    frame = Frame.of(seen, None)
    frame = dataclasses.replace(frame, px_per_unit=NEURON_PX / max(frame.size[:2]))
    levels = image_levels(seen)
    made, true = frame.placed(tree), frame.placed(truth)
    found, gold = neuron_plates.lines_of(made, frame, true), neuron_plates.lines_of(true, frame, made)
    over = [
        (part_of(gold, gold.value > TOLERANCE_VOXELS), colours.BLUE, 1.7),
        (part_of(found, found.value <= TOLERANCE_VOXELS), colours.ORANGE, 1.5),
        (part_of(found, found.value > TOLERANCE_VOXELS), neuron_plates.EXTRA, 1.7),
    ]
    dimmed = {plane: (grey * 0.6).astype(np.uint8) for plane, grey in levels.items()}
    columns = [
        stacked([with_lines(frame, pictures, plane, lines) for plane in ("xy", "xz")])
        for pictures, lines in ((levels, []), (share_levels(project(probability)), []), (dimmed, over))
    ]
    orders = np.repeat(found.order, np.diff(found.starts)) - 1
    shades = neuron_plates.ORDERS[np.rint(255 * orders / max(orders.max(initial=1), 1)).astype(int)]
    height, width = columns[0].shape[:2]
    view = {"azimuth": 24.0, "elevation": 24.0, "size_px": (width, height)}
    return [*columns, oblique_view(frame, levels, found, shades, **view)]


def with_lines(
    frame: Frame, levels: dict[str, UInt8Array], plane: str, lines: Sequence[tuple[Lines, tuple[int, int, int], float]]
) -> UInt8Array:
    """A projection with lines of a colour and a width in pixels over it."""
    finer = 3
    width, height = frame.pixels(plane)
    picture = Image.fromarray(to_size(levels[plane], (width * finer, height * finer)))
    pen = ImageDraw.Draw(picture)
    for drawn, colour, thick in lines:
        places = np.column_stack(frame.on_picture(drawn.points, plane)) * finer
        for start, stop in pairwise(drawn.starts.tolist()):
            corners = [(x, y) for x, y in places[start:stop].tolist()]
            pen.line(corners, fill=colour, width=round(thick * finer), joint="curve")
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))


def stacked(pictures: Sequence[UInt8Array]) -> UInt8Array:
    """Pictures of one width below each other."""
    gap = np.zeros((GAP_PX, pictures[0].shape[1], 3), np.uint8)
    return np.concatenate([part for picture in pictures for part in (picture, gap)][:-1])


def bands() -> Image.Image:
    """An axial section of the template under the wavelet transforms."""
    return gallery(band_panels(template_section()))


def pooling_picture() -> Image.Image:
    """What three ways to halve keep of a feature map of an axial section, without noise and with it."""
    section = template_section()
    return gallery([[Panel(*panel) for panel in row] for row in pooling_panels(np.clip(section / section.max(), 0, 1))])


def field_picture() -> Image.Image:
    """A displacement, its grid and its volume change, over an axial section."""
    section = template_section()
    middle = [n // 2 for n in section.shape]
    square = np.zeros((SIDE_PX, SIDE_PX), np.float32)
    top, left = ((SIDE_PX - n) // 2 for n in section.shape)
    square[top : top + section.shape[0], left : left + section.shape[1]] = section / section[middle[0]].max()
    return gallery([[Panel(*panel) for panel in field_panels(np.clip(square, 0, 1))]])


def cube_picture() -> Image.Image:
    """Overlapping cubes over the demo neuron, and their weights."""
    with tempfile.TemporaryDirectory() as scratch:
        image = make_neuron_sample(Path(scratch) / "sample").neuron.image
    return gallery([[Panel(*panel) for panel in cube_panels(image_levels(project(image))["xy"])]])


def template_section() -> npt.NDArray[np.float32]:
    """An axial section of the template, ``(152, 184)``, the nose at the right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nilearn announces removals in its own dependencies at import
        from nilearn import datasets

        volume = datasets.load_mni152_template(resolution=1).get_fdata(dtype=np.float32)
    return np.flipud(volume[22:174, 28:212, 92].T)


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


def composed(
    rows: list[list[UInt8Array]], captions: Sequence[tuple[str, str]], bar: tuple[UInt8Array, str] = (LENGTHS, "0")
) -> Image.Image:
    """Panels centred in columns of equal width under caption and remark, on black.

    The last remark is the end of a colour bar, which stands in its place: ``bar`` is its colours and its beginning.
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
            strip.paste(Image.fromarray(bar[0][None]).resize((110, 8)), (round(middle) - 55, 56))
            pen.text((middle - 63, 60), bar[1], font=small, fill=REMARK_COLOUR, anchor="rm")
            pen.text((middle + 63, 60), remark, font=small, fill=REMARK_COLOUR, anchor="lm")
        top = CAPTION_PX
        for row, height in zip(rows, heights, strict=True):
            panel = Image.fromarray(row[place])
            strip.paste(panel, (round(middle - panel.width / 2), top + (height - panel.height) // 2))
            top += height + GAP_PX
    return strip


def band_panels(image: npt.NDArray[np.float32]) -> list[list[Panel]]:
    """Rows of panels: one level of the transform; then levels, packets, and the undecimated transform.

    Args:
        image: ``(H, W)``, both multiples of 8.
    """
    x = torch.from_numpy(np.ascontiguousarray(image))[None, None]
    one = {name: band[0, 0].numpy() for name, band in named_bands(dwt(x, WAVELET, ndim=2), 2).items()}
    reach = extent(np.stack(list(one.values())[1:]))
    first = [Panel("Image", "H downwards, W to the right", low_picture(image))]
    for name, band in one.items():
        words = " and ".join(f"{WORDS[c]} along {axis}" for c, axis in zip(name, "HW", strict=True))
        first.append(Panel(name, words, low_picture(band) if name == "LL" else detail_picture(band, reach)))
    still = swt(x, WAVELET, ndim=2, levels=3)
    second = [
        Panel("wavedec", "three levels, the low band top left", pyramid_mosaic(wavedec(x, WAVELET, ndim=2, levels=3))),
        Panel("wpdec", "every band split again", packet_mosaic(wpdec(x, WAVELET, ndim=2, levels=2)[0, 0].numpy())),
    ]
    for level in (1, 2, 3):
        band = still.band("HL", level)[0, 0].numpy()
        second.append(Panel(f"swt, HL at level {level}", "a value at every sample", detail_picture(band, extent(band))))
    return [first, second]


def low_picture(band: npt.NDArray[np.float32]) -> UInt8Array:
    """A low band in grey."""
    return colours.grey(band, 0.0, float(np.percentile(band, 99.8)))


def detail_picture(band: npt.NDArray[np.float32], reach: float) -> UInt8Array:
    """Details in two colours, black at zero and full at ``reach``."""
    return colours.colourise(band, colours.DIVERGING_DARK, -reach, reach)


def extent(details: npt.NDArray[np.float32]) -> float:
    """The absolute value that details rarely exceed."""
    return float(np.percentile(np.abs(details), 98.5))


def pyramid_mosaic(pyramid: Pyramid) -> UInt8Array:
    """Bands in the places of their letters: first letter downwards, second to the right, the low band split again."""
    picture = low_picture(pyramid.low[0, 0].numpy())
    for level in range(pyramid.levels, 0, -1):
        details = pyramid.details[level - 1][0, 0].numpy()
        lh, hl, hh = (detail_picture(band, extent(details)) for band in details)
        picture = np.concatenate([np.concatenate([picture, lh], axis=1), np.concatenate([hl, hh], axis=1)])
    return picture


def packet_mosaic(leaves: npt.NDArray[np.float32]) -> UInt8Array:
    """Leaves of two levels in the places of their letters."""
    tiles = [low_picture(leaves[0]), *(detail_picture(leaf, extent(leaf)) for leaf in leaves[1:])]

    def square(four: Sequence[UInt8Array]) -> UInt8Array:
        return np.concatenate([np.concatenate(four[:2], axis=1), np.concatenate(four[2:], axis=1)])

    return square([square(tiles[i : i + 4]) for i in range(0, 16, 4)])


def gallery(rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """Panels of one size under their captions, samples enlarged to squares, on black."""
    pitch = WIDTH_PX // len(rows[0])
    height, width = rows[0][0].picture.shape[:2]
    across = width * max(1, (pitch - GAP_PX) // width)
    size = (across, across * height // width)
    sheet = Image.new("RGB", (WIDTH_PX, len(rows) * (CAPTION_PX + size[1] + GAP_PX)))
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(size=21), ImageFont.load_default(size=16)
    for row, panels in enumerate(rows):
        top = row * (CAPTION_PX + size[1] + GAP_PX)
        for place, panel in enumerate(panels):
            middle = (place + 0.5) * pitch
            pen.text((middle, top + 28), panel.caption, font=large, fill=CAPTION_COLOUR, anchor="mm")
            pen.text((middle, top + 54), panel.remark, font=small, fill=REMARK_COLOUR, anchor="mm")
            enlarged = Image.fromarray(panel.picture).resize(size, Image.Resampling.NEAREST)
            sheet.paste(enlarged, (round(middle - size[0] / 2), top + CAPTION_PX))
    return sheet


PICTURES: dict[str, Callable[[], Image.Image]] = {
    "registration": registration,
    "bands": bands,
    "pooling": pooling_picture,
    "reconstruction": reconstruction,
    "fields": field_picture,
    "cubes": cube_picture,
}
"""Name of a picture -> what makes it."""


if __name__ == "__main__":
    main()
