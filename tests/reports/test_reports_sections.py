"""Slices: right is right whatever the axis order, voxels keep their proportions, letters say what is where."""

import dataclasses

import numpy as np
import pytest
from report_cases import ORIENTATIONS, ball, stored, stored_field, volume
from scipy import ndimage

from medwave.core.geometry import Grid, Volume
from medwave.reports.foreground import Foreground, close_clefts, keep_large_parts, otsu_threshold
from medwave.reports.sections import Sections, enlarge_labels, enlarge_part, letter


def head(*spots: str) -> np.ndarray:
    """Canonical volume: a ball with a bright spot on the right, in front or on top."""
    data = ball((48, 56, 40), (1, 1, 1.3))
    corners = {"right": (34, 26, 18), "front": (22, 40, 18), "top": (22, 26, 30)}
    for x, y, z in (corners[spot] for spot in spots):
        data[x : x + 4, y : y + 4, z : z + 4] = 200
    return data


def spot_place(picture) -> tuple[float, float]:
    """Centre of the bright spot as shares of height and width."""
    rows, columns = np.nonzero(picture > 150)
    return rows.mean() / picture.shape[0], columns.mean() / picture.shape[1]


def hemispheres(cleft_mm: float = 3.0) -> np.ndarray:
    """A ball of 1 mm voxels, folded all over, parted by a dark cleft through its middle as the two hemispheres are."""
    shape = (81, 97, 89)
    x, y, z = (a - n // 2 for a, n in zip(np.indices(shape), shape, strict=True))
    folds = 1 + 0.3 * np.sin(x / 3) * np.sin(y / 3) * np.sin(z / 3)
    return ball(shape, radius_mm=36) * folds.astype(np.float32) * (2 * np.abs(x) > cleft_mm)


def disc(shape: tuple[int, int], centre: tuple[float, float], radius_px: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.hypot(rows - centre[0], columns - centre[1]) < radius_px


MIDDLE = pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("spot", "plane", "row", "column"),
    [
        ("right", 0, "middle", "far"),
        ("right", 1, "middle", "far"),
        ("front", 0, "near", "middle"),
        ("front", 2, "middle", "far"),
        ("top", 1, "near", "middle"),
        ("top", 2, "near", "middle"),
    ],
)
def test_right_front_and_top_are_where_the_letters_say(spot, plane, row, column):
    data, affine = stored(head(spot), (1, 1, 1.3), (0, 1, 2), (True, False, False))  # LAS, as the OASIS brains
    sections = Sections(volume(data, affine))
    assert [s.letters for s in sections.items] == ["LRAP", "LRSI", "PASI"]
    found = spot_place(sections.picture(data, sections.items[plane]))
    for value, wanted in zip(found, (row, column), strict=True):
        assert {"near": value < 0.35, "middle": value == MIDDLE, "far": value > 0.62}[wanted]


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_every_storage_order_gives_the_same_pictures(order, flips):
    spacing = (1, 1, 1.3)
    canonical = head("right", "front", "top")
    expected = Sections(volume(canonical, np.diag([*spacing, 1.0])))
    data, affine = stored(canonical, spacing, order, flips)
    sections = Sections(volume(data, affine))
    field = np.random.default_rng(0).normal(size=(3, *canonical.shape)).astype(np.float32)
    turned = stored_field(field, order, flips)
    for ours, theirs in zip(sections.items, expected.items, strict=True):
        assert ours == theirs
        np.testing.assert_array_equal(sections.cut(data, ours), expected.cut(canonical, theirs))
        np.testing.assert_allclose(sections.displacement(turned, ours), expected.displacement(field, theirs))


def test_an_oblique_grid_is_shown_along_its_nearest_axes():
    angle = np.deg2rad(25)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1, 1, 1.3])
    data = head("right")[::-1]
    sections = Sections(Volume(data, Grid(data.shape, affine)))
    _, column = spot_place(sections.picture(data, sections.items[0]))
    assert column > 0.6


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1, 1, 4), (0.5, 2, 1), (3, 1, 1)])
def test_a_ball_is_round_whatever_the_voxel_size(spacing):
    shape = tuple(round(60 / s) for s in spacing)
    data = ball(shape, spacing)
    sections = Sections(volume(data, np.diag([*spacing, 1.0])))
    assert len({s.height_px for s in sections.items}) == 1
    for section in sections.items:
        rows, columns = np.nonzero(sections.picture(data, section) > 50)
        assert np.ptp(rows) == pytest.approx(np.ptp(columns), rel=0.08)


