"""What the pictures say: sides of a difference, direction of the grid, folds, outlines, millimetres."""

import numpy as np
import pytest
from report_cases import ORIENTATIONS, ball, stored, stored_field, volume

from medwave.reports import colours, figures
from medwave.reports.sections import Sections, enlarge_labels

BLACK = (0.0, 1.0)


def is_colour(picture, colour, tolerance=40):
    return np.abs(picture.astype(int) - np.array(colour)).max(axis=-1) < tolerance


@pytest.fixture(scope="module")
def fixed():
    return ball((56, 60, 52), radius_mm=22)


@pytest.fixture(scope="module")
def sections(fixed):
    return Sections(volume(fixed))


def test_tables_have_the_order_of_lightness_that_they_promise():
    def luminance(table):
        linear = (table / 255.0) ** 2.2
        return linear @ [0.2126, 0.7152, 0.0722]

    for table in (colours.SEQUENTIAL, colours.WARM):
        assert (np.diff(luminance(table)) > -1e-3).all()
    dark, light = luminance(colours.DIVERGING_DARK), luminance(colours.DIVERGING_LIGHT)
    assert np.abs(dark - dark.min()).argmin() == pytest.approx(127, abs=2)
    assert light.argmax() == pytest.approx(127, abs=2)
    for table in (colours.DIVERGING_DARK, colours.DIVERGING_LIGHT):
        assert table[64, 2] > table[64, 0]  # blue side
        assert table[192, 0] > table[192, 2]  # orange side
        assert tuple(table[128]) == pytest.approx((table[128, 0],) * 3, abs=8)


def test_greys_look_grey_in_every_vision():
    lab = colours.seen([[n, n, n] for n in (0, 60, 128, 255)])
    assert np.abs(lab[..., 1:]).max() < 1e-3
    np.testing.assert_allclose(lab[:, [0, 3], 0], [[0, 1]] * 4, atol=1e-4)


def test_a_table_is_seen_as_it_was_made():
    """The way from OKLab to sRGB and back; the ends of SEQUENTIAL are its first and last stop."""
    lightness, a, b = colours.seen(colours.SEQUENTIAL[[0, 255]])[0].T
    np.testing.assert_allclose(lightness, [0.16, 0.96], atol=0.004)
    np.testing.assert_allclose(np.hypot(a, b), [0.03, 0.12], atol=0.004)
    assert np.rad2deg(np.arctan2(b, a))[1] == pytest.approx(105, abs=2)


@pytest.mark.parametrize(("count", "least"), [(4, 0.13), (10, 0.08), (32, 0.04)])
def test_classes_are_told_apart_in_every_vision(count, least):
    """From each other, and from the colours of what is wrong and missed."""
    palette = colours.told_apart(count)
    assert palette.shape == (count, 3)
    np.testing.assert_array_equal(colours.told_apart(2), palette[:2])
    lab = colours.seen(np.concatenate([palette, [colours.FOLD, colours.ORANGE]]))
    apart = np.linalg.norm(lab[:, :, None] - lab[:, None], axis=-1)[:, :count]
    apart[:, np.arange(count), np.arange(count)] = np.inf
    assert apart.min() > least


def test_colourise_and_paint_do_what_they_say():
    picture = np.array([[-5.0, 0.0], [5.0, np.nan]], dtype=np.float32)
    rgb = colours.colourise(picture, colours.DIVERGING_LIGHT, -5, 5)
    np.testing.assert_array_equal(rgb[0, 0], colours.DIVERGING_LIGHT[0])
    np.testing.assert_array_equal(rgb[1, 0], colours.DIVERGING_LIGHT[255])
    np.testing.assert_array_equal(rgb[1, 1], colours.DIVERGING_LIGHT[127])
    painted = colours.paint(np.zeros((1, 2, 3), np.uint8), np.array([[1.0, 0.5]], np.float32), (200, 100, 50))
    np.testing.assert_array_equal(painted, [[[200, 100, 50], [100, 50, 25]]])
    assert colours.css((255, 0, 200)) == "#ff00c8"


