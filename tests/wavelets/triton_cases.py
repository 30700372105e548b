"""The Triton kernels in Triton's own interpreter: run by ``test_wavelet_triton.py`` in a process of its own.

The interpreter is chosen when kernels are imported (``TRITON_INTERPRET=1``) and holds for the whole process.
"""

import os

import pytest
import torch

from medwave.wavelets import backends, dwt, dwt_low, idwt
from medwave.wavelets.backends import gpu, plain
from medwave.wavelets.extension import RULES, coefficient_size
from medwave.wavelets.filters import Kernels, kernels, kernels_key

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1 before kernels are imported", allow_module_level=True)


def bank(wavelet: str) -> Kernels:
    return kernels(kernels_key(wavelet, filter_roles="pywt", analysis=True))


@pytest.fixture(autouse=True)
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One long march per tile: the interpreter pays per program."""
    monkeypatch.setattr(gpu, "PROGRAMS", 1)
    monkeypatch.setattr(gpu, "OVERLAPPING_PROGRAMS", 1)


def check(wavelet: str, rule: str, size: tuple[int, ...], low_only: bool, dtype: torch.dtype = torch.float64) -> None:
    """Both kernels equal the torch form, and each other's transpose; lines have two channels, as many as it takes."""
    taps = bank(wavelet)
    near = {"rtol": 0, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-5}
    x = torch.randn(1, 2 if len(size) == 1 else 1, *size, dtype=dtype)
    bands = gpu.analysis(x, taps, rule, len(size), low_only)
    torch.testing.assert_close(bands, plain.analysis(x, taps, rule, len(size), low_only), **near)
    y = torch.randn_like(bands)
    signal = gpu.synthesis(y, taps, rule, size, low_only)
    torch.testing.assert_close(signal, plain.synthesis(y, taps, rule, size, low_only), **near)
    if dtype == torch.float64:
        assert torch.sum(bands * y).item() == pytest.approx(torch.sum(x * signal).item(), rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior2.2", "bior4.4", "sym5"])
def test_lines(wavelet: str, rule: str) -> None:
    for size, low_only in ((12, False), (5, True), (2, False)):
        check(wavelet, rule, (size,), low_only)


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_images(wavelet: str, rule: str) -> None:
    check(wavelet, rule, (5, 6), False)


@pytest.mark.parametrize("rule", ["periodization", "zero"])
@pytest.mark.parametrize("wavelet", ["bior2.2", "bior4.4", "sym5"])
def test_images_and_longer_filters(wavelet: str, rule: str) -> None:
    check(wavelet, rule, (5, 6), False)


@pytest.mark.parametrize("rule", list(RULES))
def test_volumes(rule: str) -> None:
    check("haar", rule, (3, 5, 3), False)


@pytest.mark.parametrize("rule", ["periodization", "zero", "zero_truncated", "periodization_crop"])
def test_volumes_and_longer_filters(rule: str) -> None:
    check("db2", rule, (4, 3, 6), False)


@pytest.mark.parametrize(("wavelet", "rule"), [("bior4.4", "periodization"), ("sym5", "reflect")])
def test_volumes_and_filters_too_long_for_one_pass(wavelet: str, rule: str) -> None:
    check(wavelet, rule, (3, 4, 2), False)


@pytest.mark.parametrize(
    ("wavelet", "size", "rule"),
    [("haar", (6, 8), "symmetric"), ("db2", (4, 5), "symmetric"), ("db2", (4, 3, 5), "zero"), ("sym5", (5, 6), "zero")],
)
def test_the_low_band_alone(wavelet: str, size: tuple[int, ...], rule: str) -> None:
    check(wavelet, rule, size, True)


@pytest.mark.parametrize(
    ("wavelet", "size", "rule"),
    [("haar", (4, 6, 8), "zero"), ("db2", (3, 36), "symmetric"), ("db2", (4, 3, 34), "periodization")],
)
def test_many_tiles_and_short_marches(
    wavelet: str, size: tuple[int, ...], rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "TILE", 16)
    monkeypatch.setattr(gpu, "PROGRAMS", 1000)
    monkeypatch.setattr(gpu, "OVERLAPPING_PROGRAMS", 1000)
    check(wavelet, rule, size, False)


@pytest.mark.parametrize(("wavelet", "size"), [("haar", (4, 6)), ("db2", (5, 6)), ("db2", (3, 4, 6))])
def test_offsets_of_64_bits(wavelet: str, size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "WIDE_FROM", 0)
    check(wavelet, "periodization", size, False)


@pytest.mark.parametrize("rule", list(RULES))
def test_one_axis_at_a_time(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "FUSED_TAPS", {2: 0, 3: 0})
    check("db2", rule, (3, 5, 4), False)
    check("db2", rule, (5, 8), True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("wavelet", "size"), [("haar", (6, 16)), ("db2", (4, 6, 5)), ("sym5", (12, 11))])
def test_types_of_lower_precision(wavelet: str, size: tuple[int, ...], dtype: torch.dtype) -> None:
    """Half precision is computed in float32 and rounded once, like the torch form: an ulp apart at most."""
    if dtype == torch.float32:
        check(wavelet, "zero", size, False, dtype)
        return
    taps, ulp = bank(wavelet), torch.finfo(dtype).eps
    x = torch.randn(2, 1, *size).to(dtype)
    bands = gpu.analysis(x, taps, "periodization", len(size), False)
    assert bands.dtype == dtype
    expected = plain.analysis(x.float(), taps, "periodization", len(size), False)
    torch.testing.assert_close(bands.float(), expected, rtol=ulp, atol=1e-5)
    signal = gpu.synthesis(bands, taps, "periodization", size, False)
    expected = plain.synthesis(bands.float(), taps, "periodization", size, False)
    torch.testing.assert_close(signal.float(), expected, rtol=ulp, atol=1e-5)


@pytest.mark.parametrize("size", [(2,), (2, 2)])
def test_a_batch_beyond_65535(size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "TILE", 2**14)
    taps, x = bank("db2"), torch.randn(66_000, 1, *size, dtype=torch.float64)
    bands = gpu.analysis(x, taps, "periodization", len(size), False)
    torch.testing.assert_close(bands, plain.analysis(x, taps, "periodization", len(size), False))
    signal = gpu.synthesis(bands, taps, "periodization", size, False)
    torch.testing.assert_close(signal, plain.synthesis(bands, taps, "periodization", size, False))


@pytest.fixture
def triton_does_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "DEVICES", {"triton": "cpu"})


