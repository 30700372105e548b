"""Preparing a pair for refinement: one working grid, both images on it, and the way back to the fixed file's grid.

The working grid has RAS+ axis order and covers both subjects and a margin. Where the fixed image is about isotropic
its own voxels are used, so that nothing is interpolated; else the grid is isotropic at the finest spacing. It never
has more than ``most_voxels``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError
from medwave.core.geometry import Float64Array, Grid, Volume
from medwave.core.masks import box_of
from medwave.core.orientation import canonical_axes, invert_axes, reorient, reorient_grid, reorient_vectors
from medwave.core.threads import run_each, run_slabs
from medwave.engine.pyramid import coarsen, foreground
from medwave.fields.kernels import nearest_through, warp_linear, warp_through

FloatVolume = npt.NDArray[np.float32]
_MARGIN_VOXELS = 10
_TAPER_VOXELS = 5
_DARK = 0.5  # share of the brightest value
LEAST_VOXELS = (2 * _MARGIN_VOXELS + 10) ** 3
"""The smallest size limit of a working grid: margins and a subject of ten voxels."""


@dataclass(frozen=True)
class WorkingPair:
    """Both images on the working grid, intensities about 0 to 1, and where the similarity counts.

    Attributes:
        grid: the working grid (RAS+ order).
        fixed, moving: ``(D, H, W)`` float32; moving is resampled through the affine.
        weight: ``(D, H, W)`` float32, 0 where the moving image has no voxel.
        excluded: ``(D, H, W)`` bool, voxels that masks and lesions leave out, and those beyond a fixed image that cuts
            the subject off; None when there are none.
        subject: foreground of the fixed image, ``(D, H, W)`` bool.
        native: grid of the fixed file.
        offset: first voxel of the working grid in the canonical fixed grid, or None where it was resampled.
    """

    grid: Grid
    fixed: FloatVolume
    moving: FloatVolume
    weight: FloatVolume
    excluded: npt.NDArray[np.bool_] | None
    subject: npt.NDArray[np.bool_]
    native: Grid
    offset: tuple[int, int, int] | None

    def without_images(self) -> WorkingPair:
        """The place alone, for :meth:`to_native` and :meth:`subject_on_native`: images and weights can be freed."""
        nothing = np.empty((0, 0, 0), dtype=np.float32)
        return replace(self, fixed=nothing, moving=nothing, weight=nothing, excluded=None)

    def to_native(self, field: FloatVolume) -> FloatVolume:
        """A displacement on the working grid as one on the fixed file's grid, in its voxels; zero outside."""
        axes = canonical_axes(self.native.affine)
        canonical = reorient_grid(self.native, *axes)
        permutation, flips = invert_axes(*axes)
        if self.offset is None:
            tapered = field.copy()
            self._taper(tapered, canonical)
            return reorient_vectors(_resample_vectors(tapered, self.grid, canonical), permutation, flips)
        full = np.zeros((3, *self.native.shape), dtype=np.float32)
        box = tuple(slice(o, o + n) for o, n in zip(self.offset, self.grid.shape, strict=True))
        for component, old in enumerate(permutation):
            turned = np.flip(full[component], tuple(axis for axis in range(3) if flips[axis]))
            place = turned.transpose(np.argsort(permutation).tolist())[box]  # where the working grid lies, in its order
            np.multiply(field[old], -1 if flips[component] else 1, out=place)
            self._taper(place[None], canonical)
        return full

    def subject_on_native(self) -> npt.NDArray[np.bool_]:
        """The foreground of the fixed image on the fixed file's grid."""
        if self.offset is None:
            subject = Volume(self.subject.astype(np.float32), self.grid)
            return np.asarray(resample(subject, np.eye(4), self.native) > 0.5)
        axes = canonical_axes(self.native.affine)
        full = np.zeros(reorient_grid(self.native, *axes).shape, dtype=bool)
        full[tuple(slice(o, o + n) for o, n in zip(self.offset, self.grid.shape, strict=True))] = self.subject
        return reorient(full, *invert_axes(*axes))

    def _taper(self, field: FloatVolume, canonical: Grid) -> None:
        """Let a field fall to 0, in place, towards the faces of the working grid that lie inside the fixed image."""
        ends = canonical.to_voxels(self.grid.to_mm([(0, 0, 0), np.asarray(self.grid.shape) - 1]))
        ramp = np.arange(_TAPER_VOXELS, dtype=np.float32) / _TAPER_VOXELS
        for axis in range(3):
            planes = np.moveaxis(field, 1 + axis, 0)
            for step, share in enumerate(ramp[: len(planes)]):
                if ends[0, axis] > 0.5:
                    planes[step] *= share
                if ends[1, axis] < canonical.shape[axis] - 1.5:
                    planes[-1 - step] *= share