def test_the_difference_is_orange_where_the_image_is_brighter_and_blue_where_darker(sections, fixed):
    image = fixed.copy()
    image[36:42] *= 1.5  # right half
    image[14:20] *= 0.5  # left half
    match = figures.Matcher(fixed, fixed, sections.subject.threshold)
    (pictures,), scale = figures.differences(sections, fixed, [image], match, (0.0, 200.0))
    axial = pictures[0].astype(int)
    warm, cold = axial[..., 0] - axial[..., 2] > 60, axial[..., 2] - axial[..., 0] > 60
    assert np.nonzero(warm)[1].mean() > 0.55 * axial.shape[1]
    assert np.nonzero(cold)[1].mean() < 0.45 * axial.shape[1]
    assert scale.low == -scale.high


def test_all_rows_of_the_difference_share_one_scale(sections, fixed):
    match = figures.Matcher(fixed, fixed, sections.subject.threshold)
    far, near = np.roll(fixed, 8, axis=0), np.roll(fixed, 1, axis=0)
    (first, second), scale = figures.differences(
        sections,
        fixed,
        [
            far,
            near,
        ],
        match,
        (0.0, 100.0),
    )
    assert first[0].astype(int).sum() > 2 * second[0].astype(int).sum()
    assert scale.high == pytest.approx(100, rel=0.2)


def test_matching_undoes_a_change_of_contrast(sections, fixed):
    other = 40 + 3 * fixed**1.2
    match = figures.Matcher(fixed, other, sections.subject.threshold)
    inside = fixed > 60
    np.testing.assert_allclose(match(other)[inside], fixed[inside], atol=3)
    assert match(other)[fixed < 0.01].max() < 2
    assert (np.diff(match(np.linspace(0, 1000, 500, dtype=np.float32))) >= 0).all()


def test_matching_survives_constant_images():
    zeros = np.zeros((9, 9, 9), np.float32)
    assert np.isfinite(figures.Matcher(zeros, zeros, 0.0)(zeros)).all()


def test_the_checkerboard_of_an_image_with_itself_is_the_image(sections, fixed):
    match = figures.Matcher(fixed, fixed, sections.subject.threshold)
    board = figures.checkerboard(sections, fixed, fixed, match, (0.0, 100.0))
    for one, other in zip(board, figures.anatomy(sections, fixed, (0.0, 100.0)), strict=True):
        middle = slice(80, 260), slice(80, 260)
        assert np.abs(one[middle].astype(int) - other[middle].astype(int)).max() <= 14
    black = figures.checkerboard(sections, fixed, np.zeros_like(fixed), lambda x: x, (0.0, 100.0))
    assert 0.3 < black[0][100:240, 100:240].mean() / board[0][100:240, 100:240].mean() < 0.7


def test_edges_lie_on_the_border_of_the_fixed_image(sections, fixed):
    coverage = figures.edge_coverage(sections, fixed, sections.items[0])
    rows, columns = np.nonzero(coverage > 0.5)
    assert len(rows) > 300
    middle = (np.array(coverage.shape) - 1) / 2
    px_per_mm = sections.items[0].px_per_voxel[0]
    radius_mm = np.hypot(rows - middle[0], columns - middle[1]) / px_per_mm
    assert radius_mm.mean() == pytest.approx(22, abs=1.2)
    assert radius_mm.std() < 0.7


def test_the_fixed_edges_stay_when_the_other_image_moves(sections, fixed):
    over_black = figures.edges(sections, fixed, np.zeros_like(fixed), BLACK)[0]
    over_moved = figures.edges(sections, fixed, np.roll(fixed, 9, axis=0), (0.0, 1e6))[0]
    np.testing.assert_array_equal(is_colour(over_black, colours.ORANGE), is_colour(over_moved, colours.ORANGE))
    assert is_colour(over_black, colours.ORANGE).sum() > 200


