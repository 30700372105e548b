"""IR-ResNets: their sizes by a formula of its own, what a new block does, and what wavelets change and do not."""

import pytest
import torch
from torch import nn

from medwave.core.errors import GeometryError, InputError
from medwave.models import FaceNet, IResNet, WaveIResNet, open_network, save_weights
from medwave.models.faces import BLOCKS


def counted(depth, width, size, channels, dimension):
    """Learned numbers, layer by layer from the description: kernels, two per channel of a norm, one per slope."""
    total = 9 * channels * width + 3 * width
    inputs = width
    for level, blocks in enumerate(BLOCKS[depth]):
        outputs = width * 2**level
        first = 2 * inputs + 9 * inputs * outputs + 3 * outputs + 4 * outputs**2 + 2 * outputs
        shortcut = 4 * inputs * outputs + 2 * outputs
        other = 2 * outputs + 18 * outputs**2 + 5 * outputs
        total += first + shortcut + (blocks - 1) * other
        inputs = outputs
    return total + 2 * inputs + (size[0] // 16) * (size[1] // 16) * inputs * dimension + dimension


def learned(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize("depth", BLOCKS)
@pytest.mark.parametrize("kind", [IResNet, WaveIResNet])
def test_the_number_of_weights_follows_from_the_description(kind, depth):
    with torch.device("meta"):
        published = kind(depth)
        small = kind(depth, width=6, image_size=(32, 64), in_channels=1, dimension=20)
    assert learned(published) == counted(depth, 64, (112, 112), 3, 512)
    assert learned(small) == counted(depth, 6, (32, 64), 1, 20)


def test_the_published_depths_have_their_layers_and_millions():
    millions = {18: 22.8, 34: 32.9, 50: 42.4, 100: 63.9, 200: 105.3}
    for depth, expected in millions.items():
        with torch.device("meta"):
            network = IResNet(depth)
        assert learned(network) / 1e6 == pytest.approx(expected, abs=0.06)
        inside = sum(isinstance(m, nn.Conv2d) for name, m in network.named_modules() if "shortcut" not in name)
        assert inside == depth  # the stem, two of each block, and the head


@pytest.mark.parametrize("kind", [IResNet, WaveIResNet])
@pytest.mark.parametrize("size", [(32, 32), (48, 32), (112, 112)])
def test_features_and_maps_have_the_promised_shapes(kind, size):
    network = kind(18, width=4, image_size=size, in_channels=1, dimension=12).eval()
    with torch.inference_mode():
        features, maps = network.with_maps(torch.rand(2, 1, *size))
    assert features.shape == (2, 12)
    assert maps.shape == (2, 16, size[0] // 8, size[1] // 8)


def test_wavelets_change_no_name_and_no_shape_of_a_weight():
    plain, wave = IResNet(18, width=4, image_size=(32, 32)), WaveIResNet(18, width=4, image_size=(32, 32))
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in wave.state_dict().items()}
    wave.load_state_dict(plain.state_dict())
    assert not any(isinstance(m, nn.Conv2d) and max(m.stride) > 1 for m in wave.modules())
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert not torch.allclose(plain.eval()(x), wave.eval()(x))


def test_a_halving_convolution_becomes_the_low_band_of_itself_at_stride_1():
    wave = WaveIResNet(18, width=4, image_size=(32, 32)).eval()
    conv = wave.stages[0][0].conv2
    x = torch.randn(2, 4, 32, 32)
    with torch.inference_mode():
        full = nn.functional.conv2d(x, conv.weight)
        full = torch.cat([full, full[..., -1:, :]], dim=2)  # an odd signal gets its last sample once more
        full = torch.cat([full, full[..., -1:]], dim=3)
        torch.testing.assert_close(conv(x), nn.functional.avg_pool2d(full, 2), rtol=1e-4, atol=1e-5)


def test_a_new_block_passes_its_input_on():
    block = IResNet(18, width=4, image_size=(32, 32)).stages[0][1]
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), x)


def test_slopes_are_held_at_a_hundredth_and_the_last_scale_stays_one():
    network = IResNet(18, width=4, image_size=(32, 32), dimension=8)
    slopes = [m.weight for m in network.modules() if isinstance(m, nn.PReLU)]
    with torch.no_grad():
        slopes[0].fill_(-1.0)
        slopes[1].fill_(0.3)
    network.hold_slopes()
    assert torch.equal(slopes[0], torch.full_like(slopes[0], 0.01))
    assert torch.equal(slopes[1], torch.full_like(slopes[1], 0.3))
    network(torch.rand(4, 3, 32, 32)).square().sum().backward()
    assert network.norm.weight.grad is None
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def test_features_are_exact_numbers_under_autocast():
    network = IResNet(18, width=4, image_size=(32, 32), dimension=8).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.rand(1, 3, 32, 32)).dtype == torch.float32


@pytest.mark.parametrize("kind", [IResNet, WaveIResNet])
def test_weight_files_build_the_network_again(tmp_path, kind):
    network = kind(18, width=4, image_size=(32, 48), in_channels=1, dimension=8).eval()
    again = open_network(save_weights(network, tmp_path / "w.safetensors"), FaceNet)
    assert type(again) is kind
    x = torch.rand(1, 1, 32, 48)
    with torch.inference_mode():
        assert torch.equal(network(x), again(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 19}, "depth is one of 18, 34, 50, 100, 200"),
        ({"image_size": (112, 100)}, "multiples of 16"),
        ({"width": 0}, "width, in_channels and dimension of 1 or more"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\)"),
    ],
)
def test_options_that_make_no_network_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        IResNet(**{"depth": 18, "width": 4} | options)


def test_pictures_of_another_size_are_refused():
    with pytest.raises(GeometryError, match=r"takes pictures \(N, 3, 32, 32\), got \(1, 3, 32, 48\)"):
        IResNet(18, width=4, image_size=(32, 32))(torch.rand(1, 3, 32, 48))