def resample(
    volume: Volume, matrix: Float64Array, grid: Grid, displacement_voxels: FloatVolume | None = None
) -> FloatVolume:
    """Sample a volume at ``A(x + u(x))`` for the voxels x of a grid: linear, zero outside the volume.

    Args:
        volume: the image to sample.
        matrix: A, 4x4, world of the grid -> world of the volume (RAS+ mm).
        grid: where the result lies.
        displacement_voxels: u, ``(3, D, H, W)`` in voxels of the grid; none for the affine alone.
    """
    voxels = np.ascontiguousarray((np.linalg.inv(volume.grid.affine) @ matrix @ grid.affine)[:3])
    out = np.empty(grid.shape, dtype=np.float32)
    data = np.ascontiguousarray(volume.data, dtype=np.float32)
    if displacement_voxels is None:
        run_slabs(warp_linear, grid.shape[0], data, voxels, out)
    else:
        run_slabs(warp_through, grid.shape[0], data, np.ascontiguousarray(displacement_voxels), voxels, out)
    return out


def resample_labels(
    labels: Volume, matrix: Float64Array, grid: Grid, displacement_voxels: FloatVolume | None = None
) -> npt.NDArray[np.generic]:
    """Like :func:`resample`, by the nearest voxel, keeping the dtype of the labels."""
    field = np.zeros((3, *grid.shape), dtype=np.float32) if displacement_voxels is None else displacement_voxels
    voxels = np.ascontiguousarray((np.linalg.inv(labels.grid.affine) @ matrix @ grid.affine)[:3])
    data = np.ascontiguousarray(labels.data)
    out = np.empty(grid.shape, dtype=data.dtype)
    run_slabs(nearest_through, grid.shape[0], data, np.ascontiguousarray(field), voxels, out)
    return out


def prepare_pair(
    fixed: Volume,
    moving: Volume,
    matrix: Float64Array,
    *,
    use_fixed: npt.NDArray[np.bool_] | None,
    use_moving: npt.NDArray[np.bool_] | None,
    most_voxels: int,
) -> WorkingPair:
    """Bring a pair to its working grid.

    Args:
        fixed, moving: the images.
        matrix: 4x4, fixed world -> moving world.
        use_fixed, use_moving: where the similarity may count, each on its image's grid; None for everywhere.
        most_voxels: size limit of the working grid, at least :data:`LEAST_VOXELS`.

    Raises:
        InputError: when no voxel is left to compare, or the size limit is too low.
    """
    if most_voxels < LEAST_VOXELS:
        raise InputError(f"a working grid needs at least {LEAST_VOXELS} voxels, the limit is {most_voxels}")
    axes = canonical_axes(fixed.grid.affine)
    canonical = reorient_grid(fixed.grid, *axes)
    image = Volume(reorient(np.asarray(fixed.data, dtype=np.float32), *axes), canonical)
    subjects = run_each(_coarse_foreground, (image, moving))
    subject, reach = _at_voxels(subjects[0], canonical.shape), resample(subjects[1], matrix, canonical) > 0.5
    grid, offset = _working_grid(canonical, subject | reach, most_voxels)
    subject_on, moving_subject = (_mask_on_grid(mask, canonical, grid, offset) for mask in (subject, reach))
    identity = np.eye(4)
    fixed_there = _sampled(image, identity, grid) if offset is None else _on_grid(image, identity, grid, offset)
    on_grid = fixed_there, _sampled(moving, matrix, grid)
    both = tuple(zip(on_grid, (subject_on, moving_subject), strict=True))
    fixed_on, moving_on = run_each(lambda one: _normalised(*one), both)
    del image, subject, reach, fixed_there, on_grid, both  # what is used again costs no new memory
    weight = _inside(moving.grid, matrix, grid)
    excluded = np.zeros(grid.shape, dtype=bool)
    if offset is None:  # else the grid ends where the fixed image does
        beyond = ~_inside(canonical, identity, grid)
        if (beyond & (resample(subjects[1], matrix, grid) > 0.5)).any():
            excluded |= beyond
    if use_fixed is not None:
        allowed = Volume(reorient(use_fixed.astype(np.float32), *axes), canonical)
        excluded |= _on_grid(allowed, identity, grid, offset) < 0.99
    if use_moving is not None:
        excluded |= weight & (resample(Volume(use_moving.astype(np.float32), moving.grid), matrix, grid) < 0.99)
    if not (weight & ~excluded & subject_on).any():
        raise InputError("no voxel of the fixed subject is left to compare: check masks and the initial alignment")
    return WorkingPair(
        grid=grid,
        fixed=fixed_on,
        moving=moving_on,
        weight=weight.astype(np.float32),
        excluded=excluded if excluded.any() else None,
        subject=subject_on,
        native=fixed.grid,
        offset=offset,
    )


