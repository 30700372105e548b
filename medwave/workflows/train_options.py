"""Options of the trainings: one frozen dataclass each, read from the command line, a YAML file or Python alike."""

from __future__ import annotations

from dataclasses import dataclass

from medwave.core.errors import InputError
from medwave.workflows.options import at_least, check_choices, check_learning, option


@dataclass(frozen=True)
class TrainFibreOptions:
    """How a network that tells fibre from background is trained."""

    network: str = option("neuron_wavesnet_v4", "Network: a name of medwave.models.network_names().")
    width: int = option(8, "Channels of the first stage.")
    wavelet: str = option("haar", "Wavelet of a WaveUNet; other networks have none.")
    border: str = option(
        "replicate", "What convolutions see beyond the border: it again, or zeros.", choices=("replicate", "zeros")
    )
    synthetic: int = option(3, "Share of synthetic cubes, from grown trees with exact truth, made as they are needed.")
    black_levels: float = option(
        0.5, "Share of the synthetic volumes whose background is taken off, as programs do that clean stacks."
    )
    axons: str | None = option(
        None, "Folder with training/ and validation/, each with cubes volume_N.tif and labels_N.tif."
    )
    axons_share: int = option(1, "Share of the cubes of that folder.")
    cubes: str | None = option(None, "Folder of cubes from traced volumes, as data_prep/make_neucuda.py writes it.")
    cubes_share: int = option(1, "Share of the cubes of that folder.")
    init: str | None = option(
        None,
        "Weights to start from, of a network with the same tensors: a file, or neuron or neuron_noise, which come with "
        "medwave.",
    )
    size: tuple[int, int, int] = option((32, 64, 64), "Size of the training cubes.")
    epochs: int = option(24, "Epochs; after each the network is validated and the state written.")
    steps: int = option(100, "Steps of an epoch.")
    batch: int = option(4, "Cubes of a step.")
    learning_rate: float = option(2e-3, "Highest learning rate; it warms up over an epoch and falls along a cosine.")
    weight_decay: float = option(1e-4, "Weight decay of the kernels.")
    average: float = option(0.99, "Decay of the moving average of the weights, which is what is kept.")
    cross_entropy: float = option(1.0, "Weight of the cross-entropy.")
    fibre_weight: float = option(5.0, "How much a fibre voxel counts in the cross-entropy, background 1.")
    dice: float = option(1.0, "Weight of the Dice loss.")
    cldice: float = option(0.0, "Weight of the centre-line Dice loss; slow on a CPU.")
    skeleton_recall: float = option(1.0, "Weight of the share of the true centre lines that is missed.")
    bfloat16: bool = option(False, "Run the network in bfloat16; faster on a GPU, or a CPU that has it.")
    device: str = option("cpu", "Where to train: cpu, cuda, cuda:1, ...")
    workers: int = option(0, "Processes that prepare cubes; 0 prepares them in between.")
    validation_cubes: int = option(16, "Synthetic cubes to validate with.")
    seed: int = option(0, "Seed of everything that is drawn.")

    def __post_init__(self) -> None:
        check_choices(self)
        check_learning(self)
        at_least(self, 1, "width", "steps", "validation_cubes")
        at_least(self, 0, "synthetic", "axons_share", "cubes_share")
        if not 0 <= self.black_levels <= 1:
            raise InputError(f"black_levels: a share from 0 to 1, got {self.black_levels}")
        if not (self.synthetic or self.axons_folder or self.cubes_folder):
            raise InputError(
                "there is nothing to train on: give --synthetic a share, or name a folder of --cubes or of --axons"
            )
        if min(self.size) < 16:
            raise InputError(f"size: training cubes have at least 16 voxels along each axis, got {self.size}")

    @property
    def axons_folder(self) -> str | None:
        """That of ``axons``, unless its share is 0."""
        return self.axons if self.axons_share else None

    @property
    def cubes_folder(self) -> str | None:
        """That of ``cubes``, unless its share is 0."""
        return self.cubes if self.cubes_share else None


