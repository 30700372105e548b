"""Train WiNet on images that are made up from label maps, so that it registers any contrast, or on real images.

With label maps the loss is one minus the soft Dice of the structures; with real images, which need no labels, minus
their similarity: local correlation, or mutual information. Added is a weight times the mean squared forward difference
of the network's field. The network sees images only. The score of an epoch is that of pairs that are never trained on:
with label maps the mean soft Dice of their structures, which shows gains far below a voxel; with real images the mean
Dice of their labels, or where they have none their similarity. The weights with the best score are kept.

Real images without labels are how the paper trains (WiNet, arXiv 2407.13426): local correlation in windows of 9 voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from medwave import fields
from medwave.core.errors import InputError
from medwave.core.files import StrPath
from medwave.data import BrainPairs, LabelMapPairs, read_brain_folder, read_label_maps
from medwave.engine.fit import Batch, FitOptions, FitResult, fit, spare_start
from medwave.engine.ranks import join_ranks
from medwave.losses import GlobalMI, LabelOverlap, LocalNCC, Smoothness
from medwave.metrics import dice
from medwave.models import WiNet, open_network, read_weights_info
from medwave.transforms.label_images import STRUCTURES
from medwave.workflows.options import changed
from medwave.workflows.train_options import TrainPairOptions

Score = Callable[[torch.Tensor, Batch], float]
"""(displacement, pair) -> how good it is."""

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
    spare_start(options.init, folder)
    lesson = _images(options) if options.images is not None else _maps(options)
    torch.manual_seed(options.seed)  # the weights that the network starts with
    network = _network(options)
    on_start(float(np.mean([lesson.score(torch.zeros(1, 3, *options.validation_size), p) for p in lesson.pairs])))

    def validate(model: nn.Module) -> float:
        return mean_score(model, lesson.pairs, lesson.score, device=options.device)

    return fit(
        network, lesson.data, training_loss(options), validate, folder, options=_fit_options(options),
        device=options.device, provenance=_provenance(options, lesson.about), report=on_epoch, on_step=on_step,
        run=predicted_field,
    )  # fmt: skip


class _Lesson(NamedTuple):
    """Items to train on, pairs to validate with and how they are scored, and what the items are, in words."""

    data: Dataset[Batch]
    pairs: list[Batch]
    score: Score
    about: str


def _maps(options: TrainPairOptions) -> _Lesson:
    if options.label_maps is None:
        raise InputError("there is nothing to train on: name a folder of --label-maps, or of --images")
    maps = read_label_maps(options.label_maps)
    if len(maps) < options.held_back + 2:
        raise InputError(f"{options.label_maps}: holds {len(maps)} label maps; two more than are held back are needed")
    training, held = maps[: -options.held_back], maps[-options.held_back :]
    contrast = None if options.contrast == "any" else options.contrast
    data = LabelMapPairs(
        training, _items(options), options.size, spacing_mm=options.spacing_mm, strength=options.strength,
        contrast=contrast, seed=options.seed, device=options.device if _on_gpu(options) else "cpu",
    )  # fmt: skip
    validation = LabelMapPairs(
        held, options.validation_pairs, options.validation_size, spacing_mm=options.spacing_mm, varied=False,
        contrast=contrast, seed=options.seed + _VALIDATION_SEED,
    )  # fmt: skip
    kind = "" if contrast is None else f"{contrast} "
    about = f"{kind}images made up from {len(training)} label maps of {Path(options.label_maps).name}"
    return _Lesson(data, list(DataLoader(validation)), _soft_overlap, about)


def _images(options: TrainPairOptions) -> _Lesson:
    found = read_brain_folder(str(options.images), held_back=options.held_back)
    data = BrainPairs(
        found.training, found.atlas, _items(options), options.size, spacing_mm=options.spacing_mm, seed=options.seed
    )
    most = len(found.validation) * (1 if found.atlas else len(found.validation) - 1)
    validation = BrainPairs(
        found.validation, found.atlas, min(options.validation_pairs, most), options.validation_size,
        spacing_mm=options.spacing_mm, varied=False, labels=True,
    )  # fmt: skip
    pairs = list(DataLoader(validation))
    labelled = ["fixed_labels" in pair for pair in pairs]
    if any(labelled) and not all(labelled):
        raise InputError(f"{options.images}: some of the images to validate with have labels, others none")
    similarity = _similarity(options)

    def alike(displacement: torch.Tensor, pair: Batch) -> float:
        return -float(similarity(fields.warp(pair["moving"], displacement), pair["fixed"]))

    moving = f" from {found.atlas.image.name}" if found.atlas else ""
    about = f"{len(found.training)} images of {Path(str(options.images)).name}{moving}"
    return _Lesson(data, pairs, _overlap if all(labelled) else alike, about)


def _on_gpu(options: TrainPairOptions) -> bool:
    return torch.device(options.device).type == "cuda"


def _items(options: TrainPairOptions) -> int:
    return options.epochs * options.steps * options.batch


def _similarity(options: TrainPairOptions) -> nn.Module:
    return LocalNCC(options.radius) if options.similarity == "lncc" else GlobalMI()


def mean_score(model: nn.Module, pairs: Sequence[Batch], score: Score, *, device: str = "cpu") -> float:
    """Mean over pairs of a score of (displacement, pair)."""
    scores = []
    for pair in pairs:
        displacement = model(pair["moving"].to(device), pair["fixed"].to(device)).float().cpu()
        scores.append(score(displacement, pair))
    return float(np.mean(scores))


def pair_overlap(model: nn.Module, pairs: Sequence[Batch], *, device: str = "cpu") -> float:
    """Mean over pairs of the mean Dice of structures, labels carried by the nearest voxel."""
    return mean_score(model, pairs, _overlap, device=device)


def predicted_field(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The velocity of a diffeomorphic network, the displacement of another."""
    predict = model.velocity if model.diffeomorphic else model  # type: ignore[union-attr]
    field: torch.Tensor = predict(batch["moving"], batch["fixed"])
    return field


