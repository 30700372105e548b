"""Fibre networks: published sizes, where the bands go, thresholds, any image size, precision, learning, export."""

import pytest
import torch
import torch.nn.functional as F

from medwave.core.errors import GeometryError, InputError
from medwave.losses import FibreLoss
from medwave.models import (
    BaselineUNet,
    WaveUNet,
    fibre_network,
    load_weights,
    network_names,
    neuron_segnet,
    neuron_unet_v1,
    neuron_unet_v2,
    read_weights_info,
    save_weights,
)
from medwave.models.resampling import BlurPool, WaveletResampling
from medwave.wavelets import DWT, LearnedShrinkage, band_names

SEGNET = (166_402, 663_714, 2_651_074, 10_596_738)
TRANSPOSED = (204_542, 816_154, 3_260_594, 13_034_338)
PLAIN = (203_122, 810_594, 3_238_594, 12_946_818)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def image(*shape, n=1, seed=0):
    return torch.randn((n, 1, *shape), generator=torch.Generator().manual_seed(seed))


def with_statistics(model, seed=3):
    """Evaluation mode after two training batches, so that batch norms hold something."""
    with torch.no_grad():
        for step in range(2):
            model.train()(image(32, 32, 32, n=2, seed=seed + step))
    return model.eval()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("neuron_segnet", SEGNET),
        ("neuron_unet_v1", TRANSPOSED),
        ("neuron_unet_v2", TRANSPOSED),
        ("neuron_wavesnet_v1", PLAIN),
        ("neuron_wavesnet_v2", TRANSPOSED),
        ("neuron_wavesnet_v3", PLAIN),
        ("neuron_wavesnet_v4", PLAIN),
        ("neuron_unet_average", PLAIN),
    ],
)
def test_networks_have_the_published_numbers_of_parameters(name, expected):
    with torch.device("meta"):
        assert tuple(parameters(fibre_network(name, width=w)) for w in (4, 8, 16, 32)) == expected


def test_the_baselines_have_names_of_their_own():
    assert [parameters(f()) for f in (neuron_segnet, neuron_unet_v1, neuron_unet_v2)] == [166_402, 204_542, 204_542]
    assert parameters(WaveUNet()) == 203_122
    assert parameters(WaveUNet(wavelet="db4")) == 203_122
    assert parameters(WaveUNet(threshold="learned")) == 203_122 + 7 * 4 * (1 + 2 + 4 + 8)


