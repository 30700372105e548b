"""Train a network that tells identities apart, also such that it never met.

The score of an epoch is measured on identities that are never trained on: one minus the equal error rate over all
pairs of their pictures, or the accuracy over ten folds for a list of pairs. The weights with the best score are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medwave.core.errors import InputError
from medwave.core.files import StrPath
from medwave.data.face_items import FaceItems
from medwave.data.identities import IdentitySet, PartOfSet, open_identities
from medwave.data.pair_set import PairSet, open_pairs
from medwave.engine.embed import embed_pictures
from medwave.engine.fit import Batch, FitOptions, FitResult, fit
from medwave.engine.ranks import join_ranks
from medwave.losses import recognition
from medwave.losses.recognition import RecognitionLoss
from medwave.metrics import VerificationScores, cosine_pairs, equal_error_rate, folded_accuracy
from medwave.models import FaceNet, IResNet, WaveIResNet
from medwave.transforms.faces import fit_picture, normalise
from medwave.workflows.recognition_options import TrainRecogniseOptions, epoch_list, picture_size

MOST_VALIDATION_PICTURES = 4000
"""So many pictures of a validation set are taken at most; their pairs grow with the square."""

_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "softmax": ("SoftmaxLoss", {"normalised": True}),
    "cosface": ("CosFaceLoss", {}),
    "arcface": ("ArcFaceLoss", {}),
    "bce": ("UnifiedBCELoss", {"normalised": True}),
    "bce_diverse": ("UnifiedBCELoss", {"normalised": True, "bias": "diverse"}),
    "uce": ("UCELoss", {}),
    "s2s_softmax": ("S2SSoftmaxLoss", {}),
    "s2s_bce": ("S2SBCELoss", {}),
    "uss": ("USSLoss", {}),
    "unitsface": ("UniTSFaceLoss", {}),
    "epl": ("EPLLoss", {}),
}
_WITHOUT_MARGIN = ("softmax", "bce", "bce_diverse", "epl")
_DOUBLE = ("unitsface", "epl")  # their prototypes are told the scale by a loss of their own


def train_recognise(
    data: StrPath,
    folder: StrPath,
    *,
    options: TrainRecogniseOptions | None = None,
    on_epoch: Callable[[int, float, float], None] = lambda epoch, loss, score: None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    **changes: Any,
) -> FitResult:
    """Train a recognition network; the same call again goes on after an interruption, to the same weights.

    Args:
        data: what :func:`medwave.data.open_identities` opens.
        folder: for ``best.safetensors``, ``checkpoint.pt`` and the logs of tensorboard.
        options: all options; single ones can be given by name.
        on_epoch: told the epoch, its mean loss and its score.
        on_step: told the number of steps done, and of all steps.

    Returns:
        The best score, its epoch, its weights, and all scores.

    Raises:
        MedwaveError: one of its leaves, for unusable options or data, or a folder of another run.
    """
    options = replace(options or TrainRecogniseOptions(), **changes)
    join_ranks(options.device)
    training, validation = _sets(open_identities(data), options)
    torch.manual_seed(options.seed)  # the weights that the network starts with
    network = face_network(options)
    if torch.device(options.device).type != "cpu":  # on CPUs torch 2.13 breaks memory where channels are not times 8
        network = network.to(memory_format=torch.channels_last)
    head, loss = head_and_loss(network, options, len(training.names))
    steps = options.steps or max(1, len(training) // options.batch)
    items = FaceItems(
        training, options.epochs * steps * options.batch, picture_size(options.size), channels=options.channels,
        mirror=options.mirror, shift=options.shift, seed=options.seed,
    )  # fmt: skip
    total = options.epochs * steps
    return fit(
        network, items, loss, lambda model: validation_score(model, validation, options), folder,
        options=_fit_options(options, steps), device=options.device, provenance=_provenance(data, options, training),
        head=head, after_update=network.hold_slopes, report=on_epoch, on_step=lambda done: on_step(done, total),
    )  # fmt: skip


def face_network(options: TrainRecogniseOptions) -> FaceNet:
    """The network that the options describe, with new weights."""
    shape: dict[str, Any] = {
        "width": options.width, "image_size": picture_size(options.size), "in_channels": options.channels,
        "dimension": options.dimension, "dropout": options.dropout,
    }  # fmt: skip
    if options.wavelet is None:
        return IResNet(options.depth, **shape)
    return WaveIResNet(options.depth, wavelet=options.wavelet, **shape)


def recognition_head(options: TrainRecogniseOptions, classes: int) -> RecognitionLoss:
    """The loss that the options describe.

    Raises:
        InputError: for a margin where the loss has none, or a value out of its range.
    """
    name, more = _KINDS[options.head]
    shared = {"scale": options.scale, "sample_rate": options.sample_rate, "seed": options.seed}
    if options.margin is not None:
        if options.head in _WITHOUT_MARGIN:
            raise InputError(f"margin: {options.head} has none to set; leave it out")
        more = more | {"margin": options.margin}
    if options.head in _DOUBLE:
        prototypes = recognition.CosFaceLoss(classes, options.dimension, **shared)
        more = more | {"sample_to_class" if options.head == "unitsface" else "learned": prototypes}
    return getattr(recognition, name)(classes, options.dimension, **shared, **more)


def head_and_loss(
    network: FaceNet, options: TrainRecogniseOptions, classes: int
) -> tuple[RecognitionLoss, Callable[[torch.Tensor, Batch], torch.Tensor]]:
    """The loss that learns, and what it makes of a batch: of features, and of maps where channels shall explain."""
    head = recognition_head(options, classes)
    if not options.explain:
        return head, head_loss(head)
    explained = recognition.ECLoss(head, 4 * options.width, weight=options.explain)
    maps = _LastMaps(network.stages[-2])
    return explained, lambda output, batch: explained(output, batch["label"], maps.last, samples=batch["sample"]).total


class _LastMaps:
    """What a stage gave when it last ran in training. A copy of the network has a copy of this, with its own maps."""

    def __init__(self, stage: nn.Module) -> None:
        self.last: torch.Tensor | None = None
        stage.register_forward_hook(self._keep)

    def _keep(self, stage: nn.Module, inputs: Any, maps: torch.Tensor) -> None:
        if stage.training:
            self.last = maps


def head_loss(head: RecognitionLoss) -> Callable[[torch.Tensor, Batch], torch.Tensor]:
    """The loss of a batch of items, as :func:`medwave.engine.fit.fit` takes it."""
    return lambda output, batch: head(output, batch["label"], samples=batch["sample"]).total


def validation_score(model: nn.Module, validation: IdentitySet | PairSet, options: TrainRecogniseOptions) -> float:
    """Accuracy over ten folds of pairs, or one minus the equal error rate over all pairs of identities."""
    size = picture_size(options.size)
    pictures = (normalise(fit_picture(validation.picture(n), size, options.channels)) for n in range(len(validation)))
    features = embed_pictures(model, pictures, flip=options.mirror, device=options.device)
    if isinstance(validation, PairSet):
        scores = cosine_pairs(features[validation.first], features[validation.second])
        return folded_accuracy(scores, validation.same, validation.folds or 10).mean
    pairs = VerificationScores()
    pairs.update_all_pairs(features, validation.labels)
    return 1 - equal_error_rate(*pairs.arrays()).rate


def _sets(whole: IdentitySet, options: TrainRecogniseOptions) -> tuple[IdentitySet, IdentitySet | PairSet]:
    """What to train on and what to validate on."""
    if options.validation is not None and Path(options.validation).suffix == ".bin":
        return whole, open_pairs(options.validation, None)
    if options.validation is not None:
        return whole, _pairable(open_identities(options.validation), options.validation)
    order = np.random.default_rng((options.seed, 2)).permutation(len(whole.names))
    held = math.ceil(options.holdout * len(whole.names))
    if len(whole.names) - held < 2:
        raise InputError(
            f"training needs two identities besides the {held} held out for validation, there are {len(whole.names)}: "
            "give a smaller --holdout or a --validation set"
        )
    return PartOfSet(whole, order[held:]), _pairable(PartOfSet(whole, order[:held]), "the identities held out")


def _pairable(pictures: IdentitySet, name: str) -> IdentitySet:
    """The set, or its first identities up to the number of pictures that is taken; some pair of each kind is needed."""
    counts = np.bincount(pictures.labels)
    most = int(np.searchsorted(np.cumsum(counts), MOST_VALIDATION_PICTURES, "right"))
    if most < len(counts):
        pictures = PartOfSet(pictures, np.arange(max(2, most)))
        counts = np.bincount(pictures.labels)
    if len(counts) < 2 or counts.max() < 2:
        raise InputError(
            f"{name}: validation needs two identities or more and two pictures of one; there are "
            f"{len(counts)} with {int(counts.max())} at most"
        )
    return pictures


def _fit_options(options: TrainRecogniseOptions, steps: int) -> FitOptions:
    shared = (
        "epochs", "batch", "learning_rate", "weight_decay", "gradient_norm", "average", "bfloat16", "workers", "seed",
        "optimiser", "momentum", "schedule", "warm_up",
    )  # fmt: skip
    values = {name: getattr(options, name) for name in shared}
    return FitOptions(**values, steps=steps, milestones=epoch_list(options.milestones))


def _provenance(data: StrPath, options: TrainRecogniseOptions, training: IdentitySet) -> str:
    margin = "" if options.margin is None else f", margin {options.margin:g}"
    validation = "" if options.validation is None else f", validated on {Path(options.validation).name}"
    return (
        f"trained by medwave train recognise on {Path(data).name} ({len(training.names)} identities, {len(training)} "
        f"pictures), loss {options.head}, scale {options.scale:g}{margin}, sample rate {options.sample_rate:g}, "
        f"explain {options.explain:g}, mirror {options.mirror}, shift {options.shift}, seed {options.seed}"
        f"{validation}"
    )