def training_loss(options: TrainPairOptions) -> Callable[[torch.Tensor, Batch], torch.Tensor]:
    """(field, batch) -> scalar: overlap or similarity, and smoothness, as the options weigh them."""
    smoothness = Smoothness().to(options.device)
    overlap, similarity = LabelOverlap(len(STRUCTURES)), _similarity(options)

    def loss(field: torch.Tensor, batch: Batch) -> torch.Tensor:
        displacement = fields.integrate(field, options.squarings) if options.diffeomorphic else field
        if options.images is None:
            value: torch.Tensor = overlap(displacement, batch["moving_labels"], batch["fixed_labels"])
        else:
            value = similarity(fields.warp(batch["moving"], displacement), batch["fixed"])
        return value + options.smoothness * smoothness(field)

    return loss


def _soft_overlap(displacement: torch.Tensor, pair: Batch) -> float:
    return 1.0 - float(LabelOverlap(len(STRUCTURES))(displacement, pair["moving_labels"], pair["fixed_labels"]))


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
    if _on_gpu(options):
        return network  # channels last takes a third longer there
    return network.to(memory_format=torch.channels_last_3d)  # two thirds of the time on a CPU


def _fit_options(options: TrainPairOptions) -> FitOptions:
    shared = (
        "epochs", "steps", "batch", "learning_rate", "weight_decay", "average", "bfloat16", "workers", "seed",
        "schedule",
    )  # fmt: skip
    chosen = {name: getattr(options, name) for name in shared}
    if options.label_maps is not None and _on_gpu(options):
        chosen["workers"] = 0  # the GPU makes the pairs itself
    return FitOptions(**chosen)


def _provenance(options: TrainPairOptions, about: str) -> str:
    size = "x".join(map(str, options.size))
    start = "" if options.init is None else f", from weights that were {read_weights_info(options.init).provenance}"
    words = {"lncc": f"local correlation of radius {options.radius}", "mi": "mutual information"}
    loss = "soft Dice" if options.images is None else words[options.similarity]
    return (
        f"trained by medwave train winet on {about}, pairs of {size} voxels of {options.spacing_mm:g} mm, {loss} and "
        f"smoothness {options.smoothness:g}, {options.squarings} squarings"
        f"{changed(options, 'strength', 'validation_size', 'validation_pairs')}, seed {options.seed}{start}"
    )