@pytest.mark.usefixtures("triton_does_cpu")
@pytest.mark.parametrize("mode", ["periodization", "symmetric"])
def test_behind_the_operator(mode: str) -> None:
    x = torch.randn(1, 1, 5, 4, dtype=torch.float64, requires_grad=True)
    results = []
    for backend in ("triton", "torch"):
        bands = dwt(x, "db2", ndim=2, mode=mode, backend=backend)
        back = idwt(bands, "db2", ndim=2, mode=mode, output_size=(5, 4), backend=backend)
        (slope,) = torch.autograd.grad((bands**3).sum() + (back**3).sum(), x)
        results.append((bands, back, slope))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(results[0][1], x)
    torch.testing.assert_close(dwt_low(x, "db2", ndim=2, mode=mode, backend="triton"), results[0][0][:, :, 0])


@pytest.mark.usefixtures("triton_does_cpu")
def test_memory_orders_and_empty_batches() -> None:
    x = torch.randn(2, 3, 6, 5).to(memory_format=torch.channels_last)
    expected = dwt(x, "db2", ndim=2, backend="torch")
    torch.testing.assert_close(dwt(x, "db2", ndim=2, backend="triton"), expected)
    torch.testing.assert_close(dwt(x.mT, "db2", ndim=2, backend="triton"), dwt(x.mT, "db2", ndim=2, backend="torch"))
    assert dwt(x[:0], "db2", ndim=2, backend="triton").shape == (0, 3, 4, 3, 3)


def test_values_that_are_not_finite_stay_near_home() -> None:
    x = torch.zeros(1, 1, 16, 16)
    x[0, 0, 8, 8] = torch.nan
    bands = gpu.analysis(x, bank("db2"), "periodization", 2, False)
    assert bands.isnan().sum() == 4 * 2 * 2
    assert bands.shape[-1] == coefficient_size(16, 4, "periodization")
