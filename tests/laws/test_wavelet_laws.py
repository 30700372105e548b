"""Laws of the wavelet pair over shapes, wavelets, modes and types."""

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medwave.wavelets import MODES, dwt, idwt, wavelet_names

EXACT_MODES = [mode for mode in MODES if mode != "zero_truncated"]
WAVELETS = ["haar", "db2", "db3", "sym4", "coif1", "bior1.3", "bior2.2", "bior3.3", "rbio2.4", "ch3.1", "db9"]

sizes = st.lists(st.integers(2, 11), min_size=1, max_size=3).map(tuple)
wavelets = st.sampled_from(WAVELETS)
roles = st.sampled_from(["pywt", "reference"])
backends = st.sampled_from(["numba", "torch"])
seeds = st.integers(0, 2**16)
laws = settings(deadline=None, max_examples=60)


def random(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


@laws
@given(sizes, wavelets, st.sampled_from(EXACT_MODES), roles, backends, seeds)
def test_the_inverse_undoes_the_transform(size, wavelet, mode, role, backend, seed) -> None:
    x = random(seed, 2, 1, *size)
    options = {"ndim": len(size), "mode": mode, "filter_roles": role, "backend": backend}
    back = idwt(dwt(x, wavelet, **options), wavelet, output_size=size, **options)
    torch.testing.assert_close(back, x, atol=1e-8, rtol=0)


@pytest.mark.parametrize("wavelet", wavelet_names())
@settings(deadline=None, max_examples=8)
@given(st.lists(st.integers(2, 15), min_size=1, max_size=3).map(tuple), backends, seeds)
def test_no_wavelet_loses_twice_what_pywavelets_loses(wavelet, size, backend, seed) -> None:
    """Any size, odd ones cropped. Some tables of PyWavelets are approximate, so no fixed bound fits all of them."""
    x = random(seed, 1, 2, *size)
    options = {"ndim": len(size), "backend": backend}
    ours = idwt(dwt(x, wavelet, **options), wavelet, output_size=size, **options)
    same = {"wavelet": wavelet, "mode": "periodization", "axes": tuple(range(2, 2 + len(size)))}
    theirs = pywt.idwtn(pywt.dwtn(x.numpy(), **same), **same)[(..., *(slice(n) for n in size))]
    taps = len(pywt.Wavelet(wavelet.replace("ch", "bior")).dec_lo)
    rounding = max(8, taps) * np.finfo(np.float64).eps  # of sums of so many products of samples up to about four
    assert float((ours - x).abs().max()) <= 2 * max(float(np.abs(theirs - x.numpy()).max()), rounding)


@laws
@given(sizes, wavelets, st.sampled_from(MODES), roles, backends, seeds)
def test_backward_is_the_exact_adjoint(size, wavelet, mode, role, backend, seed) -> None:
    """<A x, y> = <x, A^T y> for the transform and for its inverse."""
    options = {"ndim": len(size), "mode": mode, "filter_roles": role, "backend": backend}
    x = random(seed, 2, 1, *size).requires_grad_()
    bands = dwt(x, wavelet, **options)
    y = random(seed + 1, *bands.shape).requires_grad_()
    (adjoint,) = torch.autograd.grad(bands, x, y)
    torch.testing.assert_close((bands * y).sum(), (x * adjoint).sum())
    signal = idwt(y, wavelet, output_size=size, **options)
    (adjoint,) = torch.autograd.grad(signal, y, x)
    torch.testing.assert_close((signal * x).sum(), (y * adjoint).sum())


@laws
@given(sizes, wavelets, st.sampled_from(MODES), backends, seeds)
def test_items_and_channels_are_treated_alike(size, wavelet, mode, backend, seed) -> None:
    x = random(seed, 3, 2, *size)
    options = {"ndim": len(size), "mode": mode, "backend": backend}
    bands = dwt(x, wavelet, **options)
    for n in range(3):
        for c in range(2):
            torch.testing.assert_close(dwt(x[n : n + 1, c : c + 1], wavelet, **options), bands[n : n + 1, c : c + 1])


@laws
@given(sizes, wavelets, st.sampled_from(MODES), seeds, st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_every_type_agrees_with_float64(size, wavelet, mode, seed, dtype) -> None:
    x = random(seed, 1, 2, *size, dtype=dtype)
    options = {"ndim": len(size), "mode": mode}
    bands = dwt(x, wavelet, **options)
    assert bands.dtype == dtype
    exact = dwt(x.double(), wavelet, **options)
    unit = max(torch.finfo(dtype).eps, 1e-6)
    torch.testing.assert_close(bands.double(), exact, atol=unit * max(1.0, float(exact.abs().max())), rtol=unit)


@laws
@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.sampled_from(["haar", "db2", "sym4", "coif1"]), seeds)
def test_periodized_orthogonal_transforms_are_rotations(halves, wavelet, seed) -> None:
    size = [2 * n for n in halves]
    x = random(seed, 1, 2, *size).requires_grad_()
    bands = dwt(x, wavelet, ndim=len(size))
    torch.testing.assert_close(bands.square().sum(), x.square().sum(), rtol=1e-9, atol=0)
    (adjoint,) = torch.autograd.grad(bands, x, bands)
    torch.testing.assert_close(adjoint, x, atol=1e-9, rtol=0)
