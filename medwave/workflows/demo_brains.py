"""The demo pair: one brain twice, so that the true transform is known everywhere.

The fixed image is the MNI152 T1 template that the nilearn package carries (skull stripped, 1 mm; Fonov et al. 2011,
doi:10.1016/j.neuroimage.2010.07.033), cropped to the brain. The moving image is the same anatomy under a random
affine and a random diffeomorphism, with another contrast curve, a bias field, noise, and another field of view,
voxel size and axis order. No network is used.

How the truth is known
    The true map from fixed to moving points is ``T(x) = A(x + u(x))``, with ``u`` the trilinear field of a stored
    2 mm grid: exact by definition. The moving image is made by pulling, ``moving(y) = template(S(y))``, where
    ``S = T^-1`` is solved point by point; ``residual_mm`` is the largest ``|S(T(x)) - x|`` over the brain.

Points are RAS+ mm, displacements voxels of the fixed grid, pull-back, as everywhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from medwave import fields
from medwave.core.errors import InputError, OutputError
from medwave.core.geometry import Grid, Volume, transform_points
from medwave.core.optional import require
from medwave.transforms import add_noise, bias_field, contrast_curve, random_affine, random_velocity
from medwave.volumes import write_affine, write_field, write_volume

Float64Array = npt.NDArray[np.float64]
PointMap = Callable[[Float64Array], npt.ArrayLike]

FIXED_MARGIN_VOXELS = 8
"""Air around the brain in the fixed image."""

FIELD_MARGIN_MM = 32.0
"""How far the deformation's own grid reaches beyond the fixed image, so that it fades out in air, not in cortex."""

FIELD_SPACING_MM = 2.0
POLISHING_STEPS = 4

MOVING_MARGIN_MM = 12.0
MOVING_SPACING_MM = (1.1, 1.0, 1.2)
INTENSITY_SCALE = 1000
WINDOW = (0.3, 0.92)


@dataclass(frozen=True)
class BrainSample:
    """A demo pair, the files that hold it, and its true transform ``T(x) = A(x + u(x))``.

    Attributes:
        fixed: the template.
        moving: the deformed template.
        brain: mask ``(D, H, W)`` of the fixed image, bool.
        affine: ``A``, 4x4 RAS+ mm, fixed world to moving world.
        displacement: ``u``, ``(3, D, H, W)`` float32 in voxels of the fixed grid.
        residual_mm: largest error of the moving image's construction inside the brain.
        fixed_path, moving_path: NIfTI images.
        affine_path, field_path: ``A`` and ``u`` (on its own 2 mm grid) as ITK files.
    """

    fixed: Volume
    moving: Volume
    brain: npt.NDArray[np.bool_]
    affine: Float64Array
    displacement: npt.NDArray[np.float32]
    residual_mm: float
    fixed_path: Path
    moving_path: Path
    affine_path: Path
    field_path: Path


@dataclass(frozen=True)
class TrueError:
    """Distance in mm between a transform and the true one.

    Attributes:
        map_mm: ``(D, H, W)`` float32 on the fixed grid, zero outside the mask.
        mean_mm: mean over the mask.
        p95_mm: 95th percentile over the mask.
        max_mm: largest over the mask.
    """

    map_mm: npt.NDArray[np.float32]
    mean_mm: float
    p95_mm: float
    max_mm: float


@dataclass(frozen=True)
class _Truth:
    """``A``, and on a grid of its own ``u`` and a first guess of its inverse, both in mm, ``(1, 3, D, H, W)``."""

    affine: Float64Array
    grid: Grid
    forward_mm: torch.Tensor
    backward_mm: torch.Tensor

    def steps_mm(self, points_mm: Float64Array) -> Float64Array:
        """``u`` at fixed world points ``(N, 3)``."""
        return self._read(self.forward_mm, points_mm)

    def to_moving(self, points_mm: Float64Array) -> Float64Array:
        """``T``: fixed world points ``(N, 3)`` to moving world points."""
        return transform_points(self.affine, points_mm + self.steps_mm(points_mm))

    def to_template(self, points_mm: Float64Array) -> Float64Array:
        """``S``: moving world points ``(N, 3)`` to fixed world points, by fixed-point steps from the guess."""
        targets = transform_points(np.linalg.inv(self.affine), points_mm)
        found = targets + self._read(self.backward_mm, targets)
        for _ in range(POLISHING_STEPS):
            found = targets - self.steps_mm(found)
        return found

    def _read(self, field_mm: torch.Tensor, points_mm: Float64Array) -> Float64Array:
        voxels = np.ascontiguousarray(self.grid.to_voxels(points_mm).T, dtype=np.float32)
        return fields.sample(field_mm, torch.from_numpy(voxels)[None])[0].double().numpy().T


