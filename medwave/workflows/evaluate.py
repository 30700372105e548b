"""Measure a registration: overlap and surface distance of structures, folds, evenness and inverse of its transform.

Label maps are compared on the grid of the fixed one; the moving one is carried there by the nearest voxel. Folds are
counted on the whole fixed grid. Inverse consistency and the spread of the Jacobian are taken where it matters: inside
a mask, else where the fixed map has a label, else in the subject found by the run, else everywhere.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError
from medwave.core.files import StrPath, input_file
from medwave.core.geometry import Grid, Volume
from medwave.metrics import dice, folding, inverse_consistency_mm, log_jacobian_sd, surface_distances
from medwave.volumes import FieldStep, SpatialTransform, read_labels
from medwave.workflows.pair import resample_labels
from medwave.workflows.pullback import Pullback
from medwave.workflows.run_folder import RunFolder

if TYPE_CHECKING:
    from medwave.workflows.register import Registration

Source = Volume | StrPath
Names = Mapping[int, str]


@dataclass(frozen=True)
class StructureScore:
    """One structure: Dice, 95 % Hausdorff distance and average symmetric surface distance.

    A structure that only one of the maps has scores Dice 0 and infinite distances.
    """

    label: int
    name: str
    dice: float
    hd95_mm: float
    assd_mm: float


@dataclass(frozen=True)
class FieldScore:
    """Measures of a deformable part.

    Attributes:
        folded_voxels, folded_share: where the Jacobian determinant is zero or less, on the whole fixed grid.
        log_jacobian_sd: how unevenly volume changes in the region.
        inverse_consistency_mm: how far a point of the region lands from home after going there and back, mean.
        region: the region, in words.
    """

    folded_voxels: int
    folded_share: float
    log_jacobian_sd: float
    inverse_consistency_mm: float
    region: str


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found.

    Attributes:
        structures: one entry per label, in increasing order; empty without label maps.
        field: measures of the transform; None without one.
    """

    structures: tuple[StructureScore, ...]
    field: FieldScore | None

    @property
    def mean(self) -> dict[str, float]:
        """Means over the structures; distances over those that both maps have. Empty without structures."""
        if not self.structures:
            return {}
        return {
            "dice": float(np.mean([s.dice for s in self.structures])),
            **{name: self._mean_distance(name) for name in ("hd95_mm", "assd_mm")},
        }

    @property
    def in_one_map_only(self) -> tuple[int, ...]:
        """Labels that the other map does not have."""
        return tuple(s.label for s in self.structures if math.isinf(s.assd_mm))

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, in the layout of the JSON file."""
        return {
            "mean": self.mean,
            "structures": [asdict(s) for s in self.structures],
            "in_one_map_only": list(self.in_one_map_only),
            "field": None if self.field is None else asdict(self.field),
        }

    def _mean_distance(self, name: str) -> float:
        values = [getattr(s, name) for s in self.structures if math.isfinite(getattr(s, name))]
        return float(np.mean(values)) if values else math.nan


@dataclass(frozen=True)
class _Run:
    """The parts of a run that are measured."""

    transform: SpatialTransform
    field: FieldStep
    inverse: FieldStep
    subject: npt.NDArray[np.bool_] | None


def evaluate(
    run: Registration | StrPath | None = None,
    *,
    labels_fixed: Source | None = None,
    labels_moving: Source | None = None,
    mask: Source | None = None,
    names: StrPath | Names | None = None,
) -> Evaluation:
    """Measure a registration, or compare two label maps.

    Args:
        run: what :func:`medwave.register` returned, or a folder that ``medwave register`` wrote. Left out: the two
            label maps are compared as they are.
        labels_fixed: label map of the fixed image.
        labels_moving: label map of the moving image; carried to the grid of ``labels_fixed`` by the run, or lying on
            it already when there is no run.
        mask: where the transform is measured; any grid in the fixed space.
        names: label -> name, or a CSV file whose first two columns are label and name.

    Raises:
        MissingFileError, VolumeFormatError: when a file is absent or damaged.
        GeometryError: when there is no run and the label maps lie on different grids.
        InputError: when there is nothing to measure, or only one label map.
    """
    parts = _parts(run)
    if parts is not None and not isinstance(run, str | os.PathLike) and labels_fixed is labels_moving is None:
        labels_fixed, labels_moving = run.fixed_labels, run.moving_labels  # type: ignore[union-attr]
    maps = [None if source is None else _labels(source) for source in (labels_fixed, labels_moving)]
    if (maps[0] is None) != (maps[1] is None):
        given = maps[0] or maps[1]
        assert given is not None
        raise InputError(f"{given.name}: overlap needs two label maps; give both --labels-fixed and --labels-moving")
    fixed, moving = maps
    table = _names(names)
    structures: tuple[StructureScore, ...] = ()
    if fixed is not None and moving is not None:
        structures = _structures(fixed, _on_grid(moving, fixed.grid, parts), table)
    elif parts is None:
        raise InputError("there is nothing to measure: name the folder of a run, two label maps, or both")
    area = None if mask is None else _labels(mask)
    return Evaluation(structures, None if parts is None else _field(parts, area, fixed))


def _parts(run: Registration | StrPath | None) -> _Run | None:
    if run is None:
        return None
    if isinstance(run, str | os.PathLike):
        folder = RunFolder(Path(run))
        return _Run(folder.fixed_to_moving, folder.field, folder.inverse_field, None)
    grid = run.fixed.grid
    field, inverse = FieldStep(run.displacement_voxels, grid), FieldStep(run.inverse_voxels, grid)
    return _Run(run.transform, field, inverse, run.subject)


def _labels(source: Source) -> Volume:
    return source if isinstance(source, Volume) else read_labels(source)


def _on_grid(moving: Volume, grid: Grid, parts: _Run | None) -> Volume:
    if parts is not None:
        return Pullback.through(parts.transform, grid).labels(moving)
    if not moving.grid.matches(grid):
        raise GeometryError(
            f"{moving.name}: without a run both label maps lie on one grid, this one has {moving.grid.describe()}, "
            f"the fixed one {grid.describe()}; name the folder of the run, or move the map with medwave apply first"
        )
    return moving


def _structures(fixed: Volume, moved: Volume, names: Names) -> tuple[StructureScore, ...]:
    overlap = dice(fixed.data, moved.data)
    if not overlap:
        raise InputError(f"{fixed.name}: neither label map has a label other than 0; give maps with structures")
    distances = surface_distances(fixed.data, moved.data, fixed.grid.spacing_mm)
    return tuple(
        StructureScore(label, names.get(label, f"label {label}"), value, **distances[label])
        for label, value in overlap.items()
    )


def _field(parts: _Run, mask: Volume | None, labels: Volume | None) -> FieldScore:
    grid, u = parts.field.grid, parts.field.displacement_voxels
    region, words = parts.subject, "in the subject"
    for volume, said in ((mask, "inside the mask"), (labels, "where the fixed map has a label")):
        if volume is not None:
            inside = Volume((volume.data != 0).astype(np.uint8), volume.grid)
            region, words = resample_labels(inside, np.eye(4), grid) != 0, said
            break
    if region is None:
        words = "everywhere"
    elif not region.any():
        raise InputError(
            f"{(mask or labels or Volume(region, grid)).name}: covers no voxel of the fixed grid ({grid.describe()}); "
            "is it in the fixed space?"
        )
    folds = folding(u)
    return FieldScore(
        folded_voxels=folds.count,
        folded_share=folds.share,
        log_jacobian_sd=log_jacobian_sd(u, region),
        inverse_consistency_mm=inverse_consistency_mm(u, parts.inverse.displacement_voxels, grid.affine, region),
        region=words,
    )


def _names(names: StrPath | Names | None) -> Names:
    if names is None:
        return {}
    if isinstance(names, Mapping):
        return names
    path = input_file(names)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(number, row) for number, row in enumerate(csv.reader(file), start=1) if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV text file ({error}); the first two columns are label and name") from None
    return dict(_name(path, number, row) for number, row in rows if number > 1 or _is_label(row))


def _is_label(row: Sequence[str]) -> bool:
    return row[0].strip().isdecimal()


def _name(path: Path, line: int, row: Sequence[str]) -> tuple[int, str]:
    if len(row) < 2 or not _is_label(row):
        raise InputError(
            f"{path}, line {line}: the first two columns are a label (a whole number) and its name, "
            f"comma-separated, got {','.join(row)!r}"
        )
    return int(row[0]), " ".join(row[1].split())
