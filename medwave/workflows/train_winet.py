"""Train WiNet on images that are made up from label maps, so that it registers any contrast.

The loss is one minus the soft Dice of the structures, plus a weight times the mean squared forward difference of the
network's field. The network sees images only; labels judge it. The score of an epoch is the mean Dice over
structures on pairs of label maps that are never trained on; the weights with the best score are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from medwave import fields
from medwave.core.errors import InputError
from medwave.core.files import StrPath
from medwave.data import LabelMapPairs, read_label_maps
from medwave.engine.fit import Batch, FitOptions, FitResult, fit
from medwave.engine.ranks import join_ranks
from medwave.losses import LabelOverlap, Smoothness
from medwave.metrics import dice
from medwave.models import WiNet, open_network, read_weights_info
from medwave.transforms.label_images import STRUCTURES
from medwave.workflows.train_options import TrainPairOptions

_VALIDATION_SEED = 1_000_003
"""Added to the seed, so that no validation image is drawn like a training image."""


def train_winet(
    folder: StrPath,
    *,
    options: TrainPairOptions | None = None,
    on_epoch: Callable[[int, float, float], None] = lambda epoch, loss, score: None,
    on_step: Callable[[int], None] = lambda done: None,
    on_start: Callable[[float], None] = lambda score: None,
    **changes: Any,
) -> FitResult:
    """Train WiNet; the same call again goes on after an interruption, to the same weights.

    Args:
        folder: for ``best.safetensors``, ``checkpoint.pt`` and the logs of tensorboard.
        options: all options; single ones can be given by name: ``train_winet(f, label_maps=maps, width=4)``.
        on_epoch: told the epoch, its mean loss and its score.
        on_step: told the number of steps done.
        on_start: told the score of no displacement at all: what alignment by an affine reaches.

    Returns:
        The best score, its epoch, its weights, and all scores.

    Raises:
        MedwaveError: one of its leaves, for unusable options or data, or a folder of another run.
    """
    options = replace(options or TrainPairOptions(), **changes)
    join_ranks(options.device)
    if options.label_maps is None:
        raise InputError("there is nothing to train on: name a folder of --label-maps")
    maps = read_label_maps(options.label_maps)
    if len(maps) < options.held_back + 2:
        raise InputError(f"{options.label_maps}: holds {len(maps)} label maps; two more than are held back are needed")
    torch.manual_seed(options.seed)  # the weights that the network starts with
    network = _network(options)
    training, held = maps[: -options.held_back], maps[-options.held_back :]
    items = options.epochs * options.steps * options.batch
    data = LabelMapPairs(training, items, options.size, spacing_mm=options.spacing_mm, seed=options.seed)
    pairs = _validation(held, options)
    on_start(float(np.mean([_overlap(torch.zeros(1, 3, *options.validation_size), pair) for pair in pairs])))
    return fit(
        network, data, training_loss(options), lambda model: pair_overlap(model, pairs, device=options.device), folder,
        options=_fit_options(options), device=options.device, provenance=_provenance(options, len(training)),
        report=on_epoch, on_step=on_step, run=predicted_field,
    )  # fmt: skip


def pair_overlap(model: nn.Module, pairs: Sequence[Batch], *, device: str = "cpu") -> float:
    """Mean over pairs of the mean Dice of structures, labels carried by the nearest voxel."""
    scores = []
    for pair in pairs:
        displacement = model(pair["moving"].to(device), pair["fixed"].to(device)).float().cpu()
        scores.append(_overlap(displacement, pair))
    return float(np.mean(scores))


def predicted_field(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The velocity of a diffeomorphic network, the displacement of another."""
    predict = model.velocity if model.diffeomorphic else model  # type: ignore[union-attr]
    field: torch.Tensor = predict(batch["moving"], batch["fixed"])
    return field


def training_loss(options: TrainPairOptions) -> Callable[[torch.Tensor, Batch], torch.Tensor]:
    """(field, batch) -> scalar: overlap and smoothness, as the options weigh them."""
    overlap, smoothness = LabelOverlap(len(STRUCTURES)), Smoothness().to(options.device)

    def loss(field: torch.Tensor, batch: Batch) -> torch.Tensor:
        displacement = fields.integrate(field, options.squarings) if options.diffeomorphic else field
        value: torch.Tensor = overlap(displacement, batch["moving_labels"], batch["fixed_labels"])
        return value + options.smoothness * smoothness(field)

    return loss


def _overlap(displacement: torch.Tensor, pair: Batch) -> float:
    warped = fields.warp(pair["moving_labels"], displacement, interpolation="nearest")
    return float(np.mean(list(dice(warped.numpy()[0, 0], pair["fixed_labels"].numpy()[0, 0]).values())))


def _network(options: TrainPairOptions) -> WiNet:
    network = WiNet(options.width, options.wavelet, options.diffeomorphic, options.spacing_mm)
    if options.init is not None:
        start = open_network(options.init, WiNet).state_dict()
        if {n: t.shape for n, t in start.items()} != {n: t.shape for n, t in network.state_dict().items()}:
            raise InputError(f"{options.init}: its tensors do not fit the network to be trained; give its width")
        network.load_state_dict(start)
    return network.to(memory_format=torch.channels_last_3d)  # two thirds of the time on a CPU


def _validation(maps: Sequence[Any], options: TrainPairOptions) -> list[Batch]:
    data = LabelMapPairs(
        maps, options.validation_pairs, options.validation_size, spacing_mm=options.spacing_mm, varied=False,
        seed=options.seed + _VALIDATION_SEED,
    )  # fmt: skip
    return list(DataLoader(data))


def _fit_options(options: TrainPairOptions) -> FitOptions:
    shared = (
        "epochs", "steps", "batch", "learning_rate", "weight_decay", "average", "bfloat16", "workers", "seed",
    )  # fmt: skip
    return FitOptions(**{name: getattr(options, name) for name in shared})


def _provenance(options: TrainPairOptions, count: int) -> str:
    size = "x".join(map(str, options.size))
    name = Path(str(options.label_maps)).name
    start = "" if options.init is None else f", from weights that were {read_weights_info(options.init).provenance}"
    return (
        f"trained by medwave train winet on images made up from {count} label maps of {name}, pairs of {size} voxels "
        f"of {options.spacing_mm:g} mm, soft Dice and smoothness {options.smoothness:g}, {options.squarings} squarings"
        f", seed {options.seed}{start}"
    )
