"""Options of the jobs on photographs: training and evaluating networks that classify and that segment."""

from __future__ import annotations

from dataclasses import dataclass

from medwave.core.errors import InputError
from medwave.workflows.options import at_least, check_choices, check_learning, option


@dataclass(frozen=True)
class TrainClassifierOptions:
    """How a network that classifies images is trained."""

    network: str = option("wave_resnet18", "Network: a name of medwave.models.list_models('classify').")
    wavelet: str = option("haar", "Wavelet of the low bands; a network without wave_ in its name has none.")
    width: float = option(1.0, "Share of the published numbers of channels.")
    small_images: bool = option(False, "Keep the resolution in the first layers: for images of about 32 pixels.")
    size: int = option(0, "Pixels of the square that images become; 0 takes them as they are, all of one size.")
    augment: str = option(
        "auto",
        "crop: shifted crop and flip; resized_crop: a random part, resized, and flip; none. auto is resized_crop "
        "where a size is given, else crop.",
        choices=("auto", "crop", "resized_crop", "none"),
    )
    epochs: int = option(30, "Epochs; after each the network is validated and the state written.")
    steps: int = option(0, "Steps of an epoch; 0 is one pass over the images.")
    batch: int = option(64, "Images of a step.")
    optimiser: str = option("sgd", "How steps are taken.", choices=("sgd", "adamw"))
    learning_rate: float = option(0.05, "Highest learning rate.")
    schedule: str = option(
        "cosine", "How the rate falls: cosine, steps (a tenth every --step-epochs), polynomial or constant.",
        choices=("cosine", "steps", "polynomial", "constant"),
    )  # fmt: skip
    step_epochs: int = option(30, "Epochs between two steps of the schedule steps.")
    warm_up: int = option(1, "Epochs over which the rate rises to its highest.")
    weight_decay: float = option(5e-4, "Weight decay of the kernels.")
    label_smoothing: float = option(0.0, "Share of the target that is spread over all classes.")
    average: float = option(0.99, "Decay of the moving average of the weights, which is what is kept.")
    holdout: float = option(0.1, "Share of the training images to validate with where there is no split val.")
    init: str | None = option(None, "Weights of the same network to start from.")
    on_corrupt: str = option("refuse", "At an image that cannot be read.", choices=("refuse", "skip"))
    bfloat16: bool = option(False, "Run the network in bfloat16; faster on a GPU, or a CPU that has it.")
    device: str = option("cpu", "Where to train: cpu, cuda, cuda:1, ...")
    workers: int = option(0, "Processes that prepare images; 0 prepares them in between.")
    seed: int = option(0, "Seed of everything that is drawn.")

    def __post_init__(self) -> None:
        _check_training(self)
        at_least(self, 0, "size")
        if not 0 <= self.label_smoothing < 1 or not 0 < self.holdout < 1:
            raise InputError(
                f"label_smoothing is from 0 to below 1, holdout between 0 and 1, got {self.label_smoothing} and "
                f"{self.holdout}"
            )
        if self.augment == "resized_crop" and not self.size:
            raise InputError("augment resized_crop: needs the size that images become; give --size")


