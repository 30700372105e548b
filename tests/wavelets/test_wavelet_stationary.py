"""The stationary transform against PyWavelets and by its laws: exact inverse, shifts, borders, gradients."""

import numpy as np
import pytest
import pywt
import torch

from medwave.core.errors import GeometryError, InputError
from medwave.wavelets import (
    STATIONARY_MODES,
    Pyramid,
    band_names,
    dwt,
    iswt,
    stationary_margin,
    swt,
    wavelet_names,
)

SIZES = [(24,), (8, 16), (8, 4, 12)]


def oracle_name(band: str) -> str:
    return band.replace("L", "a").replace("H", "d")


@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior2.2", "db5"])
@pytest.mark.parametrize("size", SIZES)
def test_equals_pywavelets_both_ways(size: tuple[int, ...], wavelet: str) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    ndim, axes = len(size), tuple(range(2, 2 + len(size)))
    low, *details = pywt.swtn(x.numpy(), wavelet, level=2, axes=axes, trim_approx=True)
    bands = swt(x, wavelet, ndim=ndim, levels=2)
    np.testing.assert_allclose(bands.low.numpy(), low, atol=1e-12)
    for level in (1, 2):
        for name in band_names(ndim)[1:]:
            np.testing.assert_allclose(bands.band(name, level).numpy(), details[-level][oracle_name(name)], atol=1e-12)
    changed = Pyramid(bands.low + 1, tuple(d.clamp(-0.5, 0.5) for d in bands.details))  # no signal has these
    details = [{oracle_name(n): changed.band(n, level).numpy() for n in band_names(ndim)[1:]} for level in (2, 1)]
    expected = pywt.iswtn([changed.low.numpy(), *details], wavelet, axes=axes)
    np.testing.assert_allclose(iswt(changed, wavelet, ndim=ndim).numpy(), expected, atol=1e-11)


@pytest.mark.parametrize("mode", STATIONARY_MODES)
@pytest.mark.parametrize("roles", ["pywt", "reference"])
@pytest.mark.parametrize("size", [(2,), (7,), (9, 5), (5, 6, 7)])
def test_the_inverse_is_exact_at_any_size(size: tuple[int, ...], roles: str, mode: str) -> None:
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    for wavelet in ("haar", "db3", "ch2.2", "rbio1.3"):
        options = {"ndim": len(size), "mode": mode, "filter_roles": roles}
        back = iswt(swt(x, wavelet, levels=2, **options), wavelet, **options)
        torch.testing.assert_close(back, x, atol=1e-10, rtol=0)


@pytest.mark.parametrize("wavelet", wavelet_names())
def test_every_wavelet_comes_back_as_exactly_as_in_pywavelets(wavelet: str) -> None:
    x = torch.randn(2, 1, 64, dtype=torch.float64)
    ours = iswt(swt(x, wavelet, ndim=1, levels=2), wavelet, ndim=1)
    theirs = pywt.iswt(pywt.swt(x.numpy(), wavelet, level=2), wavelet)
    floor = 8 * np.finfo(np.float64).eps
    assert (ours - x).abs().max() <= 2 * max(np.abs(theirs - x.numpy()).max(), floor)


def test_a_shift_of_the_signal_is_a_shift_of_every_band() -> None:
    x = torch.randn(1, 2, 15, 12, dtype=torch.float64)
    bands = swt(x, "db2", ndim=2, levels=3)
    moved = swt(x.roll((4, -3), (2, 3)), "db2", ndim=2, levels=3)
    torch.testing.assert_close(moved.low, bands.low.roll((4, -3), (2, 3)))
    for ours, expected in zip(moved.details, bands.details, strict=True):
        torch.testing.assert_close(ours, expected.roll((4, -3), (3, 4)))


def test_every_other_sample_of_the_first_level_is_the_decimated_transform() -> None:
    x = torch.randn(1, 2, 8, 6, 10)
    bands = swt(x, "bior4.4", ndim=3, levels=1)
    whole = torch.cat([bands.low[:, :, None], bands.details[0]], dim=2)
    torch.testing.assert_close(whole[..., ::2, ::2, ::2], dwt(x, "bior4.4", ndim=3))


