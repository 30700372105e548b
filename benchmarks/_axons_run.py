"""One network trained and scored on axon cubes, in a process of its own. Started by ``axons.py``.

``python _axons_run.py REQUEST`` reads a JSON request (``cubes``: folder with ``training`` and ``validation``;
``network``; ``seed``; ``settings``; ``folder``: of this run) and leaves ``run.json`` in the folder. Started again after
an interruption it goes on from the last epoch.

The moving average of the weights after the last step is scored: no validation cube has a say in when training ends.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medwave.data import AxonCubes, read_axon_cubes
from medwave.data.axons import AxonCube
from medwave.data.neurons import IGNORE
from medwave.engine.fit import FitOptions, fit
from medwave.losses import FibreLoss
from medwave.metrics import cl_dice, voxel_scores
from medwave.models import fibre_network
from medwave.transforms.microscopy import IntensityScale

Planes = tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]


def main(request_file: str) -> None:
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    settings, folder = request["settings"], Path(request["folder"])
    torch.set_num_threads(1)
    training = read_axon_cubes(Path(request["cubes"]) / "training", edge=settings["edge"])
    validation = read_axon_cubes(Path(request["cubes"]) / "validation")
    options = FitOptions(**settings["fit"], seed=request["seed"])
    torch.manual_seed(request["seed"])
    network = fibre_network(request["network"], width=settings["width"]).to(memory_format=torch.channels_last_3d)
    items = options.epochs * options.steps * options.batch
    data = AxonCubes(training, items, tuple(settings["crop"]), seed=request["seed"])
    loss = FibreLoss()
    log = EpochLog(folder / "epochs.json")
    fit(
        network,
        data,
        lambda output, batch: loss(output, batch["label"]),
        lambda model: score(model, validation)["iou"],
        folder,
        options=options,
        report=log.add,
    )
    state = torch.load(folder / "checkpoint.pt", weights_only=True)["average"]
    network.load_state_dict({k.removeprefix("module."): v for k, v in state.items() if k.startswith("module.")})
    result = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "train_cpu_s": sum(row["cpu_s"] for row in log.rows),
        "epochs": log.rows,
        **score(network.eval(), validation),
    }
    (folder / "run.json").write_text(json.dumps(result), encoding="utf-8")


class EpochLog:
    """Loss, score and CPU seconds of every epoch, kept on disk so that they outlive an interruption."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        self.since = time.process_time()

    def add(self, epoch: int, loss: float, iou: float) -> None:
        now = time.process_time()
        self.rows = [row for row in self.rows if row["epoch"] < epoch]
        self.rows.append({"epoch": epoch, "loss": loss, "iou": iou, "cpu_s": now - self.since})
        self.since = now
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.rows), encoding="utf-8")
        partial.replace(self.path)


def score(model: torch.nn.Module, cubes: list[AxonCube]) -> dict[str, Any]:
    """Fibre overlap and centre-line overlap on all labelled planes of all cubes together.

    A voxel is fibre where its probability is above one half. The label knows single planes only, so centre lines are
    those of planes: planes are laid into one volume with empty ones between them, where none touches another.
    """
    planes = [plane for image, label in cubes for plane in labelled_planes(probability(model, image), label)]
    shape = (2 * len(planes), *planes[0][1].shape)
    gold, mask, known = (np.zeros(shape, dtype=np.bool_) for _ in range(3))
    ranked = average_precision(*(np.stack(each) for each in zip(*planes, strict=True)))
    for number, (fibre, label) in enumerate(planes):
        gold[2 * number], mask[2 * number], known[2 * number] = label == 1, fibre > 0.5, label != IGNORE
    voxels, lines = voxel_scores(gold, mask, valid=known), cl_dice(gold, mask, valid=known)
    return {
        "iou": voxels.iou, "precision": voxels.precision, "recall": voxels.recall, "average_precision": ranked,
        "cl_dice": lines.cl_dice, "cl_precision": lines.precision, "cl_sensitivity": lines.sensitivity,
    }  # fmt: skip


def average_precision(fibre: npt.NDArray[np.float32], label: npt.NDArray[np.uint8]) -> float:
    """Mean precision over the fibre voxels, each at the threshold that just finds it: free of any chosen threshold."""
    known = label != IGNORE
    order = np.argsort(-fibre[known], kind="stable")
    hit = (label[known] == 1)[order]
    return float((np.cumsum(hit) / np.arange(1, len(hit) + 1))[hit].mean())


def probability(model: torch.nn.Module, image: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Fibre probability of a whole cube ``(z, y, x)``."""
    scaled = torch.from_numpy(IntensityScale.of(image)(image))[None, None]
    with torch.inference_mode():
        return model(scaled.contiguous(memory_format=torch.channels_last_3d)).softmax(dim=1)[0, 1].numpy()


def labelled_planes(fibre: npt.NDArray[np.float32], label: npt.NDArray[np.uint8]) -> list[Planes]:
    """Probability and label of the planes that have a label."""
    there = np.flatnonzero((label != IGNORE).any(axis=(1, 2)))
    return [(fibre[z], label[z]) for z in there]


if __name__ == "__main__":
    main(sys.argv[1])
