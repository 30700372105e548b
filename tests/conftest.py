"""Shared fixtures: the development data folder, one thread per test process, fixed seeds."""

import os
import signal
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # As many workers as cores: threads of theirs, and of processes that they start, would wait for each other's core.
    os.environ["OMP_NUM_THREADS"] = "1"

import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    import short_interpreter

    short_interpreter.install()

DATA_FOLDER = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real brains, neurons and images that lies beside the checkout during development."""
    if not DATA_FOLDER.is_dir():
        pytest.skip("the development data (../shared/data beside the checkout) is absent")
    return DATA_FOLDER


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background by a script: processes would inherit that interrupts are ignored, and tests send them.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def bright_is_fibre(tmp_path_factory) -> Path:
    """Weights of a fibre network whose answer is known: sigmoid(8 (x - 1)) of the scaled, positive intensity x.

    The image goes untouched through the first convolutions and the skip; all else is 0.
    """
    from medwave.models import fibre_network, save_weights

    model = fibre_network("neuron_wavesnet_v4", width=2)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if not name.endswith(("1.weight", "4.weight")) or tensor.dim() != 1:  # batch norm stays at 1
                tensor.zero_()
        encoder, decoder = model.encoders[0], model.decoders[0]
        encoder[0].weight[0, 0, 1, 1, 1] = encoder[3].weight[0, 0, 1, 1, 1] = 1
        decoder[0].weight[0, 2, 1, 1, 1] = decoder[3].weight[0, 0, 1, 1, 1] = 1
        model.head.weight[1, 0] = 8
        model.head.bias[1] = -8
    return save_weights(model, tmp_path_factory.mktemp("weights") / "bright.safetensors", provenance="made by a test")


@pytest.fixture(scope="session")
def workers():
    """A Dask cluster of two processes on this machine; its start costs seconds, so that tests share it."""
    from medwave.scale import open_workers

    with open_workers("local:2", threads=1) as opened:
        yield opened


@pytest.fixture(scope="session")
def bucket():
    """A bucket of moto's S3 server on this machine, as a URL; processes that start later find it too."""
    moto = pytest.importorskip("moto.server", reason="moto's S3 server is not installed")
    botocore = pytest.importorskip("botocore.session")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://{host}:{port}"), ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_DEFAULT_REGION", "us-east-1"),
        ):  # fmt: skip
            patch.setenv(name, value)
        botocore.Session().create_client("s3").create_bucket(Bucket="volumes")
        yield "s3://volumes"
    server.stop()


@pytest.fixture(autouse=True)
def one_seed() -> None:
    torch.manual_seed(0)
