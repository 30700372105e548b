"""The three sets of ``recognition_runs.py``: how each is read, trained on, and scored.

FOLDER holds ``omniglot/images_background_small1.zip`` and ``..._small2.zip``, ``orl_faces/orl_faces.npz`` and
``cifar10_subset/cifar10_subset.npz`` (Omniglot: Lake et al., Science 2015; ORL: AT&T Laboratories Cambridge; CIFAR-10:
Krizhevsky 2009).
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _results import BenchmarkError
from torch import nn

from medwave.data import ArraySet
from medwave.engine.embed import embed_pictures
from medwave.losses.recognition import RecognitionLoss
from medwave.metrics import ClassificationScores, VerificationScores, auroc, equal_error_rate
from medwave.transforms.faces import fit_picture, normalise
from medwave.volumes.pictures import decode_picture
from medwave.workflows.recognition_options import TrainRecogniseOptions, picture_size

ORL_TRAINED = 30
"""People 0 to 29 are trained on, 30 to 39 verified."""

DRAWINGS = 10
"""Of each character of Omniglot the first ten of its twenty drawings are taken, for training and for verification."""


@dataclass(frozen=True)
class Sets:
    """What is trained on and what is scored, small enough to lie in memory at the size of the network."""

    training: ArraySet
    scored: ArraySet


def load(name: str, folder: Path, options: TrainRecogniseOptions) -> Sets:
    """One of the three sets.

    Raises:
        BenchmarkError: when its files are not there.
    """
    try:
        return LOADERS[name](folder, options)
    except OSError as error:
        raise BenchmarkError(f"{name} cannot be read from {folder} ({error})") from None


def _omniglot(folder: Path, options: TrainRecogniseOptions) -> Sets:
    parts = (folder / "omniglot" / f"images_background_small{n}.zip" for n in (1, 2))
    return Sets(*(_drawings(path, options) for path in parts))


def _drawings(path: Path, options: TrainRecogniseOptions) -> ArraySet:
    with zipfile.ZipFile(path) as packed:
        drawn = (name for name in packed.namelist() if name.endswith(".png"))
        names = sorted(name for name in drawn if int(name[-6:-4]) <= DRAWINGS)  # .../0108_01.png
        pictures = [decode_picture(packed.read(name), name) for name in names]
    return ArraySet(_sized(pictures, options), [name.rpartition("/")[0] for name in names])


def _orl(folder: Path, options: TrainRecogniseOptions) -> Sets:
    with np.load(folder / "orl_faces" / "orl_faces.npz") as content:
        pictures, people = _sized(content["images"][..., None], options), content["subject"].astype(int)
    trained = people - people.min() < ORL_TRAINED
    return Sets(*(ArraySet(pictures[part], people[part].tolist()) for part in (trained, ~trained)))


def _cifar(folder: Path, options: TrainRecogniseOptions) -> Sets:
    with np.load(folder / "cifar10_subset" / "cifar10_subset.npz") as content:
        parts = [(content[f"{part}_images"], content[f"{part}_labels"]) for part in ("train", "test")]
    return Sets(*(ArraySet(_sized(images, options), labels.tolist()) for images, labels in parts))


def _sized(pictures: Any, options: TrainRecogniseOptions) -> np.ndarray:
    return np.stack([fit_picture(each, picture_size(options.size), options.channels) for each in pictures])


LOADERS: dict[str, Callable[[Path, TrainRecogniseOptions], Sets]] = {
    "omniglot": _omniglot, "orl": _orl, "cifar": _cifar,
}  # fmt: skip


def features(model: nn.Module, pictures: ArraySet, options: TrainRecogniseOptions) -> np.ndarray:
    tensors = (normalise(pictures.picture(n)) for n in range(len(pictures)))
    return embed_pictures(model, tensors, flip=options.mirror)


def verification(model: nn.Module, scored: ArraySet, options: TrainRecogniseOptions) -> dict[str, float]:
    """Measures over all pairs of pictures of identities that were never trained on."""
    pairs = VerificationScores()
    pairs.update_all_pairs(features(model, scored, options), scored.labels)
    scores, same = pairs.arrays()
    return {
        "eer": equal_error_rate(scores, same).rate,
        "tar_at_far_1e-3": pairs.tar_at_far(1e-3).tar,
        "auroc": auroc(scores, same),
        "same_pairs": int(same.sum()),
        "different_pairs": int((~same).sum()),
    }


def classification(
    model: nn.Module, head: RecognitionLoss, scored: ArraySet, options: TrainRecogniseOptions
) -> dict[str, float | None]:
    """Accuracies at a threshold per sample, per class and for all, on cosines; the learned one where there is such.

    Scores and thresholds are divided by the scale, so that heads can be compared.
    """
    prototypes = getattr(head, "sample_to_class", getattr(head, "learned", head))
    bias = getattr(prototypes, "bias", None)
    scale = prototypes.scale
    with torch.inference_mode():
        scores = prototypes.class_scores(torch.from_numpy(features(model, scored, options))) / scale
    store = ClassificationScores()
    store.update(scores, scored.labels)
    found = store.result(None if bias is None else float(bias.detach()) / scale)
    return {
        "a_sw": found.sample_wise, "a_cw": found.class_wise, "a_uni": found.uniform, "threshold": found.threshold,
        "learned": found.learned_threshold, "at_learned": found.at_learned, "distance": found.distance,
    }  # fmt: skip