def channel_on_grid(
    pair: WorkingPair, fixed: Volume, moving: Volume, matrix: Float64Array
) -> tuple[FloatVolume, FloatVolume, npt.NDArray[np.bool_] | None]:
    """A further pair of images of the same subjects, on any grids in their worlds, on the working grid of a pair.

    Returns:
        Both images ``(D, H, W)``, and where one of them has no voxel though the first pair has; None for nowhere.
    """
    identity = np.eye(4)
    images = ((fixed, identity), (moving, matrix))
    first, second = (_sampled(image, by, pair.grid) for image, by in images)
    missing = _inside(pair.native, identity, pair.grid) & ~_inside(fixed.grid, identity, pair.grid)
    missing |= (pair.weight > 0) & ~_inside(moving.grid, matrix, pair.grid)
    on_grid = _normalised(first, pair.subject), _normalised(second, pair.subject)
    return *on_grid, missing if missing.any() else None


def _coarse_foreground(volume: Volume) -> Volume:
    """The foreground, 1 or 0, found at half the resolution of all but small images."""
    factor = 2 if min(volume.grid.shape) >= 64 else 1
    data, grid = coarsen(np.asarray(volume.data, dtype=np.float32), volume.grid, (factor, factor, factor))
    return Volume(foreground(data).astype(np.float32), grid)


