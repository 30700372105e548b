"""The modules: same numbers as the functions, no state, clear repr, autocast, replication."""

import copy
import pickle

import pytest
import torch

from medwave.core.errors import GeometryError, InputError
from medwave.wavelets import DWT, IDWT, DWTLow, dwt, dwt_low, idwt


def test_modules_equal_the_functions() -> None:
    x = torch.randn(2, 3, 9, 8)
    options = {"mode": "symmetric", "filter_roles": "reference"}
    bands = DWT("ch2.2", 2, **options)(x)
    torch.testing.assert_close(bands, dwt(x, "ch2.2", ndim=2, **options))
    torch.testing.assert_close(
        IDWT("ch2.2", 2, **options)(bands, (9, 8)), idwt(bands, "ch2.2", ndim=2, output_size=(9, 8), **options)
    )
    torch.testing.assert_close(
        DWTLow("ch2.2", 2, ll_gain="unit", **options)(x), dwt_low(x, "ch2.2", ndim=2, ll_gain="unit", **options)
    )


def test_modules_carry_no_state() -> None:
    layers = torch.nn.Sequential(DWT("db2", 2), IDWT("db2", 2))
    assert layers.state_dict() == {}
    x = torch.randn(1, 1, 4, 6)
    for twin in (copy.deepcopy(layers), pickle.loads(pickle.dumps(layers))):
        torch.testing.assert_close(twin(x), x, atol=1e-5, rtol=1e-5)
    assert layers.double()(x.double()).dtype == torch.float64
    assert layers.half()(x.half()).dtype == torch.float16


def test_repr_says_what_it_does() -> None:
    assert repr(DWT("db2", 3)) == "DWT('db2', ndim=3, mode='periodization', filter_roles='pywt')"
    assert repr(IDWT("haar", 2, mode="zero", backend="torch")) == (
        "IDWT('haar', ndim=2, mode='zero', filter_roles='pywt', backend='torch')"
    )
    assert "ll_gain='unit'" in repr(DWTLow("haar", 2, ll_gain="unit"))
    assert DWT("haar", 2).bands == ("LL", "LH", "HL", "HH")


def test_names_are_checked_when_the_module_is_made() -> None:
    for wrong in ({"wavelet": "hear"}, {"mode": "periodic"}, {"filter_roles": "x"}, {"backend": "x"}):
        with pytest.raises(InputError):
            DWT(**{"wavelet": "haar", "ndim": 2, **wrong})
    with pytest.raises(GeometryError):
        DWT("haar", 5)
    with pytest.raises(InputError, match="ll_gain"):
        DWTLow("haar", 2, ll_gain="x")


def test_autocast_keeps_the_type_that_arrives() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), DWTLow("db2", 2, ll_gain="unit"))
    x = torch.randn(1, 1, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(x)
        assert out.dtype == torch.bfloat16
        assert DWT("db2", 2)(x).dtype == torch.float32
    out.float().sum().backward()
    assert net[0].weight.grad.dtype == torch.float32
    torch.testing.assert_close(out.float(), net(x), atol=3e-2, rtol=3e-2)