def test_the_frame_follows_the_foreground_and_the_title_says_where():
    data = np.zeros((120, 100, 90), dtype=np.float32)
    data[70:111, 20:61, 30:71] = ball((41, 41, 41), radius_mm=14)
    affine = np.eye(4)
    affine[:3, 3] = (-90, -40, -50)
    axial, coronal, sagittal = Sections(volume(data, affine)).items
    assert axial.index == pytest.approx(50, abs=1)
    assert 60 < axial.columns[0] < 76
    assert 104 < axial.columns[1] < 120
    assert sagittal.title == "Sagittal, x = 0 mm"
    assert coronal.title == "Coronal, y = 0 mm"
    assert axial.title == "Axial, z = 0 mm"


def test_the_slice_lies_beside_a_cleft_and_not_far_from_the_middle():
    data = hemispheres()
    axial, coronal, sagittal = Sections(volume(data)).items
    assert 3 <= abs(sagittal.index - 40) <= 9
    assert abs(coronal.index - 48) <= 8
    assert abs(axial.index - 44) <= 8
    noisy = data + np.random.default_rng(0).normal(0, 3, data.shape).astype(np.float32)
    assert 3 <= abs(Sections(volume(noisy)).items[2].index - 40) <= 9


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_slice_is_where_the_subject_shows_most(axis):
    """Two slices with structure in an even block: the nearer one is taken."""
    data = np.zeros((81, 81, 81), np.float32)
    data[12:69, 12:69, 12:69] = 100
    for offset in (3, 7):
        np.moveaxis(data, axis, 0)[40 + offset, 12:69:8, 12:69] = 80
    subject = Foreground(data, np.ones(3))
    assert subject.telling_slice(axis) == 43


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2, 1, 1), (1, 1, 3)])
def test_the_body_is_whole_across_clefts_and_holes_and_follows_the_outline(spacing):
    full = hemispheres()
    full[50:60, 44:54, 40:50] = 0
    data = full[tuple(slice(None, None, s) for s in spacing)]
    sections = Sections(volume(data, np.diag([*spacing, 1.0])))
    middle = round(40 / spacing[0])
    assert data[middle].max() == 0  # inside the cleft the image has nothing
    for section in (*sections.items, dataclasses.replace(sections.items[2], index=middle)):
        body = sections.body(section)
        depth_mm = section.index * spacing[section.axis] - (40, 48, 44)[section.axis]
        px_per_mm = section.px_per_voxel[0] / spacing[section.row_axis]
        radius_px = np.sqrt(36**2 - depth_mm**2) * px_per_mm
        rows, columns = np.nonzero(body)
        centre = (rows.mean(), columns.mean())
        slack_px = (1 + max(spacing)) * px_per_mm
        assert body[disc(body.shape, centre, radius_px - slack_px)].all()
        assert not body[~disc(body.shape, centre, radius_px + slack_px)].any()


def test_specks_in_the_air_are_not_body():
    data = hemispheres()
    data[2:4, 90:92, 44:46] = 200
    inside = keep_large_parts(data > 40)
    assert not inside[:4].any()
    assert inside[10:].sum() == (data > 40)[10:].sum()


