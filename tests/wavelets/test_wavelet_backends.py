"""One operator, several back-ends: same numbers, honest fallback."""

import warnings

import pytest
import torch

from medwave.core.errors import DeviceError, InputError
from medwave.wavelets import backends, dwt, dwt_low, idwt
from medwave.wavelets.backends import compiled, plain
from medwave.wavelets.extension import RULES
from medwave.wavelets.filters import kernels, kernels_key


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior2.2", "bior3.3", "db7"])
@pytest.mark.parametrize("size", [(5,), (8,), (7, 6), (8, 10), (4, 5, 6), (4, 6, 8)])
def test_compiled_loops_equal_the_torch_form(size: tuple[int, ...], wavelet: str, dtype: torch.dtype) -> None:
    taps = kernels(kernels_key(wavelet, filter_roles="pywt", analysis=True))
    x = torch.randn(2, 3, *size, dtype=dtype)
    near = {"rtol": 1e-5, "atol": 1e-4 if dtype == torch.float32 else 1e-12}
    for rule in RULES:
        for low_only in (False, True):
            bands = plain.analysis(x, taps, rule, len(size), low_only)
            torch.testing.assert_close(compiled.analysis(x, taps, rule, len(size), low_only), bands, **near)
            signal = plain.synthesis(bands, taps, rule, size, low_only)
            torch.testing.assert_close(compiled.synthesis(bands, taps, rule, size, low_only), signal, **near)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
@pytest.mark.parametrize("size", [(33,), (16, 18), (9, 10, 12)])
def test_the_number_of_threads_changes_nothing(size: tuple[int, ...], wavelet: str) -> None:
    x = torch.randn(3, 1, *size)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 3):
            torch.set_num_threads(count)
            bands = dwt(x, wavelet, ndim=len(size), backend="numba")
            results.append((bands, idwt(bands, wavelet, ndim=len(size), output_size=size, backend="numba")))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_values_that_are_not_finite_stay_near_home() -> None:
    x = torch.zeros(1, 1, 16, 16)
    x[0, 0, 8, 8] = torch.nan
    for backend in ("numba", "torch"):
        assert dwt(x, "db2", ndim=2, backend=backend).isnan().sum() == 4 * 2 * 2


@pytest.fixture
def broken_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_broken", {})
    monkeypatch.setattr(backends, "MODULES", {**backends.MODULES, "numba": "medwave.wavelets.backends.absent"})


@pytest.mark.usefixtures("broken_numba")
def test_a_broken_back_end_warns_once_and_gives_the_same_numbers() -> None:
    x = torch.randn(1, 1, 8, 8)
    with pytest.warns(RuntimeWarning, match=r"numba back-end .* does not work here .*MEDWAVE_WAVELET_BACKEND=torch"):
        first = dwt(x, "db2", ndim=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = dwt(x, "db2", ndim=2)
    expected = dwt(x, "db2", ndim=2, backend="torch")
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)


@pytest.mark.usefixtures("broken_numba")
def test_a_forced_back_end_never_falls_back() -> None:
    with pytest.raises(DeviceError, match="numba back-end cannot be used"):
        dwt(torch.zeros(1, 1, 4), "haar", ndim=1, backend="numba")


def test_a_forced_back_end_refuses_another_device() -> None:
    with pytest.raises(DeviceError, match="does cpu tensors"):
        backends.call("analysis", "numba", torch.zeros(1, 1, 4, device="meta"))


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    load = backends._load
    monkeypatch.setattr(backends, "_load", lambda name, function: seen.append(name) or load(name, function))
    x = torch.zeros(1, 1, 4)
    dwt(x, "haar", ndim=1)
    monkeypatch.setenv("MEDWAVE_WAVELET_BACKEND", "torch")
    dwt(x, "haar", ndim=1)
    dwt(x, "haar", ndim=1, backend="numba")  # the argument is the stronger
    assert seen == ["numba", "torch", "numba"]
    monkeypatch.setenv("MEDWAVE_WAVELET_BACKEND", "fast")
    with pytest.raises(InputError, match="backend is one of auto"):
        dwt(x, "haar", ndim=1)


@pytest.mark.parametrize("backend", [None, "torch"])
def test_shapes_without_data(backend: str | None) -> None:
    x = torch.empty(2, 3, 9, 8, device="meta")
    bands = dwt(x, "db2", ndim=2, mode="symmetric", backend=backend)
    assert bands.device.type == "meta"
    assert bands.shape == (2, 3, 4, 6, 5)
    assert dwt_low(x, "db2", ndim=2, backend=backend).shape == (2, 3, 5, 4)
    assert idwt(bands, "db2", ndim=2, mode="symmetric", output_size=(9, 8), backend=backend).shape == x.shape
