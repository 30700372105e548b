"""Running ``medwave`` in this process, and small files to run it on."""

from dataclasses import dataclass

import numpy as np
import pytest

from medwave.cli.app import main
from medwave.core.geometry import Grid, Volume
from medwave.volumes import write_volume

GRID = Grid((20, 22, 18), np.array([[-4.0, 0, 0, 40], [0, 4, 0, -42], [0, 0, 4, -34], [0, 0, 0, 1]]))
QUICK = ("--affine", "none", "--no-deformable", "--threads", "1")


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def errors(self):
        """Lines on stderr but the names of stages."""
        return [line for line in self.err.splitlines() if line.startswith("medwave: error: ")]


class Command:
    """Calls ``main`` as the shell would."""

    def __init__(self, monkeypatch, capsys):
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *words):
        self.monkeypatch.setattr("sys.argv", ["medwave", *map(str, words)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        return Outcome(stopped.value.code, *self.capsys.readouterr())


def ball(centre, *, grid=GRID, radius_mm=26.0):
    """A soft ball with two lobes of other brightness, float32."""
    at = grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1)) - centre
    inside = 1 / (1 + np.exp((np.linalg.norm(at / (1.0, 1.2, 0.9), axis=-1) - radius_mm) / 2))
    lobes = 1 + 0.5 * np.tanh(at[..., 0] / 6) + 0.4 * np.tanh(at[..., 1] / 5) * np.tanh(at[..., 2] / 7)
    return (100 * inside * lobes * (inside > 0.02)).astype(np.float32)


def labels(centre, *, grid=GRID):
    """Left and right half of the ball: 1 and 2."""
    at = grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1)) - centre
    return np.where(ball(centre, grid=grid) > 30, np.where(at[..., 0] < 0, 1, 2), 0).astype(np.uint8)


def write_pair(folder):
    """Image and label map of a fixed and a moving ball; paths by role."""
    paths = {}
    for name, centre in (("fixed", (0.0, 2.0, 0.0)), ("moving", (5.0, -3.0, 4.0))):
        paths[name], paths[f"{name}_labels"] = folder / f"{name}.nii.gz", folder / f"{name}_labels.nii.gz"
        write_volume(paths[name], Volume(ball(centre), GRID))
        write_volume(paths[f"{name}_labels"], Volume(labels(centre), GRID))
    return paths


def listing(folder):
    """All paths below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
