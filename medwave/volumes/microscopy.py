"""MONAI's image reader for volumes of microscopy.

Conventions
    Arrays are (z, y, x), or (c, z, y, x) when several files are given; values as in the file. The affine is diagonal,
    in array axis order, in micrometres (voxels where the file tells no size): a pixdim for ``Spacingd`` is in
    micrometres along z, y, x. Its origin is the centre of voxel 0 of the finest resolution.

MONAI's ``LoadImage`` tries the next reader when one fails while reading, and one of the next returns the first page of
a TIFF with its axes swapped. So nothing fails here while reading: the file is opened when MONAI asks for the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.data.image_reader import ImageReader
from monai.utils import MetaKeys, SpaceKeys

from medwave.core.errors import GeometryError
from medwave.core.files import StrPath
from medwave.volumes.open import is_stack, open_stack


class MicroscopyReader(ImageReader):
    """Reads what :func:`medwave.volumes.open_stack` opens: ``LoadImaged(keys, reader=MicroscopyReader(channel=1))``.

    Args:
        channel, level, axes, spacing_um: as for :func:`medwave.volumes.open_stack`.

    Errors are those of :func:`medwave.volumes.open_stack`; no other reader is tried after one.
    """

    def __init__(
        self,
        *,
        channel: int = 0,
        level: int = 0,
        axes: str | None = None,
        spacing_um: Sequence[float] | None = None,
    ) -> None:
        self.options: dict[str, Any] = {"channel": channel, "level": level, "axes": axes, "spacing_um": spacing_um}

    def verify_suffix(self, filename: Sequence[StrPath] | StrPath) -> bool:
        """Whether every name is one that this reader knows."""
        return all(is_stack(name) for name in _names(filename))

    def read(self, data: Sequence[StrPath] | StrPath, **kwargs: Any) -> list[Path]:
        """Only note the names: see the module."""
        return [Path(name) for name in _names(data)]

    def get_data(self, img: Sequence[Path]) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """The values and what MONAI wants to know of them.

        Raises:
            GeometryError: when several files differ in shape; otherwise as :func:`medwave.volumes.open_stack`.
        """
        arrays = []
        for path in img:
            with open_stack(path, **self.options) as volume:
                arrays.append(volume.read())
                if arrays[-1].shape != arrays[0].shape:
                    raise GeometryError(
                        f"{path}: files that are stacked as channels are equal in shape, this is {arrays[-1].shape}, "
                        f"{img[0]} is {arrays[0].shape}"
                    )
                spacing_um, offset = volume.spacing_um, volume.offset_voxels
        affine = np.diag([*(spacing_um or (1.0, 1.0, 1.0)), 1.0])
        affine[:3, 3] = affine[:3, :3] @ offset
        meta = {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.array(arrays[0].shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: 0 if len(arrays) > 1 else "no_channel",
            "spacing_known": spacing_um is not None,
        }
        return np.stack(arrays) if len(arrays) > 1 else arrays[0], meta


def _names(data: Sequence[StrPath] | StrPath) -> list[StrPath]:
    return list(data) if isinstance(data, list | tuple) else [data]  # type: ignore[list-item]