def make_brain_sample(folder: str | Path, *, seed: int = 0) -> BrainSample:
    """Build the demo pair and write it to a folder.

    Args:
        folder: made when absent; ``fixed.nii.gz``, ``moving.nii.gz``, ``true_affine.tfm`` and
            ``true_field.nii.gz`` are written there.
        seed: of the deformation, contrast, bias field and noise.

    Raises:
        MissingPackageError: when nilearn, which carries the template, is not installed.
        OutputError: when the folder cannot be made.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target}: cannot make this folder ({error.strerror})") from error
    rng = np.random.default_rng(seed)
    fixed = _template()
    brain = fixed.data > 0
    truth = _random_truth(fixed.grid, rng)
    points = fixed.grid.to_mm(np.argwhere(brain))
    moved = truth.to_moving(points)
    checked = slice(None, None, 7)
    residual_mm = float(np.linalg.norm(truth.to_template(moved[checked]) - points[checked], axis=1).max())
    moving = _moving_image(fixed, truth, _moving_grid(moved), rng)
    paths = [target / n for n in ("fixed.nii.gz", "moving.nii.gz", "true_affine.tfm", "true_field.nii.gz")]
    write_volume(paths[0], fixed)
    write_volume(paths[1], moving)
    write_affine(paths[2], truth.affine)
    write_field(paths[3], *_compact_field(fixed.grid, truth))
    displacement = _displacement(fixed.grid, truth)
    return BrainSample(fixed, moving, brain, truth.affine, displacement, residual_mm, *paths)


def true_error_mm(
    sample: BrainSample, transform_points_function: PointMap | None = None, mask: npt.NDArray[np.bool_] | None = None
) -> TrueError:
    """How far a transform is from the true one.

    Args:
        sample: the demo pair.
        transform_points_function: maps fixed world points ``(N, 3)`` (RAS+ mm) to moving world points; left out:
            the identity, that is, what the two headers say before registration.
        mask: ``(D, H, W)`` on the fixed grid; the brain when left out.

    Raises:
        InputError: when the mask is empty or of another shape, or the function returns another number of points.
    """
    where = sample.brain if mask is None else np.asarray(mask, dtype=bool)
    if where.shape != sample.fixed.grid.shape or not where.any():
        raise InputError(f"the mask must have shape {sample.fixed.grid.shape} and hold at least one voxel")
    voxels = np.argwhere(where)
    points = sample.fixed.grid.to_mm(voxels)
    found = points if transform_points_function is None else np.asarray(transform_points_function(points))
    if found.shape != points.shape:
        raise InputError(f"the transform must map {points.shape[0]} points to as many, got shape {found.shape}")
    steps = sample.displacement[(slice(None), *voxels.T)].T
    expected = transform_points(sample.affine, sample.fixed.grid.to_mm(voxels + steps))
    distance = np.linalg.norm(found - expected, axis=1)
    map_mm = np.zeros(where.shape, dtype=np.float32)
    map_mm[where] = distance
    p95, largest = np.percentile(distance, [95, 100])
    return TrueError(map_mm, float(distance.mean()), float(p95), float(largest))


def _template() -> Volume:
    """The skull-stripped template cropped to the brain plus a margin.

    Its narrow contrast is widened linearly, from the window :data:`WINDOW` to 50..1000 inside the brain; air is 0.
    """
    with warnings.catch_warnings():
        # nilearn announces removals in its own dependencies at import; the user can do nothing about them
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        datasets = require("nilearn.datasets", extra="demo", purpose="the demo brain")
        image = datasets.load_mni152_template(resolution=1)
    values = np.asarray(image.dataobj, dtype=np.float32)
    found = np.argwhere(values > 0)
    start = found.min(0) - FIXED_MARGIN_VOXELS
    shape = tuple(int(n) for n in found.max(0) + 1 + FIXED_MARGIN_VOXELS - start)
    padded = np.pad(values, FIXED_MARGIN_VOXELS)
    cut = padded[tuple(slice(s, s + n) for s, n in zip(start + FIXED_MARGIN_VOXELS, shape, strict=True))]
    low, high = WINDOW
    widened = np.where(cut > 0, np.clip((cut - low) / (high - low), 0.05, 1.0), 0.0)
    grid = Grid(values.shape, image.affine).crop(start, shape)
    return Volume(np.rint(widened * INTENSITY_SCALE).astype(np.int16), grid, "MNI152 template")


def _random_truth(fixed: Grid, rng: np.random.Generator) -> _Truth:
    margin = FIELD_MARGIN_MM / FIELD_SPACING_MM
    shape = tuple(int(np.ceil(n / FIELD_SPACING_MM + 2 * margin)) for n in fixed.shape)
    matrix = fixed.affine @ np.diag([FIELD_SPACING_MM] * 3 + [1.0])
    grid = Grid(fixed.shape, matrix).crop(np.full(3, -margin), shape)
    affine = random_affine(
        seed=rng, rotation_degrees=10.0, scale=0.08, shear=0.03, translation_mm=15.0, center_mm=fixed.center_mm
    )
    spacing = (FIELD_SPACING_MM,) * 3
    velocity = random_velocity(shape, seed=rng, amplitude_mm=8.0, smoothness_mm=16.0, spacing_mm=spacing)
    velocity += random_velocity(shape, seed=rng, amplitude_mm=3.0, smoothness_mm=8.0, spacing_mm=spacing)
    forward, backward = (fields.integrate(torch.from_numpy(sign * velocity)[None]) for sign in (1, -1))
    to_mm = torch.tensor(grid.affine)
    return _Truth(affine, grid, fields.to_mm(forward, to_mm), fields.to_mm(backward, to_mm))


def _displacement(grid: Grid, truth: _Truth) -> npt.NDArray[np.float32]:
    """``u`` on a grid, ``(3, D, H, W)`` in its voxels."""
    steps = truth.steps_mm(_points(grid)) @ np.linalg.inv(grid.affine[:3, :3]).T
    return np.ascontiguousarray(steps.T.reshape(3, *grid.shape), dtype=np.float32)


def _compact_field(fixed: Grid, truth: _Truth) -> tuple[npt.NDArray[np.float32], Grid]:
    """``u`` at those nodes of its own grid that cover the fixed image."""
    start = np.rint(truth.grid.to_voxels(fixed.to_mm(np.zeros(3))))
    shape = tuple(int(np.ceil((n - 1) / FIELD_SPACING_MM)) + 1 for n in fixed.shape)
    grid = truth.grid.crop(start, shape)
    return _displacement(grid, truth), grid


def _points(grid: Grid) -> Float64Array:
    return grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1).reshape(-1, 3))


def _moving_grid(brain_mm: Float64Array) -> Grid:
    """An LAS grid around the moved brain with its own voxel size."""
    spacing = np.asarray(MOVING_SPACING_MM)
    low, high = brain_mm.min(0) - MOVING_MARGIN_MM, brain_mm.max(0) + MOVING_MARGIN_MM
    shape = np.ceil((high - low) / spacing).astype(int) + 1
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = high[0], low[1], low[2]
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def _moving_image(fixed: Volume, truth: _Truth, grid: Grid, rng: np.random.Generator) -> Volume:
    look_up = fixed.grid.to_voxels(truth.to_template(_points(grid))).T.reshape(3, *grid.shape)
    anatomy = fixed.data.astype(np.float32) / INTENSITY_SCALE
    values = np.clip(ndimage.map_coordinates(anatomy, look_up, order=3), 0.0, 1.0)
    brain = ndimage.map_coordinates((anatomy > 0).astype(np.float32), look_up, order=1) > 0.5
    values = (values + contrast_curve(seed=rng, knots=4)(values)) / 2  # half way: every tissue stays visible
    values = values * bias_field(grid.shape, seed=rng, strength=0.25, spacing_mm=grid.spacing_mm)
    values = add_noise(values, seed=rng, sigma=0.02) * brain
    return Volume(np.rint(values * INTENSITY_SCALE).astype(np.int16), grid, "deformed template")
