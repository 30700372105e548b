"""From brain volumes to the tensors a pair network reads, and from its field back to the fixed image's own grid.

Conventions
    A MetaTensor here is ``(1, D, H, W)`` float32 with a 4x4 affine from voxels to RAS+ mm.
    The working grid is the fixed image in RAS axis order, at the working spacing, cropped to its foreground plus a
    margin, every axis a multiple of 16 voxels; where that reaches beyond the image, zeros are put.
    A pair lies on one working grid: the moving image is resampled once, through the initial affine. That affine
    ``A`` (RAS+ mm, fixed world to moving world) enters as a change of header: a voxel that lies at ``y`` in moving
    world lies at ``A^-1 y`` in fixed world.
    Intensities are scaled per image so that background is 0 and the 99.5th percentile of the foreground is 1.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, MapTransform, Orientationd, ResampleToMatchd, Spacingd
from scipy import ndimage

from medwave import fields
from medwave.core.errors import GeometryError, InputError, MedwaveError
from medwave.core.geometry import Grid, Volume
from medwave.volumes import read_volume

IMAGES = ("fixed", "moving")
LABELS = ("fixed_labels", "moving_labels")

_FOREGROUND = 0.1
_SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))


@dataclass(frozen=True)
class BrainPair:
    """A fixed and a moving image on one working grid, ready for a network.

    Attributes:
        fixed: ``(1, D, H, W)`` in [0, 1].
        moving: the same, resampled through the initial affine.
    """

    fixed: MetaTensor
    moving: MetaTensor

    @property
    def grid(self) -> Grid:
        """The working grid both images lie on."""
        return _grid(self.fixed)


def to_metatensor(volume: Volume) -> MetaTensor:
    """A volume as a float32 MetaTensor ``(1, D, H, W)`` with its RAS+ mm affine and its name."""
    data = torch.from_numpy(np.ascontiguousarray(volume.data, dtype=np.float32))[None]
    meta = {"filename_or_obj": volume.name, "space": "RAS"}
    return MetaTensor(data, affine=torch.tensor(volume.grid.affine, dtype=torch.float64), meta=meta)


def from_metatensor(tensor: MetaTensor, *, name: str | None = None) -> Volume:
    """The volume of a MetaTensor ``(1, D, H, W)``.

    Args:
        tensor: one channel, three spatial axes, RAS+ mm affine.
        name: name of the volume; the tensor's own when left out.

    Raises:
        GeometryError: when there is more than one channel.
    """
    if tensor.ndim != 4 or tensor.shape[0] != 1:
        raise GeometryError(f"a volume is made of a tensor (1, D, H, W), got {tuple(tensor.shape)}")
    label = name if name is not None else str(tensor.meta.get("filename_or_obj", "volume"))
    return Volume(tensor.as_tensor()[0].cpu().numpy(), _grid(tensor), label)


def brain_pair_chain(*, spacing_mm: float = 1.0, margin_mm: float = 8.0, labels: bool = False) -> Compose:
    """MONAI transform from a dictionary of loaded volumes to one of tensors on the working grid.

    Args:
        spacing_mm: isotropic voxel size of the working grid. Images with smaller voxels are smoothed first (to a
            resolution of that voxel size, doi:10.1007/978-3-319-24571-3_81), so that details do not alias.
        margin_mm: how far the working grid reaches beyond the fixed image's foreground.
        labels: also carry the label maps ``fixed_labels`` and ``moving_labels``, by nearest neighbour.

    Returns:
        A ``monai.transforms.Compose`` of dictionaries with MetaTensors ``(1, D, H, W)`` under ``fixed`` and
        ``moving``; both headers must place the anatomy in one world (see :func:`prepare_pair` for the affine).

    Raises:
        InputError: when the spacing is not positive or the margin negative.
    """
    if spacing_mm <= 0 or margin_mm < 0:
        raise InputError(f"spacing_mm must be positive and margin_mm not negative, got {spacing_mm} and {margin_mm}")
    fixed_keys = ["fixed", "fixed_labels"] if labels else ["fixed"]
    moving_keys = ["moving", "moving_labels"] if labels else ["moving"]
    modes = ["bilinear", "nearest"] if labels else ["bilinear"]
    resampling = {"mode": modes, "padding_mode": "zeros", "align_corners": True, "dtype": np.float32}
    return Compose(
        [
            ScaleForegroundd(keys=IMAGES),
            AntiAliasd(keys=IMAGES, spacing_mm=spacing_mm),
            Orientationd(keys=fixed_keys, axcodes="RAS", labels=None),
            Spacingd(keys=fixed_keys, pixdim=(spacing_mm,) * 3, **resampling),
            CropForegroundd(
                keys=fixed_keys,
                source_key="fixed",
                select_fn=_is_foreground,
                margin=int(np.ceil(margin_mm / spacing_mm)),
                k_divisible=16,
                allow_smaller=False,
                start_coord_key=None,
                end_coord_key=None,
            ),
            ResampleToMatchd(keys=moving_keys, key_dst="fixed", **resampling),
        ]
    )


def prepare_pair(
    fixed: Volume | str | Path,
    moving: Volume | str | Path,
    *,
    affine: npt.ArrayLike | None = None,
    spacing_mm: float = 1.0,
    margin_mm: float = 8.0,
) -> BrainPair:
    """Bring a fixed and a moving brain onto one working grid.

    Args:
        fixed: volume, or a file that :func:`medwave.volumes.read_volume` reads.
        moving: the same.
        affine: 4x4 initial affine ``A``, RAS+ mm, fixed world to moving world; identity when left out.
        spacing_mm: voxel size of the working grid.
        margin_mm: how far the grid reaches beyond the fixed image's foreground.

    Raises:
        GeometryError: when the affine is singular.
        InputError: when an image is constant or holds values that are not finite, or a number is out of range.
    """
    volumes = [image if isinstance(image, Volume) else read_volume(image) for image in (fixed, moving)]
    tensors = dict(zip(IMAGES, map(to_metatensor, volumes), strict=True))
    if affine is not None:
        tensors["moving"].affine = torch.tensor(np.linalg.solve(_affine(affine), volumes[1].grid.affine))
    chain = brain_pair_chain(spacing_mm=spacing_mm, margin_mm=margin_mm)
    try:
        result = chain(tensors)
    except RuntimeError as error:  # MONAI wraps what a transform raises
        if isinstance(error.__cause__, MedwaveError):
            raise error.__cause__ from None
        raise
    return BrainPair(result["fixed"], result["moving"])


def displacement_on_grid(displacement: npt.NDArray[np.floating], source: Grid, target: Grid) -> npt.NDArray[np.float32]:
    """The same displacement in world space, on another grid.

    Args:
        displacement: ``(3, D, H, W)`` in voxels of ``source``, such as a network's on the working grid.
        source: the grid it lies on.
        target: the grid wanted, such as the fixed image's own. Outside ``source`` the border values go on.

    Returns:
        ``(3, d, h, w)`` float32 in voxels of ``target``.

    Raises:
        GeometryError: when the array is not a displacement on ``source``.
    """
    if displacement.shape != (3, *source.shape):
        raise GeometryError(
            f"a displacement on {source.describe()} has shape {(3, *source.shape)}, got {displacement.shape}"
        )
    vectors_mm = fields.to_mm(torch.tensor(displacement)[None], torch.tensor(source.affine))
    look_up = fields.affine_displacement(np.linalg.solve(source.affine, target.affine), target.shape)
    return fields.to_voxels(fields.warp(vectors_mm, look_up), torch.tensor(target.affine))[0].float().numpy()


class ScaleForegroundd(MapTransform):
    """Scale intensities so that background is 0 and the 99.5th percentile of the foreground is 1; clip to [0, 1].

    Background is the 0.5th percentile of all voxels; foreground is what lies above it by a tenth of the range up
    to the 99.9th percentile. A percentile of all voxels would depend on how much air the field of view shows.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = _scaled(out[key], str(key))
        return out


