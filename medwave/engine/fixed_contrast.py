"""The moving image in the contrast of the fixed one, so that local correlation serves where contrasts differ.

Each intensity of the moving image is replaced by the mean of the fixed image where the images, as aligned so far, show
it: the best guess of one image from the other that a curve can make, by which the correlation ratio measures them
(Roche et al., MICCAI 1998, doi 10.1007/BFb0056301). It is a guess for the whole image, of rough alignment: what it
misses, :mod:`medwave.engine.curve_kernels` finds at fine scales.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatVolume = npt.NDArray[np.float32]
_BINS, _HIGHEST = 48, 1.2
_SMOOTHING = np.array((1, 4, 6, 4, 1)) / 16  # over bins
_LEAST_VOXELS = 5.0


def in_contrast_of(
    fixed: FloatVolume, warped: FloatVolume, moving: FloatVolume, counted: npt.NDArray[np.bool_]
) -> FloatVolume:
    """Intensities of ``moving`` as those that ``fixed`` has, in the mean, where ``warped`` shows them.

    Args:
        fixed: ``(D, H, W)`` float32, intensities about 0 to 1.
        warped: the moving image on that grid, as aligned so far.
        moving: the image to change, any shape.
        counted: voxels to learn from, ``(D, H, W)``.

    Returns:
        Like ``moving``; the same where next to no voxel counts. Intensities that too few voxels show are interpolated.
    """
    place = (np.clip(warped[counted], 0, _HIGHEST) * (_BINS / _HIGHEST)).astype(np.int64).clip(0, _BINS - 1)
    counts, totals = (
        np.convolve(np.bincount(place, values, minlength=_BINS), _SMOOTHING, mode="same")
        for values in (None, fixed[counted])
    )
    shown = np.flatnonzero(counts > _LEAST_VOXELS)
    if len(shown) == 0:
        return moving
    centers = (shown + 0.5) * (_HIGHEST / _BINS)
    return np.interp(moving, centers, totals[shown] / counts[shown]).astype(np.float32)
