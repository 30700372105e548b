"""Two processes that share a batch have the loss, the gradients and the memories of one that has it all."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from recognition_processes import LENGTHS, LOSSES, train  # noqa: E402  (a program beside this file, not a package)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each of two gloo processes found."""
    folder = tmp_path_factory.mktemp("processes")
    program = [sys.executable, str(HERE / "recognition_processes.py")]
    running = [
        subprocess.Popen(
            [*program, str(rank), str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for rank in range(len(LENGTHS))
    ]
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    return folder


@pytest.mark.parametrize("how", ["wrapped", "bare"])
@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_are_one_with_the_whole_batch(folder: Path, how: str, name: str) -> None:
    """The loss may be wrapped in DistributedDataParallel or not; the network is."""
    expected = train(name, slice(None))
    assert expected["losses"].isfinite().all()
    assert any(v.abs().sum() > 0 for k, v in expected.items() if k.startswith("network") and k.endswith(".grad"))
    for rank in range(len(LENGTHS)):
        found = torch.load(folder / f"{how}{rank}.pt", weights_only=True)[name]
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
