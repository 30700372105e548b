"""WiNet: the published shape, any image size, a gentle start, gradients, precision, invertibility."""

import pytest
import torch
import torch.nn.functional as F

from medwave import fields
from medwave.core.errors import GeometryError, InputError
from medwave.models import WiNet, winet_diff
from medwave.models.winet import dense_weight


def pair(*shape, n=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((2, n, 1, *shape), generator=generator)
    return images[0], images[1]


def scale_heads(model, factor):
    with torch.no_grad():
        for head in model.heads:
            head.weight.mul_(factor)
    return model


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("wavelet", ["haar", "db4"])
@pytest.mark.parametrize("diffeomorphic", [False, True])
def test_the_published_model_has_its_number_of_parameters(wavelet, diffeomorphic):
    assert parameters(WiNet(8, wavelet, diffeomorphic)) == 1_418_573


def test_width_scales_every_layer_but_the_field_operators():
    field_operators = 3 * 81 + 2 * (6846 + 3423)
    small, large = (parameters(WiNet(w)) - field_operators for w in (2, 4))
    assert 3 < large / small < 4
    with pytest.raises(InputError, match="width"):
        WiNet(0)
    with pytest.raises(InputError, match="spacing_mm"):
        WiNet(2, spacing_mm=0.0)


def test_stages_have_the_channels_and_resolutions_of_the_specification():
    model = WiNet().eval()
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, tuple(out.shape[1:])))
    with torch.no_grad():
        model(*pair(32, 48, 64))
    levels = {2: (16, 24, 32), 4: (8, 12, 16), 8: (4, 6, 8), 16: (2, 3, 4)}
    for index, (channels, level) in enumerate([(32, 2), (32, 4), (64, 8), (64, 16)]):
        assert seen[f"encoders.{index}"] == (channels, *levels[level])
    for index, (channels, level) in enumerate([(64, 8), (64, 4), (32, 2)]):
        assert seen[f"decoders.{index}"] == (channels, *levels[level])
    assert seen["heads.1"] == (21, *levels[4])
    assert seen["heads.2"] == (21, *levels[2])
    assert seen["smooth.0"] == (3, *levels[4])
    assert seen["smooth.1"] == (3, *levels[2])
    assert seen["smooth.2"] == (3, 32, 48, 64)


@pytest.mark.parametrize("shape", [(16, 16, 16), (17, 30, 21), (5, 3, 40), (32, 48, 16), (1, 20, 20)])
@pytest.mark.parametrize("wavelet", ["haar", "db4"])
def test_any_size_gives_a_field_of_that_size(shape, wavelet):
    model = WiNet(2, wavelet).eval()
    with torch.no_grad():
        field = model(*pair(*shape, n=2))
    assert field.shape == (2, 3, *shape)
    assert field.dtype == torch.float32
    assert field.is_contiguous()
    assert torch.isfinite(field).all()


def test_padding_repeats_the_border_at_the_end():
    """A net on a cropped image sees what it sees on the image with its border repeated."""
    model = scale_heads(WiNet(2).eval(), 100)
    moving, fixed = pair(20, 32, 25)
    by_hand = [F.pad(image, [0, 7, 0, 0, 0, 12], mode="replicate") for image in (moving, fixed)]
    with torch.no_grad():
        torch.testing.assert_close(model(moving, fixed), model(*by_hand)[..., :20, :, :25])


def test_the_first_stage_has_instance_norm():
    model = WiNet(2)
    x = torch.randn(2, 16, 4, 5, 6)
    expected = x
    for convolution in (model.encoders[0][0], model.encoders[0][3]):
        expected = F.leaky_relu(F.instance_norm(convolution(expected)), 0.01)
    torch.testing.assert_close(model.encoders[0](x), expected)


@pytest.mark.parametrize("build", [WiNet, winet_diff])
def test_an_untrained_network_predicts_almost_no_motion(build):
    with torch.no_grad():
        largest = float(build()(*pair(32, 32, 32)).abs().max())
    assert 0 < largest < 0.25


