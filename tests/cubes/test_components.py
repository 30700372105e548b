"""Components by blocks are those of the whole volume, numbers included, whatever the blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from medwave.core.errors import InputError
from medwave.cubes import Box, CubePlan
from medwave.cubes.components import label_block, label_mask, merge_labels, widened


def by_blocks(mask, size, connectivity):
    """Labels of the volume put together from its blocks, and the components."""
    shape, whole = mask.shape, Box((0, 0, 0), mask.shape)
    blocks = CubePlan(shape, size=(1, 1, 1), stride=(1, 1, 1)).blocks(size)
    seen = [label_block(mask[widened(b, whole).slices], b, shape, connectivity=connectivity) for b in blocks]
    merged = merge_labels(seen)
    labels = np.zeros(shape, np.int64)
    for block, of in zip(blocks, merged.of, strict=True):
        local, _ = label_mask(mask[widened(block, whole).slices], connectivity)
        core = local[tuple(slice(0, n) for n in block.shape)]
        labels[block.slices] = np.concatenate([[0], of + 1])[core]
    return labels, merged


@settings(max_examples=60, deadline=None)
@given(
    mask=st.tuples(*[st.integers(1, 7)] * 3).flatmap(lambda shape: arrays(bool, shape)),
    size=st.tuples(*[st.integers(1, 4)] * 3),
    connectivity=st.sampled_from([1, 2, 3]),
)
def test_blocks_give_the_components_of_the_whole(mask, size, connectivity):
    expected, count = ndimage.label(mask, ndimage.generate_binary_structure(3, connectivity))
    labels, merged = by_blocks(mask, size, connectivity)
    np.testing.assert_array_equal(labels, expected)
    assert len(merged) == count
    np.testing.assert_array_equal(merged.voxels, np.bincount(expected.ravel(), minlength=count + 1)[1:])
    for number, box in enumerate(ndimage.find_objects(expected)):
        assert merged.box(number).slices == box
        assert merged.first[number] == np.flatnonzero(expected.ravel() == number + 1)[0]


def test_a_spiral_through_many_blocks_is_one_component():
    mask = np.zeros((9, 40, 40), bool)
    turn = np.linspace(0, 8 * np.pi, 4000)
    mask[np.linspace(0, 8, 4000).round().astype(int), (20 + turn * np.sin(turn) / 1.4).round().astype(int) % 40,
         (20 + turn * np.cos(turn) / 1.4).round().astype(int) % 40] = True  # fmt: skip
    labels, merged = by_blocks(mask, (3, 5, 7), 3)
    assert len(merged) == labels.max() == ndimage.label(mask, np.ones((3, 3, 3)))[1]
    assert merged.voxels.sum() == mask.sum()


def test_unknown_connectivity_is_refused():
    with pytest.raises(InputError, match="1, 2 or 3"):
        label_mask(np.ones((2, 2, 2), bool), 4)