class AntiAliasd(MapTransform):
    """Smooth each image along the axes on which its voxels are smaller than the working spacing.

    Args:
        keys: which images.
        spacing_mm: the working spacing. The Gaussian's width (FWHM) is the square root of the difference of the
            squared voxel sizes.
    """

    def __init__(self, keys: tuple[str, ...], spacing_mm: float) -> None:
        super().__init__(keys)
        self.spacing_mm = spacing_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        for key in self.key_iterator(out):
            own = _grid(out[key]).spacing_mm
            sigma = np.sqrt(np.maximum(0.0, (self.spacing_mm / own) ** 2 - 1)) * _SIGMA_PER_FWHM
            if sigma.max() > 0.1:
                values = ndimage.gaussian_filter(out[key][0].numpy(), sigma, mode="nearest", truncate=3.0)
                out[key] = _with_values(out[key], values)
        return out


def _scaled(image: MetaTensor, key: str) -> MetaTensor:
    values = image[0].numpy()
    name = image.meta.get("filename_or_obj", key)
    if not np.isfinite(values).all():
        raise InputError(f"{name}: holds NaN or infinite values; replace them first")
    low, top = np.percentile(values, [0.5, 99.9])
    inside = values[values > low + _FOREGROUND * (top - low)]
    if top <= low or inside.size == 0:
        raise InputError(f"{name}: the image is constant (or all but constant) and shows no anatomy")
    high = np.percentile(inside, 99.5)
    return _with_values(image, np.clip((values - low) / (high - low), 0.0, 1.0))


def _is_foreground(image: torch.Tensor) -> torch.Tensor:
    return image > _FOREGROUND


def _with_values(image: MetaTensor, values: npt.NDArray[np.floating]) -> MetaTensor:
    return MetaTensor(torch.from_numpy(values.astype(np.float32))[None], meta=image.meta)  # the affine is in meta


def _grid(tensor: MetaTensor) -> Grid:
    shape = tensor.shape[1:]
    return Grid((shape[0], shape[1], shape[2]), tensor.affine.cpu().numpy())


def _affine(matrix: npt.ArrayLike) -> npt.NDArray[np.float64]:
    affine = np.asarray(matrix, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        raise GeometryError("the initial affine must be an invertible, finite 4x4 matrix")
    return affine
