"""Options of the jobs: one frozen dataclass each, from which the command line and the API are built.

Each field carries its help text; nothing heavy is imported here, so that ``medwave --help`` stays fast.
"""

from __future__ import annotations

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
        "Similarity: local correlation (lncc), global mutual information (mi), or auto: lncc when both images have "
        "alike contrast, else mi.",
        choices=("auto", "lncc", "mi"),
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
        "Linear start: full affine, rigid only, or none (trust the headers or --init).",
        choices=("affine", "rigid", "none"),
    )
    deformable: bool = option(True, "Whether a deformable part follows the linear start.")
    device: str = option("cpu", "Where the deformable part runs: cpu, cuda, cuda:1, ...")
    threads: int = option(0, "CPU threads; 0 takes all that torch would use.")
    seed: int = option(0, "Seed; the default path draws nothing at random and never depends on it.")

    def __post_init__(self) -> None:
        check_choices(self)
        if not 1 <= self.radius <= 4:
            raise InputError(f"radius: the local window reaches 1 to 4 voxels, got {self.radius}")
        if self.threads < 0:
            raise InputError(f"threads: a number of threads or 0 for all, got {self.threads}")


DIRECTIONS = ("moving-to-fixed", "fixed-to-moving")
"""Where data goes, in words; the first is taken when none is named."""


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


def check_choices(options: Any) -> None:
    """Refuse a value that is not among a field's choices.

    Raises:
        InputError: naming the option, the value and the choices.
    """
    for item in fields(options):
        choices, value = item.metadata.get("choices", ()), getattr(options, item.name)
        if choices and value not in choices:
            raise InputError(f"{item.name}: one of {', '.join(choices)}, got {value!r}")
