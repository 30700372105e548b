"""Train networks that find objects, and measure them; repeated after an interruption, a training goes on exactly.

The network is MONAI's RetinaNet on the pyramid of a backbone of medwave. The score of an epoch is the mean average
precision at an intersection over union of 0.5 on the split ``val``. The weights with the best score are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medwave.core.errors import InputError
from medwave.core.files import StrPath
from medwave.data import BoxedImages, BoxItems, read_boxed
from medwave.engine.fit import Batch, FitOptions, FitResult, fit
from medwave.engine.ranks import join_ranks
from medwave.metrics import AveragePrecision, FoundBoxes, average_precision
from medwave.models import BoxDetector, WaveRetinaNet
from medwave.workflows.train_options import TrainDetectorOptions


def train_detector(
    data: StrPath,
    folder: StrPath,
    *,
    options: TrainDetectorOptions | None = None,
    on_epoch: Callable[[int, float, float], None] = lambda epoch, loss, score: None,
    on_step: Callable[[int], None] = lambda done: None,
    **changes: Any,
) -> FitResult:
    """Train a detector; the same call again goes on after an interruption, to the same weights.

    Args:
        data: an ``.npz`` file with the splits ``train`` and ``val``, see :mod:`medwave.data.boxes`.
        folder: for ``best.safetensors``, ``checkpoint.pt`` and the logs of tensorboard.
        options: all options; single ones can be given by name.
        on_epoch: told the epoch, its mean loss and the mean average precision.
        on_step: told the number of steps done.

    Raises:
        MedwaveError: one of its leaves, for unusable options or data, or a folder of another run.
    """
    options = replace(options or TrainDetectorOptions(), **changes)
    join_ranks(options.device)
    training, validation = read_boxed(data, "train"), read_boxed(data, "val")
    if not any(map(len, training.labels)) or not any(map(len, validation.labels)):
        raise InputError(f"{data}: train and val need a box at least, to learn and to validate with")
    network = _network(options, training)
    detector = BoxDetector(network, sampled=options.sampled).to(options.device).train()

    def losses(model: nn.Module, batch: Batch) -> torch.Tensor:
        """Of classes and of corners."""
        detector.network = model
        targets = [
            {"boxes": boxes[labels >= 0], "labels": labels[labels >= 0]}
            for boxes, labels in zip(batch["boxes"], batch["labels"], strict=True)
        ]
        found = detector(batch["image"], targets)
        return torch.stack([found[detector.cls_key], found[detector.box_reg_key].to(batch["image"].device)])

    def score(model: nn.Module) -> float:
        return measure(model, validation, device=options.device).mean

    weights = torch.tensor([1.0, options.box_weight], device=options.device)
    steps = options.steps or max(1, len(training) // options.batch)
    shared = ("epochs", "batch", "learning_rate", "weight_decay", "average", "bfloat16", "workers", "seed")
    fitting = FitOptions(**{name: getattr(options, name) for name in shared}, steps=steps)
    about = f"{len(training)} images of {Path(data).name} with {', '.join(training.classes)}"
    return fit(
        network, BoxItems(training, options.epochs * steps * options.batch, seed=options.seed),
        lambda each, batch: (weights * each).sum(), score, folder, options=fitting, device=options.device,
        provenance=f"trained by medwave on {about}, {options.sampled} anchors of an image, corners weighed "
        f"{options.box_weight:g}, seed {options.seed}",
        report=on_epoch, on_step=on_step, run=losses,
    )  # fmt: skip


def measure(network: nn.Module, source: BoxedImages, *, device: str = "cpu") -> AveragePrecision:
    """Average precision of a network at an intersection over union of 0.5."""
    return _precision(find_boxes(network, source, device=device), source)


@torch.inference_mode()
def find_boxes(network: nn.Module, source: BoxedImages, *, device: str = "cpu", batch: int = 16) -> list[FoundBoxes]:
    """The boxes that a network of :class:`medwave.models.WaveRetinaNet` finds in each image.

    Raises:
        InputError: when the network takes images of another number of axes or channels.
    """
    axes, channels = network.spatial_dims, network.in_channels
    if (axes, channels) != (source.ndim, source.images.shape[-1]):
        raise InputError(
            f"the network takes images of {axes} axes and {channels} channels, these have {source.ndim} and "
            f"{source.images.shape[-1]}"
        )
    detector = BoxDetector(network).to(device).eval()  # type: ignore[arg-type]
    found = []
    for start in range(0, len(source), batch):
        images = torch.stack([source.tensor(i) for i in range(start, min(start + batch, len(source)))])
        for each in detector(images.to(device)):
            values = (each[key].cpu().numpy() for key in ("boxes", "labels", "labels_scores"))
            found.append(FoundBoxes(*values))
    return found


def _precision(found: list[FoundBoxes], source: BoxedImages) -> AveragePrecision:
    return average_precision(found, source.boxes, source.labels, source.classes)


def _network(options: TrainDetectorOptions, source: BoxedImages) -> WaveRetinaNet:
    special: dict[str, Any] = {"wavelet": options.wavelet} if options.network.startswith("wave_") else {}
    torch.manual_seed(options.seed)  # the weights that the network starts with
    return WaveRetinaNet(
        options.network, len(source.classes), options.anchors, finest=options.finest, channels=options.channels,
        anchor_strides=options.anchor_strides, ndim=source.ndim, in_channels=source.images.shape[-1],
        width=options.width, **special,
    )  # fmt: skip
