"""Networks whose down-sampling was exchanged: sizes, weights and names stay; known answers; honest reports."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from monai.networks import nets
from torch import nn

from medwave.core.errors import InputError
from medwave.wavelets import WaveletPool, dwt_low, replace_downsampling
from medwave.wavelets.low_band_conv import LowBandConv2d

POOLS = {
    "max": {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d},
    "average": {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d},
}
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Block(nn.Module):
    """A residual block that calls its layers by name, as torchvision's do."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + self.downsample(x))


def wide(name: str, ndim: int, **options: object) -> nn.Module:
    return nn.Sequential(POOLS[name][ndim](**options))


# --- known answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("kind", ["max", "average"])
def test_a_pool_becomes_the_low_band(kind: str, ndim: int) -> None:
    net = wide(kind, ndim, kernel_size=2)
    report = replace_downsampling(net, "haar")
    x = torch.randn(2, 3, *[9] * ndim)
    torch.testing.assert_close(net(x), POOLS["average"][ndim](2)(x))
    assert [change.name for change in report.replaced] == ["0"]
    assert report.left == ()


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"kernel_size": 2}, {"padding": 0}, {"dilation": 2}, {"groups": 2}])
def test_a_strided_convolution_becomes_itself_and_the_low_band(options: dict[str, int], ndim: int) -> None:
    options = {"kernel_size": 3, "padding": 1, **options}
    net = nn.Sequential(CONVS[ndim](4, 6, stride=2, **options))
    x = torch.randn(2, 4, *[11] * ndim)
    size, weight, bias = net(x).shape, net[0].weight, net[0].bias
    whole = CONVS[ndim](4, 6, **options)
    whole.load_state_dict(net[0].state_dict())
    replace_downsampling(net, "ch3.3", ll_gain="orthonormal")
    expected = dwt_low(whole(x), "ch3.3", ndim=ndim, filter_roles="reference")
    torch.testing.assert_close(net(x), expected)
    assert net(x).shape == size
    assert net[0].weight is weight
    assert net[0].bias is bias


def test_a_kernel_of_one_sample_comes_after_the_low_band_which_is_the_same() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 1, stride=2))
    whole = nn.Conv2d(3, 5, 1)
    whole.load_state_dict(net[0].state_dict())
    report = replace_downsampling(net, "db2")
    x = torch.randn(1, 3, 9, 8)
    expected = dwt_low(whole(x), "db2", ndim=2, ll_gain="unit", filter_roles="reference")
    torch.testing.assert_close(net(x), expected)
    assert report.replaced[0].note == "low band, then stride 1"


@pytest.mark.parametrize("position", ["after_act", "after_conv"])
def test_the_low_band_stands_behind_the_activation_where_the_order_is_seen(position: str) -> None:
    def block() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3), nn.ReLU())

    second = (nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Tanh(), nn.Conv2d(4, 1, 1))
    net = nn.Sequential(block(), nn.Conv2d(3, 3, 1), *second).eval()
    before, keys = copy.deepcopy(net), list(net.state_dict())
    report = replace_downsampling(net, "haar", position=position)
    x = torch.randn(2, 2, 12, 12)
    h = F.conv2d(x, before[0][0].weight, before[0][0].bias, padding=1)
    pool = nn.AvgPool2d(2)
    early = position == "after_conv"
    h = before[0][2](before[0][1](pool(h) if early else h))
    h = before[1](h if early else pool(h))
    h = F.conv2d(h, before[2].weight, before[2].bias, padding=1)
    h = before[4](before[3](pool(h) if early else h))
    expected = before[5](h if early else pool(h))
    torch.testing.assert_close(net(x), expected)
    assert list(net.state_dict()) == keys
    places = {"after_act": ["0.2", "4"], "after_conv": ["it", "it"]}[position]
    assert [c.note for c in report.replaced] == [f"stride 1, low band after {place}" for place in places]


