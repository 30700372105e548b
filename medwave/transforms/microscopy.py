"""Intensities of light microscopy on one scale, whatever the bit depth, exposure and background.

A volume is centred on its median and divided by its noise, then compressed by ``asinh``: linear within the noise,
logarithmic above, so that dim and bright fibres are a few units apart. Statistics are taken from the whole volume,
never from a cube, so that a prediction does not depend on where cubes lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError

_SAMPLE_BOX = (16, 64, 64)
_SAMPLE_BOXES, _LOOKED_AT = 64, 8192


class EmptyVolumeError(InputError):
    """Nothing but one value was found wherever it was looked."""


@dataclass(frozen=True)
class IntensityScale:
    """Centre and width of the background of a volume, in its own units.

    Attributes:
        center: the median.
        width: what counts as noise.
        noise_seen: the background varies; false where more than half of it has one value, since it was cut to zero.
    """

    center: float
    width: float
    noise_seen: bool = True

    @classmethod
    def of(cls, sample: npt.NDArray[np.generic]) -> IntensityScale:
        """From a volume or a fair sample of its voxels.

        The width is the robust standard deviation (1.4826 times the median absolute deviation), and at least a
        hundredth of the way from the median to the 99.9th percentile, for images whose background was set to zero. Nor
        is it less than the step between values, in coarsely rounded images one step above the background means little,
        unless there are so few values that a step is more than a tenth of the range.
        """
        values = np.asarray(sample, dtype=np.float32).ravel()
        center, high = (float(v) for v in np.percentile(values, [50.0, 99.9]))
        deviation = 1.4826 * float(np.median(np.abs(values - center)))
        top = high - center if high > center else float(values.max()) - center
        steps = np.diff(np.unique(values))
        step = float(steps.min()) if len(steps) else 0.0
        width = max(deviation, 0.01 * top, min(step, 0.1 * (float(values.max()) - center)), 1e-6)
        return cls(center, width, noise_seen=deviation > 0)

    def __call__(self, voxels: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Voxels of the volume on the common scale, float32."""
        return np.arcsinh((np.asarray(voxels, dtype=np.float32) - self.center) / (3.0 * self.width))


def sampled_scale(
    read: Callable[[tuple[slice, slice, slice]], npt.NDArray[np.generic]],
    shape: tuple[int, int, int],
    within: Sequence[tuple[slice, slice, slice]] | None = None,
) -> IntensityScale:
    """The scale of a volume that need not fit in memory, from boxes of 16x64x64 voxels spread over it.

    Boxes are visited in a fixed random order until 64 have been found that hold more than one value: a box of one
    value was never imaged or has been masked out, and says nothing about noise. A volume of few boxes is read whole.
    The order depends on the shape only, so the scale does not depend on the format of the file, or on cubes.

    Args:
        read: gives the voxels of a box.
        shape: the volume (z, y, x).
        within: boxes of the volume to look in, in place of all of it.

    Raises:
        EmptyVolumeError: when every box holds one value only.
        InputError: when a value is not finite.
    """
    boxes = within or [tuple(slice(0, n) for n in shape)]
    counts = [[-(-(s.stop - s.start) // step) for s, step in zip(box, _SAMPLE_BOX, strict=True)] for box in boxes]
    ends = np.cumsum([math.prod(count) for count in counts])
    total = int(ends[-1])
    order = np.random.default_rng(0).choice(total, min(total, _LOOKED_AT), replace=False)
    parts: list[npt.NDArray[np.float32]] = []
    constant: set[float] = set()
    for at in order:
        which = int(np.searchsorted(ends, at, side="right"))
        first = int(ends[which]) - math.prod(counts[which])
        z, y, x = (
            slice(s.start + i * step, min(s.start + (i + 1) * step, s.stop))
            for i, step, s in zip(np.unravel_index(at - first, counts[which]), _SAMPLE_BOX, boxes[which], strict=True)
        )
        voxels = read((z, y, x)).ravel()
        if not np.isfinite(voxels).all():
            raise InputError("the volume holds NaN or infinite values; replace them first")
        if voxels.min() == voxels.max():
            constant.add(float(voxels[0]))
            continue
        parts.append(voxels.astype(np.float32))
        if len(parts) == _SAMPLE_BOXES:
            break
    if not parts:
        values = " or ".join(f"{v:g}" for v in sorted(constant)[:2])
        looked = "everywhere" if len(order) == total else f"in {len(order)} places looked at"
        raise EmptyVolumeError(
            f"the volume has the value {values} {looked}: it is empty; check that it is the right one"
        )
    return IntensityScale.of(np.concatenate(parts))
