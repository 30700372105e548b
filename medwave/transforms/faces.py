"""Faces before a network sees them: five points on a template, the size and scale of pixels, mirroring.

Conventions
    Pictures are uint8 ``(h, w, c)``. Points are x y (column, row) in pixels, centres of pixels at whole numbers, in the
    order left eye, right eye, nose, left and right corner of the mouth, left and right as seen in the picture.
    A network gets ``(c, h, w)`` float32 in about [-1, 1].

Sources
    Similarity by least squares: Umeyama, IEEE TPAMI 13(4), 1991, doi:10.1109/34.88573. Template for 112 x 112: the five
    points that ArcFace (arXiv 1801.07698) and what is trained like it are aligned to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy import ndimage

from medwave.core.errors import GeometryError, InputError

UInt8Array = npt.NDArray[np.uint8]
Float64Array = npt.NDArray[np.float64]

TEMPLATE_SIZE = 112
TEMPLATE: Float64Array = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where the five points lie in an aligned picture of 112 x 112."""


def similarity(points: Any, target: Any) -> Float64Array:
    """The turn, scale and shift that brings points nearest to others: ``[[a, -b, tx], [b, a, ty]]``, no mirroring.

    Args:
        points: ``(n, 2)``, two or more that do not all coincide.
        target: ``(n, 2)``.

    Raises:
        GeometryError: when shapes do not fit, or the points coincide.
        InputError: for NaN or infinity.
    """
    source, goal = np.asarray(points, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.ndim != 2 or source.shape[1:] != (2,) or source.shape != goal.shape or len(source) < 2:
        raise GeometryError(f"a similarity needs two or more points (n, 2) on both sides: {source.shape}, {goal.shape}")
    if not (np.isfinite(source).all() and np.isfinite(goal).all()):
        raise InputError("points of a face must be finite numbers")
    centre, goal_centre = source.mean(axis=0), goal.mean(axis=0)
    x, y = (source - centre).T
    u, v = (goal - goal_centre).T
    spread = float((x * x + y * y).sum())
    if spread < 1e-12:
        raise GeometryError("the points of a face coincide, which gives no direction and no size")
    a, b = float((x * u + y * v).sum()) / spread, float((x * v - y * u).sum()) / spread
    turn = np.array([[a, -b], [b, a]])
    return np.column_stack([turn, goal_centre - turn @ centre])


def align_face(picture: UInt8Array, points: Any, size: tuple[int, int] = (TEMPLATE_SIZE, TEMPLATE_SIZE)) -> UInt8Array:
    """A face with its five points on the template, ``(size[0], size[1], c)``.

    The template is scaled by ``size[0] / 112`` and centred along the rows; what lies outside the picture is black.
    Larger faces are blurred first, so that fine texture does not fold into coarse.

    Raises:
        GeometryError: when the picture is not ``(h, w, c)``, the points are not five, or coincide.
        InputError: for NaN or infinity.
    """
    if picture.ndim != 3:
        raise GeometryError(f"a picture has axes (h, w, c), got shape {picture.shape}")
    if np.shape(points) != (5, 2):
        raise GeometryError(f"a face is aligned by five points (5, 2), got shape {np.shape(points)}")
    zoom = size[0] / TEMPLATE_SIZE
    target = (TEMPLATE + 0.5) * zoom - 0.5
    target[:, 0] += (size[1] - TEMPLATE_SIZE * zoom) / 2
    there = similarity(points, target)
    scale = float(np.hypot(there[0, 0], there[1, 0]))
    if scale < 1e-6:
        raise GeometryError("five points do not lie like those of a face: no turn and scale brings them there")
    back = np.linalg.inv(there[:, :2])
    offset = -back @ there[:, 2]
    rows_first = back[::-1, ::-1]  # scipy counts row, column
    source = picture.astype(np.float32)
    if scale < 1:
        sigma = (1 / scale - 1) / 2
        source = ndimage.gaussian_filter(source, (sigma, sigma, 0))
    channels = [
        ndimage.affine_transform(source[..., c], rows_first, offset[::-1], output_shape=tuple(size), order=1)
        for c in range(picture.shape[2])
    ]
    return np.clip(np.rint(np.stack(channels, axis=2)), 0, 255).astype(np.uint8)


def fit_picture(picture: UInt8Array, size: tuple[int, int], channels: int) -> UInt8Array:
    """A picture of ``size`` (height, width) with 1 (grey) or 3 (RGB) channels; resized with a filter against aliasing.

    Raises:
        GeometryError: when the picture is not ``(h, w, 1 or 3)``.
        InputError: for another number of channels.
    """
    if picture.ndim != 3 or picture.shape[2] not in (1, 3) or 0 in picture.shape:
        raise GeometryError(f"a picture has axes (h, w, c) with 1 or 3 channels, got shape {picture.shape}")
    if channels not in (1, 3):
        raise InputError(f"networks take pictures of 1 or 3 channels, got {channels}")
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)  # widens its kernel when it shrinks
    return np.asarray(image).reshape(*size, channels)


def normalise(picture: UInt8Array) -> torch.Tensor:
    """``(h, w, c)`` bytes -> ``(c, h, w)`` float32, ``(value - 127.5) / 127.5``, as the networks are trained."""
    return torch.from_numpy((picture.astype(np.float32).transpose(2, 0, 1) - 127.5) / 127.5)


def shifted(picture: UInt8Array, rows: int, columns: int) -> UInt8Array:
    """The picture moved by whole pixels, its border repeated."""
    h, w = picture.shape[:2]
    return picture[np.clip(np.arange(h) - rows, 0, h - 1)[:, None], np.clip(np.arange(w) - columns, 0, w - 1)]