@dataclass(frozen=True)
class TrainPairOptions:
    """How a network that registers pairs of brains is trained: on images made up from label maps, or on real ones."""

    label_maps: str | None = option(None, "Folder of label maps (NIfTI) with FreeSurfer's numbers.")
    images: str | None = option(
        None,
        "Folder of prepared images in place of label maps: Train/NAME_image.nii.gz, Val/, atlas_image.nii.gz, and "
        "NAME_labels.nii.gz to validate with; see data_prep/ixi.py.",
    )
    similarity: str = option(
        "lncc", "Loss on real images: local correlation, or mutual information (other contrasts).",
        choices=("lncc", "mi"),
    )  # fmt: skip
    radius: int = option(4, "Radius of the window of the local correlation, in voxels.")
    contrast: str = option(
        "any", "Contrasts of made-up images: any, anew in each; or t1, alike in a pair, without a head: learnt sooner.",
        choices=("any", "t1"),
    )  # fmt: skip
    strength: float = option(
        1.0, "How far made-up pairs differ, 1 as two people do after an affine; more first, then 1."
    )
    held_back: int = option(
        3, "How many label maps, or images where there is no Val, the last by name, are kept for validation."
    )
    width: int = option(8, "The network's base channels.")
    wavelet: str = option("haar", "The network's wavelet.")
    diffeomorphic: bool = option(True, "Predict a velocity (WiNet-diff) rather than a displacement.")
    init: str | None = option(
        None, "Weights to start from, of a network with the same tensors: a file, or brain, which comes with medwave."
    )
    spacing_mm: float = option(2.0, "Voxel size of the images; the network then works at it.")
    size: tuple[int, int, int] = option((80, 96, 80), "Size of the training images in voxels, multiples of 16.")
    validation_size: tuple[int, int, int] = option((80, 96, 80), "Size of the validation images, multiples of 16.")
    epochs: int = option(60, "Epochs; after each the network is validated and the state written.")
    steps: int = option(100, "Steps of an epoch.")
    batch: int = option(1, "Pairs of a step.")
    learning_rate: float = option(3e-4, "Highest learning rate; it warms up over an epoch.")
    schedule: str = option("cosine", "How the rate falls: cosine or constant.", choices=("cosine", "constant"))
    weight_decay: float = option(0.0, "Weight decay of the kernels.")
    average: float = option(0.99, "Decay of the moving average of the weights, which is what is kept.")
    smoothness: float = option(0.5, "Weight of the mean squared forward difference of the field, in voxels per voxel.")
    squarings: int = option(7, "Squarings that integrate a velocity while training; prediction always takes 7.")
    bfloat16: bool = option(False, "Run the network in bfloat16; faster on a GPU, or a CPU that has it.")
    device: str = option("cpu", "Where to train: cpu, cuda, cuda:1, ...")
    workers: int = option(
        0, "Processes that prepare pairs; 0 prepares them in between. A GPU makes pairs from label maps itself."
    )
    validation_pairs: int = option(6, "Pairs to validate with.")
    seed: int = option(0, "Seed of everything that is drawn.")

    def __post_init__(self) -> None:
        check_choices(self)
        check_learning(self)
        at_least(self, 1, "width", "steps", "validation_pairs", "squarings", "radius")
        at_least(self, 0, "smoothness", "strength")
        if self.label_maps is not None and self.images is not None:
            raise InputError("label_maps and images: give one of the two to train on")
        if self.held_back < (2 if self.images is None else 1):
            raise InputError(f"held_back: a validation pair needs two label maps, got {self.held_back}")
        for name in ("size", "validation_size"):
            if min(getattr(self, name)) < 16 or any(n % 16 for n in getattr(self, name)):
                raise InputError(f"{name}: multiples of 16 voxels along each axis, got {getattr(self, name)}")
        if not self.spacing_mm > 0:
            raise InputError(f"spacing_mm is positive, got {self.spacing_mm}")


@dataclass(frozen=True)
class TrainDetectorOptions:
    """How a network that finds objects in images is trained."""

    network: str = option("wave_resnet18", "Backbone: a name of medwave.models.list_models('classify').")
    wavelet: str = option("haar", "Wavelet of the low bands; a backbone without wave_ in its name has none.")
    width: float = option(1.0, "Share of the published numbers of channels of the backbone.")
    channels: int = option(256, "Channels of each level of the pyramid, a multiple of 8 from 16 on.")
    finest: int = option(8, "Stride of the finest level: 4 for objects of about 10 pixels.")
    anchors: int = option(1, "Anchors at each place of a level, of sides within an octave.")
    anchor_strides: float = option(4.0, "Side of the smallest anchor of a level, in strides of the level.")
    sampled: int = option(64, "Anchors of an image that classes are learned on: a third with a box, and hard ones.")
    box_weight: float = option(1.0, "Weight of the loss of box corners; that of classes has 1.")
    epochs: int = option(30, "Epochs; after each the network is validated and the state written.")
    steps: int = option(0, "Steps of an epoch; 0 is one pass over the images.")
    batch: int = option(8, "Images of a step.")
    learning_rate: float = option(2e-3, "Highest learning rate; it warms up over an epoch and falls along a cosine.")
    weight_decay: float = option(1e-4, "Weight decay of the kernels.")
    average: float = option(0.99, "Decay of the moving average of the weights, which is what is kept.")
    bfloat16: bool = option(False, "Run the network in bfloat16; faster on a GPU, or a CPU that has it.")
    device: str = option("cpu", "Where to train: cpu, cuda, cuda:1, ...")
    workers: int = option(0, "Processes that prepare images; 0 prepares them in between.")
    seed: int = option(0, "Seed of everything that is drawn.")

    def __post_init__(self) -> None:
        check_learning(self)
        at_least(self, 1, "anchors")
        at_least(self, 4, "sampled")
        at_least(self, 0, "box_weight")
        if not min(self.width, self.anchor_strides) > 0:
            raise InputError(f"width and anchor_strides: above 0, got {self.width} and {self.anchor_strides}")