def test_no_displacement_draws_a_regular_grid(sections, fixed):
    pictures, pitch = figures.deformed_grid(
        sections, np.zeros((3, *fixed.shape), np.float32), np.zeros_like(fixed), BLACK
    )
    section = sections.items[0]
    bright = pictures[0][..., 1].astype(float)[: section.height_px // 3].mean(axis=0)
    lines = np.flatnonzero((bright[1:-1] > bright[:-2]) & (bright[1:-1] >= bright[2:]) & (bright[1:-1] > 80)) + 1
    assert np.diff(lines) == pytest.approx(pitch * section.px_per_voxel[1], abs=1.5)


def test_grid_lines_follow_the_pull_back(sections, fixed):
    """phi(p) = p + u with u = half a voxel to the right: what was at x = c is now seen at c - 0.5, to the left."""
    still, moved = np.zeros((3, *fixed.shape), np.float32), np.zeros((3, *fixed.shape), np.float32)
    moved[0] = 0.5
    nothing = np.zeros_like(fixed)
    section = sections.items[0]
    before = figures.deformed_grid(sections, still, nothing, BLACK)[0][0][60:110, 60:-60, 1].astype(float).mean(axis=0)
    after = figures.deformed_grid(sections, moved, nothing, BLACK)[0][0][60:110, 60:-60, 1].astype(float).mean(axis=0)
    shifts = np.arange(-6, 7)
    scores = [np.dot(np.roll(before, s)[20:-20], after[20:-20]) for s in shifts]
    assert shifts[int(np.argmax(scores))] == pytest.approx(-0.5 * section.px_per_voxel[1], abs=1)


def test_the_grid_moves_with_the_warped_image(sections, fixed):
    """A line of voxels painted on the moving image stays on its grid line after warping."""
    u = np.zeros((3, *fixed.shape), np.float32)
    u[0] = 3 * np.sin(np.arange(fixed.shape[1]) / 8)[None, :, None]
    section = sections.items[0]
    _, pitch = figures.deformed_grid(sections, u, fixed, BLACK)
    plane = round(28 / pitch) * pitch
    x = np.arange(fixed.shape[0])[:, None, None] + u[0]
    painted = (100 * np.exp(-((x - plane) ** 2) / 18)).astype(np.float32)  # moving: a sheet at x = plane; warped by u
    drawn = figures.deformed_grid(sections, u, np.zeros_like(fixed), BLACK)[0][0][..., 1].astype(int)
    ridge = sections.picture(painted, section).argmax(axis=1)
    rows = np.arange(40, section.height_px - 40)
    nearby = np.max([drawn[rows, ridge[rows] + k] for k in (-1, 0, 1)], axis=0)
    assert (nearby > 100).mean() > 0.97
    aside = round(pitch * section.px_per_voxel[1] / 2)
    assert (drawn[rows, ridge[rows] + aside] > 100).mean() < 0.5


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS[::7])
def test_grid_length_and_jacobian_do_not_depend_on_the_storage_order(order, flips, fixed, sections):
    rng = np.random.default_rng(5)
    u = rng.normal(0, 0.4, (3, *fixed.shape)).astype(np.float32)
    data, affine = stored(fixed, (1, 1, 1), order, flips)
    turned = Sections(volume(data, affine))
    v = stored_field(u, order, flips)
    ours = figures.deformed_grid(turned, v, data, (0, 100))[0] + figures.magnitude(turned, data, v)[0]
    theirs = figures.deformed_grid(sections, u, fixed, (0, 100))[0] + figures.magnitude(sections, fixed, u)[0]
    for one, other in zip(ours, theirs, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).mean() < 0.5


def test_folds_are_magenta_and_counted(sections, fixed):
    determinant = np.ones(fixed.shape, np.float32)
    determinant[40:43, 28:31, 24:27] = -0.2
    determinant[0] = np.nan
    pictures, _, folds = figures.jacobian(sections, fixed, determinant)
    assert folds == 27
    magenta = is_colour(pictures[0], colours.FOLD)
    assert np.nonzero(magenta)[1].mean() > 0.6 * magenta.shape[1]
    pictures, _, folds = figures.jacobian(sections, fixed, np.ones(fixed.shape, np.float32))
    assert folds == 0
    assert not is_colour(pictures[0], colours.FOLD).any()
    assert pictures[0][170, 150:160].min() > 230  # volume kept: white


