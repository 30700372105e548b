"""Cubes: reference counts, cover, exact blending whatever the blocks, skipping, bounded memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medwave.core.errors import GeometryError, InputError
from medwave.cubes import REFERENCE_SIZE, REFERENCE_STRIDE, Box, CubePlan, assemble, gaussian_weight


@pytest.mark.parametrize(("shape", "count"), [((64, 512, 512), 75), ((100, 1024, 1024), 484), ((192, 768, 768), 512)])
def test_the_reference_tiling_has_its_counts(shape, count):
    assert len(CubePlan(shape, REFERENCE_SIZE, REFERENCE_STRIDE)) == count


axis = st.tuples(st.integers(1, 40), st.integers(1, 16), st.integers(1, 16)).map(
    lambda t: (t[0], t[1], min(t[1], t[2]))
)


@settings(deadline=None, max_examples=60)
@given(st.tuples(axis, axis, axis))
def test_cubes_cover_every_voxel_and_end_on_the_border(axes):
    plan = CubePlan(*[tuple(values) for values in zip(*axes, strict=True)])
    seen = np.zeros(plan.shape, dtype=int)
    cubes = list(plan)
    assert len(cubes) == len(plan) == len(set(cubes))
    for cube in cubes:
        seen[cube.slices] += 1
    assert seen.min() >= 1
    for starts, size, length in zip(plan.starts, plan.size, plan.shape, strict=True):
        assert starts[0] == 0
        assert starts[-1] == max(0, length - size)


@settings(deadline=None, max_examples=30)
@given(st.tuples(axis, axis, axis), st.tuples(*[st.integers(3, 50)] * 3))
def test_blocks_cover_once_and_touching_finds_what_overlaps(axes, block_size):
    plan = CubePlan(*[tuple(values) for values in zip(*axes, strict=True)])
    seen = np.zeros(plan.shape, dtype=int)
    for block in plan.blocks(block_size):
        seen[block.slices] += 1
        assert plan.touching(block) == [cube for cube in plan if cube.overlap(block) is not None]
    assert (seen == 1).all()


def _assembled(plan, volume, block_size, **options):
    out = np.full(plan.shape, np.nan, dtype=np.float32)
    options = {"read": lambda box: volume[box.slices], "predict": lambda cubes: cubes} | options
    for block, values in assemble(plan, plan.blocks(block_size), **options):
        assert np.isnan(out[block.slices]).all()  # each voxel is written once
        out[block.slices] = values
    return out


def test_a_predictor_that_returns_its_input_gives_back_the_volume():
    volume = np.random.default_rng(0).random((20, 33, 41)).astype(np.float32)
    plan = CubePlan(volume.shape, (8, 16, 16), (6, 12, 12))
    np.testing.assert_allclose(_assembled(plan, volume, (9, 20, 41)), volume, atol=1e-3)


@pytest.mark.parametrize(("size", "stride"), [((8, 16, 16), (6, 12, 12)), ((20, 16, 16), (20, 12, 12))])
def test_the_result_does_not_depend_on_blocks_or_on_which_are_assembled_together(size, stride):
    volume = np.random.default_rng(0).random((20, 33, 41)).astype(np.float32)
    plan = CubePlan(volume.shape, size, stride)

    def predict(cubes):  # depends on the position inside the cube, as a network does near faces
        return [cube * gaussian_weight(plan.size) for cube in cubes]

    # straight from the definition, a cube after the other
    total, weights, weight = (
        np.zeros(volume.shape, np.float32),
        np.zeros(volume.shape, np.float32),
        gaussian_weight(size),
    )
    for cube in plan:
        inside = cube.overlap(Box((0, 0, 0), volume.shape))
        weights[inside.slices] += weight[inside.within(cube)]
        total[inside.slices] += weight[inside.within(cube)] * (volume[cube.slices] * weight).astype(np.float16)
    np.testing.assert_array_equal(_assembled(plan, volume, volume.shape, predict=predict), total / weights)
    np.testing.assert_array_equal(_assembled(plan, volume, (7, 11, 13), predict=predict), total / weights)
    alone = np.zeros(volume.shape, np.float32)
    for block in plan.blocks((7, 11, 13)):
        ((_, alone[block.slices]),) = assemble(plan, [block], read=lambda b: volume[b.slices], predict=predict)
    np.testing.assert_array_equal(alone, total / weights)


def test_an_interrupted_run_continues_to_the_same_result():
    volume = np.random.default_rng(1).random((20, 33, 41)).astype(np.float32)
    plan = CubePlan(volume.shape, (8, 16, 16), (6, 12, 12))
    read, predict = (lambda box: volume[box.slices]), (lambda cubes: cubes)
    blocks = plan.blocks((10, 17, 21))
    whole = dict(assemble(plan, blocks, read=read, predict=predict))
    rest = dict(assemble(plan, blocks[5:], read=read, predict=predict))
    for block, values in rest.items():
        np.testing.assert_array_equal(values, whole[block])


def test_empty_cubes_are_not_predicted_and_give_zero():
    volume = np.zeros((16, 32, 32), dtype=np.float32)
    volume[:8, :16, :16] = 1
    plan = CubePlan(volume.shape, (8, 16, 16), (8, 16, 16))
    seen = []

    def predict(cubes):
        seen.extend(cubes)
        return cubes

    out = _assembled(plan, volume, volume.shape, predict=predict, skip=lambda cube: cube.max() == 0)
    assert len(seen) == 1
    np.testing.assert_array_equal(out, volume)


def test_blocks_that_are_assembled_together_predict_each_cube_once():
    volume = np.ones((8, 16, 64), dtype=np.float32)
    plan = CubePlan(volume.shape, (8, 16, 16), (8, 16, 12))
    calls = []

    def predict(cubes):
        calls.extend(cubes)
        return cubes

    _assembled(plan, volume, (8, 16, 20), predict=predict)
    assert len(calls) == len(plan)


def test_a_volume_smaller_than_a_cube_is_padded_with_its_border():
    volume = np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7) / 210
    plan = CubePlan(volume.shape, (8, 8, 8), (6, 6, 6))
    cuts = []
    out = _assembled(plan, volume, volume.shape, predict=lambda cubes: cuts.extend(cubes) or cubes)
    np.testing.assert_allclose(out, volume, atol=1e-3)
    assert cuts[0].shape == (8, 8, 8)
    assert cuts[0][-1, -1, -1] == volume[-1, -1, -1]


def test_reading_is_bounded_by_one_cube_at_a_time():
    plan = CubePlan((4096, 4096, 4096), (32, 128, 128), (24, 96, 96))
    largest = []

    def read(box):
        largest.append(np.prod(box.shape))
        return np.zeros(box.shape, dtype=np.uint8)

    block = Box((2000, 2000, 2000), (2048, 2128, 2128))
    for _, values in assemble(plan, [block], read=read, predict=lambda cubes: cubes):
        assert values.shape == block.shape
    assert max(largest) == 32 * 128 * 128


def test_the_weight_is_symmetric_and_peaks_in_the_middle():
    weight = gaussian_weight((5, 8, 9))
    for axis_ in range(3):
        np.testing.assert_array_equal(weight, np.flip(weight, axis_))
    assert weight.max() == 1
    assert weight[2, 3, 4] == weight.max()
    assert weight.min() > 0


def test_along_an_axis_weights_fall_alike_wherever_they_lie_on_the_others():
    weight = gaussian_weight((64, 32, 48)).astype(np.float64)
    middle = weight[32, 16, 24]
    for line in (weight[0, 0, :], weight[0, 16, :], weight[63, 2, :]):
        np.testing.assert_allclose(line / line[24], weight[32, 16, :] / middle, rtol=1e-5)
    assert weight[32, 16, 0] == pytest.approx(1e-3)
    assert weight[0, 0, 0] == pytest.approx(1e-9)


def test_unusable_plans_and_predictions_are_refused():
    with pytest.raises(GeometryError, match="gaps"):
        CubePlan((10, 10, 10), (4, 4, 4), (4, 5, 4))
    with pytest.raises(GeometryError, match="shape is three positive"):
        CubePlan((10, 0, 10))
    plan = CubePlan((8, 8, 8), (8, 8, 8), (8, 8, 8))
    bad = assemble(plan, list(plan), read=lambda box: np.ones(box.shape), predict=lambda cubes: [c[1:] for c in cubes])
    with pytest.raises(InputError, match="shape of its cube"):
        next(bad)
