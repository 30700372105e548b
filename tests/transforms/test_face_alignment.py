"""Five points on a template: the similarity is recovered, and an aligned picture shows its points where they belong."""

import numpy as np
import pytest

from medwave.core.errors import GeometryError, InputError
from medwave.transforms.faces import TEMPLATE, align_face, fit_picture, normalise, shifted, similarity


def turned(points, degrees, scale, shift):
    angle = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ turn.T + shift


@pytest.mark.parametrize(("degrees", "scale", "shift"), [(0, 1, (0, 0)), (35, 2.5, (40, -7)), (-170, 0.3, (100, 300))])
def test_a_known_similarity_is_recovered(degrees, scale, shift):
    moved = turned(TEMPLATE, degrees, scale, shift)
    found = similarity(moved, TEMPLATE)
    np.testing.assert_allclose(np.column_stack([moved, np.ones(5)]) @ found.T, TEMPLATE, atol=1e-9)


def test_no_other_similarity_lies_nearer():
    rng = np.random.default_rng(0)
    points = turned(TEMPLATE, 20, 1.7, (9, 4)) + rng.normal(0, 2, (5, 2))
    best = similarity(points, TEMPLATE)

    def error(a, b, tx, ty):
        return float((((points @ np.array([[a, -b], [b, a]]).T) + (tx, ty) - TEMPLATE) ** 2).sum())

    found = np.array([best[0, 0], best[1, 0], best[0, 2], best[1, 2]])
    assert best[0, 0] == best[1, 1]
    assert best[0, 1] == -best[1, 0]
    for _ in range(200):
        assert error(*found) <= error(*(found + rng.normal(0, 1, 4) * [0.01, 0.01, 1, 1]))


def test_a_mirrored_face_is_not_mirrored_back():
    mirrored = TEMPLATE * [-1, 1] + [112, 0]
    assert np.linalg.det(similarity(mirrored, TEMPLATE)[:, :2]) > 0


@pytest.mark.parametrize(("size", "scale"), [((112, 112), 1.3), ((112, 96), 3.0), ((56, 56), 0.6)])
def test_spots_at_the_points_of_a_face_come_to_lie_on_the_template(size, scale):
    points = turned(TEMPLATE, 25, scale, (60 * scale, 30 * scale))
    h, w = int(points[:, 1].max() + 40 * scale), int(points[:, 0].max() + 40 * scale)
    rows, columns = np.mgrid[:h, :w]
    for n, (x, y) in enumerate(points):
        spot = 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (4 * scale) ** 2))
        aligned = align_face(spot.astype(np.uint8)[..., None].repeat(3, axis=2), points, size)
        assert aligned.shape == (*size, 3)
        weight = aligned[..., 0].astype(float)
        centre = [(weight * grid).sum() / weight.sum() for grid in np.mgrid[: size[0], : size[1]]]
        zoom = size[0] / 112
        expected = (TEMPLATE[n] + 0.5) * zoom - 0.5 + [(size[1] - 112 * zoom) / 2, 0]
        np.testing.assert_allclose(centre[::-1], expected, atol=0.35)


def test_an_aligned_picture_of_the_same_size_is_itself():
    picture = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    np.testing.assert_array_equal(align_face(picture, TEMPLATE), picture)


@pytest.mark.parametrize(
    ("points", "error", "message"),
    [
        (TEMPLATE[:4], GeometryError, r"five points \(5, 2\)"),
        (np.full((5, 2), 7.0), GeometryError, "coincide"),
        (TEMPLATE * np.nan, InputError, "finite"),
    ],
)
def test_points_that_are_no_face_are_refused(points, error, message):
    with pytest.raises(error, match=message):
        align_face(np.zeros((50, 50, 3), np.uint8), points)


def test_pictures_are_brought_to_size_and_channels():
    grey = np.full((40, 30, 1), 200, np.uint8)
    assert fit_picture(grey, (32, 48), 3).shape == (32, 48, 3)
    assert (fit_picture(grey, (32, 48), 3) == 200).all()
    colour = np.dstack([np.full((40, 30), v, np.uint8) for v in (255, 0, 0)])
    assert fit_picture(colour, (40, 30), 1).shape == (40, 30, 1)
    assert (fit_picture(colour, (40, 30), 1) == 76).all()  # luma of red
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))[..., None]
    shrunk = fit_picture(stripes, (16, 16), 1).astype(int)
    assert np.abs(shrunk - 127.5).max() < 10  # a filter against aliasing; dropped samples would be black or white
    with pytest.raises(GeometryError, match="1 or 3 channels"):
        fit_picture(np.zeros((4, 4, 2), np.uint8), (16, 16), 1)


def test_values_reach_from_minus_one_to_one_and_shifts_repeat_the_border():
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    picture[0, 0], picture[2, 3] = 0, 255
    tensor = normalise(picture)
    assert tensor.shape == (1, 3, 4)
    assert float(tensor.min()) == -1.0
    assert float(tensor.max()) == 1.0
    np.testing.assert_array_equal(shifted(picture, 1, 0)[:, :, 0], picture[[0, 0, 1], :, 0])
    np.testing.assert_array_equal(shifted(picture, 0, -2)[:, :, 0], picture[:, [2, 3, 3, 3], 0])
