"""Options of the jobs on identities: training, embedding, verification, identification; made as those of
:mod:`medwave.workflows.options`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from medwave.core.errors import InputError
from medwave.workflows.options import at_least, check_choices, check_learning, option

HEADS = (
    "softmax", "cosface", "arcface", "bce", "bce_diverse", "uce", "s2s_softmax", "s2s_bce", "uss", "unitsface", "epl",
)  # fmt: skip
"""Losses that ``medwave train recognise`` knows, by name."""


@dataclass(frozen=True)
class TrainRecogniseOptions:
    """How a network is trained to tell identities apart. The defaults are those of the papers on CASIA-WebFace."""

    head: str = option("unitsface", "Loss.", choices=HEADS)
    margin: float | None = option(None, "Margin of the loss, where it has one; by itself the published one.")
    scale: float = option(64.0, "Scale of the cosines.")
    sample_rate: float = option(1.0, "Share of the identities that negatives are drawn from, for very many of them.")
    explain: float = option(
        0.0, "Weight of a second loss, which makes each channel of the last stage but one look at one part of the face "
        "(ECLoss-style, derived; 0.1 is a start)."
    )  # fmt: skip
    depth: int = option(50, "Layers of the IR-ResNet: 18, 34, 50, 100 or 200.")
    width: int = option(64, "Channels of the first stage.")
    wavelet: str | None = option(None, "Halve by the low band of this wavelet, such as haar; by itself by strides.")
    dimension: int = option(512, "Length of a feature.")
    dropout: float = option(0.4, "Share of the values before the last convolution that training drops.")
    size: str = option("112", "Height and width of the pictures, multiples of 16: 112, or 64x48.")
    channels: int = option(3, "Channels of the pictures: 3, or 1 for grey.")
    mirror: bool = option(True, "Turn pictures left to right at random, and add both features when validating.")
    shift: int = option(0, "Move pictures by up to so many pixels at random.")
    validation: str | None = option(
        None, "Folder, .rec or .npz of other identities, or a .bin of pairs, to validate on after each epoch."
    )
    holdout: float = option(0.1, "Without --validation: share of the identities that is kept from training for it.")
    epochs: int = option(28, "Epochs; after each the network is validated and the state written.")
    steps: int = option(0, "Steps of an epoch; 0: so many that each picture comes once.")
    batch: int = option(512, "Pictures of a step.")
    optimiser: str = option("sgd", "Optimiser.", choices=("sgd", "adamw"))
    learning_rate: float = option(0.1, "Highest learning rate.")
    schedule: str = option(
        "steps", "How the rate falls: steps: to a tenth at each milestone; polynomial: by the square of what is left.",
        choices=("steps", "polynomial", "cosine", "constant"),
    )  # fmt: skip
    milestones: str = option("16,24", "Epochs, counted from 0, at which the rate falls, for the schedule steps.")
    warm_up: int = option(0, "Epochs over which the rate rises.")
    momentum: float = option(0.9, "Momentum of SGD.")
    weight_decay: float = option(5e-4, "Weight decay; biases, thresholds and norms have none.")
    gradient_norm: float = option(10.0, "Gradients are clipped to this length.")
    average: float = option(0.0, "Decay of a moving average of the weights, which is what is kept; 0 keeps the last.")
    bfloat16: bool = option(False, "Run the network in bfloat16; faster on a GPU, or a CPU that has it.")
    device: str = option("cpu", "Where to train: cpu, cuda, cuda:1, ...")
    workers: int = option(0, "Processes that prepare pictures; 0 prepares them in between.")
    seed: int = option(0, "Seed of everything that is drawn.")

    def __post_init__(self) -> None:
        check_choices(self)
        check_learning(self, highest_rate=10)
        at_least(self, 0, "shift", "warm_up")
        if self.batch < 2:
            raise InputError("batch: 2 or more pictures, since batch norm needs them")
        if self.channels not in (1, 3):
            raise InputError(f"channels: 1 or 3, got {self.channels}")
        if not 0 < self.holdout < 1:
            raise InputError(f"holdout: a share between 0 and 1, got {self.holdout}")
        if not 0 <= self.explain < math.inf:
            raise InputError(f"explain: a weight of 0 or more, got {self.explain}")
        if not self.gradient_norm > 0:
            raise InputError(f"gradient_norm: above 0, got {self.gradient_norm}")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum: from 0 to below 1, got {self.momentum}")
        picture_size(self.size)
        epoch_list(self.milestones)


@dataclass(frozen=True)
class EmbedOptions:
    """How pictures are turned into features."""

    mirror: bool = option(True, "Add the feature of the mirror image; not for drawings and scans.")
    points: str | None = option(
        None,
        "CSV of five points per picture, image,x1,y1,...,x5,y5 (eyes, nose, corners of the mouth, left before right "
        "as seen): faces are aligned by them; by itself pictures are only brought to the size of the network.",
    )
    batch: int = option(64, "Pictures that go through the network at once.")
    device: str = option("cpu", "Where the network runs: cpu, cuda, cuda:1, ...")

    def __post_init__(self) -> None:
        at_least(self, 1, "batch")


@dataclass(frozen=True)
class VerifyOptions(EmbedOptions):
    """How pairs are verified."""

    folds: int = option(0, "Folds of the accuracy; 0: as many as the list of pairs names, else 10.")
    far: str = option("0.1,0.01,0.001,0.0001", "Rates of false acceptance at which to say how many are recognised.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.folds != 0 and self.folds < 2:
            raise InputError(f"folds: 2 or more, or 0 for what the list names, got {self.folds}")
        rate_list(self.far)


def picture_size(text: str) -> tuple[int, int]:
    """Height and width from ``"112"`` or ``"64x48"``.

    Raises:
        InputError: for anything else.
    """
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip())
    if not found:
        raise InputError(f"size: a number of pixels such as 112, or height x width such as 64x48, got {text!r}")
    return int(found[1]), int(found[2] or found[1])


def epoch_list(text: str) -> tuple[int, ...]:
    """Epochs from ``"16,24"``; none from nothing.

    Raises:
        InputError: for anything else.
    """
    try:
        found = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = (-1,)
    if any(epoch < 0 for epoch in found):
        raise InputError(f"milestones: epochs separated by commas, such as 16,24, got {text!r}")
    return found


def rate_list(text: str) -> tuple[float, ...]:
    """Rates from ``"0.01,0.001"``.

    Raises:
        InputError: for anything else, or a rate that is not between 0 and 1.
    """
    try:
        found = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = ()
    if not found or not all(0 < rate < 1 for rate in found):
        raise InputError(f"far: rates between 0 and 1 separated by commas, such as 0.01,0.001, got {text!r}")
    return found
