"""The program that makes the pictures of the documentation, on small volumes, and the picture it made."""

import importlib.util
import sys
from pathlib import Path

import neuron_cases
import numpy as np
import pytest
from PIL import Image
from report_cases import ball, volume

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("make_pictures", DOCS / "make_pictures.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(DOCS))  # as when it is run: it finds the other programs beside it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(DOCS))
    return module


@pytest.fixture(scope="module")
def panels(program):
    """A ball of 60 mm registered to one of 40 mm; the field is 3 mm to the right in the right half."""
    affine = np.diag([2.0, 2.5, 2.0, 1.0])
    fixed = volume(ball((66, 60, 70), (2, 2.5, 2), radius_mm=40), affine)
    moving = volume(ball((140, 130, 150), radius_mm=60))
    displacement = np.zeros((3, *fixed.grid.shape), np.float32)
    displacement[0, 33:] = 1.5
    return program.panel_rows(fixed, moving, fixed.data, displacement)


def test_panels_have_one_scale(program, panels):
    for row in panels:
        assert len(row) == 4
        widths_mm = [np.ptp(np.nonzero(panel.max(axis=(0, 2)) > 128)[0]) / program.PX_PER_MM for panel in row]
        assert widths_mm == [pytest.approx(wanted, abs=5) for wanted in (80, 120, 80, 80)]


def test_the_deformation_is_tinted_by_its_length_inside_the_body_only(panels):
    axial = panels[0][3].astype(int)
    height, width = axial.shape[:2]
    assert axial[0].max() == axial[:, 0].max() == 0
    left, right = (
        axial[height // 3 : 2 * height // 3, part] for part in (slice(60, 80), slice(width - 80, width - 60))
    )
    assert right[..., 1].mean() > 1.3 * left[..., 1].mean()


def test_the_strip_has_its_width_and_every_caption(program, panels):
    captions = [("Fixed", "a"), ("Moving", "b"), ("Registered", "c"), ("Deformation", "8 mm")]
    strip = np.asarray(program.composed(panels, captions))
    assert strip.shape[1] == program.WIDTH_PX
    for part in np.array_split(strip, 4, axis=1):
        assert (part[20:44] > 180).any()
        assert (part[50:70] > 120).any()
        assert (part[program.CAPTION_PX :] > 128).mean() > 0.05


def test_bands_stand_in_the_places_of_their_letters(program):
    """Stripes that vary along W alone have details in LH alone: the top right of a mosaic, and no other."""
    stripes = np.tile(np.float32([0, 0, 1, 1, 1, 0, 0, 1]), (64, 8))
    first, second = program.band_panels(stripes)
    assert [panel.caption for panel in first] == ["Image", "LL", "LH", "HL", "HH"]
    bright = {panel.caption: panel.picture.max() for panel in first}
    assert bright["LH"] > 150
    assert max(bright["HL"], bright["HH"]) < 60
    mosaic = second[0].picture.astype(int)
    assert mosaic.shape == (64, 64, 3)
    assert mosaic[:32, 32:].max() > 150
    packets = second[1].picture
    assert packets.shape == (64, 64, 3)
    sheet = np.asarray(program.gallery([first, second]))
    assert sheet.shape[1] == program.WIDTH_PX
    for part in np.array_split(sheet, 5, axis=1):
        assert (part[16:42] > 180).any()


def test_the_panels_of_a_neuron_have_one_size_and_show_what_is_missed(program):
    neuron, tree = neuron_cases.neuron(), neuron_cases.neuron().tree
    part = tree.select(np.arange(len(tree)) < 2 * len(tree) // 3)
    whole, less = (program.neuron_panels(neuron.image, neuron.mask * 1.0, t, tree) for t in (tree, part))
    assert len({panel.shape for panel in (*whole, *less)}) == 1
    assert whole[0].shape[1] == program.NEURON_PX
    blue = [np.count_nonzero((p[..., 2] > 180) & (p[..., 0] < 140)) for p in (whole[2], less[2])]
    orange = [np.count_nonzero((p[..., 0] > 180) & (p[..., 2] < 120)) for p in (whole[2], less[2])]
    assert blue[0] == 0 < blue[1]
    assert orange[0] > orange[1] > 100
    assert np.ptp(whole[3], axis=2).max() > 60
    strip = np.asarray(program.composed([whole], [("a", "b")] * 4, bar=(whole[3][0], "1")))
    assert strip.shape[1] == program.WIDTH_PX


@pytest.mark.parametrize(
    ("name", "most"), [("registration", 350_000), ("bands", 400_000), ("pooling", 200_000), ("reconstruction", 350_000)]
)
def test_the_pictures_are_there_and_small(name, most):
    path = DOCS / f"images/{name}.jpg"
    assert path.stat().st_size < most
    with Image.open(path) as picture:
        assert picture.width == 1600
        assert np.asarray(picture).std() > 30


def test_a_displacement_three_times_as_strong_folds_and_its_folds_are_marked(program):
    section = np.full((program.SIDE_PX, program.SIDE_PX), 0.5, np.float32)
    panels = program.field_panels(section)
    pink = [np.all(picture == (255, 90, 160), axis=-1).sum() for _, _, picture in panels]
    assert pink[:3] == [0, 0, 0]
    assert panels[3][1] == f"pink: {pink[3]} voxels fold"
    assert pink[3] > 100


def test_noise_moves_the_low_band_less_than_what_is_dropped_and_than_other_ways_to_halve(program):
    y, x = np.mgrid[-1:1:64j, -1:1:48j]
    panels = program.pooling_panels(np.exp(-4 * (x**2 + y**2)).astype(np.float32))
    assert [len(row) for row in panels] == [6, 6]
    moved = {caption: int(remark.split()[2]) for caption, remark, _ in panels[1][1:]}
    low = moved.pop("LL of ch3.3: kept")
    assert low < 0.8 * min(moved.values())
    assert max(moved, key=moved.get) == "LH, HL, HH: dropped"
    assert panels[0][2][2].shape == (32, 24, 3)


def test_the_weights_of_cubes_cover_every_voxel(program):
    panels = program.cube_panels(np.zeros((program.SIDE_PX, program.SIDE_PX), np.uint8))
    assert panels[0][0] == "Cubes"
    darkest = panels[2][2].astype(int).sum(axis=-1).min()
    assert darkest > 0
    assert panels[3][1] == "1 to 4"
