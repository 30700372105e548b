"""Very many classes: a step with drawn negatives holds its tables and little else, chunks no whole score matrix."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, sys
import torch
from medwave.losses.recognition import CosFaceLoss, EPLLoss, UniTSFaceLoss, scores

torch.set_num_threads(1)
unit = 1 if sys.platform == "darwin" else 1024


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def step(build, batch, classes, dimension, at_once=None):
    if at_once:
        scores.LOGITS_AT_ONCE = at_once
    loss = build()
    loss.set_progress(9, 10)
    for table in (m for m in loss.modules() if hasattr(m, "filled")):
        table.rows.normal_()
        table.filled.fill_(True)
    optimiser = torch.optim.SGD(loss.parameters(), lr=0.1)
    x, y = torch.randn(batch, dimension, requires_grad=True), torch.arange(batch)
    loss(x, y).total.backward()
    optimiser.step()


N, D = 400_000, 128
drawn = dict(sample_rate=0.01, sparse_gradients=True)
step(lambda: UniTSFaceLoss(1000, 16, **drawn), 8, 1000, 16)  # what the first step brings along
before, found = peak_mb(), {}
if sys.argv[1] == "chunks":
    step(lambda: CosFaceLoss(N, 16), 512, N, 16, at_once=1 << 22)
    found["chunks"] = peak_mb() - before
else:
    for name, build in (("unitsface", UniTSFaceLoss), ("epl", EPLLoss)):
        step(lambda: build(N, D, **drawn), 64, N, D)
        found[name] = peak_mb() - before
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell a process its peak memory")
@pytest.mark.parametrize(
    ("case", "limit_mb"),
    [
        ("drawn", 2.5 * 400_000 * 128 * 4e-6),  # two tables each; a dense gradient or a copy would be a third
        ("chunks", 0.5 * 400_000 * 512 * 4e-6),  # half of the matrix of all scores
    ],
)
def test_a_step_over_very_many_classes_fits_into_little_memory(case: str, limit_mb: float) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, case], capture_output=True, text=True, check=True)
    for grown_mb in json.loads(done.stdout).values():
        assert grown_mb < limit_mb
