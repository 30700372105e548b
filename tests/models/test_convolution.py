"""Convolutions in bfloat16: gradients do not depend on what lay in memory before."""

import pytest
import torch
from torch import nn

from medwave.models import WiNet, fibre_network
from medwave.models.convolution import Conv3d


def leave_nan_in_memory(seed):
    sizes = torch.randint(100, 400_000, (30,), generator=torch.Generator().manual_seed(seed)).tolist()
    for dtype in (torch.float32, torch.bfloat16):
        del_soon = [torch.full((size,), torch.nan, dtype=dtype) for size in sizes]
        del del_soon


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_gradients_in_bfloat16_are_those_of_float32_at_any_depth(depth):
    for seed in range(8):
        torch.manual_seed(seed)
        layer, x = Conv3d(16, 16, 3, padding=1), torch.randn(2, 16, depth, 8, 8)
        gradients = []
        for half in (False, True):
            layer.zero_grad()
            leave_nan_in_memory(seed)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                layer(x).float().square().mean().backward()
            gradients.append(layer.weight.grad.clone())
        torch.testing.assert_close(*gradients, rtol=0, atol=0.02 * gradients[0].abs().max().item())


def test_only_what_would_be_wrong_is_taken_in_float32():
    layer = Conv3d(2, 2, 3, padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.rand(1, 2, 2, 4, 4)).dtype == torch.float32
        assert layer(torch.rand(1, 2, 3, 4, 4)).dtype == torch.bfloat16
        with torch.no_grad():
            assert layer(torch.rand(1, 2, 2, 4, 4)).dtype == torch.bfloat16
    assert torch.equal(layer(torch.ones(1, 2, 2, 4, 4)), nn.functional.conv3d(
        torch.ones(1, 2, 2, 4, 4), layer.weight, layer.bias, padding=1))  # fmt: skip


@pytest.mark.parametrize("build", [lambda: WiNet(1), lambda: fibre_network("neuron_wavesnet_v4", width=2)])
def test_networks_train_in_bfloat16_where_they_become_two_voxels_deep(build):
    for seed in range(6):
        torch.manual_seed(seed)
        network = build()
        images = [torch.rand(2, 1, 32, 32, 32) for _ in range(2 if isinstance(network, WiNet) else 1)]
        leave_nan_in_memory(seed)
        with torch.autocast("cpu", torch.bfloat16):
            network(*images).float().square().mean().backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