def test_jacobian_colours_tell_growth_from_shrinkage(sections, fixed):
    determinant = np.where(np.arange(fixed.shape[0])[:, None, None] < 28, 0.6, 1.7) * np.ones(fixed.shape)
    pictures, scale, _ = figures.jacobian(sections, fixed, determinant.astype(np.float32))
    axial = pictures[0].astype(int)
    left, right = axial[120:220, 80:130].mean(axis=(0, 1)), axial[120:220, 210:260].mean(axis=(0, 1))
    assert left[2] > left[0] + 40
    assert right[0] > right[2] + 40
    assert scale.high == 1.0


def test_the_length_of_the_displacement_is_in_mm(fixed):
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    sections = Sections(volume(fixed, affine))
    u = np.zeros((3, *fixed.shape), np.float32)
    u[0], u[2] = 1.5, 1.0
    _, scale, (median, high) = figures.magnitude(sections, fixed, u)
    assert median == pytest.approx(np.hypot(3, 3), rel=1e-5)
    assert high == pytest.approx(np.hypot(3, 3), rel=1e-5)
    assert scale.high >= np.hypot(3, 3)


def test_the_error_map_has_its_scale_from_the_body(sections, fixed):
    error = np.where(fixed > 50, 1.9, 50.0).astype(np.float32)
    _, scale = figures.error_map(sections, fixed, error)
    assert scale.high <= 60
    _, scale = figures.error_map(sections, fixed, np.full(fixed.shape, 1.9, np.float32))
    assert scale.high == 2.0


def test_label_outlines_run_on_the_border_in_two_colours(sections, fixed):
    labels = (fixed > 50).astype(np.int32) * 7
    moved = np.roll(labels, 2, axis=0)
    picture = figures.label_contours(sections, np.zeros_like(fixed), labels, moved, BLACK)[0]
    section = sections.items[0]
    blue, orange = is_colour(picture, colours.BLUE), is_colour(picture, colours.ORANGE)
    assert blue.sum() > 200
    assert orange.sum() > 200
    shift = (np.nonzero(orange)[1].mean() - np.nonzero(blue)[1].mean()) / section.px_per_voxel[1]
    assert shift == pytest.approx(2, abs=0.4)
    rows, columns = np.nonzero(blue)
    edge = enlarge_labels(sections.cut(labels, section), section) != 0
    assert 0.25 < edge[rows, columns].mean() < 0.75  # half of a line lies on either side of the border


def test_compact_structures_are_chosen_before_ribbons():
    cut = np.zeros((60, 60), int)
    cut[5:25, 5:25] = 1
    cut[40:42, 5:55] = 2
    cut[30:38, 30:38] = 3
    assert figures.compact_labels(cut, 8) == [1]
    cut[30:40, 30:40] = 3
    assert figures.compact_labels(cut, 8) == [1, 3]
    assert figures.compact_labels(cut, 1) == [1]
    assert figures.compact_labels(np.zeros((1, 9), int), 8) == []


@pytest.mark.parametrize(
    ("value", "limit"), [(0.7, 0.8), (1.0, 1.0), (1.2, 1.5), (9.5, 10), (23, 30), (0.041, 0.05), (0, 1), (np.nan, 1)]
)
def test_limits_are_round_and_not_below_the_value(value, limit):
    assert figures.nice_limit(value) == pytest.approx(limit)


def test_smoothing_keeps_constants_and_spreads_a_point():
    flat = figures.smooth(np.full((9, 11), 4.0, np.float32), (1.0, 2.0))
    np.testing.assert_allclose(flat, 4.0, rtol=1e-5)
    point = np.zeros((31, 31), np.float32)
    point[15, 15] = 1
    soft = figures.smooth(point, (2.0, 1.0))
    assert soft.sum() == pytest.approx(1, rel=1e-3)
    offsets = np.arange(31) - 15
    assert (soft.sum(axis=1) * offsets**2).sum() == pytest.approx(4, rel=0.05)
    assert (soft.sum(axis=0) * offsets**2).sum() == pytest.approx(1, rel=0.05)
