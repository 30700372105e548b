"""Intensities of light microscopy on one scale, whatever the bit depth, exposure and background.

A volume is centred on its median and divided by its noise, then compressed by ``asinh``: linear within the noise,
logarithmic above, so that dim and bright fibres are a few units apart. Statistics are taken from the whole volume,
never from a cube, so that a prediction does not depend on where cubes lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class IntensityScale:
    """Centre and width of the background of a volume, in its own units."""

    center: float
    width: float

    @classmethod
    def of(cls, sample: npt.NDArray[np.generic]) -> IntensityScale:
        """From a volume or a fair sample of its voxels.

        The width is the robust standard deviation (1.4826 times the median absolute deviation), and at least a
        hundredth of the way from the median to the 99.9th percentile, for images whose background was set to zero.
        """
        values = np.asarray(sample, dtype=np.float32).ravel()
        center, high = (float(v) for v in np.percentile(values, [50.0, 99.9]))
        deviation = 1.4826 * float(np.median(np.abs(values - center)))
        top = high - center if high > center else float(values.max()) - center
        return cls(center, max(deviation, 0.01 * top, 1e-6))

    def __call__(self, voxels: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Voxels of the volume on the common scale, float32."""
        return np.arcsinh((np.asarray(voxels, dtype=np.float32) - self.center) / (3.0 * self.width))
