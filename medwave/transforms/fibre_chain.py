"""MONAI transforms that take cubes of fibres from disk to a network, and vary them.

Dictionaries hold ``image``, ``label`` and ``skeleton``: names of files first, then tensors ``(1, D, H, W)``; and
``center`` and ``width``, the intensity scale of the volume that a cube was cut from. Everything that varies is drawn
from the state that :meth:`monai.transforms.Compose.set_random_state` sets.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    DeleteItemsd,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    MapTransform,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandRotate90d,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
    SpatialPadd,
)

from medwave.transforms.microscopy import IntensityScale
from medwave.transforms.neuron_labels import IGNORE
from medwave.volumes import MicroscopyReader

KEYS = ("image", "label", "skeleton")
REFERENCE_MEAN, REFERENCE_SD = 0.029720289547802054, 0.04219472495471814
"""Of 8-bit images as shares of 255: Li & Shen, Bioinformatics 38:809 (2022), doi 10.1093/bioinformatics/btab716."""


class ScaleByVolumed(MapTransform):
    """Bring images to the scale of :class:`medwave.transforms.microscopy.IntensityScale`, by that of their volume."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Image, center and width in; the image float32 on the common scale out."""
        out = dict(data)
        scale = IntensityScale(float(out["center"]), float(out["width"]))
        for key in self.key_iterator(out):
            out[key] = torch.from_numpy(scale(np.asarray(out[key])))
        return out


class ScaleByReferenced(MapTransform):
    """Standardise 8-bit images by the published mean and deviation."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The image float32 out."""
        out = dict(data)
        for key in self.key_iterator(out):
            values = np.asarray(out[key], dtype=np.float32)
            out[key] = torch.from_numpy((values / np.float32(255) - REFERENCE_MEAN) / np.float32(REFERENCE_SD))
        return out


def fibre_cube_chain(
    *, size: tuple[int, int, int] | None = None, augment: bool = False, intensity: str = "volume"
) -> Compose:
    """From names of files to tensors.

    Augmentation is what a microscope and a tissue can do: flips along every axis and turns by right angles in the
    plane, brightness and contrast, blur, and noise, each with the chance given here and not otherwise.

    Args:
        size: crop to this at random (in the middle without augmentation); smaller cubes are padded, with an unknown
            label. None keeps cubes as they are.
        augment: whether items vary.
        intensity: ``"volume"`` or ``"reference"``.
    """
    steps: list[Any] = [
        LoadImaged(KEYS, reader=MicroscopyReader(), image_only=True),
        EnsureChannelFirstd(KEYS, channel_dim="no_channel"),
        ScaleByVolumed("image") if intensity == "volume" else ScaleByReferenced("image"),
    ]
    if size is not None:
        steps += [
            SpatialPadd("image", size, method="end", mode="edge"),
            SpatialPadd("label", size, method="end", value=IGNORE),
            SpatialPadd("skeleton", size, method="end", value=0),
            RandSpatialCropd(KEYS, size, random_center=augment, random_size=False),
        ]
    if augment:
        steps += [RandFlipd(KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)]
        steps += [
            RandRotate90d(KEYS, prob=0.5, max_k=3, spatial_axes=(1, 2)),
            RandGaussianSmoothd("image", (0.3, 0.9), (0.3, 0.9), (0.3, 0.9), prob=0.2),
            RandScaleIntensityd("image", 0.25, prob=0.5),
            RandShiftIntensityd("image", 0.1, prob=0.5),
            RandGaussianNoised("image", std=0.3, prob=0.5),
        ]
    return Compose([
        *steps,
        DeleteItemsd(["center", "width"]),
        EnsureTyped("image", dtype=torch.float32, track_meta=False),
        EnsureTyped("label", dtype=torch.int64, track_meta=False),
        EnsureTyped("skeleton", dtype=torch.uint8, track_meta=False),
    ])  # fmt: skip
