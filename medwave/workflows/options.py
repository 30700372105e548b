"""Options of the jobs: one frozen dataclass each, from which the command line and the API are built.

Each field carries its help text; nothing heavy is imported here, so that ``medwave --help`` stays fast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from medwave.core.errors import InputError


def option(default: Any, help: str, *, choices: tuple[str, ...] = (), name: str = "") -> Any:
    """A dataclass field with its help text, the values it admits, and its command-line name if it is another."""
    return field(default=default, metadata={"help": help, "choices": choices, "name": name})


@dataclass(frozen=True)
class RegisterOptions:
    """How two images are registered."""

    preset: str = option(
        "balanced", "Time against accuracy of the deformable part.", choices=("fast", "balanced", "accurate")
    )
    metric: str = option(
        "auto",
        "Similarity: local correlation (lncc), local fit of a curve, after local correlation of matched intensities at "
        "coarse scales (curve), global mutual information (mi), or auto: lncc when both images have alike contrast, "
        "else curve.",
        choices=("auto", "lncc", "curve", "mi"),
    )
    radius: int = option(2, "Half-width of the local correlation window in voxels, 1 to 4.")
    formulation: str = option(
        "compositive",
        "Unknowns of the refinement: compositive updates of the displacement, or wavelet coefficients of a "
        "stationary velocity.",
        choices=("compositive", "wavelet"),
    )
    affine: str = option(
        "affine",
        "Linear start: full affine, rigid only, or none (trust the headers or --init). "
        "An --init that bends space brings its own.",
        choices=("affine", "rigid", "none"),
    )
    deformable: bool = option(
        True, "Whether the refinement follows; without it the affine, or a network's prediction, stays as it is."
    )
    landmark_weight: float = option(
        1.0, "How strongly landmarks pull the deformable part, 0 to 1; 0 only measures how far apart they end."
    )
    landmark_reach: float = option(10.0, "How far about a landmark its pull is felt, in mm (standard deviation).")
    space: str = option(
        "RAS", "World axes of landmark files: RAS (3D Slicer, nibabel) or LPS (ITK, ANTs).", choices=("RAS", "LPS")
    )
    device: str = option("cpu", "Where the deformable part runs: cpu, cuda, cuda:1, ...")
    threads: int = option(0, "CPU threads; 0 takes all that torch would use.")
    seed: int = option(0, "Seed; the default path draws nothing at random and never depends on it.")

    def __post_init__(self) -> None:
        check_choices(self)
        if not 1 <= self.radius <= 4:
            raise InputError(f"radius: the local window reaches 1 to 4 voxels, got {self.radius}")
        if not 0 <= self.landmark_weight <= 1:
            raise InputError(f"landmark-weight: a share from 0 to 1, got {self.landmark_weight}")
        if not 0 < self.landmark_reach < math.inf:
            raise InputError(f"landmark-reach: a length above 0 in mm, got {self.landmark_reach}")
        if self.threads < 0:
            raise InputError(f"threads: a number of threads or 0 for all, got {self.threads}")


DIRECTIONS = ("moving-to-fixed", "fixed-to-moving")
"""Where data goes, in words; the first is taken when none is named."""


TRANSFORM_FORMS = ("itk", "fsl", "freesurfer")
"""Programs whose files transforms are written for."""


@dataclass(frozen=True)
class ApplyOptions:
    """How images, label maps and points are moved by a transform."""

    interpolation: str = option(
        "linear",
        "How images are read between voxels; nearest keeps their type.",
        choices=("linear", "cubic", "nearest"),
    )
    label_interpolation: str = option(
        "nearest",
        "How label maps are read: nearest voxel, or label: linear share of each label, the largest wins (smoother).",
        choices=("nearest", "label"),
    )
    space: str = option(
        "RAS", "World axes of point files: RAS (3D Slicer, nibabel) or LPS (ITK, ANTs).", choices=("RAS", "LPS")
    )

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True)
class VolumeOptions:
    """How a volume of microscopy is opened."""

    channel: int = option(0, "Channel of the file, from 0.")
    level: int = option(0, "Resolution of an OME-Zarr, 0 the finest; its voxels are those of the results.")
    axes: str | None = option(None, "Meaning of the axes of a TIFF that says it wrongly, such as ZYX or CZYX.")
    spacing: tuple[float, float, float] | None = option(
        None, "Voxel size in micrometres, in place of what the file says."
    )

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True)
class TreeOptions(VolumeOptions):
    """How a tree is made of a foreground, and written. Lengths are in voxels of x."""

    units: str = option(
        "voxels",
        "Units of the tree: voxels of the input (counted from 0), or um: micrometres.",
        choices=("voxels", "um"),
    )
    root: tuple[float, float, float] | None = option(
        None, "Position of the soma in voxels; by itself the thickest bright place."
    )
    soma_radius: float | None = option(None, "Also take every blob that holds a ball of this radius as a soma.")
    trees: str = option("all", "All pieces, or only the one with the first root.", choices=("all", "one"))
    bridge_distance: float = option(15.0, "Join broken pieces over gaps up to this length; 0 joins nothing.")
    bridge_angle_degrees: float = option(60.0, "Largest bend where a gap is bridged.", name="bridge_angle")
    shortest_segment: float = option(5.0, "Branches with less length times brightness (0 to 1) are dropped.")
    smallest_component_voxels: int = option(
        10, "Pieces of foreground with fewer voxels are left out.", name="smallest_component"
    )
    largest_foreground_share: float = option(
        0.1, "Refuse to trace when more of the volume is foreground.", name="largest_foreground"
    )
    resample_step: float = option(2.0, "Distance between nodes; 0 keeps every voxel.", name="step")
    tracer: str = option(
        "medwave",
        "Who traces: medwave, or vaa3d: its APP2, when vaa3d is on the PATH (else its command is shown).",
        choices=("medwave", "vaa3d"),
    )


@dataclass(frozen=True)
class TraceFileOptions(TreeOptions):
    """How a neuron is traced in a file. The rest is as for medwave.tracing.TraceOptions."""

    kind: str = option(
        "image", "What the volume holds: grey values, fibre where not 0, or probabilities.",
        choices=("image", "mask", "probability"),
    )  # fmt: skip
    threshold: float | None = option(
        None, "Voxels above it are foreground, in the values of the volume. By itself: 0.5, or above the background."
    )


@dataclass(frozen=True)
class ScoreOptions:
    """How a trace is compared with a gold tree."""

    tolerance: float = option(2.0, "Distance up to which two points are the same.")
    step: float = option(1.0, "Step at which both trees are sampled.")
    spacing: tuple[float, float, float] | None = option(
        None, "Voxel size: multiplies both trees first, so that all lengths are in its unit (for trees in voxels)."
    )

    def __post_init__(self) -> None:
        for name in ("tolerance", "step"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name}: a positive length, got {getattr(self, name)}")


@dataclass(frozen=True)
class SwcFixOptions:
    """What is repaired in an SWC file besides order and numbers."""

    join: float = option(0.0, "Connect pieces whose nearest nodes lie within this distance; 0: on the same place.")
    root: int | None = option(None, "Id of the node to be the first root; by itself the soma, or the root it has.")
    one_type: bool = option(True, "Give each branch one type (its most frequent): MorphIO refuses others.")
    radius: float = option(0.0, "Radius for nodes that have 0.")
    units: str = option(
        "auto", "Units to note in the header; auto: those it says, or else voxels.", choices=("auto", "voxels", "um")
    )

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("join", "radius"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name}: 0 or a positive length, got {getattr(self, name)}")


@dataclass(frozen=True)
class SwcConvertOptions:
    """To what an SWC file is converted."""

    units: str = option(
        "keep", "Units of the result; a file that does not say its own is taken to be in the other.",
        choices=("keep", "voxels", "um"),
    )  # fmt: skip
    spacing: tuple[float, float, float] | None = option(None, "Voxel size in micrometres. Radii follow x.")
    flip_y: int | None = option(None, "Count y from the other edge of an image of this many rows.")

    def __post_init__(self) -> None:
        check_choices(self)
        if self.units == "keep" and self.flip_y is None:
            raise InputError("nothing is to be converted: name --units, --flip-y, or both")
        if self.units != "keep" and self.spacing is None:
            raise InputError(f"units {self.units}: the voxel size is needed; give --spacing z,y,x in micrometres")
        if self.flip_y is not None and self.flip_y < 1:
            raise InputError(f"flip-y: the number of rows of the image, 1 or more, got {self.flip_y}")


def check_choices(options: Any) -> None:
    """Refuse a value that is not among a field's choices.

    Raises:
        InputError: naming the option, the value and the choices.
    """
    for item in fields(options):
        choices, value = item.metadata.get("choices", ()), getattr(options, item.name)
        if choices and value not in choices:
            raise InputError(f"{item.name}: one of {', '.join(choices)}, got {value!r}")


def at_least(options: Any, least: float, *names: str) -> None:
    """Refuse smaller values of some options.

    Raises:
        InputError: naming the option and its value.
    """
    for name in names:
        if not getattr(options, name) >= least:
            raise InputError(f"{name}: at least {least:g}, got {getattr(options, name)}")


def changed(options: Any, *names: str) -> str:
    """Those of some options that are not at their default, such as ``", strength 2.0"``, to tell runs apart by."""
    defaults = {item.name: item.default for item in fields(options)}
    values = {name: getattr(options, name) for name in names if getattr(options, name) != defaults[name]}
    return "".join(f", {name.replace('_', ' ')} {value}" for name, value in values.items())


def check_learning(options: Any, *, highest_rate: float = 1.0) -> None:
    """What every training refuses: a learning rate or an average out of bounds, negative workers, no epoch, no batch.

    Raises:
        InputError: naming the option and its value.
    """
    at_least(options, 1, "epochs", "batch")
    at_least(options, 0, "steps", "workers", "weight_decay", "seed")
    if not 0 < options.learning_rate < highest_rate:
        raise InputError(f"learning_rate: between 0 and {highest_rate:g}, got {options.learning_rate}")
    if not 0 <= options.average < 1:
        raise InputError(f"average: from 0 to below 1, got {options.average}")