def test_a_coarse_coefficient_is_a_displacement_in_voxels():
    """With details off, a constant 1/8 approximation of 5 voxels becomes a field of 5 voxels (away from the border)."""
    model = WiNet(2).eval()
    with torch.no_grad():
        for head in model.heads:
            head.weight.zero_()
        head_output = torch.zeros(1, 24, 4, 4, 4)
        head_output[:, :3] = torch.tensor([5.0, -2.0, 1.0]).view(1, 3, 1, 1, 1)
        model._coarse_head = lambda features, exact: head_output
        field = model(*pair(32, 32, 32))
    expected = torch.tensor([5.0, -2.0, 1.0]).view(1, 3, 1, 1, 1).expand_as(field)
    torch.testing.assert_close(field, expected, rtol=1e-4, atol=1e-4)


def test_batch_items_do_not_mix():
    model = scale_heads(WiNet(2).eval(), 100)
    moving, fixed = pair(16, 16, 32, n=3)
    with torch.no_grad():
        together = model(moving, fixed)
        alone = torch.cat([model(moving[i : i + 1], fixed[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_the_order_of_the_images_matters():
    model = WiNet(2).eval()
    moving, fixed = pair(16, 16, 16)
    with torch.no_grad():
        assert (model(moving, fixed) - model(fixed, moving)).abs().max() > 1e-5


@pytest.mark.parametrize("build", [WiNet, winet_diff])
def test_gradients_reach_every_parameter_and_both_images(build):
    model = build(2)
    moving, fixed = (image.requires_grad_() for image in pair(32, 32, 32))
    model(moving, fixed).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if not name.startswith("encoders.0") or not name.endswith("bias"):  # instance norm removes those biases
            assert parameter.grad.abs().max() > 0, name
    assert moving.grad.abs().max() > 0
    assert fixed.grad.abs().max() > 0


@pytest.mark.parametrize("build", [WiNet, winet_diff])
def test_bfloat16_and_channels_last_stay_near_float32(build):
    """Under autocast the displacement differs by less than 3 percent of its mean length, and comes back as float32."""
    model = scale_heads(build(4).eval(), 300)
    images = pair(32, 48, 32)
    with torch.no_grad():
        exact = model(*images)
        model.to(memory_format=torch.channels_last_3d)
        torch.testing.assert_close(model(*images), exact, rtol=1e-3, atol=1e-3)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(*images)
    assert half.dtype == torch.float32
    assert exact.abs().max() > 1
    difference = (half - exact).abs().mean() / exact.abs().mean()
    assert 0 < difference < 0.03


@pytest.mark.parametrize("wavelet", ["haar", "db4"])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shape", [(16, 32, 48), (17, 30, 21)])
def test_predictions_by_compiled_loops_are_those_of_torch(wavelet, half, shape):
    torch.manual_seed(0)
    model = scale_heads(WiNet(2, wavelet, diffeomorphic=True).eval(), 100)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and all taps of the smoothing take part
            parameter += 0.02 * torch.randn_like(parameter)
    images = pair(*shape, n=2)
    before = [image.clone() for image in images]
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        with torch.no_grad():
            expected = model(*images)
        for layout in (torch.contiguous_format, torch.channels_last_3d):
            with torch.inference_mode():
                found = model.to(memory_format=layout)(*images)
            size = expected.abs().max().item()
            assert 0.5 < size < 50
            torch.testing.assert_close(found, expected, rtol=0, atol=(0.03 if half else 2e-5) * size)
    for image, kept in zip(images, before, strict=True):
        assert torch.equal(image, kept)


def test_transforms_of_torch_see_its_own_operations_in_inference_too():
    model, (moving, fixed) = WiNet(2).eval(), pair(16, 16, 16, n=2)
    with torch.inference_mode():
        mapped = torch.func.vmap(lambda m, f: model(m[None], f[None])[0])(moving, fixed)
        torch.testing.assert_close(mapped, model(moving, fixed), atol=1e-5, rtol=0)


def test_under_autocast_convolutions_are_bfloat16_and_the_field_is_not():
    model = WiNet(2).eval()
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out.dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(*pair(16, 16, 16))
    for name in ("encoders.1", "decoders.2", "heads.1", "refine.0.net.2"):
        assert seen[name] == torch.bfloat16
    for name in ("dwt", "idwt", "smooth.0", "smooth.2"):
        assert seen[name] == torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_other_precision_run(dtype):
    model = WiNet(2).eval()
    images = pair(16, 20, 16)
    with torch.no_grad():
        exact = model(*images)
        field = model.to(dtype)(*images)
    assert field.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (field - exact).abs().max() < (1e-6 if dtype == torch.float64 else 0.1 * exact.abs().max())


@pytest.mark.parametrize("seed", range(3))
def test_a_diffeomorphic_network_never_folds(seed):
    """Random weights, velocities of 3 voxels on white noise: rough, and still the Jacobian is positive everywhere."""
    torch.manual_seed(seed)
    model = winet_diff(2).eval()
    images = pair(32, 32, 32, seed=seed)
    with torch.no_grad():
        scale_heads(model, 3 / model.velocity(*images).abs().max())
        velocity, displacement = model.velocity(*images), model(*images)
    assert velocity.abs().max() == pytest.approx(3, rel=0.01)
    torch.testing.assert_close(fields.integrate(velocity), displacement)
    assert (displacement - velocity).abs().max() > 0.1
    assert fields.jacobian_determinant(displacement).min() > 0


def test_only_diffeomorphic_networks_have_a_velocity():
    with pytest.raises(InputError, match="diffeomorphic=True"):
        WiNet(2).velocity(*pair(16, 16, 16))


def test_a_tiny_pair_can_be_learned():
    """A blob moved by (2, -1, 1) voxels: 40 steps halve the difference, and the blob's centre moves the right way."""
    axes = torch.meshgrid(*[torch.arange(32.0)] * 3, indexing="ij")

    def blob(center):
        distance = sum((axis - c) ** 2 for axis, c in zip(axes, center, strict=True))
        return torch.exp(-distance / 50)[None, None]

    fixed, moving = blob((15, 16, 15)), blob((17, 15, 16))
    model = WiNet(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        displacement = model(moving, fixed)
        loss = F.mse_loss(fields.warp(moving, displacement), fixed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.25 * losses[0]
    weight = fixed / fixed.sum()
    mean_motion = (displacement.detach() * weight).sum((2, 3, 4))[0]
    assert mean_motion[0] > 0.5
    assert mean_motion[1] < -0.2
    assert mean_motion[2] > 0.2


def test_pairs_that_do_not_fit_are_refused():
    model = WiNet(2)
    for moving, fixed in [
        (torch.zeros(1, 1, 16, 16, 16), torch.zeros(1, 1, 16, 16, 32)),
        (torch.zeros(1, 2, 16, 16, 16), torch.zeros(1, 2, 16, 16, 16)),
        (torch.zeros(16, 16, 16), torch.zeros(16, 16, 16)),
    ]:
        with pytest.raises(GeometryError, match="same shape"):
            model(moving, fixed)


@pytest.mark.parametrize("outputs", [42, 21])
def test_the_dense_form_of_a_convolution_of_bands_is_the_same_convolution(outputs):
    weight, x = torch.randn(outputs, 6, 3, 3, 3, dtype=torch.float64), torch.randn(1, 42, 5, 6, 7, dtype=torch.float64)
    grouped = torch.nn.functional.conv3d(x, weight, padding=1, groups=7)
    torch.testing.assert_close(torch.nn.functional.conv3d(x, dense_weight(weight, 7), padding=1), grouped)