@dataclass(frozen=True)
class TrainSegmenterOptions:
    """How a network that segments images is trained."""

    network: str = option("wave_unet", "Network: a name of medwave.models.list_models('segment').")
    wavelet: str = option("haar", "Wavelet; a network without wave_ in its name has none.")
    width: float = option(1.0, "Share of the published numbers of channels.")
    depth: int = option(0, "Layers of the VGG (11 to 19) or ResNet (18 to 152) that encodes; 0 is the published depth.")
    crop: int = option(0, "Pixels of the square that is cropped from each image; 0 trains on whole images.")
    augment: str = option(
        "auto",
        "crop: crop and flip; scale_crop: scaled by a half to two before; none. auto is scale_crop where a crop is "
        "given, else crop.",
        choices=("auto", "crop", "scale_crop", "none"),
    )
    epochs: int = option(50, "Epochs; after each the network is validated and the state written.")
    steps: int = option(0, "Steps of an epoch; 0 is one pass over the images.")
    batch: int = option(4, "Images of a step.")
    optimiser: str = option("adamw", "How steps are taken.", choices=("sgd", "adamw"))
    learning_rate: float = option(1e-3, "Highest learning rate.")
    schedule: str = option(
        "cosine", "How the rate falls: cosine, steps (a tenth every --step-epochs), polynomial or constant.",
        choices=("cosine", "steps", "polynomial", "constant"),
    )  # fmt: skip
    step_epochs: int = option(30, "Epochs between two steps of the schedule steps.")
    warm_up: int = option(1, "Epochs over which the rate rises to its highest.")
    weight_decay: float = option(5e-4, "Weight decay of the kernels.")
    balance: bool = option(True, "Weigh classes by the median of their frequencies over theirs, 10 at most.")
    average: float = option(0.99, "Decay of the moving average of the weights, which is what is kept.")
    init: str | None = option(None, "Weights of the same network to start from.")
    bfloat16: bool = option(False, "Run the network in bfloat16; faster on a GPU, or a CPU that has it.")
    device: str = option("cpu", "Where to train: cpu, cuda, cuda:1, ...")
    workers: int = option(0, "Processes that prepare images; 0 prepares them in between.")
    seed: int = option(0, "Seed of everything that is drawn.")

    def __post_init__(self) -> None:
        _check_training(self)
        at_least(self, 0, "crop", "depth")
        if self.augment == "scale_crop" and not self.crop:
            raise InputError("augment scale_crop: needs the crop that is cut; give --crop")


@dataclass(frozen=True)
class EvaluateClassifierOptions:
    """What is measured of a network that classifies images."""

    split: str = option("test", "Split to measure on.")
    size: int = option(0, "Pixels of the square that images become; 0 takes them as they are, all of one size.")
    images: int = option(0, "Images to measure on, spread over the split; 0 takes all.")
    corruptions: bool = option(True, "Measure under 15 kinds of corruption at 5 severities.")
    shifts: int = option(5, "Pairs of shifted crops of each image; 0 measures no shift consistency.")
    attacks: int = option(200, "Images to attack, spread over the split; 0 attacks none.")
    attack_steps: int = option(10, "Steps of the attacks that have several.")
    carlini_wagner: int = option(
        0, "Steps of each of the six searches of the attack of Carlini and Wagner, such as 100; 0 leaves it out."
    )
    batch: int = option(128, "Images that the network sees together.")
    on_corrupt: str = option("refuse", "At an image that cannot be read.", choices=("refuse", "skip"))
    device: str = option("cpu", "Where to run: cpu, cuda, cuda:1, ...")
    seed: int = option(0, "Seed of corruptions, shifts and attacks.")

    def __post_init__(self) -> None:
        check_choices(self)
        at_least(self, 0, "size", "images", "shifts", "attacks", "carlini_wagner", "seed")
        at_least(self, 1, "batch", "attack_steps")
        if self.carlini_wagner and not self.attacks:
            raise InputError("carlini_wagner: no image is attacked with attacks 0; give both or neither")


@dataclass(frozen=True)
class EvaluateSegmenterOptions:
    """What is measured of a network that segments images."""

    split: str = option("test", "Split to measure on.")
    images: int = option(0, "Images to measure on, spread over the split; 0 takes all.")
    overlays: int = option(6, "Images to show: those with the lowest mean IoU.")
    device: str = option("cpu", "Where to run: cpu, cuda, cuda:1, ...")

    def __post_init__(self) -> None:
        at_least(self, 0, "images", "overlays")


@dataclass(frozen=True)
class EvaluateDetectorOptions:
    """What is measured of a network that finds objects."""

    split: str = option("test", "Split to measure on.")
    images: int = option(0, "Images to measure on, spread over the split; 0 takes all.")
    shown: int = option(6, "Images to show with their boxes: those with the most mistakes.")
    corruptions: bool = option(
        False, "Measure under 15 kinds of corruption at 5 severities too: 75 times the work; of images, not volumes."
    )
    device: str = option("cpu", "Where to run: cpu, cuda, cuda:1, ...")
    seed: int = option(0, "Seed of corruptions.")

    def __post_init__(self) -> None:
        at_least(self, 0, "images", "shown", "seed")


def _check_training(options: TrainClassifierOptions | TrainSegmenterOptions) -> None:
    """What both trainings refuse."""
    check_choices(options)
    check_learning(options, highest_rate=10)
    at_least(options, 1, "step_epochs")
    at_least(options, 0, "warm_up")
    if not options.width > 0:
        raise InputError(f"width: above 0, got {options.width}")
