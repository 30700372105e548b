"""Train networks that classify images or segment them; repeated after an interruption, a training goes on exactly.

The score of an epoch is the accuracy on the split ``val`` (where there is none, on training images that are held out),
or the mean IoU over the pixels of the whole split ``val``. The weights with the best score are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from medwave.core.errors import InputError
from medwave.core.files import StrPath
from medwave.data import ClassifiedImages, ImageItems, SegmentedImages, read_classified, read_segmented
from medwave.data.images import splits_of
from medwave.engine.fit import Batch, FitOptions, FitResult, fit, spare_start
from medwave.engine.ranks import join_ranks
from medwave.losses.recognition.gathering import gather_batch
from medwave.metrics import confusion_matrix, overlap_scores
from medwave.models import ImageNetwork, build, load_weights, read_weights_info
from medwave.models.images.registry import SEGMENTERS
from medwave.transforms.images import UNKNOWN_LABEL, ImageChain, centre_resized
from medwave.workflows.image_answers import OfUnit, answers, pictures, pixel_answers
from medwave.workflows.image_options import TrainClassifierOptions, TrainSegmenterOptions

_LARGEST_WEIGHT = 10.0

Report = Callable[[int, float, float], None]


def train_classifier(
    data: StrPath,
    folder: StrPath,
    *,
    options: TrainClassifierOptions | None = None,
    on_epoch: Report = lambda epoch, loss, score: None,
    on_step: Callable[[int], None] = lambda done: None,
    **changes: Any,
) -> FitResult:
    """Train a network that classifies; the same call again goes on after an interruption, to the same weights.

    Args:
        data: a folder ``SPLIT/CLASS/IMAGE`` or an ``.npz`` file of arrays, see :mod:`medwave.data.images`.
        folder: for ``best.safetensors``, ``checkpoint.pt`` and the logs of tensorboard.
        options: all options; single ones can be given by name.
        on_epoch: told the epoch, its mean loss and the accuracy.
        on_step: told the number of steps done.

    Raises:
        MedwaveError: one of its leaves, for unusable options or data, or a folder of another run.
    """
    options = replace(options or TrainClassifierOptions(), **changes)
    join_ranks(options.device)
    spare_start(options.init, folder)
    training, validation = _split(data, options)
    first, _ = training.item(0)
    network = _network(options, len(training.classes), first.shape[2])
    seen, truth = pictures(validation, options.size)
    kind = options.augment if options.augment != "auto" else "resized_crop" if options.size else "crop"
    chain = ImageChain(kind, (options.size,) * 2 if options.size else None)
    if options.size and kind in ("crop", "none"):
        training = _resized(training, options.size)

    def score(model: nn.Module) -> float:
        found = answers(OfUnit(model).to(options.device), seen, batch=options.batch, device=options.device)
        return float(np.mean(found == truth))

    def loss(output: torch.Tensor, batch: Batch) -> torch.Tensor:
        return F.cross_entropy(output, batch["label"], label_smoothing=options.label_smoothing)

    augmented = f"augmented by {kind}{_to(options.size)}"
    about = f"{len(training)} images of {len(training.classes)} classes of {Path(data).name}, {augmented}"
    return _fit(network, training, chain, loss, score, folder, options, about, on_epoch, on_step)


def train_segmenter(
    data: StrPath,
    folder: StrPath,
    *,
    options: TrainSegmenterOptions | None = None,
    on_epoch: Report = lambda epoch, loss, score: None,
    on_step: Callable[[int], None] = lambda done: None,
    **changes: Any,
) -> FitResult:
    """Train a network that segments; the same call again goes on after an interruption, to the same weights.

    Args:
        data: a folder in the layout of CamVid, Pascal VOC or Cityscapes, see :mod:`medwave.data.segmented_images`.
        folder: for ``best.safetensors``, ``checkpoint.pt`` and the logs of tensorboard.
        options: all options; single ones can be given by name.
        on_epoch: told the epoch, its mean loss and the mean IoU.
        on_step: told the number of steps done.

    Raises:
        MedwaveError: one of its leaves, for unusable options or data, or a folder of another run.
    """
    options = replace(options or TrainSegmenterOptions(), **changes)
    join_ranks(options.device)
    spare_start(options.init, folder)
    training, validation = read_segmented(data, "train"), read_segmented(data, "val")
    network = _network(options, len(training.classes), 3)
    kind = options.augment if options.augment != "auto" else "scale_crop" if options.crop else "crop"
    chain = ImageChain(kind, (options.crop,) * 2 if options.crop else None)
    weights = class_weights(training).to(options.device) if options.balance else None

    def score(model: nn.Module) -> float:
        return overlap_scores(segmenter_confusion(model, validation, device=options.device)).mean_iou

    def loss(output: torch.Tensor, batch: Batch) -> torch.Tensor:
        return known_cross_entropy(output, batch["label"], weights)

    about = f"{len(training)} images of {Path(data).name}, augmented by {kind}{_to(options.crop)}"
    return _fit(network, training, chain, loss, score, folder, options, about, on_epoch, on_step)


def known_cross_entropy(output: torch.Tensor, label: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Mean cross-entropy ``()`` of ``(N, classes, H, W)`` over the pixels of ``(N, H, W)`` that are known; 0 for none.

    ``weights`` ``(classes,)`` weigh the pixels by their class. Of several processes each gives its share: their mean is
    that of the pixels of all.
    """
    total = F.cross_entropy(output, label, weights, ignore_index=UNKNOWN_LABEL, reduction="sum")
    weight = output.new_ones(output.shape[1]) if weights is None else weights
    known = weight[label.where(label != UNKNOWN_LABEL, 0)] * (label != UNKNOWN_LABEL)
    amount = gather_batch(known.sum().reshape(1)).mean()
    return total / amount.clamp(min=torch.finfo(total.dtype).tiny)


