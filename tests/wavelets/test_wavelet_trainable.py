"""Learned filters: they start as the wavelet, gradients are right, the penalty is the error and leads to none."""

import pytest
import torch

from medwave.core.errors import GeometryError, InputError
from medwave.wavelets import DWT, IDWT, MODES, FilterBank, LearnedDWT, LearnedIDWT, wavelet_names
from medwave.wavelets.filters import kernels, kernels_key

EXACT = [mode for mode in MODES if mode != "zero_truncated"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("wavelet", "orthogonal"), [("haar", None), ("db3", True), ("db3", False), ("ch2.2", None)])
@pytest.mark.parametrize("size", [(9,), (8, 7), (5, 6, 4)])
def test_layers_start_as_the_wavelet(size: tuple[int, ...], wavelet: str, orthogonal: bool | None, mode: str) -> None:
    bank, ndim = FilterBank(wavelet, orthogonal=orthogonal), len(size)
    x = torch.randn(2, 3, *size)
    bands = LearnedDWT(bank, ndim, mode=mode)(x)
    torch.testing.assert_close(bands, DWT(wavelet, ndim, mode=mode)(x), atol=1e-5, rtol=1e-5)
    back = LearnedIDWT(bank, ndim, mode=mode)(bands, size)
    torch.testing.assert_close(back, IDWT(wavelet, ndim, mode=mode)(bands, size), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("wavelet", [name for name in wavelet_names() if name != "dmey"])
def test_every_wavelet_is_a_bank_without_penalty(wavelet: str) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        bank = FilterBank(wavelet)
    finally:
        torch.set_default_dtype(torch.float32)
    for analysis in (True, False):
        taps = kernels(kernels_key(wavelet, filter_roles="pywt", analysis=analysis))
        torch.testing.assert_close(bank.taps(analysis=analysis).low, torch.tensor(taps.low, dtype=torch.float64))
        torch.testing.assert_close(bank.taps(analysis=analysis).high, torch.tensor(taps.high, dtype=torch.float64))
    assert bank.reconstruction_penalty() < 1e-20
    assert bank.mean_penalty() < 1e-16


@pytest.mark.parametrize("orthogonal", [True, False])
def test_the_penalty_is_the_error_of_impulses(orthogonal: bool) -> None:
    bank = FilterBank("db3", orthogonal=orthogonal, length=8).double()
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    impulses = torch.eye(40, dtype=torch.float64)[20:22, None]
    back = LearnedIDWT(bank, 1)(LearnedDWT(bank, 1)(impulses))
    torch.testing.assert_close(bank.reconstruction_penalty(), (back - impulses).square().sum())
    assert bank.reconstruction_penalty() > 1e-3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("orthogonal", [True, False])
def test_gradients_of_signal_and_taps(orthogonal: bool, mode: str) -> None:
    bank = FilterBank("db2", orthogonal=orthogonal).double()
    analysis, synthesis = LearnedDWT(bank, 2, mode=mode), LearnedIDWT(bank, 2, mode=mode)
    x = torch.randn(1, 1, 5, 4, dtype=torch.float64, requires_grad=True)

    def both(x: torch.Tensor, *taps: torch.Tensor) -> torch.Tensor:
        values = dict(zip((name for name, _ in bank.named_parameters()), taps, strict=True))
        bands = torch.func.functional_call(analysis, {f"bank.{k}": v for k, v in values.items()}, x)
        return torch.func.functional_call(synthesis, {f"bank.{k}": v for k, v in values.items()}, (bands, (5, 4)))

    inputs = (x, *(p.detach().clone().requires_grad_() for p in bank.parameters()))
    torch.autograd.gradcheck(both, inputs, fast_mode=True)
    torch.autograd.gradgradcheck(both, inputs, fast_mode=True)


@pytest.mark.parametrize("orthogonal", [True, False])
def test_the_penalty_alone_leads_back_to_perfect_reconstruction(orthogonal: bool) -> None:
    bank = FilterBank("haar", orthogonal=orthogonal, length=6)
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    x = torch.randn(1, 2, 15, 10)
    analysis, synthesis = LearnedDWT(bank, 2), LearnedIDWT(bank, 2)
    assert (synthesis(analysis(x), (15, 10)) - x).abs().max() > 0.1
    optimizer = torch.optim.LBFGS(
        bank.parameters(), max_iter=300, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        penalty = bank.reconstruction_penalty() + bank.mean_penalty()
        penalty.backward()
        return penalty

    optimizer.step(loss)
    for mode in EXACT:
        analysis, synthesis = LearnedDWT(bank, 2, mode=mode), LearnedIDWT(bank, 2, mode=mode)
        torch.testing.assert_close(synthesis(analysis(x), (15, 10)), x, atol=2e-4, rtol=0)
    assert analysis(torch.ones(1, 1, 8, 8))[:, :, 1:].abs().max() < 1e-4


def test_filters_learn_a_task_and_stay_a_wavelet() -> None:
    """Ramps have no details under two vanishing moments; haar has one and learns to do better with four taps."""
    bank = FilterBank("haar", length=4)
    analysis, synthesis = LearnedDWT(bank, 1), LearnedIDWT(bank, 1)
    ramps = torch.linspace(-1, 1, 32) * torch.randn(16, 1, 1)
    inner = slice(2, -2)

    def details() -> torch.Tensor:
        return analysis(ramps)[:, :, 1, inner].square().sum()

    start = details().item()
    optimizer = torch.optim.Adam(bank.parameters(), lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        (details() + 10 * bank.reconstruction_penalty() + bank.mean_penalty()).backward()
        optimizer.step()
    assert details() < 0.01 * start
    torch.testing.assert_close(synthesis(analysis(ramps)), ramps, atol=0.02, rtol=0)


def test_half_precision_autocast_state_and_repr() -> None:
    bank = FilterBank("ch2.2")
    net = torch.nn.Sequential(LearnedDWT(bank, 2, mode="symmetric"), LearnedIDWT(bank, 2, mode="symmetric"))
    x = torch.randn(1, 2, 8, 8)
    for dtype in (torch.bfloat16, torch.float16):
        assert net(x.to(dtype)).dtype == dtype
        torch.testing.assert_close(net(x.to(dtype)).float(), x, atol=5e-2, rtol=5e-2)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(net(x), x, atol=1e-4, rtol=1e-4)
    assert [p.shape for p in net.parameters()] == [(6,), (6,)]  # one bank, shared
    twin = FilterBank("bior2.2")
    twin.load_state_dict(bank.state_dict())
    assert sorted(twin.state_dict()) == ["dual", "low"]
    assert repr(FilterBank("db2", length=6)) == "FilterBank(length=6, orthogonal=True)"
    assert "ndim=2, mode='symmetric'" in repr(net)


def test_impossible_banks_and_tensors_are_refused() -> None:
    with pytest.raises(InputError, match=r"'bior2.2' is not orthogonal: start from dbN"):
        FilterBank("bior2.2", orthogonal=True)
    for length in (3, 2):
        with pytest.raises(InputError, match="length is even and at least the 4 taps of 'db2'"):
            FilterBank("db2", length=length)
    with pytest.raises(InputError, match="did you mean"):
        FilterBank("bd2")
    bank = FilterBank("db2")
    with pytest.raises(InputError, match="did you mean symmetric"):
        LearnedDWT(bank, 2, mode="symetric")
    with pytest.raises(GeometryError, match="2 spatial axes"):
        LearnedDWT(bank, 2)(torch.zeros(1, 1, 4))
    with pytest.raises(GeometryError, match=r"bands \(N, C, 4\)"):
        LearnedIDWT(bank, 2)(torch.zeros(1, 1, 3, 4, 4))
