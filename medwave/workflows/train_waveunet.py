"""Train a network that tells fibre from background: on synthetic neurons, traced volumes and human labels.

The score of an epoch is the fibre IoU on cubes that are never trained on, those of a source pooled, and the mean over
the sources. The weights with the best score are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from medwave.core.errors import InputError
from medwave.core.files import StrPath
from medwave.data import AxonCubes, Mixture, NeuronCubes, SyntheticNeurons, read_axon_cubes
from medwave.data.neurons import IGNORE, Item
from medwave.engine.fit import Batch, FitOptions, FitResult, fit, spare_start
from medwave.engine.ranks import join_ranks
from medwave.losses import FibreLoss
from medwave.losses.recognition.gathering import gather_batch
from medwave.metrics import VoxelScores, voxel_scores
from medwave.models import FibreNet, fibre_network, open_network, read_weights_info
from medwave.transforms.microscopy import IntensityScale
from medwave.workflows.options import changed
from medwave.workflows.train_options import TrainFibreOptions

LOSSES = ("cross_entropy", "dice", "cldice", "skeleton_recall")
"""Parts of the loss, each with its weight among the options."""

_VALIDATION_SEED = 1_000_003
"""Added to the seed, so that no validation cube is drawn like a training cube."""

Labelled = tuple[torch.Tensor, torch.Tensor]
"""Image and label, ``(1, 1, D, H, W)`` each."""


def train_waveunet(
    folder: StrPath,
    *,
    options: TrainFibreOptions | None = None,
    on_epoch: Callable[[int, float, float], None] = lambda epoch, loss, score: None,
    on_step: Callable[[int], None] = lambda done: None,
    **changes: Any,
) -> FitResult:
    """Train a fibre network; the same call again goes on after an interruption, to the same weights.

    Args:
        folder: for ``best.safetensors``, ``checkpoint.pt`` and the logs of tensorboard.
        options: all options; single ones can be given by name: ``train_waveunet(f, width=4)``.
        on_epoch: told the epoch, its mean loss and its score.
        on_step: told the number of steps done.

    Returns:
        The best score, its epoch, its weights, and all scores.

    Raises:
        MedwaveError: one of its leaves, for unusable options or data, or a folder of another run.
    """
    options = replace(options or TrainFibreOptions(), **changes)
    join_ranks(options.device)
    spare_start(options.init, folder)
    torch.manual_seed(options.seed)  # the weights that the network starts with
    network = _network(options)
    items = options.epochs * options.steps * options.batch
    validation = _validation(options)

    def score(model: nn.Module) -> float:
        return float(np.mean([fibre_scores(model, cubes, device=options.device).iou for cubes in validation]))

    return fit(
        network, _training(options, items), _loss(options), score, folder, options=_fit_options(options),
        device=options.device, provenance=_provenance(options), report=on_epoch, on_step=on_step,
    )  # fmt: skip


def fibre_scores(model: nn.Module, cubes: Iterable[Labelled], *, device: str = "cpu") -> VoxelScores:
    """Overlap of predicted and true fibre where the truth is known, all cubes pooled."""
    made, true = [], []
    for image, label in cubes:
        found = (model(image.to(device)).argmax(dim=1, keepdim=True) == 1).cpu()
        known = label != IGNORE
        made.append(found[known].numpy())
        true.append(label[known].numpy() == 1)
    return voxel_scores(np.concatenate(true), np.concatenate(made))


def _network(options: TrainFibreOptions) -> FibreNet:
    special = {"wavelet": options.wavelet} if "wavesnet" in options.network else {}
    network = fibre_network(options.network, width=options.width, border=options.border, **special)
    if options.init is not None:
        _start(network, options.init)
    return network.to(memory_format=torch.channels_last_3d)  # two thirds of the time on a CPU


def _start(network: FibreNet, path: str) -> None:
    """Take the weights of a network that may differ in all but its tensors, such as in its borders."""
    start = open_network(path, FibreNet).state_dict()
    ours = network.state_dict()
    if {name: t.shape for name, t in start.items()} != {name: t.shape for name, t in ours.items()}:
        raise InputError(f"{path}: its tensors do not fit the network that is to be trained; give its width and kind")
    network.load_state_dict(start)


def _training(options: TrainFibreOptions, items: int) -> Dataset[Item]:
    parts: list[tuple[Dataset[Item], int]] = []
    if options.synthetic:
        parts.append((_grown(items, options, options.seed), options.synthetic))
    if options.axons_folder is not None:
        cubes = read_axon_cubes(Path(options.axons_folder) / "training")
        parts.append((AxonCubes(cubes, items, options.size, seed=options.seed), options.axons_share))
    if options.cubes_folder is not None:
        traced = NeuronCubes(options.cubes_folder, "train", length=items, size=options.size, seed=options.seed)
        parts.append((traced, options.cubes_share))
    return Mixture(parts)


def _grown(length: int, options: TrainFibreOptions, seed: int) -> SyntheticNeurons:
    return SyntheticNeurons(length, options.size, seed=seed, black_levels=options.black_levels)


@dataclass(frozen=True)
class _TestCubes:
    """The whole cubes that a folder holds for testing, read when they are asked for: there may be thousands."""

    data: NeuronCubes

    def __iter__(self) -> Iterator[Labelled]:
        return (_labelled(self.data[i]) for i in range(len(self.data)))


def _labelled(item: Item) -> Labelled:
    return item["image"][None], item["label"][None]


def _validation(options: TrainFibreOptions) -> list[Iterable[Labelled]]:
    """Cubes by source."""
    sources: list[Iterable[Labelled]] = []
    if options.synthetic:
        made = _grown(options.validation_cubes, options, options.seed + _VALIDATION_SEED)
        sources.append([_labelled(made[i]) for i in range(len(made))])
    if options.axons_folder is not None:
        pairs = read_axon_cubes(Path(options.axons_folder) / "validation")
        sources.append([(_tensor(IntensityScale.of(image)(image)), _tensor(label)) for image, label in pairs])
    if options.cubes_folder is not None:
        sources.append(_TestCubes(NeuronCubes(options.cubes_folder, "test")))
    return sources


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))[None, None]


def _loss(options: TrainFibreOptions) -> Callable[[torch.Tensor, Batch], torch.Tensor]:
    weights: dict[str, Any] = {name: getattr(options, name) for name in LOSSES}
    loss = FibreLoss(**weights, class_weights=(1.0, options.fibre_weight), ignore_label=IGNORE).to(options.device)

    def of_whole_batch(output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Overlap is of all cubes of a step together, whichever processes have them."""
        return loss(*map(gather_batch, (output, batch["label"], batch["skeleton"])))

    return of_whole_batch


