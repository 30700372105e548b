"""Two processes under torchrun train as one does, go on after a stop, and end together."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from medwave.core.errors import InputError
from medwave.engine.ranks import Ranks, join_ranks

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from fit_processes import train  # noqa: E402  (a program beside this file, not a package)

pytestmark = pytest.mark.slow


def in_two_processes(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, str(HERE / "fit_processes.py"), *map(str, arguments)], capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip


def weights(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["average"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder of a run of two processes, and what it said."""
    folder = tmp_path_factory.mktemp("pair")
    done = in_two_processes(folder, 3)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_two_processes_are_one_with_the_whole_batch(pair, tmp_path):
    train(tmp_path, 3)
    torch.testing.assert_close(weights(pair[0]), weights(tmp_path), rtol=1e-5, atol=1e-6)


def test_only_the_first_process_reports(pair):
    assert pair[1].splitlines() == ["epoch 1", "epoch 2", "epoch 3"]


def test_a_stopped_run_goes_on_to_the_same_weights(pair, tmp_path):
    in_two_processes(tmp_path, 1)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["epoch"] == 1
    assert in_two_processes(tmp_path, 3).returncode == 0
    torch.testing.assert_close(weights(tmp_path), weights(pair[0]), rtol=0, atol=0)


def test_no_process_waits_for_one_that_failed(tmp_path):
    began = time.monotonic()
    done = in_two_processes(tmp_path, 3, "fail")
    assert done.returncode != 0
    assert "signal 23: is damaged" in done.stderr
    assert time.monotonic() - began < 120
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["epoch"] == 1


def test_a_batch_is_shared_out_in_equal_parts():
    assert Ranks(1, 4).share(8) == 2
    with pytest.raises(InputError, match="6 items cannot be shared out among 4 processes"):
        Ranks(1, 4).share(6)


def test_one_process_meets_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_ranks("cpu") == Ranks(0, 1)
    assert Ranks().mean(0.5) == Ranks().of_first(0.5) == 0.5


def test_a_gpu_by_number_cannot_be_shared(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(InputError, match="cuda:1: torchrun gives each of its processes one of the"):
        join_ranks("cuda:1")