def test_stages_have_the_channels_and_sizes_of_the_specification():
    model = WaveUNet(4).eval()
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, tuple(out.shape[1:])))
    with torch.no_grad():
        model(image(32, 64, 48))
    for level in range(4):
        size = (32 >> level, 64 >> level, 48 >> level)
        assert seen[f"encoders.{level}"] == (4 << level, *size)
        assert seen[f"decoders.{level}"] == (4 << max(level - 1, 0), *size)
        assert seen[f"resamplings.{level}.to_coarse"] == (4 << level, 8, *(n // 2 for n in size))
    assert seen["bottom"] == (32, 2, 4, 3)


# --- resolution changes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wavelet", "mode"), [("haar", "zero_truncated"), ("db3", "periodization"), ("db2", "reflect")]
)
@pytest.mark.parametrize("roles", ["reference", "pywt"])
def test_variant_3_gives_the_encoder_input_back_when_the_coarse_part_is_not_changed(wavelet, mode, roles):
    """With stages that do nothing, all levels down and up are the identity: nothing is lost on the detail path."""
    model = WaveUNet(2, wavelet, variant="v3", mode=mode, filter_roles=roles)
    x, kept, sizes = torch.randn(2, 3, 32, 32, 48), [], []
    coarse = x
    for level in model.resamplings:
        sizes.append(coarse.shape[2:])
        coarse, details = level.down(coarse)
        kept.append(details)
    for level in reversed(model.resamplings):
        coarse = level.up(coarse, kept.pop(), sizes.pop())
    torch.testing.assert_close(coarse, x, rtol=0, atol=2e-5)


def test_the_decoder_gets_the_inverse_transform_first_and_the_encoder_feature_second():
    model = WaveUNet(2, variant="v3").eval()
    seen = {}
    model.encoders[3].register_forward_hook(lambda _m, _i, out: seen.__setitem__("feature", out))
    model.bottom.register_forward_hook(lambda _m, inputs, out: seen.update(low=inputs[0], bottom=out))
    model.decoders[3].register_forward_hook(lambda _m, inputs, _o: seen.__setitem__("joined", inputs[0]))
    with torch.no_grad():
        model(image(32, 32, 32))
    bands = DWT("haar", 3)(seen["feature"])
    torch.testing.assert_close(seen["low"], bands[:, :, 0])
    up, skip = seen["joined"].chunk(2, dim=1)
    torch.testing.assert_close(skip, seen["feature"])
    again = DWT("haar", 3)(up)
    torch.testing.assert_close(again[:, :, 0], seen["bottom"])
    torch.testing.assert_close(again[:, :, 1:], bands[:, :, 1:])


def test_the_low_band_of_ones_is_two_to_the_three_halves():
    low, (details,) = WaveletResampling("haar", None, mode="periodization", filter_roles="reference").down(
        torch.ones(1, 1, 4, 4, 4)
    )
    torch.testing.assert_close(low, torch.full((1, 1, 2, 2, 2), 2**1.5))
    assert details.abs().max() < 1e-6
    assert details.shape[2] == len(band_names(3)) - 1


def test_thresholds_do_what_their_names_say():
    details = torch.tensor([-0.6, -0.25, -0.1, 0.0, 0.2, 0.26, 1.0]).view(1, 1, 7, 1, 1, 1)
    expected = {"hard": [-0.6, 0, 0, 0, 0, 0.26, 1.0], "soft": [-0.35, 0, 0, 0, 0, 0.01, 0.75]}
    expected["learned"] = expected["soft"]
    for kind, values in expected.items():
        shrink = WaveUNet(1, threshold=kind).resamplings[0].shrink
        assert shrink(details).flatten().tolist() == pytest.approx(values, abs=1e-6), kind
    assert WaveUNet(1, threshold="hard", threshold_value=0.5).resamplings[3].shrink(details).count_nonzero() == 2


def test_without_a_threshold_variant_4_is_variant_3():
    three, four = WaveUNet(2, variant="v3").eval(), WaveUNet(2, threshold_value=0.0).eval()
    other = WaveUNet(2).eval()
    four.load_state_dict(three.state_dict())
    other.load_state_dict(three.state_dict())
    x = image(16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(four(x), three(x))
        assert (other(x) - three(x)).abs().max() > 1e-6


def test_learned_thresholds_learn_and_stay_positive():
    shrink = LearnedShrinkage(2, 0.25)
    details = torch.randn(3, 2, 7, 4, 4, 4)
    before = shrink.threshold.detach().clone()
    assert before.flatten().tolist() == pytest.approx([0.25] * 14, rel=1e-5)
    optimizer = torch.optim.SGD(shrink.parameters(), lr=50)
    for _ in range(20):
        optimizer.zero_grad()
        shrink(details).square().mean().backward()  # everything should go to zero: thresholds must grow
        optimizer.step()
    assert (shrink.threshold > before).all()
    with torch.no_grad():
        shrink.raw.fill_(-30)
    assert (shrink.threshold >= 0).all()
    torch.testing.assert_close(shrink(details), details)


def test_blur_pooling_is_the_binomial_filter_and_keeps_constants():
    x = torch.zeros(1, 1, 8, 8, 8)
    x[0, 0, 3, 4, 4] = 1
    taps = torch.tensor([1.0, 3, 3, 1]) / 8
    weight = torch.einsum("a,b,c->abc", taps, taps, taps)[None, None]
    torch.testing.assert_close(BlurPool()(x), F.conv3d(F.pad(x, [1] * 6, mode="replicate"), weight, stride=2))
    torch.testing.assert_close(BlurPool()(torch.ones(1, 2, 4, 6, 2)), torch.ones(1, 2, 2, 3, 1))


# --- sizes, tiles, determinism ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", network_names())
def test_any_size_gives_logits_of_that_size(name):
    model = fibre_network(name, width=1, classes=3, in_channels=2).eval()
    with torch.no_grad():
        for shape in [(1, 20, 33), (16, 16, 16), (40, 5, 17)]:
            logits = model(torch.randn(2, 2, *shape))
            assert logits.shape == (2, 3, *shape)
            assert logits.dtype == torch.float32
            assert torch.isfinite(logits).all()


@pytest.mark.parametrize("mode", ["symmetric", "zero", "zero_truncated"])
def test_longer_wavelets_work_in_every_mode(mode):
    with torch.no_grad():
        logits = WaveUNet(1, "bior2.2", mode=mode).eval()(image(16, 30, 20))
    assert logits.shape == (1, 2, 16, 30, 20)


def test_padding_repeats_the_border_at_the_end():
    model = with_statistics(WaveUNet(2))
    x = image(20, 32, 25)
    with torch.no_grad():
        by_hand = model(F.pad(x, [0, 7, 0, 0, 0, 12], mode="replicate"))[..., :20, :, :25]
        torch.testing.assert_close(model(x), by_hand)


@pytest.mark.parametrize(("wavelet", "halo"), [("haar", 94), ("db2", 125)])
def test_the_halo_is_as_far_as_an_input_voxel_can_reach(wavelet, halo):
    """With positive weights no path is dead: the gradient is non-zero just up to the halo."""
    model = WaveUNet(1, wavelet, variant="v3").double().eval()
    assert model.halo_voxels == halo
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and parameter.dim() == 5:
                parameter.copy_(torch.rand_like(parameter) / 9)
            elif name.endswith("bias"):
                parameter.fill_(5.0)
    x = (10 + image(16, 16, 512)).double().requires_grad_()
    model(x)[..., 256:272].square().sum().backward()
    reached = x.grad.abs().sum((0, 1, 2, 3)).nonzero().flatten()
    assert max(256 - int(reached[0]), int(reached[-1]) - 271) == halo


def test_a_tile_with_halo_gives_what_the_whole_volume_gives():
    model = with_statistics(WaveUNet(1))
    x = image(16, 16, 384)
    with torch.no_grad():
        whole = model(x)[..., 176:208]
        tile = model(x[..., 80:304])[..., 96:128]
    torch.testing.assert_close(tile, whole, rtol=1e-5, atol=1e-5)


def test_the_same_seed_gives_the_same_network_and_evaluation_does_not_change_it():
    models = []
    for _ in range(2):
        torch.manual_seed(11)
        models.append(WaveUNet(2).eval())
    state = {name: t.clone() for name, t in models[0].state_dict().items()}
    x = image(16, 32, 16, n=2)
    with torch.no_grad():
        first, second, other = models[0](x), models[0](x), models[1](x)
        alone = models[0](x[1:])
    assert torch.equal(first, second)
    assert torch.equal(first, other)
    torch.testing.assert_close(first[1:], alone)
    assert all(torch.equal(t, state[name]) for name, t in models[0].state_dict().items())


# --- precision, gradients, export, files ------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["v1", "v4"])
def test_bfloat16_and_channels_last_stay_near_float32(variant):
    """Under autocast the logits differ by less than 5 percent of their deviation, and come back as float32."""
    model = with_statistics(WaveUNet(4, variant=variant))
    x = image(32, 48, 32)
    with torch.no_grad():
        exact = model(x)
        model.to(memory_format=torch.channels_last_3d)
        torch.testing.assert_close(model(x), exact, rtol=1e-3, atol=1e-3)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(x)
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().mean() < 0.05 * exact.std()


def test_under_autocast_convolutions_are_bfloat16_and_wavelets_are_not():
    model = WaveUNet(2).eval()
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out.dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(image(16, 16, 16))
    assert all(seen[name] == torch.bfloat16 for name in ("encoders.0", "bottom", "decoders.0"))
    assert all(seen[f"resamplings.{i}.{part}"] == torch.float32 for i in range(4) for part in ("to_coarse", "to_fine"))


@pytest.mark.parametrize("name", network_names())
def test_gradients_reach_every_parameter(name):
    model = fibre_network(name, width=2)
    x = image(32, 32, 32, n=2).requires_grad_()
    model(x).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
    assert x.grad.abs().max() > 0


def tubes(seed):
    """A noisy volume with two straight tubes of radius 1.5, and its labels."""
    generator = torch.Generator().manual_seed(seed)
    z, y, x = torch.meshgrid(*[torch.arange(float(n)) for n in (16, 32, 32)], indexing="ij")
    first = (z - 5) ** 2 + (y - 6 - 0.5 * x) ** 2 / 1.25 <= 2.5
    second = (z - 10) ** 2 + (x - 20) ** 2 <= 2.5
    labels = (first | second).long()[None, None]
    return labels + 0.7 * torch.randn(labels.shape, generator=generator), labels


@pytest.mark.parametrize("build", [lambda: WaveUNet(4), lambda: WaveUNet(4, "db2", threshold="learned")])
def test_a_tiny_volume_with_tubes_can_be_learned(build):
    """After 40 steps fibre IoU is above 0.8 on the volume, where the best threshold of the image stays below 0.4."""
    model, loss_of = build(), FibreLoss()
    x, labels = tubes(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss_of(model(x), labels).backward()
        optimizer.step()

    def iou(mask):
        return float((mask & (labels > 0)).sum() / (mask | (labels > 0)).sum())

    with torch.no_grad():
        assert iou(model(x).argmax(1, keepdim=True) > 0) > 0.8
    assert max(iou(x > t / 10) for t in range(20)) < 0.4


@pytest.mark.parametrize("model", [WaveUNet(1), WaveUNet(1, "db2", variant="v1"), BaselineUNet(1, "unet_transposed")])
def test_networks_can_be_exported(model):
    model = with_statistics(model)
    x = image(20, 32, 16)
    program = torch.export.export(model, (x,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)
    assert not any("medwave" in str(node.target) for node in program.graph.nodes)


@pytest.mark.parametrize("model", [WaveUNet(2, "db2", threshold="learned"), BaselineUNet(2, "segnet")])
def test_weight_files_say_how_to_build_the_network_again(tmp_path, model):
    path = save_weights(with_statistics(model), tmp_path / "net.safetensors", provenance="none")
    info = read_weights_info(path)
    again = {"WaveUNet": WaveUNet, "BaselineUNet": BaselineUNet}[info.model](**info.options).eval()
    load_weights(again, path)
    x = image(16, 16, 16)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    with pytest.raises(InputError, match="do not fit"):
        load_weights(WaveUNet(2), path)


@pytest.mark.parametrize("variant", ["v1", "v2", "v3", "v4"])
def test_every_variant_is_built_again_from_its_options(variant):
    model = WaveUNet(1, variant=variant)
    again = WaveUNet(**model.options)
    assert again.options == model.options
    assert again.state_dict().keys() == model.state_dict().keys()


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "v5"}, "variant is one of"),
        ({"variant": "v3", "threshold": "soft"}, "only variant v4"),
        ({"variant": "v1", "threshold_value": 0.1}, "only variant v4"),
        ({"variant": "v1", "mode": "symmetric"}, "does not halve"),
        ({"threshold": "firm"}, "threshold is one of"),
        ({"threshold_value": -1.0}, "at least 0"),
        ({"threshold": "learned", "threshold_value": 0.0}, "above 0"),
        ({"width": 0}, "width >= 1"),
        ({"classes": 1}, "classes >= 2"),
        ({"wavelet": "haarr"}, "unknown discrete wavelet"),
        ({"filter_roles": "both"}, "filter_roles"),
        ({"mode": "wrap"}, "mode is one of"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        WaveUNet(**options)


def test_unknown_networks_and_options_are_refused():
    with pytest.raises(InputError, match="network is one of"):
        fibre_network("neuron_unet_v3")
    with pytest.raises(InputError, match="design is one of"):
        BaselineUNet(4, "unet")
    with pytest.raises(InputError, match=r"neuron_segnet: .*wavelet"):
        fibre_network("neuron_segnet", wavelet="haar")


@pytest.mark.parametrize("shape", [(16, 16, 16), (1, 2, 16, 16, 16), (1, 1, 0, 16, 16)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(GeometryError, match="takes images"):
        WaveUNet(1)(torch.zeros(shape))
