"""Maximum projections: equal to the maximum of the whole, whatever the chunks, with one block in memory."""

import numpy as np
import pytest

from medwave.core.errors import InputError
from medwave.reports import project
from medwave.volumes import LazyVolume

RNG = np.random.default_rng(5)


def watched(array, chunks, sizes):
    def fetch(box):
        part = array[box]
        sizes.append(part.size)
        return part

    return LazyVolume("watched", array.shape, array.dtype, fetch, chunks=chunks)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, ">f8"])
@pytest.mark.parametrize("chunks", [(1, 20, 23), (5, 7, 6), (17, 20, 23)])
def test_they_are_the_maxima_along_each_axis(dtype, chunks):
    array = (RNG.random((17, 20, 23)) * 200).astype(dtype)
    sizes = []
    p = project(watched(array, chunks, sizes), block_bytes=1000)
    np.testing.assert_array_equal(p.xy, array.max(axis=0).astype(np.float32))
    np.testing.assert_array_equal(p.xz, array.max(axis=1).astype(np.float32))
    np.testing.assert_array_equal(p.zy, array.max(axis=2).T.astype(np.float32))
    assert sum(sizes) == array.size
    assert p.bins == (1, 1, 1)


def test_blocks_stay_within_their_size():
    array = RNG.integers(0, 255, (40, 64, 64)).astype(np.uint8)
    sizes = []
    project(watched(array, (8, 16, 16), sizes), block_bytes=8 * 16 * 16 * 3)
    assert max(sizes) <= 8 * 16 * 16 * 3
    assert len(sizes) >= array.size / (8 * 16 * 16 * 3)


@pytest.mark.parametrize("block_bytes", [37, 500, 10**6])
def test_large_axes_are_reduced_by_the_maximum_of_bins(block_bytes):
    array = RNG.integers(0, 60000, (9, 25, 31)).astype(np.uint16)
    p = project(watched(array, (2, 3, 4), []), longest_px=8, block_bytes=block_bytes)
    assert p.bins == (2, 4, 4)
    assert (p.xy.shape, p.xz.shape, p.zy.shape) == ((7, 8), (5, 8), (7, 5))
    padded = np.pad(array, ((0, 1), (0, 3), (0, 1)))
    binned = padded.reshape(5, 2, 7, 4, 8, 4).max(axis=(1, 3, 5)).astype(np.float32)
    np.testing.assert_array_equal(p.xy, binned.max(axis=0))
    np.testing.assert_array_equal(p.xz, binned.max(axis=1))
    np.testing.assert_array_equal(p.zy, binned.max(axis=2).T)


def test_a_single_bright_voxel_survives_any_reduction():
    array = np.zeros((50, 400, 300), np.uint8)
    array[31, 207, 118] = 255
    p = project(array, longest_px=20)
    assert p.xy.max() == p.xz.max() == p.zy.max() == 255
    assert np.argwhere(p.xy == 255).tolist() == [[207 // 20, 118 // 15]]


def test_values_that_are_not_finite_are_left_out():
    array = np.ones((4, 5, 6), np.float32)
    array[1, 2, 3], array[:, 0, 0], array[2, 2, 2] = np.nan, np.inf, -np.inf
    p = project(array)
    assert np.isfinite(p.xy).all()
    assert p.xy.max() == 1


@pytest.mark.parametrize("chunks", [(1, 20, 23), (5, 7, 6)])
def test_a_box_is_projected_alone_and_read_alone(chunks):
    array = RNG.integers(0, 255, (17, 20, 23)).astype(np.uint8)
    sizes = []
    box = (slice(3, 16), slice(None, 9), slice(8, None))
    p = project(watched(array, chunks, sizes), box=box, block_bytes=300)
    assert p.shape == (13, 9, 15)
    np.testing.assert_array_equal(p.xy, array[box].max(axis=0))
    np.testing.assert_array_equal(p.zy, array[box].max(axis=2).T)
    assert sum(sizes) == array[box].size


def test_sizes_must_be_positive():
    with pytest.raises(InputError, match="positive sizes, got 0 pixels"):
        project(np.ones((3, 3, 3)), longest_px=0)
