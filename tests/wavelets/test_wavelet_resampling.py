"""Modules that halve and double resolution, and thresholds: known answers, sizes, exact pairs."""

import pytest
import torch
import torch.nn.functional as F

from medwave.core.errors import GeometryError, InputError
from medwave.wavelets import (
    LearnedShrinkage,
    WaveletPool,
    WaveletShuffle,
    WaveletUnshuffle,
    WaveletUpsample,
    dwt,
    dwt_low,
    shrinkage,
    wavedec,
    waverec,
)

POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@pytest.mark.parametrize("size", [(12,), (8, 12), (8, 4, 12)])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_haar_pool_is_average_pooling_and_haar_upsample_repeats(size: tuple[int, ...], stride: int) -> None:
    x = torch.randn(2, 3, *size)
    pooled = WaveletPool("haar", len(size), stride=stride)(x)
    torch.testing.assert_close(pooled, POOLS[len(size)](x, stride))
    back = WaveletUpsample("haar", len(size), stride=stride)(pooled)
    torch.testing.assert_close(back, F.interpolate(pooled, scale_factor=stride))


def test_the_orthonormal_gain_is_that_of_the_transform() -> None:
    x = torch.randn(1, 2, 9, 8)
    pool = WaveletPool("ch3.3", 2, ll_gain="orthonormal", filter_roles="reference", mode="zero_truncated")
    expected = dwt(x, "bior3.3", ndim=2, mode="zero_truncated", filter_roles="reference")[:, :, 0]
    torch.testing.assert_close(pool(x), expected)


def test_strides_of_their_own_per_axis() -> None:
    x = torch.randn(2, 3, 5, 12, 7)
    pooled = WaveletPool("db2", 3, stride=(1, 4, 2))(x)
    planes = x.transpose(1, 2).flatten(0, 1)
    once = dwt_low(planes, "db2", ndim=2, ll_gain="unit")
    twice = dwt_low(once.transpose(2, 3).flatten(1, 2), "db2", ndim=1, ll_gain="unit")
    expected = twice.reshape(2, 5, 3, 4, 3).permute(0, 2, 1, 4, 3)
    torch.testing.assert_close(pooled, expected)
    back = WaveletUpsample("db2", 3, stride=(1, 4, 2))(pooled, (5, 12, 7))
    assert back.shape == x.shape
    even = WaveletUpsample("db2", 3, stride=(1, 4, 2))(pooled)
    assert even.shape == (2, 3, 5, 12, 8)
    torch.testing.assert_close(WaveletPool("db2", 3, stride=(1, 4, 2))(even), pooled)


def test_half_of_an_odd_size_is_rounded_up_or_down() -> None:
    x = torch.randn(1, 1, 7, 10)
    assert WaveletPool("haar", 2)(x).shape == (1, 1, 4, 5)
    down = WaveletPool("haar", 2, odd="down")(x)
    torch.testing.assert_close(down, F.avg_pool2d(x, 2))
    down = WaveletPool("haar", 2, odd="down", stride=4)(x)
    torch.testing.assert_close(down, F.avg_pool2d(x, 4))


def test_bior22_upsamples_linearly() -> None:
    x = torch.randn(1, 1, 8, dtype=torch.float64)
    fine = WaveletUpsample("bior2.2", 1)(x)
    torch.testing.assert_close(fine[..., 0::2], x)
    torch.testing.assert_close(fine[..., 1::2], (x + x.roll(-1, 2)) / 2)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("wavelet", ["db2", "bior4.4", "sym4"])
def test_constants_keep_their_value(wavelet: str, ndim: int) -> None:
    x = torch.full((1, 1, *[8] * ndim), 3.0)
    pooled = WaveletPool(wavelet, ndim, stride=4)(x)
    torch.testing.assert_close(pooled, torch.full((1, 1, *[2] * ndim), 3.0))
    torch.testing.assert_close(WaveletUpsample(wavelet, ndim, stride=4)(pooled), x)


