"""Networks on images: known counts of parameters and multiply-adds, twins, pyramids, sizes, weights of others."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medwave.core.errors import GeometryError, InputError
from medwave.models import ImageNetwork, build, list_models, load_foreign, load_weights, open_network, save_weights
from medwave.wavelets import WaveletPool

PARAMETERS = {
    "vgg11": 132_863_336, "vgg13": 133_047_848, "vgg16": 138_357_544, "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840, "vgg13_bn": 133_053_736, "vgg16_bn": 138_365_992, "vgg19_bn": 143_678_248,
    "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160,
    "resnet152": 60_192_808, "resnext50_32x4d": 25_028_904, "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272, "wide_resnet50_2": 68_883_240,
    "densenet121": 7_978_856, "densenet161": 28_681_000, "densenet169": 14_149_480, "densenet201": 20_013_928,
    "mobilenet_v2": 3_504_872, "alexnet": 61_100_840,
}  # fmt: skip
GIGA_MACS = {
    "resnet18": (1.814, 2.334), "resnet34": (3.664, 4.184), "resnet50": (4.089, 5.130),
    "resnet101": (7.801, 8.842), "resnet152": (11.514, 12.554),
}  # fmt: skip
SMALL = {"width": 0.125, "classes": 5}


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def giga_macs(network):
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.empty(1, 3, 224, 224, device="meta"))
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize("name", PARAMETERS)
def test_both_twins_have_the_known_number_of_parameters_and_the_same_names(name):
    with torch.device("meta"):
        vanilla, wavelet = build(name), build(f"wave_{name}", wavelet="ch3.3")
    assert parameters(vanilla) == parameters(wavelet) == PARAMETERS[name]
    shapes = [{n: t.shape for n, t in network.state_dict().items()} for network in (vanilla, wavelet)]
    if name != "alexnet":
        assert not any(isinstance(m, WaveletPool) for m in vanilla.modules())
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", GIGA_MACS)
def test_the_only_extra_cost_is_that_of_the_three_convolutions_without_stride(name):
    with torch.device("meta"):
        found = [giga_macs(build(n)) for n in (name, f"wave_{name}")]
    assert found == pytest.approx(GIGA_MACS[name], abs=6e-4)


@pytest.mark.parametrize("name", ["vgg16_bn", "densenet121"])
def test_pools_without_convolutions_cost_no_multiply_adds(name):
    with torch.device("meta"):
        assert giga_macs(build(name)) == giga_macs(build(f"wave_{name}"))


@pytest.mark.parametrize(
    ("name", "classes", "millions"),
    [
        ("segnet", 21, 29.48), ("wave_segnet", 21, 29.48), ("unet", 21, 37.42), ("wave_unet", 21, 34.97),
        ("deeplabv3plus", 21, 59.34), ("wave_deeplabv3plus", 21, 60.20),
    ],
)  # fmt: skip
def test_networks_that_segment_have_the_published_size(name, classes, millions):
    with torch.device("meta"):
        assert parameters(build(name, classes=classes)) / 1e6 == pytest.approx(millions, abs=0.006)


def test_the_decoders_of_deeplab_have_the_published_size_without_the_unused_branch():
    def decoder(name):
        with torch.device("meta"):
            network = build(name, classes=21)
        return parameters(network) - parameters(network.trunk) - parameters(network.context)

    assert decoder("deeplabv3plus") == 1_309_045
    assert decoder("wave_deeplabv3plus") == 2_182_005 - 12_384


@pytest.mark.parametrize("name", list_models("classify"))
def test_every_classifier_takes_odd_sizes_and_other_channels_and_learns(name):
    network = build(name, in_channels=2, **SMALL)
    output = network(torch.randn(2, 2, 75, 68))
    assert output.shape == (2, 5)
    output.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("name", list_models("classify"))
def test_a_pyramid_has_the_channels_and_strides_that_it_says(name):
    network = build(name, features_only=True, **SMALL).eval()
    with torch.inference_mode():
        maps = network(torch.randn(1, 3, 128, 160))
    assert [m.shape[1] for m in maps] == list(network.feature_channels)
    expected = [(128 // s, 160 // s) for s in network.feature_strides]
    if name == "alexnet":  # its pools have no border
        expected = [(31, 39), (15, 19), (7, 9), (3, 4)]
    if name == "wave_alexnet":  # its first convolution has a narrow one
        expected[0] = (31, 39)
    assert [tuple(m.shape[2:]) for m in maps] == expected
    assert not any(n.startswith(("fc.", "classifier.")) for n in network.state_dict())


@pytest.mark.parametrize("name", list_models("segment"))
@pytest.mark.parametrize("size", [(64, 96), (45, 70)])
def test_segmenters_answer_for_every_sample_and_learn(name, size):
    depth = {"depth": 18} if "deeplab" in name else {"depth": 11}
    network = build(name, in_channels=1, **depth, **SMALL)
    output = network(torch.randn(2, 1, *size))
    assert output.shape == (2, 5, *size)
    output.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("name", ["wave_segnet", "segnet", "wave_unet", "unet"])
def test_segmenters_in_space(name):
    network = build(
        name, ndim=3, in_channels=1, depth=11, width=0.05, classes=2, wavelet=None if name[0] != "w" else "db2"
    )
    assert network(torch.randn(1, 1, 33, 32, 40)).shape == (1, 2, 33, 32, 40)


@pytest.mark.parametrize("wavelet", ["haar", "ch2.2", "ch3.3", "db2"])
def test_wavelet_networks_pass_details_on_exactly(wavelet):
    """With convolutions that copy, WSegNet returns its input: nothing is lost between the halvings."""
    network = build("wave_segnet", depth=11, width=1 / 512, in_channels=1, classes=1, wavelet=wavelet).double().eval()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.zero_()
                layer.weight[:, 0, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1
    for stage in (*network.encoders, *network.decoders):
        for index, layer in enumerate(stage):
            if isinstance(layer, nn.BatchNorm2d | nn.ReLU):
                stage[index] = nn.Identity()
    image = torch.randn(1, 1, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(network(image), image)


def test_the_small_stem_keeps_the_resolution_and_the_wavelet_stem_filters_twice():
    small = build("wave_resnet18", stem="small", features_only=True, **SMALL)
    assert small.feature_strides == (1, 1, 2, 4, 8)
    assert [m.shape[-1] for m in small(torch.randn(2, 3, 32, 32))] == [32, 32, 16, 8, 4]
    twice = build("wave_resnet18", stem="wavelet", features_only=True, **SMALL)
    assert [m.shape[-1] for m in twice(torch.randn(2, 3, 64, 64))] == [32, 16, 8, 4, 2]
    assert sum(isinstance(m, WaveletPool) for m in twice.modules()) == 2 + 6


def test_blocks_follow_the_published_order():
    """The low band stands behind the activation of the strided convolution, before the last one."""
    block = build("wave_resnet50", **SMALL).layer2[0]
    seen = []
    for name in ("conv1", "conv2", "bn2", "pool", "conv3"):
        block.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.append((name, i[0].clone())))
    block.eval()(torch.randn(1, 32, 16, 16))
    assert [name for name, _ in seen] == ["conv1", "conv2", "bn2", "pool", "conv3"]
    into_pool, into_last = seen[3][1], seen[4][1]
    assert into_pool.min() >= 0
    assert into_pool.shape[-1] == 16
    assert into_last.shape[-1] == 8


def test_groups_split_channels_and_leave_the_stride_alone():
    network = build("resnext50_32x4d")
    assert network.layer1[0].conv2.groups == 32
    assert network.layer1[0].conv2.stride == (1, 1)
    assert network.layer2[0].conv2.stride == (2, 2)


def test_twins_load_each_others_weights_and_agree_where_nothing_is_halved():
    vanilla, wavelet = build("resnet18", **SMALL), build("wave_resnet18", **SMALL)
    assert load_foreign(wavelet, vanilla.state_dict()) == ()
    assert all(torch.equal(a, b) for a, b in zip(vanilla.parameters(), wavelet.parameters(), strict=True))
    image = torch.randn(1, 8, 9, 9)
    torch.testing.assert_close(vanilla.eval().layer1(image), wavelet.eval().layer1(image))


def test_names_of_other_programs_are_understood():
    network = build("wave_resnet50", **SMALL)
    reference = {}
    for name, tensor in network.state_dict().items():
        if name.startswith("layer2.0.") and "conv2" in name:
            name = name.replace("conv2.", "conv2.1.")
        if name.startswith("layer2.0.downsample"):
            name = name.replace("downsample.1.", "downsample.2.").replace("downsample.0.", "downsample.1.")
        reference[f"module.{name}"] = tensor + 1
    other = build("wave_resnet50", **SMALL)
    load_foreign(other, reference)
    wanted = network.state_dict()
    assert all(torch.equal(t, wanted[n] + 1) for n, t in other.state_dict().items())
    dense = build("densenet121", **SMALL)
    old = {n.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): t for n, t in dense.state_dict().items()}
    old = {n: t for n, t in old.items() if not n.endswith("num_batches_tracked")}
    load_foreign(build("wave_densenet121", **SMALL), old)


def test_a_head_of_other_classes_is_left_out_when_told():
    source, target = build("resnet18", **SMALL), build("wave_resnet18", width=0.125, classes=7)
    with pytest.raises(InputError, match=r"fc\.weight has shape"):
        load_foreign(target, source.state_dict())
    assert load_foreign(target, source.state_dict(), head=False) == ("fc.bias", "fc.weight")
    with pytest.raises(InputError, match="missing or unknown"):
        load_foreign(target, build("resnet34", **SMALL).state_dict(), head=False)


def test_weight_files_build_their_network_and_refuse_another(tmp_path):
    network = build("wave_deeplabv3plus", depth=18, **SMALL)
    path = save_weights(network, tmp_path / "net.safetensors")
    again = open_network(path, ImageNetwork)
    assert again.options == network.options
    with pytest.raises(InputError, match="do not fit"):
        load_weights(build("deeplabv3plus", depth=18, **SMALL), path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wave_resnet19", {}, "did you mean"),
        ("resnet18", {"wavelet": "haar"}, "wave_resnet18"),
        ("wave_resnet18", {"wavelet": None}, "needs a wavelet"),
        ("wave_resnet18", {"wavelet": "harr"}, "unknown discrete wavelet"),
        ("wave_resnet18", {"depht": 3}, "depht"),
        ("wave_resnet18", {"classes": 0}, "at least 1"),
        ("resnet18", {"stem": "wavelet"}, "needs a wavelet"),
        ("resnet18", {"groups": 4}, "bottlenecks"),
        ("wave_vgg16", {"head": "tiny"}, "head is one of"),
        ("wave_unet", {"ll_gain": "unit"}, "orthonormal"),
    ],
)
def test_a_bad_request_is_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        build(name, **options)


def test_an_image_that_does_not_fit_is_refused_with_the_way_out():
    with pytest.raises(GeometryError, match="in_channels=1"):
        build("wave_resnet18", **SMALL)(torch.zeros(1, 1, 32, 32))
    with pytest.raises(GeometryError, match="32 samples or more"):
        build("vgg11", **SMALL)(torch.zeros(1, 3, 31, 64))
    assert build("wave_vgg11", **SMALL)(torch.zeros(1, 3, 9, 9)).shape == (1, 5)
