"""Pyramids and packets against PyWavelets, and the laws that hold for them."""

import numpy as np
import pytest
import pywt
import torch

from medwave.core.errors import GeometryError, InputError
from medwave.wavelets import (
    MODES,
    Pyramid,
    band_names,
    dwt,
    frequency_order,
    idwt,
    max_levels,
    packet_names,
    wavedec,
    waverec,
    wpdec,
    wprec,
)

PYWT_MODES = ["periodization", "zero", "symmetric", "reflect"]
EXACT = [mode for mode in MODES if mode != "zero_truncated"]
SIZES = [(37,), (19, 26), (13, 16, 11)]
ANY_SIZES = [(1,), (2,), (9, 3), (5, 12, 7)]


def oracle_name(band: str) -> str:
    return band.replace("L", "a").replace("H", "d")


@pytest.mark.filterwarnings("ignore:Level value of 2 is too high:UserWarning")  # PyWavelets about short signals
@pytest.mark.parametrize("mode", PYWT_MODES)
@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior2.2"])
@pytest.mark.parametrize("size", SIZES)
def test_pyramids_equal_pywavelets_both_ways(size: tuple[int, ...], wavelet: str, mode: str) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    ndim, axes = len(size), tuple(range(2, 2 + len(size)))
    low, *details = pywt.wavedecn(x.numpy(), wavelet, mode=mode, level=2, axes=axes)
    pyramid = wavedec(x, wavelet, ndim=ndim, levels=2, mode=mode)
    np.testing.assert_allclose(pyramid.low.numpy(), low, atol=1e-11)
    for level in (1, 2):
        for name in band_names(ndim)[1:]:
            expected = details[-level][oracle_name(name)]
            np.testing.assert_allclose(pyramid.band(name, level).numpy(), expected, atol=1e-11)
    even = waverec(pyramid, wavelet, ndim=ndim, mode=mode)
    np.testing.assert_allclose(even.numpy(), pywt.waverecn([low, *details], wavelet, mode=mode, axes=axes), atol=1e-10)


@pytest.mark.parametrize(("mode", "size"), [(m, s) for m in EXACT for s in ANY_SIZES if m != "reflect" or min(s) > 4])
@pytest.mark.parametrize("roles", ["pywt", "reference"])
def test_pyramids_and_packets_are_undone_at_any_size(size: tuple[int, ...], roles: str, mode: str) -> None:
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    options = {"ndim": len(size), "mode": mode, "filter_roles": roles}
    for wavelet in ("haar", "ch3.3", "db4"):
        pyramid = wavedec(x, wavelet, levels=3, **options)
        torch.testing.assert_close(waverec(pyramid, wavelet, output_size=size, **options), x, atol=1e-9, rtol=0)
        leaves = wpdec(x, wavelet, levels=2, **options)
        back = wprec(leaves, wavelet, levels=2, output_size=size, **options)
        torch.testing.assert_close(back, x, atol=1e-9, rtol=0)


@pytest.mark.parametrize("mode", PYWT_MODES)
@pytest.mark.parametrize("size", [(21,), (16, 13)])
def test_packets_equal_pywavelets(size: tuple[int, ...], mode: str) -> None:
    x = torch.randn(*size, dtype=torch.float64)
    ndim = len(size)
    leaves = wpdec(x[None, None], "db2", ndim=ndim, levels=3, mode=mode)[0, 0]
    tree = pywt.WaveletPacketND(x.numpy(), "db2", mode=mode, maxlevel=3)
    names = packet_names(ndim, 3)
    assert leaves.shape[0] == len(names) == 2 ** (3 * ndim)
    for name, leaf in zip(names, leaves, strict=True):
        np.testing.assert_allclose(leaf.numpy(), tree[oracle_name(name).replace(".", "")].data, atol=1e-12)


def test_frequency_order_is_that_of_pywavelets_and_follows_a_rising_tone() -> None:
    tree = pywt.WaveletPacket(np.zeros(64), "db2", mode="periodization", maxlevel=3)
    expected = [node.path for node in tree.get_level(3, "freq")]
    names = packet_names(1, 3)
    assert [oracle_name(names[i]).replace(".", "") for i in frequency_order(3)] == expected
    t = torch.arange(512, dtype=torch.float64)
    strongest = []
    for k in range(8):  # tones in the middle of each eighth of the spectrum
        tone = torch.cos(torch.pi * (k + 0.5) / 8 * t)[None, None]
        strongest.append(int(wpdec(tone, "db10", ndim=1, levels=3).square().sum(dim=(0, 1, 3)).argmax()))
    assert tuple(strongest) == frequency_order(3)