def segmenter_confusion(network: nn.Module, source: SegmentedImages, *, device: str) -> np.ndarray:
    """One confusion matrix over all pixels of all images whose class is known."""
    unit, classes = OfUnit(network).to(device), len(source.classes)  # type: ignore[arg-type]
    total = np.zeros((classes, classes), dtype=np.int64)
    for index in range(len(source)):
        image, label = source.item(index)
        total += confusion_matrix(label, pixel_answers(unit, image, device=device), classes, ignore=UNKNOWN_LABEL)
    return total


def class_weights(source: SegmentedImages) -> torch.Tensor:
    """Median frequency over frequency of each class, 10 at most; frequencies in the images where a class occurs.

    Eigen & Fergus, arXiv:1411.4734.
    """
    pixels = np.zeros(len(source.classes))
    of = np.zeros(len(source.classes))
    for index in range(len(source)):
        label = source.item(index)[1]
        counts = np.bincount(label.ravel(), minlength=256)[: len(source.classes)]
        pixels += counts
        of += (counts > 0) * (label != UNKNOWN_LABEL).sum()
    frequency = pixels / np.maximum(of, 1)
    median = np.median(frequency[frequency > 0])
    weights = np.where(frequency > 0, median / np.maximum(frequency, 1e-12), 0.0)
    return torch.tensor(np.minimum(weights, _LARGEST_WEIGHT), dtype=torch.float32)


def _split(data: StrPath, options: TrainClassifierOptions) -> tuple[ClassifiedImages, ClassifiedImages]:
    """Images to train on and to validate with."""
    source = read_classified(data, "train", on_corrupt=options.on_corrupt)
    if "val" in splits_of(data):
        return source, read_classified(data, "val", on_corrupt=options.on_corrupt)
    order = np.random.default_rng((options.seed, 7)).permutation(len(source))
    held = round(options.holdout * len(source))
    if not 0 < held < len(source):
        raise InputError(f"{data}: {len(source)} training images are too few to hold out a share of {options.holdout}")
    return source.subset(np.sort(order[held:])), source.subset(np.sort(order[:held]))


def _to(pixels: int) -> str:
    return f" to {pixels} pixels" if pixels else ""


def _resized(source: ClassifiedImages, size: int) -> ClassifiedImages:
    """The images as they are evaluated, before they are cropped at random."""
    return replace(source, read=partial(_read_resized, source.read, size))


def _read_resized(read: Callable[[int], np.ndarray], size: int, index: int) -> np.ndarray:
    return centre_resized(read(index), size)


def _network(options: Any, classes: int, channels: int) -> ImageNetwork:
    name = options.network
    segments = name.removeprefix("wave_") in SEGMENTERS
    if segments != isinstance(options, TrainSegmenterOptions):
        raise InputError(f"network {name}: {'segments' if segments else 'classifies'} images; train it as such")
    special: dict[str, Any] = {"wavelet": options.wavelet} if name.startswith("wave_") else {}
    if getattr(options, "small_images", False):
        special |= {"head": "small"} if "vgg" in name else {"stem": "small"}
    if getattr(options, "depth", 0):
        special["depth"] = options.depth
    torch.manual_seed(options.seed)  # the weights that the network starts with
    network = build(name, classes=classes, in_channels=channels, width=options.width, **special)
    if options.init is not None:
        load_weights(network, options.init)
    return network  # not channels_last: torch 2.13 breaks memory there on CPUs where channels are no multiple of 8


def _fit(
    network: ImageNetwork, source: ClassifiedImages | SegmentedImages, chain: ImageChain, loss: Any, score: Any,
    folder: StrPath, options: Any, about: str, on_epoch: Report, on_step: Callable[[int], None],
) -> FitResult:  # fmt: skip
    steps = options.steps or max(1, len(source) // options.batch)
    option = "--size" if isinstance(options, TrainClassifierOptions) else "--crop"
    several = options.batch == 1 or (chain.size is not None and chain.kind != "none")  # one by one, or made one size
    items = ImageItems(
        source, options.epochs * steps * options.batch, chain, seed=options.seed, one_size="" if several else option
    )
    shared = (
        "epochs", "batch", "learning_rate", "weight_decay", "average", "bfloat16", "workers", "seed", "optimiser",
        "schedule", "warm_up",
    )  # fmt: skip
    milestones = tuple(range(options.step_epochs, options.epochs, options.step_epochs))
    fitting = FitOptions(**{name: getattr(options, name) for name in shared}, steps=steps, milestones=milestones)
    start = "" if options.init is None else f", from weights that were {read_weights_info(options.init).provenance}"
    extra = f", label smoothing {options.label_smoothing:g}" if hasattr(options, "label_smoothing") else (
        f", classes {'balanced' if options.balance else 'as they are'}"
    )  # fmt: skip
    provenance = f"trained by medwave on {about}{extra}, seed {options.seed}{start}"
    return fit(
        network, items, loss, score, folder, options=fitting, device=options.device, provenance=provenance,
        report=on_epoch, on_step=on_step,
    )  # fmt: skip
