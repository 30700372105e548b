"""Names, taps, roles and bands."""

import math

import pytest
import pywt
import torch

from medwave.core.errors import GeometryError, InputError, MedwaveError
from medwave.wavelets import band_names, named_bands, wavelet_names
from medwave.wavelets.filters import canonical_name, kernels, kernels_key


def taps(wavelet: str, *, roles: str = "reference", analysis: bool = True, gain: str = "orthonormal") -> list[float]:
    return list(kernels(kernels_key(wavelet, filter_roles=roles, analysis=analysis, gain=gain)).low)


def test_bands_count_in_binary_with_letters_along_the_tensor_axes() -> None:
    assert band_names(1) == ("L", "H")
    assert band_names(2) == ("LL", "LH", "HL", "HH")
    assert band_names(3) == ("LLL", "LLH", "LHL", "LHH", "HLL", "HLH", "HHL", "HHH")


def test_named_bands_are_views() -> None:
    bands = torch.zeros(1, 2, 8, 3, 3, 3)
    named_bands(bands, 3)["LHL"].fill_(1.0)
    assert bands[:, :, 2].eq(1).all()
    assert bands.sum() == bands[:, :, 2].numel()


def test_all_discrete_wavelets_are_known() -> None:
    assert len(wavelet_names()) == 106


@pytest.mark.parametrize("name", ["1.1", "2.2", "3.3", "4.4", "5.5"])
def test_ch_is_an_alias_of_bior(name: str) -> None:
    assert canonical_name(f"ch{name}") == canonical_name(f"CH{name}") == f"bior{name}"


@pytest.mark.parametrize(
    ("wavelet", "expected"),
    [
        ("haar", [1 / math.sqrt(2)] * 2),
        ("db2", [0.48296, 0.83652, 0.22414, -0.12941]),
        ("ch2.2", [0.35355, 0.70711, 0.35355]),
        ("ch3.3", [v * math.sqrt(2) / 8 for v in (1, 3, 3, 1)]),
        ("ch4.4", [-0.06454, -0.04069, 0.41809, 0.78849, 0.41809, -0.04069, -0.06454]),
        (
            "ch5.5",
            [0.01346, -0.00269, -0.13671, -0.0935, 0.4768, 0.89951, 0.4768, -0.0935, -0.13671, -0.00269, 0.01346],
        ),
    ],
)
def test_reference_low_pass_is_the_published_one(wavelet: str, expected: list[float]) -> None:
    nonzero = [v for v in taps(wavelet) if v != 0]
    assert nonzero == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("wavelet", ["haar", "db4", "sym5", "coif2"])
def test_roles_agree_for_orthogonal_wavelets(wavelet: str) -> None:
    for analysis in (True, False):
        assert taps(wavelet, analysis=analysis) == pytest.approx(taps(wavelet, roles="pywt", analysis=analysis))


def test_roles_swap_the_sides_of_a_biorthogonal_bank() -> None:
    for analysis in (True, False):
        assert taps("bior2.2", analysis=analysis) == taps("bior2.2", roles="pywt", analysis=not analysis)
    assert taps("bior2.2", roles="pywt") == pywt.Wavelet("bior2.2").dec_lo[::-1]


@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior3.3"])
def test_unit_gain_sums_to_one(wavelet: str) -> None:
    assert sum(taps(wavelet)) == pytest.approx(math.sqrt(2))
    assert sum(taps(wavelet, gain="unit")) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "hint"), [("bd2", "db2"), ("bior2.3", "bior2."), ("harr", "haar"), ("ch9.9", "bior"), ("morl", "coif")]
)
def test_an_unknown_wavelet_gets_near_names(name: str, hint: str) -> None:
    with pytest.raises(InputError, match="unknown discrete wavelet") as caught:
        canonical_name(name)
    assert hint in str(caught.value)


def test_unknown_roles_gains_and_dimensions_are_refused() -> None:
    with pytest.raises(InputError, match="filter_roles is one of pywt, reference"):
        kernels_key("haar", filter_roles="dual", analysis=True)
    with pytest.raises(InputError, match="ll_gain is one of orthonormal, unit"):
        kernels_key("haar", filter_roles="pywt", analysis=True, gain="two")
    with pytest.raises(GeometryError, match="1, 2 or 3 axes"):
        band_names(4)
    with pytest.raises(MedwaveError, match=r"\(N, C, 4\) and 2 spatial axes"):
        named_bands(torch.zeros(1, 1, 8, 2, 2), 2)