def test_one_level_is_the_transform_itself() -> None:
    x = torch.randn(2, 3, 9, 8)
    bands = dwt(x, "db2", ndim=2)
    pyramid = wavedec(x, "db2", ndim=2, levels=1)
    assert torch.equal(torch.cat([pyramid.low[:, :, None], pyramid.details[0]], dim=2), bands)
    assert torch.equal(wpdec(x, "db2", ndim=2, levels=1), bands)
    assert torch.equal(wprec(bands, "db2", ndim=2, levels=1), idwt(bands, "db2", ndim=2))


@pytest.mark.parametrize("size", [(64, 48), (200, 7), (3, 3)])
@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior4.4"])
def test_levels_are_counted_as_pywavelets_counts(size: tuple[int, ...], wavelet: str) -> None:
    count = pywt.dwt_max_level(min(size), pywt.Wavelet(wavelet).dec_len)
    assert max_levels(size, wavelet) == count
    assert wavedec(torch.zeros(1, 1, *size), wavelet, ndim=2).levels == max(1, count)


def test_periodized_orthogonal_pyramids_and_packets_preserve_energy() -> None:
    x = torch.randn(1, 2, 16, 24, dtype=torch.float64)
    pyramid = wavedec(x, "db3", ndim=2, levels=3)
    energy = sum(band.square().sum() for band in (pyramid.low, *pyramid.details))
    torch.testing.assert_close(energy, x.square().sum())
    torch.testing.assert_close(wpdec(x, "sym4", ndim=2, levels=3).square().sum(), x.square().sum())


def test_bands_have_names_and_details_can_be_mapped() -> None:
    pyramid = wavedec(torch.randn(1, 1, 8, 8, 8), "haar", ndim=3, levels=2)
    assert (pyramid.ndim, pyramid.levels) == (3, 2)
    pyramid.band("LHL", 1).fill_(7.0)
    assert pyramid.details[0][:, :, 1].eq(7).all()
    assert pyramid.band("LLL", 2) is pyramid.low
    quiet = pyramid.map_details(torch.zeros_like)
    assert isinstance(quiet, Pyramid)
    assert quiet.details[1].count_nonzero() == 0
    assert quiet.low is pyramid.low
    smooth = waverec(quiet, "haar", ndim=3)
    blocks = torch.nn.functional.avg_pool3d(smooth, 4)
    torch.testing.assert_close(torch.nn.functional.interpolate(blocks, scale_factor=4), smooth)
    with pytest.raises(InputError, match=r"kept at the last level, 2, only"):
        pyramid.band("LLL", 1)
    for name, level in (("LX", 1), ("LLH", 3), ("LLH", 0)):
        with pytest.raises(InputError, match=r"bands LLL, LLH, .* at levels 1 to 2"):
            pyramid.band(name, level)


def test_wrong_pyramids_packets_and_levels_are_refused() -> None:
    x = torch.zeros(1, 1, 8, 8)
    pyramid = wavedec(x, "haar", ndim=2, levels=2)
    with pytest.raises(InputError, match="at least one level, got levels=0"):
        wavedec(x, "haar", ndim=2, levels=0)
    with pytest.raises(InputError, match="at least one level"):
        wpdec(x, "haar", ndim=2, levels=0)
    with pytest.raises(GeometryError, match="one level at least"):
        waverec(Pyramid(x, ()), "haar", ndim=2)
    with pytest.raises(GeometryError, match=r"level 2 of a pyramid has a low band of shape .* one spatial size"):
        waverec(Pyramid(pyramid.low, pyramid.details[:1] * 2), "haar", ndim=2)
    with pytest.raises(GeometryError, match="does not fit"):
        waverec(Pyramid(pyramid.low, (pyramid.details[1],) * 2), "haar", ndim=2)
    with pytest.raises(GeometryError, match=r"spatial axes"):
        wavedec(x, "haar", ndim=3)
    with pytest.raises(GeometryError, match=r"packets of 2 level\(s\) in 2-D are \(N, C, 16\)"):
        wprec(torch.zeros(1, 1, 4, 4, 4), "haar", ndim=2, levels=2)
    with pytest.raises(GeometryError, match="does not fit"):
        wprec(torch.zeros(1, 1, 16, 4, 4), "haar", ndim=2, levels=2, output_size=(20, 16))
