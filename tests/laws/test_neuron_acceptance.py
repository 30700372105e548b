"""What the wavelets of the neuron networks promise on a cube of float32 noise.

The other promises of that track have their tests elsewhere: parameter counts (``tests/models/test_waveunet.py``),
tiling (``tests/cubes/test_cubes.py``), file formats (``tests/volumes/test_volumes_v3d.py``), distances and failed
traces (``tests/metrics/test_neuron_scores.py``), the traced Y (``tests/tracing/test_tracer.py``).
"""

import pytest
import torch

from medwave.wavelets import dwt, idwt

WAVELETS = ["haar", "bior2.2", "bior3.3", "bior4.4", "bior5.5", "db2", "db3", "db4", "db5", "db6"]
TAPS = {"haar": 2, "db2": 4, "db3": 6, "db4": 8, "db5": 10, "db6": 12,
        "bior2.2": 6, "bior3.3": 8, "bior4.4": 10, "bior5.5": 12}  # fmt: skip
SIZE = (32, 64, 48)


def round_trip_error(wavelet: str, mode: str) -> torch.Tensor:
    x = torch.randn(1, 1, *SIZE)
    options = {"ndim": 3, "mode": mode, "filter_roles": "reference"}
    return (idwt(dwt(x, wavelet, **options), wavelet, output_size=SIZE, **options) - x)[0, 0].abs()


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_a_cube_comes_back_everywhere_with_periodic_borders(wavelet: str) -> None:
    assert round_trip_error(wavelet, "periodization").max() <= 1e-5


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_a_cube_comes_back_away_from_its_faces_with_zeros_outside(wavelet: str) -> None:
    error = round_trip_error(wavelet, "zero_truncated")
    far = TAPS[wavelet]
    assert error[far:-far, far:-far, far:-far].max() <= 1e-5
    if wavelet == "haar":
        assert error.max() <= 1e-5
    else:
        assert error.max() > 0.1  # the faces are lost, which is why it is not the default


@pytest.mark.parametrize("mode", ["periodization", "zero_truncated"])
@pytest.mark.parametrize("wavelet", WAVELETS)
def test_the_low_band_of_ones_is_two_to_the_three_halves_inside(wavelet: str, mode: str) -> None:
    low = dwt(torch.ones(1, 1, *SIZE), wavelet, ndim=3, mode=mode, filter_roles="reference")[0, 0, 0]
    far = TAPS[wavelet] // 2
    torch.testing.assert_close(
        low[far:-far, far:-far, far:-far], torch.full_like(low, 8**0.5)[far:-far, far:-far, far:-far]
    )