@pytest.mark.parametrize("pad", ["zero", "symmetric", "reflect"])
def test_other_modes_are_the_transform_of_a_far_extended_signal(pad: str) -> None:
    """Coefficients at the samples of the signal are those of a signal that goes on in that way for ever."""
    x = torch.randn(30, dtype=torch.float64)
    width = 29
    far = np.pad(x.numpy(), width, mode="constant" if pad == "zero" else pad)
    inner = swt(x[None, None], "db2", ndim=1, levels=3, mode=pad, keep_margin=False)
    wide = swt(torch.from_numpy(far)[None, None], "db2", ndim=1, levels=3)
    torch.testing.assert_close(inner.low, wide.low[..., width:-width])
    for ours, expected in zip(inner.details, wide.details, strict=True):
        torch.testing.assert_close(ours, expected[..., width:-width])


def test_the_margin_is_what_the_filters_reach() -> None:
    assert stationary_margin("haar", 3) == (0, 7)
    x = torch.randn(1, 1, 20)
    whole = swt(x, "db2", ndim=1, levels=3, mode="symmetric")
    assert whole.low.shape[-1] == 20 + sum(stationary_margin("db2", 3))
    inner = swt(x, "db2", ndim=1, levels=3, mode="symmetric", keep_margin=False)
    torch.testing.assert_close(inner.low, whole.low[..., 7:27])
    assert inner.details[0].shape == (1, 1, 1, 20)


def test_a_constant_gains_sqrt2_per_axis_and_level_and_has_no_details() -> None:
    for mode in ("periodization", "symmetric", "reflect"):
        bands = swt(torch.ones(1, 1, 9, 8, dtype=torch.float64), "db3", ndim=2, levels=3, mode=mode)
        torch.testing.assert_close(bands.low, torch.full_like(bands.low, 8.0))
        assert max(float(d.abs().max()) for d in bands.details) < 1e-10


@pytest.mark.parametrize("mode", STATIONARY_MODES)
@pytest.mark.parametrize("size", [(5,), (3, 4)])
def test_gradients_of_every_order_and_direction(size: tuple[int, ...], mode: str) -> None:
    x = torch.randn(1, 1, *size, dtype=torch.float64, requires_grad=True)
    options = {"ndim": len(size), "mode": mode}

    def forward(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        low, details = swt(x, "db2", levels=2, **options)
        return low, *details

    bands = [b.detach().requires_grad_() for b in forward(x)]

    def inverse(low: torch.Tensor, *details: torch.Tensor) -> torch.Tensor:
        return iswt(Pyramid(low, details), "db2", **options)

    for function, start in ((forward, (x,)), (inverse, bands)):
        torch.autograd.gradcheck(function, start, fast_mode=True, check_forward_ad=True, check_batched_grad=True)
        torch.autograd.gradgradcheck(function, start, fast_mode=True)


def test_half_precision_is_float32_rounded_once_and_memory_order_does_not_matter() -> None:
    x = torch.randn(2, 3, 9, 8)
    exact = swt(x, "db2", ndim=2, levels=2)
    other = swt(x.to(memory_format=torch.channels_last), "db2", ndim=2, levels=2)
    torch.testing.assert_close(other, exact)
    for dtype in (torch.float16, torch.bfloat16):
        half = swt(x.to(dtype), "db2", ndim=2, levels=2)
        rounded = swt(x.to(dtype).float(), "db2", ndim=2, levels=2)
        assert torch.equal(half.low, rounded.low.to(dtype))
        assert iswt(half, "db2", ndim=2).dtype == dtype
        torch.testing.assert_close(iswt(half, "db2", ndim=2).float(), x, atol=3e-2, rtol=3e-2)


def test_wrong_modes_sizes_and_pyramids_are_refused() -> None:
    x = torch.zeros(1, 1, 6, 6)
    with pytest.raises(InputError, match="use mode='zero'"):
        swt(x, "haar", ndim=2, levels=1, mode="zero_truncated")
    with pytest.raises(InputError, match="did you mean symmetric"):
        swt(x, "haar", ndim=2, levels=1, mode="symetric")
    with pytest.raises(InputError, match="at least one level"):
        swt(x, "haar", ndim=2, levels=0)
    with pytest.raises(GeometryError, match="2 spatial axes"):
        swt(x[0], "haar", ndim=2, levels=1)
    bands = swt(x, "haar", ndim=2, levels=2)
    with pytest.raises(GeometryError, match=r"details \(N, C, 3, ...\) of the same size for each level"):
        iswt(Pyramid(bands.low, ()), "haar", ndim=2)
    with pytest.raises(GeometryError, match="details"):
        iswt(Pyramid(bands.low[..., 1:], bands.details), "haar", ndim=2)
    inner = swt(x, "db3", ndim=2, levels=2, mode="zero", keep_margin=False)
    with pytest.raises(GeometryError, match="needs the coefficients of swt with keep_margin=True"):
        iswt(inner, "db3", ndim=2, mode="zero")
