"""The transform against PyWavelets, ptwt, explicit matrices and known answers."""

import math

import numpy as np
import numpy.typing as npt
import ptwt
import pytest
import pywt
import torch

from medwave.core.errors import GeometryError, InputError
from medwave.wavelets import MODES, band_names, dwt, dwt_low, idwt, named_bands, wavelet_names
from medwave.wavelets.filters import kernels, kernels_key

PAPER_WAVELETS = ["haar", "db2", "db3", "db4", "db5", "db6", "ch2.2", "ch3.3", "ch4.4", "ch5.5"]
SIZES = {1: [(16,), (13,), (2,)], 2: [(8, 12), (9, 7)], 3: [(4, 6, 8), (5, 6, 7)]}
SHAPES = [(ndim, size) for ndim, sizes in SIZES.items() for size in sizes]
BACKENDS = ["numba", "torch"]


def oracle_name(band: str) -> str:
    return band.replace("L", "a").replace("H", "d")


def truncated_matrix(taps: tuple[float, ...], size: int) -> npt.NDArray[np.float64]:
    """Rows shifted by two, ``taps / 2 - 1`` columns cut from both sides (even size)."""
    wide = np.zeros((size // 2, size + len(taps) - 2))
    for i in range(size // 2):
        wide[i, 2 * i : 2 * i + len(taps)] = taps
    cut = len(taps) // 2 - 1
    return wide[:, cut : wide.shape[1] - cut]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["periodization", "zero", "symmetric", "reflect"])
@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior2.2", "db5"])
@pytest.mark.parametrize(("ndim", "size"), SHAPES)
def test_equals_pywavelets(ndim: int, size: tuple[int, ...], wavelet: str, mode: str, backend: str) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    axes = tuple(range(2, 2 + ndim))
    expected = pywt.dwtn(x.numpy(), wavelet, mode=mode, axes=axes)
    bands = dwt(x, wavelet, ndim=ndim, mode=mode, backend=backend)
    for name, band in named_bands(bands, ndim).items():
        np.testing.assert_allclose(band.numpy(), expected[oracle_name(name)], atol=1e-12)
    inverse = idwt(bands, wavelet, ndim=ndim, mode=mode, backend=backend)
    np.testing.assert_allclose(inverse.numpy(), pywt.idwtn(expected, wavelet, mode=mode, axes=axes), atol=1e-11)


@pytest.mark.parametrize("mode", ["periodization", "zero", "symmetric", "reflect"])
@pytest.mark.parametrize("wavelet", wavelet_names())
def test_every_wavelet_equals_pywavelets_in_one_dimension(wavelet: str, mode: str) -> None:
    for size in (31, 6):  # longer and shorter than most filters
        x = torch.randn(1, 2, size, dtype=torch.float64)
        low, high = pywt.dwt(x.numpy(), wavelet, mode=mode)
        bands = dwt(x, wavelet, ndim=1, mode=mode)
        np.testing.assert_allclose(bands.numpy(), np.stack([low, high], axis=2), atol=1e-10)


@pytest.mark.parametrize("mode", ["zero", "symmetric", "reflect"])
@pytest.mark.parametrize("wavelet", ["haar", "db2", "db4"])
def test_equals_ptwt_on_even_sizes(wavelet: str, mode: str) -> None:
    def detail(band: torch.Tensor) -> npt.NDArray[np.float64]:
        return band.numpy()[:, 0]

    x = torch.randn(2, 1, 8, 10, 12, dtype=torch.float64)
    ours = named_bands(dwt(x, wavelet, ndim=3, mode=mode), 3)
    low, details = ptwt.wavedec3(x[:, 0], wavelet, mode=mode, level=1)
    np.testing.assert_allclose(detail(ours["LLL"]), low.numpy(), atol=1e-12)
    for name in band_names(3)[1:]:
        np.testing.assert_allclose(detail(ours[name]), details[oracle_name(name)].numpy(), atol=1e-12)
    ours = named_bands(dwt(x[:, :, 0], wavelet, ndim=2, mode=mode), 2)
    low, (horizontal, vertical, diagonal) = ptwt.wavedec2(x[:, 0, 0], wavelet, mode=mode, level=1)
    for name, theirs in zip(band_names(2), (low, vertical, horizontal, diagonal), strict=True):
        np.testing.assert_allclose(detail(ours[name]), theirs.numpy(), atol=1e-12)


@pytest.mark.parametrize("wavelet", wavelet_names())
def test_round_trip_error_is_within_twice_that_of_pywavelets(wavelet: str) -> None:
    x = torch.randn(4, 1, 256, dtype=torch.float64)
    ours = idwt(dwt(x, wavelet, ndim=1), wavelet, ndim=1)
    theirs = pywt.idwt(*pywt.dwt(x.numpy(), wavelet, mode="periodization"), wavelet, mode="periodization")
    floor = 4 * np.finfo(np.float64).eps  # rounding of one sample of this size
    assert (ours - x).abs().max() <= 2 * max(np.abs(theirs - x.numpy()).max(), floor)


@pytest.mark.parametrize("roles", ["pywt", "reference"])
@pytest.mark.parametrize("wavelet", PAPER_WAVELETS)
@pytest.mark.parametrize("size", [(16,), (21,), (12, 14), (13, 15), (12, 12, 14), (13, 12, 15)])
def test_periodization_reconstructs_the_wavelets_of_the_papers(size: tuple[int, ...], wavelet: str, roles: str) -> None:
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    ndim = len(size)
    bands = dwt(x, wavelet, ndim=ndim, filter_roles=roles)
    assert bands.shape == (1, 2, 2**ndim, *[(n + 1) // 2 for n in size])
    assert (idwt(bands, wavelet, ndim=ndim, filter_roles=roles, output_size=size) - x).abs().max() < 1e-10


@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym4", "coif1"])
@pytest.mark.parametrize("size", [(16,), (8, 10), (8, 10, 12)])
def test_orthogonal_wavelets_preserve_energy(size: tuple[int, ...], wavelet: str) -> None:
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    assert dwt(x, wavelet, ndim=len(size)).square().sum() == pytest.approx(float(x.square().sum()), rel=1e-10)


@pytest.mark.parametrize("wavelet", PAPER_WAVELETS)
def test_zero_truncated_is_the_explicit_matrix(wavelet: str) -> None:
    analysis = kernels(kernels_key(wavelet, filter_roles="reference", analysis=True))
    synthesis = kernels(kernels_key(wavelet, filter_roles="reference", analysis=False))
    height, width = 14, 18
    x = torch.randn(1, 1, height, width, dtype=torch.float64)
    options = {"ndim": 2, "mode": "zero_truncated", "filter_roles": "reference"}
    bands = dwt(x, wavelet, **options)
    rows = [truncated_matrix(t, height) for t in analysis]
    columns = [truncated_matrix(t, width) for t in analysis]
    for i, band in enumerate(bands[0, 0]):
        expected = rows[i // 2] @ x[0, 0].numpy() @ columns[i % 2].T
        np.testing.assert_allclose(band.numpy(), expected, atol=1e-12)
    rows = [truncated_matrix(t, height) for t in synthesis]
    columns = [truncated_matrix(t, width) for t in synthesis]
    expected = sum(rows[i // 2].T @ bands[0, 0, i].numpy() @ columns[i % 2] for i in range(4))
    np.testing.assert_allclose(idwt(bands, wavelet, **options)[0, 0].numpy(), expected, atol=1e-12)


def test_truncation_is_not_exact_for_long_filters_but_for_two_taps() -> None:
    x = torch.randn(1, 1, 32, dtype=torch.float64)
    for wavelet, exact in (("haar", True), ("db2", False)):
        error = idwt(dwt(x, wavelet, ndim=1, mode="zero_truncated"), wavelet, ndim=1, mode="zero_truncated") - x
        assert bool(error.abs().max() < 1e-12) is exact
        assert error[..., 4:-4].abs().max() < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_haar_low_band_is_twice_the_average_pool(backend: str) -> None:
    x = torch.randn(2, 3, 8, 10)
    pooled = torch.nn.functional.avg_pool2d(x, 2)
    torch.testing.assert_close(dwt(x, "haar", ndim=2, backend=backend)[:, :, 0], 2 * pooled)
    torch.testing.assert_close(dwt_low(x, "haar", ndim=2, backend=backend), 2 * pooled)
    torch.testing.assert_close(dwt_low(x, "haar", ndim=2, ll_gain="unit", backend=backend), pooled)


@pytest.mark.parametrize("roles", ["pywt", "reference"])
@pytest.mark.parametrize("wavelet", ["haar", "db2", "ch3.3"])
@pytest.mark.parametrize("size", [(9,), (8, 9), (6, 7, 8)])
def test_low_band_alone_is_the_first_band(size: tuple[int, ...], wavelet: str, roles: str) -> None:
    x = torch.randn(2, 2, *size)
    for mode in MODES:
        options = {"ndim": len(size), "mode": mode, "filter_roles": roles}
        torch.testing.assert_close(dwt_low(x, wavelet, **options), dwt(x, wavelet, **options)[:, :, 0])


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_constant_gains_sqrt2_per_axis_or_nothing(ndim: int) -> None:
    x = torch.ones(1, 1, *[8] * ndim)
    torch.testing.assert_close(dwt_low(x, "db3", ndim=ndim), torch.full((1, 1, *[4] * ndim), math.sqrt(2) ** ndim))
    torch.testing.assert_close(dwt_low(x, "db3", ndim=ndim, ll_gain="unit"), torch.ones(1, 1, *[4] * ndim))


def test_variation_along_h_alone_has_energy_in_hl_alone() -> None:
    x = torch.randn(1, 1, 12, 1).expand(1, 1, 12, 10)
    bands = named_bands(dwt(x, "db2", ndim=2), 2)
    assert bands["HL"].abs().max() > 0.1
    assert max(bands["LH"].abs().max(), bands["HH"].abs().max()) < 1e-5


def test_variation_along_d_alone_has_energy_in_hll_alone() -> None:
    x = torch.randn(1, 1, 8, 1, 1).expand(1, 1, 8, 6, 10)
    bands = named_bands(dwt(x, "haar", ndim=3), 3)
    assert [name for name, band in bands.items() if band.abs().max() > 1e-4] == ["LLL", "HLL"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_float32_rounded_once(dtype: torch.dtype, backend: str, mode: str) -> None:
    x = torch.randn(2, 2, 9, 8).to(dtype)
    bands = dwt(x, "db2", ndim=2, mode=mode, backend=backend)
    exact = dwt(x.float(), "db2", ndim=2, mode=mode, backend=backend)
    assert bands.dtype == dtype
    torch.testing.assert_close(bands, exact.to(dtype), rtol=0, atol=0)
    back = idwt(bands, "db2", ndim=2, mode=mode, backend=backend)
    torch.testing.assert_close(back, idwt(bands.float(), "db2", ndim=2, mode=mode).to(dtype), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_memory_format_does_not_matter(wavelet: str, backend: str) -> None:
    x = torch.randn(2, 4, 6, 8, 10)
    expected = dwt(x, wavelet, ndim=3, backend=backend)
    strided = torch.randn(2, 4, 6, 8, 20)[..., ::2].copy_(x)
    for other in (x.to(memory_format=torch.channels_last_3d), strided, x.transpose(2, 4).contiguous().transpose(2, 4)):
        torch.testing.assert_close(dwt(other, wavelet, ndim=3, backend=backend), expected)
    flipped = expected.transpose(0, 1).contiguous().transpose(0, 1)
    torch.testing.assert_close(idwt(flipped, wavelet, ndim=3, backend=backend), x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_empty_and_very_large_batches(wavelet: str, backend: str) -> None:
    empty = torch.zeros(0, 3, 8, 6, requires_grad=True)
    bands = dwt(empty, wavelet, ndim=2, backend=backend)
    assert bands.shape == (0, 3, 4, 4, 3)
    bands.sum().backward()
    assert idwt(bands, wavelet, ndim=2, backend=backend).shape == empty.shape
    many = torch.randn(65_537, 1, 4, 4)
    bands = dwt(many, wavelet, ndim=2, backend=backend)
    torch.testing.assert_close(bands[-1:], dwt(many[-1:], wavelet, ndim=2, backend=backend))
    torch.testing.assert_close(idwt(bands, wavelet, ndim=2, backend=backend), many, atol=1e-5, rtol=1e-5)


def test_input_is_left_alone() -> None:
    x = torch.randn(1, 1, 6, 6)
    kept = x.clone()
    bands = dwt(x, "haar", ndim=2)
    kept_bands = bands.clone()
    idwt(bands, "haar", ndim=2)
    assert torch.equal(x, kept)
    assert torch.equal(bands, kept_bands)


def test_wrong_arguments_are_refused_with_a_way_out() -> None:
    x = torch.zeros(1, 1, 4, 4)
    with pytest.raises(InputError, match="did you mean db2"):
        dwt(x, "bd2", ndim=2)
    with pytest.raises(InputError, match="did you mean periodization"):
        dwt(x, "haar", ndim=2, mode="periodic")
    with pytest.raises(InputError, match="backend is one of auto, torch, numba"):
        dwt(x, "haar", ndim=2, backend="cuda")
    with pytest.raises(GeometryError, match=r"3-D transform takes \(N, C\) and 3 spatial axes"):
        dwt(x, "haar", ndim=3)
    with pytest.raises(GeometryError, match="1, 2 or 3 axes"):
        dwt(x, "haar", ndim=4)
    with pytest.raises(InputError, match=r"real floating tensors, got torch.int64"):
        dwt(x.long(), "haar", ndim=2)
    with pytest.raises(GeometryError, match=r"'reflect' needs at least 2 .* got 1; use symmetric"):
        dwt(torch.zeros(1, 1, 1), "haar", ndim=1, mode="reflect")
    with pytest.raises(GeometryError, match="at least 1"):
        dwt(torch.zeros(1, 1, 0), "haar", ndim=1)


def test_wrong_bands_and_output_sizes_are_refused() -> None:
    bands = torch.zeros(1, 1, 4, 4, 4)
    with pytest.raises(GeometryError, match=r"bands \(N, C, 8\) and 3 spatial axes"):
        idwt(bands, "haar", ndim=3)
    with pytest.raises(GeometryError, match=r"bands \(N, C, 2\)"):
        idwt(torch.zeros(1, 1, 3, 4), "haar", ndim=1)
    for size in ((6, 8), (8,), (9, 8)):
        with pytest.raises(GeometryError, match=r"at most \(8, 8\), or one less"):
            idwt(bands, "haar", ndim=2, output_size=size)
    with pytest.raises(GeometryError, match="does not fit"):
        idwt(torch.zeros(1, 1, 2, 2), "db4", ndim=1, mode="zero")