@pytest.mark.parametrize("size", [(11,), (8, 7), (4, 5, 6)])
def test_unshuffle_loses_nothing(size: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *size)
    ndim = len(size)
    features = WaveletUnshuffle("db2", ndim)(x)
    assert features.shape == (2, 3 * 2**ndim, *[(n + 1) // 2 for n in size])
    torch.testing.assert_close(features[:, 2**ndim : 2 ** (ndim + 1)], dwt(x, "db2", ndim=ndim)[:, 1])
    torch.testing.assert_close(WaveletShuffle("db2", ndim)(features, size), x, atol=1e-5, rtol=1e-5)


def test_they_stand_in_ordinary_networks_and_train() -> None:
    net = torch.nn.Sequential(
        WaveletUnshuffle("haar", 2),
        torch.nn.Conv2d(4, 8, 3, padding=1),
        WaveletPool("db2", 2),
        torch.nn.Conv2d(8, 4, 1),
        WaveletUpsample("db2", 2),
        WaveletShuffle("haar", 2),
    )
    x = torch.randn(2, 1, 16, 16).to(memory_format=torch.channels_last)
    assert list(net.state_dict()) == ["1.weight", "1.bias", "3.weight", "3.bias"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(x)
    assert out.shape == x.shape
    out.float().square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())


def test_gradients_of_strided_pool_and_upsample() -> None:
    x = torch.randn(1, 1, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    pool, up = WaveletPool("db2", 3, stride=(1, 2, 4)), WaveletUpsample("db2", 3, stride=(1, 2, 4))
    torch.autograd.gradcheck(pool, x, fast_mode=True)
    torch.autograd.gradgradcheck(pool, x, fast_mode=True)
    torch.autograd.gradcheck(up, pool(x).detach().requires_grad_(), fast_mode=True)


def test_wrong_strides_modes_and_sizes_are_refused() -> None:
    for stride in (3, 0, (2, 2, 2), (2, 6)):
        with pytest.raises(InputError, match="power of two, or one for each of 2 axes"):
            WaveletPool("haar", 2, stride=stride)
    with pytest.raises(InputError, match="odd is one of up, down"):
        WaveletPool("haar", 2, odd="even")
    for make in (WaveletPool, WaveletUpsample, WaveletShuffle, WaveletUnshuffle):
        with pytest.raises(InputError, match="'symmetric' does not halve the size: use periodization or zero_trunc"):
            make("haar", 2, mode="symmetric")
        with pytest.raises(GeometryError, match="spatial axes"):
            make("haar", 2)(torch.zeros(1, 4, 8))
    with pytest.raises(GeometryError, match="no half when rounded down"):
        WaveletPool("haar", 1, odd="down")(torch.zeros(1, 1, 1))
    with pytest.raises(GeometryError, match=r"cannot become \(9, 8\)"):
        WaveletUpsample("haar", 2)(torch.zeros(1, 1, 4, 4), (9, 8))
    with pytest.raises(GeometryError, match=r"\(N, C \* 4\)"):
        WaveletShuffle("haar", 2)(torch.zeros(1, 6, 4, 4))


# --- thresholds -------------------------------------------------------------------------------------------------------


def test_thresholds_of_known_details() -> None:
    details = torch.tensor([-0.6, -0.25, -0.1, 0.0, 0.2, 0.26, 1.0]).view(1, 1, 7, 1, 1, 1)
    hard = shrinkage("hard", 0.25)(details).flatten().tolist()
    assert hard == pytest.approx([-0.6, 0, 0, 0, 0, 0.26, 1.0])
    for kind in ("soft", "learned"):
        soft = shrinkage(kind, 0.25)(details).flatten().tolist()
        assert soft == pytest.approx([-0.35, 0, 0, 0, 0, 0.01, 0.75], abs=1e-6)


@pytest.mark.parametrize(("ndim", "bands"), [(1, 1), (2, 3), (3, 7)])
def test_learned_thresholds_have_one_value_per_channel_and_band(ndim: int, bands: int) -> None:
    layer = LearnedShrinkage(5, 0.5, ndim)
    assert layer.raw.shape == (5, bands, *[1] * ndim)
    torch.testing.assert_close(layer.threshold, torch.full_like(layer.raw, 0.5))
    pyramid = wavedec(torch.randn(2, 5, *[8] * ndim), "haar", ndim=ndim, levels=2)
    pyramid.map_details(layer).details[0].sum().backward()
    assert layer.raw.grad.shape == layer.raw.shape
    assert layer.half()(pyramid.details[0].half()).dtype == torch.float16


def test_shrinkage_takes_noise_off_a_picture_of_edges() -> None:
    clean = torch.zeros(1, 1, 64, 64)
    clean[..., 16:48, 20:40] = 1.0
    noisy = clean + 0.1 * torch.randn(clean.shape)
    for kind, most in (("hard", 0.3), ("soft", 0.45)):
        pyramid = wavedec(noisy, "haar", ndim=2, levels=3).map_details(shrinkage(kind, 0.3))
        restored = waverec(pyramid, "haar", ndim=2)
        assert (restored - clean).square().mean() < most * (noisy - clean).square().mean()


@pytest.mark.parametrize("value", [1e-6, 0.5, 800.0, 1e5])
def test_thresholds_of_any_size_can_be_learned_from(value: float) -> None:
    assert LearnedShrinkage(1, value, 1).threshold.item() == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_thresholds_that_cannot_be_learned_from_are_refused(value: float) -> None:
    with pytest.raises(InputError, match="a threshold to learn from must be above 0 and finite"):
        LearnedShrinkage(1, value, 1)


def test_impossible_thresholds_are_refused() -> None:
    for arguments, message in (
        (("firm", 0.1), "threshold is one of hard, soft, learned, got 'firm'"),
        (("soft", -1.0), "at least 0"),
        (("hard", float("nan")), "at least 0"),
        (("learned", 0.0), "above 0 to be learned"),
    ):
        with pytest.raises(InputError, match=message):
            shrinkage(*arguments)