def test_rules_spell_out_the_published_residual_block() -> None:
    """Low band before the second convolution of a strided block and before the convolution of its shortcut."""
    net = nn.Sequential(Block(3, 4), Block(4, 4)).eval()
    block, keys = copy.deepcopy(net[0]), list(net.state_dict())
    report = replace_downsampling(
        net, "ch2.2", {"?.conv1": "unstride", "?.conv2": "low_before"}, ll_gain="orthonormal", mode="zero_truncated"
    )
    x = torch.randn(2, 3, 14, 16)

    def low(x: torch.Tensor) -> torch.Tensor:
        return dwt_low(x, "ch2.2", ndim=2, mode="zero_truncated", filter_roles="reference")

    h = F.conv2d(x, block.conv1.weight, padding=1)
    h = block.bn2(block.conv2(low(F.relu(block.bn1(h)))))
    shortcut = block.downsample[1](F.conv2d(low(x), block.downsample[0].weight))
    torch.testing.assert_close(net[0](x), F.relu(h + shortcut))
    assert list(net.state_dict()) == keys
    assert [(c.name, c.note) for c in report.replaced[:3]] == [
        ("0.conv1", "stride 1"),
        ("0.conv2", "low band before it"),
        ("0.downsample.0", "low band, then stride 1"),
    ]


def test_stride_four_is_two_low_bands_and_axes_can_differ() -> None:
    net = nn.Sequential(nn.Conv3d(1, 2, 3, stride=(1, 2, 4), padding=1), nn.MaxPool3d((1, 2, 2)))
    size = net(torch.zeros(1, 1, 5, 13, 30)).shape
    replace_downsampling(net, "db2")
    assert net(torch.zeros(1, 1, 5, 13, 30)).shape == size == (1, 2, 5, 3, 4)


# --- whole networks ---------------------------------------------------------------------------------------------------


def unet(ndim: int) -> nn.Module:
    return nets.UNet(ndim, 1, 2, (4, 8, 16), (2, 2), num_res_units=2)


MONAI_NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "unet 2d": (lambda: unet(2), (1, 32, 32), 4),
    "unet 3d": (lambda: unet(3), (1, 16, 16, 16), 4),
    "unet without residual units": (lambda: nets.UNet(2, 1, 2, (4, 8, 16), (2, 2)), (1, 32, 32), 2),
    "basic unet": (lambda: nets.BasicUNet(3, 1, 2, (4, 4, 8, 8, 16, 4)), (1, 32, 32, 32), 4),
    "attention unet": (lambda: nets.AttentionUnet(2, 1, 2, (4, 8, 16), (2, 2)), (1, 32, 32), 2),
    "segresnet": (lambda: nets.SegResNet(3, init_filters=8, in_channels=1), (1, 16, 16, 16), 3),
    "dynunet": (
        lambda: nets.DynUNet(3, 1, 2, [3, 3, 3], [1, (1, 2, 2), 2], [(1, 2, 2), 2], filters=[4, 8, 8], res_block=True),
        (1, 8, 16, 16),
        4,
    ),
    "resnet": (
        lambda: nets.ResNet("basic", [1, 2, 1, 1], [4, 8, 8, 8], 3, 1, num_classes=3, widen_factor=1.0),
        (1, 17, 24, 24),
        7,
    ),
    "densenet": (lambda: nets.DenseNet(2, 1, 3, 8, 4, (2, 2, 2)), (1, 33, 32), 4),
}


@pytest.mark.parametrize("name", MONAI_NETS)
def test_monai_networks_keep_sizes_weights_and_names_and_train(name: str) -> None:
    make, shape, count = MONAI_NETS[name]
    net = make()
    x = torch.randn(2, *shape)
    keys = {key: tensor.shape for key, tensor in net.state_dict().items()}
    with torch.no_grad():
        sizes = shapes(net, x)
    report = replace_downsampling(net, "db2")
    assert len(report.replaced) == count, report
    assert {change.note for change in report.left} <= {"its stride is known at run time only"}, report
    assert {key: tensor.shape for key, tensor in net.state_dict().items()} == keys
    out = net(x)
    assert (out[0] if isinstance(out, list) else out).shape == sizes[-1]
    (out[0] if isinstance(out, list) else out).square().mean().backward()
    with torch.no_grad():
        assert shapes(net, x) == sizes
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert sum(p.grad is not None for p in net.parameters()) > 0.8 * len(list(net.parameters()))


