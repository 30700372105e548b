"""Two processes that share a batch have the loss and the gradients of one that has it all, whatever is known where."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("ignite", reason="training needs the extra train")

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from loss_processes import LOSSES, measure  # noqa: E402  (a program beside this file, not a package)

pytestmark = pytest.mark.slow


def test_two_processes_are_one_with_the_whole_batch(tmp_path):
    program = [sys.executable, str(HERE / "loss_processes.py")]
    running = [
        subprocess.Popen([*program, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True) for rank in (0, 1)
    ]
    said = [process.communicate(timeout=240)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name in LOSSES:
            torch.testing.assert_close(found[name], measure(name, slice(None)), rtol=1e-5, atol=1e-6)
