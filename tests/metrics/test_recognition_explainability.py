"""Explainability of channels: known values for planted peaks, resolution does not matter, parts are the whole."""

import math

import numpy as np
import pytest
import torch

from medwave.core.errors import GeometryError, InputError
from medwave.metrics.recognition import (
    ChannelPeaks,
    PartOverlap,
    channel_peaks,
    location_instability,
    part_assignment,
    part_overlap,
)

IMAGE = (112, 84)


def planted(places: list[list[tuple[int, int]]], heights: list[list[float]] | None = None) -> np.ndarray:
    """Maps ``(n, C, 14, 14)`` with one non-zero value each."""
    maps = np.zeros((len(places), len(places[0]), 14, 14))
    for n, row in enumerate(places):
        for c, (i, j) in enumerate(row):
            maps[n, c, i, j] = 1.0 if heights is None else heights[n][c]
    return maps


def test_a_single_pixel_is_all_concentration_and_no_entropy_and_a_flat_map_the_opposite():
    maps = planted([[(3, 5), (0, 13)]])
    maps = np.concatenate([maps, np.full((1, 1, 14, 14), 2.0), np.zeros((1, 1, 14, 14))], axis=1)
    found = channel_peaks(maps, IMAGE)
    assert found.positions[0, :2].tolist() == [[3.5 * 8 - 0.5, 5.5 * 6 - 0.5], [0.5 * 8 - 0.5, 13.5 * 6 - 0.5]]
    assert found.heights[0].tolist() == [1, 1, 2, 0]
    assert found.concentration[0, :2].tolist() == [1, 1]
    assert found.concentration[0, 2] == pytest.approx(4 / 196)  # the peak of a flat map is its first corner
    assert found.entropy[0, :3] == pytest.approx([0, 0, math.log(196)])
    assert np.isnan(found.positions[0, 3]).all()
    assert np.isnan([found.concentration[0, 3], found.entropy[0, 3]]).all()


def test_concentration_counts_energy_within_an_eighth():
    maps = np.zeros((1, 1, 16, 16))
    maps[0, 0, 8, 8], maps[0, 0, 8, 10], maps[0, 0, 10, 10] = 3.0, 2.0, 1.0  # at distances 0, 2 and 2.8 of 16 / 8 = 2
    assert channel_peaks(maps, (16, 16)).concentration[0, 0] == pytest.approx(13 / 14)
    assert channel_peaks(-maps, (16, 16)).heights[0, 0] == 0  # what a ReLU takes away counts as nothing


def test_a_channel_that_follows_a_landmark_is_stable_and_one_that_wanders_is_not():
    random = np.random.default_rng(0)
    eyes = random.integers(2, 12, (40, 2))
    maps = planted([[tuple(e), (6, 6), tuple(random.integers(0, 14, 2))] for e in eyes])
    landmarks = ((eyes + 0.5) * [8, 6] - 0.5)[:, None]
    found = location_instability(channel_peaks(maps, IMAGE), landmarks)
    assert found[0] == 0
    distance = np.hypot(*(landmarks[:, 0] - ([6.5 * 8 - 0.5, 6.5 * 6 - 0.5])).T) / np.hypot(*IMAGE)
    assert found[1] == pytest.approx(distance.std())
    assert found[2] > 0.05


def test_instability_is_averaged_over_landmarks_of_the_images_with_the_highest_peaks():
    maps = planted([[(0, 0)], [(0, 4)], [(13, 13)]], heights=[[5.0], [4.0], [1.0]])
    landmarks = np.zeros((3, 2, 2))
    landmarks[:, 1] = [3.5, 100.0]
    peaks = channel_peaks(maps, (112, 112))
    one, two = math.hypot(3.5, 3.5), math.hypot(3.5, 35.5)
    first = abs(one - two) / 2
    second = abs((100 - 3.5) - (100 - 35.5)) / 2
    expected = (first + second) / 2 / math.hypot(112, 112)
    assert location_instability(peaks, landmarks, top=2)[0] == pytest.approx(expected)
    assert location_instability(peaks, landmarks)[0] != pytest.approx(expected)
    silent = channel_peaks(np.zeros((3, 1, 14, 14)), IMAGE)
    assert np.isnan(location_instability(silent, landmarks)).all()