def _at_voxels(blocks: Volume, shape: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    """A mask of blocks at each voxel in them; ``shape`` is that of the voxels."""
    mask = np.asarray(blocks.data > 0)
    for axis in range(3):
        mask = mask.repeat(-(-shape[axis] // mask.shape[axis]), axis=axis)
    return mask[: shape[0], : shape[1], : shape[2]]


def _mask_on_grid(
    mask: npt.NDArray[np.bool_], canonical: Grid, grid: Grid, offset: tuple[int, int, int] | None
) -> npt.NDArray[np.bool_]:
    if offset is None:
        return _on_grid(Volume(mask.astype(np.float32), canonical), np.eye(4), grid, None) > 0.5
    return np.ascontiguousarray(mask[_box(grid, offset)])


def _working_grid(
    canonical: Grid, region: npt.NDArray[np.bool_], most_voxels: int
) -> tuple[Grid, tuple[int, int, int] | None]:
    """The grid around a region of the canonical fixed grid, and its offset there when voxels coincide."""
    spacing = canonical.spacing_mm
    low, high = (np.array(ends) for ends in zip(*((s.start, s.stop) for s in box_of(region)), strict=True))
    if spacing.max() <= 1.3 * spacing.min():
        first = np.maximum(low - _MARGIN_VOXELS, 0)
        last = np.minimum(high + _MARGIN_VOXELS, canonical.shape)
        shape = (int(last[0] - first[0]), int(last[1] - first[1]), int(last[2] - first[2]))
        if np.prod(shape) <= most_voxels:
            return canonical.crop(first, shape), (int(first[0]), int(first[1]), int(first[2]))
    extent_mm = (high - low) * spacing
    step = float(spacing.min())
    while np.prod(np.ceil(extent_mm / step) + 2 * _MARGIN_VOXELS) > most_voxels:
        step *= 1.02
    count = np.ceil(extent_mm / step).astype(int) + 2 * _MARGIN_VOXELS
    affine = canonical.affine @ np.diag([*(step / spacing), 1.0])
    start = (low + high - 1) / 2 - (count - 1) / 2 * step / spacing
    affine[:3, 3] = canonical.to_mm(start)
    return Grid((int(count[0]), int(count[1]), int(count[2])), affine), None


def _on_grid(volume: Volume, matrix: Float64Array, grid: Grid, offset: tuple[int, int, int] | None) -> FloatVolume:
    if offset is None:
        return resample(_not_finer(volume, grid), matrix, grid)
    return np.asarray(volume.data[_box(grid, offset)], dtype=np.float32)


def _sampled(volume: Volume, matrix: Float64Array, grid: Grid) -> FloatVolume:
    """A volume on the working grid, and beyond it 0, or its background where 0 would be as bright as a subject.

    So it is where the background, the median of its faces, lies below 0 (CT) or in the upper half of the values
    (histology on white).
    """
    volume = _not_finer(volume, grid)
    faces = np.concatenate([volume.data.take(end, axis).ravel() for axis in range(3) for end in (0, -1)])
    background = np.float32(np.median(faces))
    if 0 <= background <= _DARK * float(volume.data.max()):
        return resample(volume, matrix, grid)
    return resample(Volume(volume.data - background, volume.grid), matrix, grid) + background


def _box(grid: Grid, offset: tuple[int, int, int]) -> tuple[slice, ...]:
    return tuple(slice(o, o + n) for o, n in zip(offset, grid.shape, strict=True))


def _not_finer(volume: Volume, grid: Grid) -> Volume:
    """Block means where the volume is at least 1.5 times finer than the grid: sampling it would alias."""
    target = float(grid.spacing_mm.min())
    factors = [max(1, int(np.floor(target / s + 0.5))) for s in volume.grid.spacing_mm]
    if max(factors) == 1:
        return volume
    data, coarse = coarsen(np.asarray(volume.data, dtype=np.float32), volume.grid, (factors[0], factors[1], factors[2]))
    return Volume(data, coarse, volume.name)


def _inside(moving: Grid, matrix: Float64Array, grid: Grid) -> npt.NDArray[np.bool_]:
    """Voxels of the grid that fall inside the moving image, which reaches half a voxel beyond its outer centres."""
    voxels = np.linalg.inv(moving.affine) @ matrix @ grid.affine
    i, j, k = (np.arange(n, dtype=np.float64) for n in grid.shape)
    first, last = np.zeros(grid.shape[:2]), np.full(grid.shape[:2], grid.shape[2] - 1.0)
    for row, size in zip(voxels[:3], moving.shape, strict=True):
        start = row[0] * i[:, None] + row[1] * j + row[3]
        if row[2] == 0:  # the whole row of voxels is inside, or none of it
            last[(start < -0.5) | (start > size - 0.5)] = -1.0
            continue
        ends = (-0.5 - start) / row[2], (size - 0.5 - start) / row[2]
        first, last = np.maximum(first, np.minimum(*ends)), np.minimum(last, np.maximum(*ends))
    return np.asarray((k >= first[..., None]) & (k <= last[..., None]))


def _normalised(image: FloatVolume, subject: npt.NDArray[np.bool_]) -> FloatVolume:
    """Intensities with the darkest background at 0 and the 99th percentile of the subject at 1."""
    values = image[subject] if subject.any() else image.ravel()
    high = float(np.percentile(values, 99.0))
    low = min(0.0, float(np.percentile(values, 0.5))) if values.min() < 0 else 0.0
    if high <= low:
        low, high = float(image.min()), float(image.max())
    shifted = image - np.float32(low) if low else image
    return np.divide(shifted, np.float32(max(high - low, 1e-12)), out=np.empty(image.shape, dtype=np.float32))


def _resample_vectors(field: FloatVolume, grid: Grid, target: Grid) -> FloatVolume:
    """Vectors in voxels of ``grid`` as vectors in voxels of ``target``, linear, zero outside (parallel axes)."""
    from scipy import ndimage  # a third of a second to import, which isotropic images are spared

    matrix = np.linalg.inv(grid.affine) @ target.affine
    turn = np.linalg.inv(target.affine[:3, :3]) @ grid.affine[:3, :3]
    sampled = np.stack([
        ndimage.affine_transform(component, matrix[:3, :3], matrix[:3, 3], target.shape, order=1, prefilter=False)
        for component in field
    ])  # fmt: skip
    return np.einsum("ij,j...->i...", turn.astype(np.float32), sampled)