def test_closing_joins_what_is_near_and_leaves_what_is_far():
    bars = np.zeros((40, 40, 40), bool)
    bars[4:10], bars[13:20], bars[30:36] = True, True, True
    closed = close_clefts(bars, 4.0, np.ones(3))
    assert closed[4:20, 20, 20].all()
    assert not closed[22:28].any()
    assert closed[bars].all()
    assert not close_clefts(np.zeros((5, 5, 5), bool), 2.0, np.ones(3)).any()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.5, 2.0), (0.7, 3.0, 1.0)])
def test_clefts_are_closed_as_by_distances(spacing):
    inside = ndimage.gaussian_filter(np.random.default_rng(2).random((30, 24, 27)), 1.5) > 0.52
    radius, spacing = 3.0, np.array(spacing)
    pad = [int(np.ceil(radius / s)) + 1 for s in spacing]
    padded = np.pad(inside, [(p, p) for p in pad])
    grown = ndimage.distance_transform_edt(~padded, sampling=spacing) <= radius
    closed = ndimage.distance_transform_edt(grown, sampling=spacing) > radius
    filled = ndimage.binary_fill_holes(closed | padded)
    expected = filled[tuple(slice(p, p + n) for p, n in zip(pad, inside.shape, strict=True))]
    assert expected.sum() > inside.sum() > 0
    np.testing.assert_array_equal(close_clefts(inside, radius, spacing), expected)


@pytest.mark.parametrize("data", [np.zeros((9, 9, 9)), np.full((3, 1, 5), 7.0), np.full((4, 4, 4), np.nan)])
def test_images_without_content_still_give_pictures(data):
    sections = Sections(volume(data.astype(np.float32)))
    for section in sections.items:
        picture = sections.picture(data, section)
        assert picture.shape == (section.height_px, section.width_px)
        assert np.isfinite(picture).all()
        assert sections.body(section).shape == picture.shape


def test_letters_are_painted_at_the_four_sides_and_differ():
    sections = Sections(volume(ball((48, 48, 48))))
    for section in sections.items:
        plain = np.zeros((section.height_px, section.width_px, 3), dtype=np.uint8)
        painted = letter(plain, section)[..., 0]
        h, w = painted.shape
        left, right = painted[h // 3 : 2 * h // 3, : w // 8], painted[h // 3 : 2 * h // 3, -(w // 8) :]
        top, bottom = painted[: h // 8, w // 3 : 2 * w // 3], painted[-(h // 8) :, w // 3 : 2 * w // 3]
        for part in (left, right, top, bottom):
            assert (part > 200).any()
        assert painted[h // 4 : 3 * h // 4, w // 4 : 3 * w // 4].max() == 0
        assert (left > 128).sum() != (right > 128).sum()


def test_an_enlarged_part_is_that_part_of_the_enlarged_whole():
    section = Sections(volume(ball((48, 48, 48)))).items[0]
    height, width = section.rows[1] - section.rows[0], section.columns[1] - section.columns[0]
    ramp = np.add.outer(np.arange(height), 2.0 * np.arange(width)).astype(np.float32)
    whole = enlarge_part(ramp, section, (0, section.height_px), (0, section.width_px))
    part = enlarge_part(ramp, section, (60, 130), (90, 200))
    np.testing.assert_allclose(part[5:-5, 5:-5], whole[65:125, 95:195], atol=0.02)


def test_enlarged_labels_hold_only_labels():
    section = Sections(volume(ball((48, 48, 48)))).items[0]
    cut = np.array([[3, 3, 9], [3, 12, 9]])
    big = enlarge_labels(cut, section)
    assert big.shape == (section.height_px, section.width_px)
    assert set(np.unique(big)) == {3, 9, 12}
    assert big[0, 0] == 3
    assert big[-1, section.width_px // 2] == 12


def test_otsu_separates_two_levels():
    values = np.concatenate([np.full(900, 10.0), np.full(100, 90.0)]).astype(np.float32)
    values += np.random.default_rng(0).normal(0, 2, values.size).astype(np.float32)
    assert 15 < otsu_threshold(values) < 85
