"""Running a pair network on arrays: shapes, precision, devices, and the state the model is left in."""

import numpy as np
import pytest
import torch
from torch import nn

from medwave.core.errors import DeviceError, GeometryError, InputError
from medwave.engine import predict
from medwave.engine.predict import predict_displacement
from medwave.models import WiNet

PAIR = np.random.default_rng(0).random((2, 20, 24, 17), dtype=np.float32)


class Linear(nn.Module):
    """A network with a known answer: channel i is (i + 1) * (moving - fixed); remembers how it was called."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(1.0, 4.0).view(3, 1, 1, 1, 1))

    def forward(self, moving, fixed):
        self.training_seen = self.training
        self.inference_seen = torch.is_inference_mode_enabled()
        self.half_seen = torch.is_autocast_enabled("cpu")
        return torch.nn.functional.conv3d(moving - fixed, self.weight)


def strong(model):
    with torch.no_grad():
        for head in model.heads:
            head.weight.mul_(300)
    return model


def test_arrays_go_in_moving_first_and_a_float32_field_comes_out():
    moving, fixed = PAIR
    displacement = predict_displacement(Linear(), moving, fixed, precision="float32")
    assert displacement.dtype == np.float32
    assert displacement.shape == (3, *fixed.shape)
    for channel in range(3):
        np.testing.assert_allclose(displacement[channel], (channel + 1) * (moving - fixed), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_runs_in_evaluation_without_gradients_and_is_left_as_it_was(training):
    model = Linear().train(training)
    predict_displacement(model, *PAIR)
    assert not model.training_seen
    assert model.inference_seen
    assert model.training is training
    assert model.weight.requires_grad
    model(*torch.from_numpy(PAIR)[:, None, None]).sum().backward()
    assert model.weight.grad is not None


@pytest.mark.parametrize(
    ("native", "precision", "half"),
    [
        (True, "auto", True),
        (False, "auto", False),
        (False, "bfloat16", True),
        (True, "float32", False),
    ],
)
def test_auto_takes_bfloat16_only_where_the_device_has_it(monkeypatch, native, precision, half):
    monkeypatch.setattr(predict, "native_bfloat16", lambda device: native)
    model = Linear()
    predict_displacement(model, *PAIR, precision=precision)
    assert model.half_seen is half


def test_a_device_without_known_support_is_not_native():
    assert predict.native_bfloat16(torch.device("meta")) is False
    assert predict.native_bfloat16(torch.device("cpu")) in (True, False)


def test_bfloat16_stays_near_float32_and_weights_are_unchanged():
    model = strong(WiNet(2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    exact = predict_displacement(model, *PAIR, precision="float32")
    half = predict_displacement(model, *PAIR, precision="bfloat16")
    assert np.abs(exact).max() > 1
    assert 0 < np.abs(half - exact).mean() / np.abs(exact).mean() < 0.03
    for name, tensor in model.state_dict().items():
        assert torch.equal(before[name], tensor)
        assert tensor.is_contiguous()


def test_the_same_input_gives_the_same_field():
    model = WiNet(2)
    np.testing.assert_array_equal(predict_displacement(model, *PAIR), predict_displacement(model, *PAIR))


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.uint8])
def test_other_dtypes_and_strides_are_read(dtype):
    moving, fixed = (PAIR * 200).astype(dtype)
    transposed = [np.asfortranarray(image) for image in (moving, fixed)]
    expected = moving.astype(np.float32) - fixed.astype(np.float32)
    for pair in ((moving, fixed), transposed):
        np.testing.assert_allclose(predict_displacement(Linear(), *pair, precision="float32")[0], expected, rtol=1e-5)


def test_unusable_inputs_are_refused():
    moving, fixed = PAIR
    with pytest.raises(GeometryError, match="one shape"):
        predict_displacement(Linear(), moving[1:], fixed)
    with pytest.raises(GeometryError, match="3-D"):
        predict_displacement(Linear(), moving[0], fixed[0])
    with pytest.raises(InputError, match="precision"):
        predict_displacement(Linear(), moving, fixed, precision="float8")
    with pytest.raises(InputError, match="moving"):
        predict_displacement(Linear(), np.where(moving > 0.5, np.nan, moving), fixed)
    broken = Linear()
    with torch.no_grad():
        broken.weight.fill_(torch.inf)
    with pytest.raises(InputError, match="weights"):
        predict_displacement(broken, moving, fixed)


@pytest.mark.parametrize("device", ["cuda:99", "no-such-device"])
def test_an_absent_device_is_told(device):
    with pytest.raises(DeviceError, match="cpu"):
        predict_displacement(Linear(), *PAIR, device=device)
