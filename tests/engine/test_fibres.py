"""Fibre networks on volumes: known answers, cubes that leave no trace, and cubes that are passed over."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medwave.core.errors import DeviceError, InputError
from medwave.cubes import Box
from medwave.engine.fibres import (
    CUBE_VOXELS,
    OVERLAP,
    CubeCount,
    FibrePredictor,
    blocks_within,
    bordered,
    fibre_plan,
    is_empty,
    predict_fibres,
    without_batch_norms,
)
from medwave.models import FibreNet, fibre_network, open_network
from medwave.transforms.microscopy import IntensityScale

SCALE = IntensityScale(100.0, 10.0)


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(SCALE.center, SCALE.width, shape).astype(np.float32)


def predicted(weights, volume, *, size=(32, 32, 32), overlap=16, block=(16, 32, 16), region=None, **options):
    predictor = FibrePredictor(open_network(weights, FibreNet), SCALE, precision="float32")
    plan = fibre_plan(volume.shape, size=size, overlap=overlap)
    blocks = blocks_within(volume.shape, region, size=block)
    out = np.full(volume.shape, np.nan, np.float32)
    for box, values in predict_fibres(
        predictor, plan, blocks, read=lambda box: volume[box.slices], shape=volume.shape, **options
    ):
        assert np.isnan(out[box.slices]).all()
        out[box.slices] = values
    return out


def known(volume):
    """What the network of the fixture says of single voxels."""
    gain = (1 + 1e-5) ** -2  # batch norm, four times
    return 1 / (1 + np.exp(-8 * (gain * np.maximum(SCALE(volume), 0) - 1)))


@pytest.mark.parametrize("shape", [(20, 37, 70), (5, 6, 7), (48, 64, 32)])
def test_a_network_that_looks_at_one_voxel_gives_the_same_in_every_cube(bright_is_fibre, shape):
    volume = noise(shape)
    volume[shape[0] // 2, :, shape[2] // 2] += 60
    np.testing.assert_allclose(predicted(bright_is_fibre, volume, skip_empty=False), known(volume), atol=2e-3)


def test_a_region_has_the_values_of_the_whole(bright_is_fibre):
    torch.manual_seed(3)
    network = open_network(bright_is_fibre, FibreNet)
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    volume = noise((40, 64, 72))
    predictor = FibrePredictor(network, SCALE, precision="float32")
    plan = fibre_plan(volume.shape, size=(32, 32, 32), overlap=16)
    options = {"read": lambda box: volume[box.slices], "shape": volume.shape, "skip_empty": False}
    whole = np.empty(volume.shape, np.float32)
    for box, values in predict_fibres(predictor, plan, blocks_within(volume.shape, size=(32, 32, 32)), **options):
        whole[box.slices] = values
    assert whole.std() > 0.01
    region = Box((7, 20, 3), (29, 50, 60))
    for box, values in predict_fibres(predictor, plan, blocks_within(volume.shape, region, size=(32,) * 3), **options):
        np.testing.assert_array_equal(values, whole[box.slices])


@settings(deadline=None, max_examples=40)
@given(st.data(), st.tuples(*[st.integers(1, 90)] * 3), st.tuples(*[st.integers(1, 40)] * 3))
def test_blocks_cover_a_region_once_and_lie_on_one_lattice(data, shape, size):
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    seen = np.zeros(shape, int)
    for block in blocks_within(shape, Box(start, stop), size=size):
        assert all(a // s == (b - 1) // s for a, b, s in zip(block.start, block.stop, size, strict=True))
        seen[block.slices] += 1
    inside = np.zeros(shape, int)
    inside[Box(start, stop).slices] = 1
    np.testing.assert_array_equal(seen, inside)


def test_cubes_begin_at_multiples_of_16_and_fit_small_volumes():
    plan = fibre_plan((119, 415, 409))
    assert plan.shape == (128, 416, 416)
    assert plan.size == (128, 176, 176)
    assert plan.margin == (0, 32, 32)
    assert plan.starts == ((0,), (-32, 80, 192, 272), (-32, 80, 192, 272))
    finer = ((0,), (-32, 48, 128, 208, 272), (-32, 48, 128, 208, 272))
    assert fibre_plan((119, 415, 409), overlap=96).starts == finer
    assert fibre_plan((119, 415, 409), overlap=32).starts == ((0,), (-32, 80, 192, 304), (-32, 80, 192, 304))
    assert len(fibre_plan((20, 30, 40))) == 1
    assert fibre_plan((20, 30, 40)).size == (32, 32, 48)


@settings(deadline=None)
@given(st.integers(1, 3000))
def test_cubes_are_as_few_and_as_small_as_can_be(length):
    plan = fibre_plan((length, 20, 20), size=(160, 160, 160), overlap=32)
    starts, size = plan.starts[0], plan.size[0]
    assert all(start % 16 == 0 for start in starts)
    assert all(a + size - b >= 32 for a, b in itertools.pairwise(starts))
    covered = plan.shape[0] + 2 * plan.margin[0]
    assert plan.margin[0] == -starts[0] == (32 if len(starts) > 1 else 0)
    assert starts[-1] + size == plan.shape[0] + plan.margin[0] >= length
    assert len(starts) == max(1, -(-(covered - 32) // 128))
    for end in (0, length - 1) if len(starts) > 1 else ():  # no border of the volume lies near the face of its cube
        assert max(min(end - a, a + size - 1 - end) for a in starts) >= 32
    assert size == 16 or (size - 16) * len(starts) < covered + 32 * (len(starts) - 1)


@settings(deadline=None)
@given(st.tuples(*[st.integers(1, 3000)] * 3))
@example((97, 225, 289))
def test_cubes_hold_as_many_voxels_as_they_may_and_overlap_enough(shape):
    plan = fibre_plan(shape)
    assert np.prod(plan.size) <= CUBE_VOXELS
    for size, step, length in zip(plan.size, plan.stride, plan.shape, strict=True):
        assert size == length or size - step == OVERLAP
        assert size >= min(length, 112)


@pytest.mark.parametrize(("shape", "most"), [((64, 96, 224), 1.0), ((96, 128, 128), 1.6)])
def test_few_cubes_are_predicted_twice(bright_is_fibre, monkeypatch, shape, most):
    """In flat volumes none; in deep ones those that two columns share."""
    monkeypatch.setattr("medwave.engine.fibres.SUMS_BYTES", 8 * 64 * 64 * 224)
    volume = np.zeros(shape, np.float32)
    count, blocks = CubeCount(), blocks_within(shape, size=(16, 16, 16))
    plan = fibre_plan(shape, size=(min(64, shape[0] - shape[0] % 64), 32, 32), overlap=16)
    predictor = FibrePredictor(open_network(bright_is_fibre, FibreNet), SCALE)
    done = predict_fibres(predictor, plan, blocks, read=lambda b: volume[b.slices], shape=shape, count=count)
    assert sorted(block for block, _ in done) == sorted(blocks)
    assert count.predicted == 0
    assert len(plan) <= count.empty <= most * len(plan)


def test_background_is_passed_over_and_faint_fibre_is_not():
    shape = (64, 64, 64)
    assert is_empty(SCALE, noise(shape))
    assert is_empty(SCALE, np.full(shape, 100, np.uint16))
    assert is_empty(SCALE, np.zeros(shape, np.uint8))
    faint = noise(shape)
    faint[31:34, 29:32, 4:60] += 1.3 * SCALE.width
    assert not is_empty(SCALE, faint)
    zeroed = IntensityScale(0.0, 1.0)
    dot = np.zeros(shape, np.uint8)
    assert is_empty(zeroed, dot)
    dot[63, 63, 63] = 45
    assert not is_empty(zeroed, dot)


def test_batch_norms_become_part_of_the_convolutions():
    network = fibre_network("neuron_wavesnet_v4", width=2).double()
    generator = torch.Generator().manual_seed(0)
    for norm in (module for module in network.modules() if isinstance(module, torch.nn.BatchNorm3d)):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.data.uniform_(0.5, 2, generator=generator)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = without_batch_norms(network.eval())
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in folded.modules())
    image = torch.randn((1, 1, 32, 16, 48), generator=generator, dtype=torch.float64)
    torch.testing.assert_close(folded(image), network(image), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_skipping_changes_nothing_but_empty_cubes(bright_is_fibre):
    volume = noise((32, 32, 96))
    volume[16, 16, :20] += 200
    count, without = CubeCount(), CubeCount()
    skipped = predicted(bright_is_fibre, volume, overlap=0, count=count)
    full = predicted(bright_is_fibre, volume, overlap=0, count=without, skip_empty=False)
    assert (count.predicted, count.empty) == (1, 2)
    assert (without.predicted, without.empty) == (3, 0)
    np.testing.assert_array_equal(skipped[..., :32], full[..., :32])
    assert (skipped[..., 32:] == 0).all()


def test_the_volume_is_mirrored_at_its_border():
    volume = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    read = bordered(lambda box: volume[box.slices], (2, 3, 4))
    got = read(Box((-1, 0, 0), (3, 3, 6)))
    np.testing.assert_array_equal(got, np.pad(volume, ((1, 1), (0, 0), (0, 2)), mode="reflect"))
    with pytest.raises(InputError, match="outside"):
        read(Box((2, 0, 0), (3, 3, 4)))


def test_bfloat16_is_near_float32(bright_is_fibre):
    volume = noise((16, 32, 32))
    volume[8] += 40
    cubes = [volume]
    exact, half = (
        next(FibrePredictor(open_network(bright_is_fibre, FibreNet), SCALE, precision=precision)(cubes))
        for precision in ("float32", "bfloat16")
    )
    assert np.abs(exact - half).max() < 0.05
    assert exact.max() > 0.9


def test_unusable_values_and_options_are_refused(bright_is_fibre):
    network = open_network(bright_is_fibre, FibreNet)
    with pytest.raises(InputError, match="precision is one of"):
        FibrePredictor(network, SCALE, precision="float16")
    with pytest.raises(DeviceError, match="not usable here"):
        FibrePredictor(network, SCALE, device="cuda:99")
    volume = noise((16, 16, 16))
    volume[3, 4, 5] = np.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        list(FibrePredictor(network, SCALE)([volume]))
    network.head.bias.data[1] = np.nan
    with pytest.raises(InputError, match="check the volume and the weights"):
        list(FibrePredictor(network, SCALE)([noise((16, 16, 16))]))