def shapes(net: nn.Module, x: torch.Tensor) -> list[torch.Size]:
    """Sizes of everything that a network's normalisations see, and of its result."""
    seen: list[torch.Size] = []
    hooks = [m.register_forward_hook(lambda _m, _i, out: seen.append(out.shape)) for m in net.modules() if joins(m)]
    out = net(x)
    for hook in hooks:
        hook.remove()
    return [*seen, (out[0] if isinstance(out, list) else out).shape]


def joins(module: nn.Module) -> bool:
    """Blocks of MONAI that end a stage: what enters and leaves them may not change size."""
    return type(module).__name__ in (
        "ResidualUnit",
        "ResBlock",
        "TwoConv",
        "ResNetBlock",
        "_Transition",
        "UnetResBlock",
    )


def test_noise_is_folded_less() -> None:
    """What a plain strided convolution keeps of the finest checkerboard, and what is left with a low band."""
    x = torch.ones(1, 1, 32)
    x[..., 1::2] = -1
    net = nn.Sequential(nn.Conv1d(1, 1, 1, stride=2, bias=False))
    nn.init.ones_(net[0].weight)
    assert net(x).abs().min() == 1
    replace_downsampling(net, "haar")
    assert net(x).abs().max() < 1e-6


def test_a_changed_network_can_be_copied_pickled_loaded_and_changed_no_further() -> None:
    net = unet(2).eval()
    state = copy.deepcopy(net.state_dict())
    replace_downsampling(net, "haar")
    x = torch.randn(1, 1, 32, 32)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(twin(x), net(x))
    net.load_state_dict(state)
    again = replace_downsampling(net, "haar")
    assert again.replaced == again.left == ()
    assert "LowBandConv2d" in repr(net)
    assert "WaveletPool('haar', ndim=2, stride=2" in repr(net)
    assert not net.model[0].conv.unit0.low_band.training


def test_a_layer_that_stands_in_two_places_is_exchanged_in_both() -> None:
    pool = nn.MaxPool2d(2)
    net = nn.Sequential(nn.Sequential(pool), pool)
    assert len(replace_downsampling(net, "haar").replaced) == 1
    assert net[1] is net[0][0]
    assert isinstance(net[1], WaveletPool)


# --- rules, and what is left alone ------------------------------------------------------------------------------------


def some_net() -> nn.Sequential:
    first = nn.Conv2d(1, 4, 7, stride=2, padding=3)
    return nn.Sequential(first, nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.AvgPool2d(2))


@pytest.mark.parametrize(
    ("rules", "replaced"),
    [
        ({}, "0123"),
        ({"conv": "keep"}, "13"),
        ({"max_pool": "keep", "average_pool": "keep"}, "02"),
        ({"0": "keep"}, "123"),
        ({"*": "keep", "3": "low"}, "3"),
        ({"conv": "keep", "2": "low"}, "123"),
        ({"2": "low", "conv": "keep"}, "13"),
    ],
)
def test_the_last_rule_that_fits_counts(rules: dict[str, str], replaced: str) -> None:
    net = some_net()
    report = replace_downsampling(net, "haar", rules)
    assert "".join(change.name for change in report.replaced) == replaced
    assert {change.note for change in report.left} <= {"kept by a rule"}
    assert len(report.replaced) + len(report.left) == 4
    assert net(torch.zeros(1, 1, 45, 38)).shape == some_net()(torch.zeros(1, 1, 45, 38)).shape


class MyConv(nn.Conv2d):
    """A convolution that may do anything."""


