"""The moving image in the contrast of the fixed one, so that local correlation serves where contrasts differ.

Each intensity of the moving image is replaced by the mean of the fixed image where the images, as aligned so far, show
it: the best guess of one image from the other that a curve can make, by which the correlation ratio measures them
(Roche et al., MICCAI 1998, doi 10.1007/BFb0056301). It is a guess for the whole image, of rough alignment: what it
misses, :mod:`medwave.engine.curve_kernels` finds at fine scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.engine.loops import Loops
from medwave.engine.pyramid import block_means
from medwave.engine.refine_terms import Channel

FloatVolume = npt.NDArray[np.float32]
_BINS, _HIGHEST = 48, 1.2
_SMOOTHING = np.array((1, 4, 6, 4, 1)) / 16  # over bins
_LEAST_VOXELS = 5.0
_EVERY_EIGHTH = (slice(None, None, 2),) * 3


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


class FixedContrast:
    """Moving images in the contrast of the fixed ones, as a displacement aligns them.

    Both are taken at full resolution, where least voxels mix tissues; every eighth of them teaches.

    Args:
        loops: whose arrays displacement, weight and images are.
        displacement: of a scale, ``(3, d, h, w)`` in its voxels.
        factor: full-resolution voxels per voxel of that scale.
        weight: ``(D, H, W)``, 0 where nothing is to be learned.
        excluded: ``(D, H, W)``, voxels to leave out; None when there are none.
    """

    def __init__(
        self, loops: Loops, displacement: Any, factor: int, weight: Any, excluded: npt.NDArray[np.bool_] | None
    ) -> None:
        self.loops = loops
        counted = loops.download(weight)[_EVERY_EIGHTH] > 0
        self.counted = counted if excluded is None else counted & ~excluded[_EVERY_EIGHTH]
        self.displacement = loops.enlarge(displacement, tuple(weight.shape), factor)

    def moving(self, fixed: Any, moving: Any) -> FloatVolume:
        """The moving image in the contrast of the fixed one, not warped."""
        loops = self.loops
        warped = loops.empty(*fixed.shape)
        loops.warp(moving, self.displacement, warped)
        seen = (loops.download(image)[_EVERY_EIGHTH] for image in (fixed, warped))
        return in_contrast_of(*seen, loops.download(moving), self.counted)

    def channels(self, terms: dict[str, Any], channels: Sequence[Channel], factor: int) -> dict[str, Any]:
        """Terms of a scale with such moving images; ``channels`` are the same at full resolution."""
        if not channels:
            return terms
        upload = self.loops.upload
        alike = [block_means(self.moving(upload(c.fixed), upload(c.moving)), factor) for c in channels]
        return terms | {"channels": [replace(c, moving=m) for c, m in zip(terms["channels"], alike, strict=True)]}
