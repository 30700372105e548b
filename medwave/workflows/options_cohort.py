"""Options of the jobs on cohorts: those of a registration, and what many of them need."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from medwave.core.errors import InputError
from medwave.workflows.options import RegisterOptions, option


@dataclass(frozen=True)
class CohortOptions(RegisterOptions):
    """How the pairs of a cohort are registered."""

    jobs: int = option(1, "Registrations at a time, each in a process of its own; the threads are shared out.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.jobs < 1:
            raise InputError(f"jobs: one or more processes, got {self.jobs}")

    @property
    def registration(self) -> RegisterOptions:
        """The options of each registration."""
        return RegisterOptions(**{f.name: getattr(self, f.name) for f in fields(RegisterOptions)})


@dataclass(frozen=True)
class PropagateOptions(CohortOptions):
    """How labels are carried over and fused."""

    fusion: str = option(
        "joint",
        "Votes of the atlases: weighted by how alike their images are to the target about each voxel (joint), or "
        "equal (majority).",
        choices=("joint", "majority"),
    )
    patch_radius: int = option(2, "Half-width of the patches that joint fusion compares, in voxels.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.patch_radius <= 5:
            raise InputError(f"patch-radius: 1 to 5 voxels, got {self.patch_radius}")

    @property
    def cohort(self) -> CohortOptions:
        """The options of the registrations."""
        return CohortOptions(**{f.name: getattr(self, f.name) for f in fields(CohortOptions)})


@dataclass(frozen=True)
class TemplateOptions(CohortOptions):
    """How the template of a cohort is made."""

    iterations: int = option(4, "How often all images are registered to the template and it is made anew.")
    sharpen: float = option(0.0, "Share of an unsharp mask that is added to each template, 0 (none) to 2.")
    spacing: float | None = option(
        None,
        "Voxel size of the template in mm. By itself the grid that all images share, or their median voxel size.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1:
            raise InputError(f"iterations: one or more, got {self.iterations}")
        if not 0 <= self.sharpen <= 2:
            raise InputError(f"sharpen: a share from 0 to 2, got {self.sharpen}")
        if self.spacing is not None and not 0 < self.spacing < math.inf:
            raise InputError(f"spacing: a length above 0 in mm, got {self.spacing}")