def test_channels_are_assigned_to_the_part_they_are_nearest_to_most_often():
    landmarks = np.tile([[11.5, 11.5], [11.5, 99.5], [99.5, 51.5]], (4, 1, 1))
    maps = planted([[(1, 1), (12, 6), (1, 2)], [(1, 2), (12, 7), (1, 11)], [(2, 1), (2, 12), (1, 1)], [(0, 0)] * 3])
    maps[3] = 0
    maps = np.concatenate([maps, np.zeros((4, 1, 14, 14))], axis=1)
    found = part_assignment(channel_peaks(maps, (112, 112)), landmarks)
    assert found.part.tolist() == [0, 2, 0, -1]
    assert found.purity[:3] == pytest.approx([1, 2 / 3, 2 / 3])
    assert math.isnan(found.purity[3])
    assert found.distinct == 2


def test_overlap_with_parts_is_counted_over_all_images():
    masks = np.zeros((2, 2, 8, 8), dtype=bool)
    masks[:, 0, :4] = True
    masks[:, 1, :, :2] = True
    maps = masks[:, :1].astype(float).repeat(3, axis=1)
    maps[:, 1] = 0
    maps[1, 2] = 1
    found = part_overlap(maps, masks, [0.5, 0.5, 0.5])
    np.testing.assert_allclose(found.iou, [[1, 16 / 80], [0, 0], [64 / 96, (8 + 16) / (32 + 64 + 8)]])
    assert found.interpretable() == pytest.approx(2 / 3)
    assert found.interpretable(0.9) == pytest.approx(1 / 3)
    assert found.mean_best() == pytest.approx((1 + 0 + 64 / 96) / 3)


def test_maps_are_brought_to_the_size_of_the_masks():
    coarse = np.zeros((1, 1, 4, 4))
    coarse[0, 0, :2] = 1.0
    masks = np.zeros((1, 1, 32, 32), dtype=bool)
    masks[0, 0, :16] = True
    assert part_overlap(coarse, masks, [0.5]).iou[0, 0] == 1


def test_parts_are_the_whole():
    random = np.random.default_rng(0)
    maps, landmarks = random.random((9, 4, 6, 5)), 20 * random.random((9, 3, 2))
    masks, levels = random.random((9, 2, 12, 10)) > 0.5, np.full(4, 0.6)
    whole = channel_peaks(torch.from_numpy(maps), (24, 20))
    pieces = [slice(0, 2), slice(2, 7), slice(7, 9)]
    joined = ChannelPeaks.join([channel_peaks(maps[piece], (24, 20)) for piece in pieces])
    for found, expected in zip(joined[:4], whole[:4], strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(location_instability(joined, landmarks), location_instability(whole, landmarks))
    overlap = part_overlap(maps[:2], masks[:2], levels)
    for piece in pieces[1:]:
        overlap = overlap + part_overlap(maps[piece], masks[piece], levels)
    expected = part_overlap(maps, masks, levels)
    assert isinstance(overlap, PartOverlap)
    np.testing.assert_array_equal(overlap.shared, expected.shared)
    np.testing.assert_array_equal(overlap.either, expected.either)


def test_what_does_not_fit_is_refused():
    peaks = channel_peaks(np.ones((2, 3, 4, 4)), (8, 8))
    with pytest.raises(GeometryError, match="4 axes"):
        channel_peaks(np.ones((3, 4, 4)), (8, 8))
    with pytest.raises(GeometryError, match="landmarks are"):
        location_instability(peaks, np.zeros((3, 1, 2)))
    with pytest.raises(InputError, match="top"):
        location_instability(peaks, np.zeros((2, 1, 2)), top=1)
    with pytest.raises(GeometryError, match="joined"):
        ChannelPeaks.join([peaks, channel_peaks(np.ones((2, 4, 4, 4)), (8, 8))])
    with pytest.raises(GeometryError, match="masks are"):
        part_overlap(np.ones((2, 3, 4, 4)), np.ones((1, 1, 8, 8), bool), [0, 0, 0])
    with pytest.raises(InputError, match="boolean"):
        part_overlap(np.ones((2, 3, 4, 4)), np.ones((2, 1, 8, 8)), [0, 0, 0])
    with pytest.raises(GeometryError, match="one threshold"):
        part_overlap(np.ones((2, 3, 4, 4)), np.ones((2, 1, 8, 8), bool), [0, 0])