def _fit_options(options: TrainFibreOptions) -> FitOptions:
    shared = (
        "epochs", "steps", "batch", "learning_rate", "weight_decay", "average", "bfloat16", "workers", "seed",
    )  # fmt: skip
    return FitOptions(**{name: getattr(options, name) for name in shared})


def _provenance(options: TrainFibreOptions) -> str:
    sources = [f"synthetic volumes of grown trees (share {options.synthetic})"] if options.synthetic else []
    if options.axons_folder is not None:
        sources.append(f"labelled axon cubes of {Path(options.axons_folder).name} (share {options.axons_share})")
    if options.cubes_folder is not None:
        sources.append(f"cubes of traced volumes of {Path(options.cubes_folder).name} (share {options.cubes_share})")
    losses = ", ".join(f"{name} {getattr(options, name):g}" for name in LOSSES if getattr(options, name))
    size = "x".join(map(str, options.size))
    start = "" if options.init is None else f", from weights that were {read_weights_info(options.init).provenance}"
    return (
        f"trained by medwave train waveunet on {' and '.join(sources)}, cubes of {size}, losses {losses}, fibre "
        f"weight {options.fibre_weight:g}{changed(options, 'black_levels', 'validation_cubes')}, seed {options.seed}"
        f"{start}"
    )
