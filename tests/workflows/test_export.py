"""ONNX files of every family of networks: onnxruntime gives their numbers for any batch; what is refused."""

import numpy as np
import onnxruntime
import pytest
import torch

from medwave.core.errors import InputError, OutputError
from medwave.models import WaveIResNet, build, fibre_network, save_weights, winet_diff
from medwave.workflows.export import export_onnx

NETWORKS = {
    "classifier": (lambda: build("wave_resnet18", classes=3, width=0.125), "48x64", (3, 48, 64)),
    "fibre": (lambda: fibre_network("neuron_wavesnet_v4", width=2), "16x32x32", (1, 16, 32, 32)),
    "face": (lambda: WaveIResNet(18, width=4, image_size=(32, 48), dimension=8), "", (3, 32, 48)),
    "pair": (lambda: winet_diff(2), "32x32x32", (1, 32, 32, 32)),
}


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    return save_weights(fibre_network("neuron_wavesnet_v4", width=2), tmp_path / "net.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("family", NETWORKS)
def test_a_file_gives_the_numbers_of_its_network_for_any_batch(family, tmp_path):
    make, size, shape = NETWORKS[family]
    torch.manual_seed(1)
    network = make().eval()
    path = tmp_path / "net.onnx"
    inputs = export_onnx(save_weights(network, tmp_path / "net.safetensors"), path, size=size)
    assert all(tuple(s) == (0, *shape) for s in inputs.values())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert (
        [i.name for i in session.get_inputs()]
        == list(inputs)
        == (["moving", "fixed"] if len(inputs) == 2 else ["image"])
    )
    for batch in (1, 3):
        images = [torch.randn(batch, *shape) for _ in inputs]
        (found,) = session.run(None, {n: x.numpy() for n, x in zip(inputs, images, strict=True)})
        with torch.inference_mode():
            expected = network(*images).numpy()
        assert np.abs(found - expected).max() <= 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("size", ["64x64", "0x16x16", "large", "16x16x16x16"])
def test_a_size_that_is_none_is_refused(weights, tmp_path, size):
    with pytest.raises(InputError, match="size: 3 numbers such as 64x64x64 are needed"):
        export_onnx(weights, tmp_path / "net.onnx", size=size)


def test_a_face_network_has_its_own_size(tmp_path):
    weights = save_weights(WaveIResNet(18, width=4, image_size=(32, 48), dimension=8), tmp_path / "net.safetensors")
    with pytest.raises(InputError, match="takes pictures of 32x48; leave --size out"):
        export_onnx(weights, tmp_path / "net.onnx", size="64x64")


def test_names_and_files_that_are_no_weights_are_refused(weights, tmp_path):
    with pytest.raises(OutputError, match=r"ends in \.onnx"):
        export_onnx(weights, tmp_path / "net.pt")
    (tmp_path / "no.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"no\.safetensors"):
        export_onnx(tmp_path / "no.safetensors", tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()