LEFT_ALONE = [
    (nn.AdaptiveAvgPool2d(4), "known at run time only"),
    (nn.AdaptiveMaxPool3d(4), "known at run time only"),
    (nn.FractionalMaxPool2d(2, output_ratio=0.5), "known at run time only"),
    (nn.MaxPool2d(2, return_indices=True), "positions for unpooling"),
    (nn.MaxPool2d(2, dilation=2), "it is dilated"),
    (nn.MaxPool2d(3), "its stride is no power of two"),
    (nn.MaxPool2d(3, 2), "not half the size, rounded up or down"),
    (nn.MaxPool2d(3, 2, 1, ceil_mode=True), "not half the size"),
    (nn.AvgPool2d(2, padding=1), "not half the size"),
    (nn.MaxPool3d(3, (1, 2, 2), 1), "its kernel spans an axis that it does not halve"),
    (nn.AvgPool2d(2, divisor_override=3), "divides by a number of its own"),
    (nn.LPPool2d(2, 2), "no plain torch pool or convolution but LPPool2d"),
    (MyConv(1, 1, 3, stride=2), "no plain torch pool or convolution but MyConv"),
    (nn.Conv2d(1, 1, 3, stride=3), "its stride is no power of two"),
    (nn.Conv2d(1, 1, 16, stride=16), "at stride 1 instead of 16 it would cost far too much"),
]


@pytest.mark.parametrize(("layer", "reason"), LEFT_ALONE)
def test_what_cannot_be_exchanged_is_left_alone_with_the_reason(layer: nn.Module, reason: str) -> None:
    net = nn.Sequential(layer)
    report = replace_downsampling(net, "haar")
    assert report.replaced == ()
    assert reason in report.left[0].note
    assert net[0] is layer
    assert type(layer) is not LowBandConv2d
    with pytest.raises(InputError, match=r"rule '0': 'low' cannot be done with .*" + reason):
        replace_downsampling(net, "haar", {"0": "low"})
    assert replace_downsampling(net, "haar", {"0": "keep"}).left[0].note == "kept by a rule"


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d(4, 4),
        nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(4, 2, 1),
        nn.MaxPool2d((1, 2)),
    ],
)
def test_exchanged_pools_keep_every_size(pool: nn.Module) -> None:
    net = nn.Sequential(copy.deepcopy(pool))
    assert len(replace_downsampling(net, "db2").replaced) == 1
    for height in range(8, 14):
        x = torch.zeros(1, 1, height, 21 - height)
        assert net(x).shape == pool(x).shape


def test_layers_that_do_not_halve_are_not_listed() -> None:
    up = (nn.ConvTranspose2d(1, 1, 2, stride=2), nn.Upsample(scale_factor=2))
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.MaxPool2d(3, 1, 1), *up)
    assert replace_downsampling(net, "haar") == ((), ())


def test_the_report_reads_as_a_list() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1))
    assert str(replace_downsampling(net, "haar")).splitlines() == [
        "1 replaced, 1 left alone",
        "  replaced  0: Conv2d stride 2; stride 1, low band after it",
        "  left      1: AdaptiveAvgPool2d; its stride is known at run time only",
    ]


def test_wrong_rules_and_names_are_refused_before_anything_changes() -> None:
    net = some_net()
    for arguments, message in (
        ({"rules": {"conv": "drop"}}, "a rule is one of low, keep, unstride, low_before, got 'drop' for 'conv'"),
        (
            {"rules": {"conv5": "keep"}},
            "rule 'conv5' fits no layer that changes the resolution; this network has: 0, 1",
        ),
        ({"rules": {"1": "unstride"}}, "rule '1': 'unstride' cannot be done with MaxPool2d stride 2"),
        ({"rules": {"1": "low_before"}}, "only a convolution"),
        ({"position": "before"}, "position is one of after_act, after_conv"),
        ({"wavelet": "bd2"}, "did you mean db2"),
        ({"mode": "symmetric"}, "does not halve the size"),
    ):
        with pytest.raises(InputError, match=message):
            replace_downsampling(net, **arguments)
        assert net[0].stride == (2, 2)
        assert isinstance(net[1], nn.MaxPool2d)
    with pytest.raises(InputError, match=r"is itself a layer, MaxPool2d stride 2: put it into nn.Sequential"):
        replace_downsampling(nn.MaxPool2d(2), "haar")
