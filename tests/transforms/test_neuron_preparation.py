"""Traced neurons made ready for training: labels, crops, coarser grids and noise have their known answers."""

import numpy as np
import pytest
from scipy import ndimage

from medwave.core.errors import GeometryError, InputError
from medwave.core.tree import Tree
from medwave.transforms import (
    TracedImage,
    crop_box,
    fibre_labels,
    made_smaller,
    parse_boxes,
    smaller_shape,
    with_noise,
)
from medwave.transforms.neuron_labels import IGNORE


def path(*places, radius=2.0):
    """A path through places x y z."""
    count = len(places)
    return Tree(np.array(places, float), np.full(count, radius), np.arange(count) - 1, np.full(count, 2))


def distance_to_axis(shape, y, z):
    planes, rows = np.ogrid[: shape[0], : shape[1]]
    return np.broadcast_to(np.hypot(planes - z, rows - y)[:, :, None], shape)


def test_a_tube_is_labelled_within_its_radius_and_unknown_within_its_doubt():
    shape = (20, 30, 40)
    tree = path((-10, 14.3, 9.6), (50, 14.3, 9.6), radius=4.0)
    away = distance_to_axis(shape, 14.3, 9.6)
    assert np.array_equal(fibre_labels(tree, shape) == 1, away <= 4.25)
    labels = fibre_labels(tree, shape, radius_uncertainty=0.25)
    assert np.array_equal(labels == 1, away <= 3.25)
    assert np.array_equal(labels == IGNORE, (away > 3.25) & (away <= 5.25))
    assert np.array_equal(labels == 0, away > 5.25)


def test_thin_and_steep_tubes_have_no_holes_between_planes():
    tree = path((5, 5, 0), (12, 33, 30), radius=0.01)
    labels = fibre_labels(tree, (31, 40, 20), slack=0.0, radius_uncertainty=0.5)
    assert (labels == 1).any(axis=(1, 2)).all()
    assert ndimage.label(labels == 1, np.ones((3, 3, 3)))[1] == 1


def test_an_unknown_radius_is_the_one_that_is_given():
    tree = path((-5, 10, 10), (25, 10, 10), radius=0.0)
    labels = fibre_labels(tree, (20, 20, 20), slack=0.0, unknown_radius=3.0)
    assert np.array_equal(labels == 1, distance_to_axis((20, 20, 20), 10, 10) <= 3)


def test_what_lies_outside_is_dropped_and_not_drawn_along_the_border():
    tree = path((-8, 2, 3), (-8, 18, 3), (-8, 18, 9), radius=1.0)  # clamped, it would run along x = 0
    assert not fibre_labels(tree, (12, 20, 16)).any()


def test_outside_the_clean_boxes_nothing_is_known():
    tree = path((0, 5, 5), (19, 5, 5), radius=1.0)
    labels = fibre_labels(tree, (10, 10, 20), clean=parse_boxes("0:10,0:10,0:8; 2:-1,0:10,12:-1"))
    known = np.zeros((10, 10, 20), bool)
    known[:, :, :8] = known[2:, :, 12:] = True
    assert np.array_equal(labels != IGNORE, known)
    assert (labels[5, 5][known[5, 5]] == 1).all()


@pytest.mark.parametrize("text", ["0:5,0:5", "0:5,0:5,a:b", "5:5,0:5,0:5", "-3:5,0:5,0:5"])
def test_damaged_boxes_are_refused(text):
    with pytest.raises(InputError, match="a box"):
        parse_boxes(text)


def test_doubt_is_a_share():
    with pytest.raises(InputError, match="uncertainty"):
        fibre_labels(path((0, 0, 0), (5, 0, 0)), (4, 4, 8), radius_uncertainty=1.0)


def test_the_crop_holds_the_nodes_inside_and_a_margin():
    tree = path((20, 40, 6), (30, 55.5, 12), (500, 500, 500))
    assert crop_box(tree, (15, 100, 100)) == (slice(1, 15), slice(30, 67), slice(10, 41))
    with pytest.raises(InputError, match="no node"):
        crop_box(path((500, 0, 0), (501, 0, 0)), (15, 100, 100))


def test_volumes_shrink_to_the_longest_axis_and_flat_ones_keep_their_planes():
    assert smaller_shape((64, 512, 512)) == (64, 512, 512)
    assert smaller_shape((60, 2048, 1024)) == (60, 1024, 512)  # 30 planes would be too few
    assert smaller_shape((100, 2048, 1024)) == (50, 1024, 512)
    assert smaller_shape((3000, 100, 100), longest=1000) == (1000, 33, 33)


def spot(shape, zyx, sigma=3.0):
    grids = np.ogrid[tuple(slice(n) for n in shape)]
    return np.exp(-0.5 * sum((g - p) ** 2 for g, p in zip(grids, zyx, strict=True)) / sigma**2)


@pytest.mark.parametrize("shape", [(20, 30, 40), (40, 30, 40), (13, 21, 27)])
def test_the_tree_stays_on_its_image_when_both_are_made_smaller(shape):
    place = (21.0, 29.0, 37.0)  # z y x
    image = (4000 * spot((40, 60, 80), place)).astype(np.uint16)
    small = made_smaller(TracedImage(image, path(place[::-1], (60, 29, 21))), shape)
    assert small.image.shape == shape
    assert small.image.dtype == np.uint16
    assert small.image.max() > 1000  # 16 bits stay 16 bits
    centre = ndimage.center_of_mass(small.image.astype(float))
    np.testing.assert_allclose(centre, small.tree.positions[0, ::-1], atol=0.03)
    factors = np.array(shape) / image.shape
    assert small.tree.radius[0] == pytest.approx(2.0 * factors[2])
    np.testing.assert_allclose(small.spacing, factors[2] / factors)


def test_thin_fibres_dim_but_do_not_break_when_made_smaller():
    image = np.zeros((8, 90, 90), np.float32)
    rows = np.round(np.linspace(10, 80, 90)).astype(int)
    image[4, rows, np.arange(90)] = 100.0
    small = made_smaller(TracedImage(image, path((0, 10, 4), (89, 80, 4))), (8, 30, 30)).image
    assert small.sum() * 9 == pytest.approx(image.sum(), rel=0.05)
    along = small[4].max(axis=0)[1:-1]
    assert along.min() > 0.5 * along.max()  # picking every third voxel would lose two thirds of it


def test_a_volume_is_not_made_larger():
    traced = TracedImage(np.zeros((4, 8, 8), np.uint8), path((0, 0, 0), (5, 5, 2)))
    assert made_smaller(traced, (4, 8, 8)) is traced
    with pytest.raises(GeometryError, match="made smaller"):
        made_smaller(traced, (4, 9, 8))


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 20000), (np.float32, 1.0)])
def test_noise_has_its_size_and_keeps_type_and_range(dtype, top):
    image = np.full((20, 50, 50), top / 2, dtype)
    image[0, 0, 0] = top
    noisy = with_noise(TracedImage(image, path((0, 0, 0), (5, 5, 2))), 0.1, seed=4).image
    assert noisy.dtype == dtype
    assert 0 <= noisy.min() <= noisy.max() <= top
    assert noisy.std() == pytest.approx(0.1 * top, rel=0.02)
    again = with_noise(TracedImage(image, path((0, 0, 0), (5, 5, 2))), 0.1, seed=4).image
    assert np.array_equal(noisy, again)
    with pytest.raises(InputError, match="share of the range"):
        with_noise(TracedImage(image, path((0, 0, 0), (5, 5, 2))), -0.1, seed=4)
