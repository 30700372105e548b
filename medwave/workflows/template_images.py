"""The images that a template is made of: which of them can be read, where their subjects lie, how bright they are.

Images come in the order of the digests of their bytes: neither the order in which they are named nor the names of their
files shape the template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medwave.core.errors import InputError, MedwaveError
from medwave.core.files import StrPath
from medwave.core.geometry import Float64Array, Grid
from medwave.core.provenance import fingerprint
from medwave.engine.pyramid import coarsen_to_spacing, foreground
from medwave.volumes import check_image, read_volume
from medwave.workflows.batch import own_names
from medwave.workflows.cohort_items import cohort_subjects, stem

_LOOK_MM = 4.0
_MARGIN_MM = 10.0


@dataclass(frozen=True)
class TemplateImage:
    """An image of the cohort.

    Attributes:
        name: of its folder.
        path: of its file.
        digest: of its bytes.
        grid: where its voxels lie.
        corners_mm: ``(8, 3)`` corners of the box about its subject, RAS+ mm.
        volume_mm3: of the subject.
        level: 99th percentile of its intensities in the subject.
    """

    name: str
    path: Path
    digest: str
    grid: Grid
    corners_mm: Float64Array
    volume_mm3: float
    level: float


def images_of(sources: Sequence[StrPath], *, suffix: str = "T1w") -> list[Path]:
    """The image files of files, folders, BIDS datasets and tables with a column ``image``.

    Raises:
        MissingFileError, InputError: when a folder or table names no image.
    """
    found: list[Path] = []
    for source in map(Path, sources):
        many = source.is_dir() or source.suffix.lower() == ".csv"
        found += [subject.image for subject in cohort_subjects(source, suffix=suffix)] if many else [source]
    return found


def look_at(paths: Sequence[Path]) -> tuple[list[TemplateImage], dict[str, tuple[Path, str]]]:
    """The images that can be used, in the order of their digests, and the others: name -> file and reason."""
    seen: list[tuple[str, Path, Any]] = []
    for path in paths:
        try:
            digest, found = fingerprint(path)["sha256"] if path.is_file() else "", _facts(path)
        except MedwaveError as error:
            digest, found = "", str(error)
        seen.append((digest, path, found))
    seen.sort(key=lambda one: (stem(one[1]), one[0], isinstance(one[2], str)))
    names = own_names(stem(path) for _, path, _ in seen)
    good = [TemplateImage(n, p, d, **f) for n, (d, p, f) in zip(names, seen, strict=True) if not isinstance(f, str)]
    bad = {n: (p, f) for n, (_, p, f) in zip(names, seen, strict=True) if isinstance(f, str)}
    return sorted(good, key=lambda image: (image.digest, image.name)), bad


def first_reference(images: Sequence[TemplateImage]) -> TemplateImage:
    """The image whose subject is of the middle size: the space in which all meet for the first time."""
    return sorted(images, key=lambda image: (image.volume_mm3, image.digest))[(len(images) - 1) // 2]


def template_grid(images: Sequence[TemplateImage], matrices: Sequence[Float64Array], spacing: float | None) -> Grid:
    """The grid of the template.

    Args:
        images: the images.
        matrices: 4x4 each, world of the template -> world of the image.
        spacing: voxel size in mm. None: the grid that all images share, if they do, else their median voxel size.

    Raises:
        InputError: when no computer would hold it.
    """
    if spacing is None and all(image.grid.matches(images[0].grid) for image in images):
        return images[0].grid
    size = spacing or float(np.median([image.grid.spacing_mm.mean() for image in images]))
    homes = [np.linalg.inv(matrix) for matrix in matrices]
    corners = np.concatenate([i.corners_mm @ m[:3, :3].T + m[:3, 3] for i, m in zip(images, homes, strict=True)])
    low, high = np.floor((corners.min(axis=0) - _MARGIN_MM) / size), np.ceil((corners.max(axis=0) + _MARGIN_MM) / size)
    if np.prod(high - low + 1) > 1e9:
        raise InputError(f"spacing: voxels of {size:g} mm make a template of over a thousand million; take larger ones")
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = size * low
    shape = [int(n) for n in high - low + 1]
    return Grid((shape[0], shape[1], shape[2]), affine)


def _facts(path: Path) -> dict[str, Any]:
    volume = read_volume(path)
    check_image(volume)
    data, grid = coarsen_to_spacing(np.asarray(volume.data, dtype=np.float32), volume.grid, _LOOK_MM)
    inside = foreground(data)
    at = np.argwhere(inside)
    low, high = at.min(axis=0) - 0.5, at.max(axis=0) + 0.5
    corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1).T
    level = float(np.percentile(data[inside], 99.0))
    if level <= 0:
        raise InputError(f"{path}: its brightest parts are not above 0; a template averages images of brightness")
    return {
        "grid": volume.grid, "corners_mm": grid.to_mm(corners), "level": level,
        "volume_mm3": float(inside.sum()) * grid.voxel_volume_mm3,
    }  # fmt: skip
