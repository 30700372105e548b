"""Read images at displaced positions.

Conventions
    Coordinates are ``(N, 3, *S)`` in voxels of the image that is read; whole numbers are voxel centres and channel
    ``i`` belongs to array axis ``i``.
    Padding ``"border"`` repeats the outermost voxels without end; ``"zeros"`` continues with zeros, so that linear
    interpolation fades to zero within one voxel of the edge.
    Interpolation ``"linear"`` is trilinear. ``"nearest"`` takes the closest voxel (halves round up) and keeps every
    value and dtype exactly. ``"label"`` is for label maps: the indicator image of every label is read linearly and the
    largest wins (the smallest label, where two are equal); it gives smoother outlines than ``"nearest"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from medwave.core.errors import GeometryError, InputError

Interpolation = Literal["linear", "nearest", "label"]
Padding = Literal["border", "zeros"]

_LABEL_BLOCK = 1 << 18  # positions per vote: bounds the memory of the eight corners


def check_field(field: Tensor, name: str = "displacement") -> Tensor:
    """The field as float32 or float64, once its layout is known to be ``(N, 3, D, H, W)``."""
    if field.ndim != 5 or field.shape[1] != 3 or not field.is_floating_point():
        raise GeometryError(
            f"a {name} is a floating-point tensor (N, 3, D, H, W) in voxels, got {field.dtype} {tuple(field.shape)}"
        )
    return field if field.dtype == torch.float64 else field.float()


def runs_compiled(*tensors: Tensor) -> bool:
    """Whether the compiled loops may do the work: float32 on CPU, and neither gradients nor a graph are wanted."""
    if torch.compiler.is_compiling():
        return False
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return not wanted and all(
        t.device.type == "cpu" and t.dtype == torch.float32 and type(t) is Tensor for t in tensors
    )


def positions(displacement: Tensor) -> Tensor:
    """Where each voxel looks: ``p + u(p)``, coordinates ``(N, 3, D, H, W)``."""
    field = check_field(displacement)
    moved = [
        field[:, axis] + torch.arange(n, device=field.device, dtype=field.dtype).view(_along(axis))
        for axis, n in enumerate(field.shape[2:])
    ]
    return torch.stack(moved, dim=1)


def sample(
    image: Tensor, coordinates: Tensor, *, interpolation: Interpolation = "linear", padding: Padding = "border"
) -> Tensor:
    """Read an image at coordinates.

    Args:
        image: ``(N, C, D, H, W)`` of any dtype.
        coordinates: ``(N, 3, *S)`` in voxels of ``image``, floating point; ``*S`` is any number of axes, so that
            points ``(N, 3, M)`` and grids ``(N, 3, D, H, W)`` both work.
        interpolation: see the module.
        padding: see the module.

    Returns:
        ``(N, C, *S)`` of the image's dtype; linear interpolation turns integer images into floating point.

    Raises:
        GeometryError: when the shapes do not fit together.
        InputError: for an unknown interpolation or padding.
    """
    if image.ndim != 5 or coordinates.ndim < 3 or coordinates.shape[:2] != (image.shape[0], 3):
        raise GeometryError(
            "an image (N, C, D, H, W) is read at coordinates (N, 3, ...) with the same N, "
            f"got {tuple(image.shape)} and {tuple(coordinates.shape)}"
        )
    if padding not in ("border", "zeros"):
        raise InputError(f'padding is "border" or "zeros", got {padding!r}')
    points = coordinates if coordinates.dtype == torch.float64 else coordinates.float()
    points = points.flatten(2)
    if interpolation == "linear":
        values = _linear(image, points, padding)
    elif interpolation == "nearest":
        values = _gather(image, torch.floor(points + 0.5), padding)
    elif interpolation == "label":
        values = _vote(image, points, padding)
    else:
        raise InputError(f'interpolation is "linear", "nearest" or "label", got {interpolation!r}')
    return values.reshape(*image.shape[:2], *coordinates.shape[2:])


def warp(
    image: Tensor, displacement: Tensor, *, interpolation: Interpolation = "linear", padding: Padding = "border"
) -> Tensor:
    """Pull an image back through a displacement: ``warped(p) = image(p + u(p))``.

    Args:
        image: moving image ``(N, C, d, h, w)`` of any dtype; its grid may be smaller or larger than the field's.
        displacement: ``u``, ``(N, 3, D, H, W)`` in voxels.
        interpolation: ``"linear"`` for intensities, ``"label"`` or ``"nearest"`` for label maps (see the module).
        padding: what lies outside the image: ``"border"`` repeats its edge, ``"zeros"`` is zero.

    Returns:
        ``(N, C, D, H, W)`` of the image's dtype; linear interpolation turns integer images into floating point.

    Raises:
        GeometryError: when the shapes do not fit together.
        InputError: for an unknown interpolation or padding.
    """
    return sample(image, positions(displacement), interpolation=interpolation, padding=padding)


def resize(displacement: Tensor, shape: Sequence[int]) -> Tensor:
    """Bring a displacement to a grid of another shape that covers the same box; values count the new voxels.

    The outer faces of the first and last voxels stay in place (``align_corners=False``): voxel ``q`` of the new grid
    lies at ``(q + 1/2) n_old / n_new - 1/2`` of the old one, and channel ``i`` is multiplied by ``n_new / n_old`` of
    its axis. Trilinear, without smoothing: smooth a rough field before shrinking it.

    Args:
        displacement: ``(N, 3, D, H, W)`` in voxels.
        shape: the new ``(D, H, W)``.

    Raises:
        GeometryError: when ``shape`` is not three positive sizes.
    """
    field = check_field(displacement)
    size = [int(n) for n in shape]
    if len(size) != 3 or min(size) < 1:
        raise GeometryError(f"the new shape has three axes of at least one voxel each, got {tuple(shape)}")
    ratio = field.new_tensor([new / old for new, old in zip(size, field.shape[2:], strict=True)])
    with torch.autocast(field.device.type, enabled=False):
        resized = F.interpolate(field, size=size, mode="trilinear", align_corners=False)
    return resized * ratio.view(1, 3, 1, 1, 1)


def _along(axis: int) -> list[int]:
    """Shape that lays a line of values along one array axis of ``(N, D, H, W)``."""
    return [-1 if a == axis else 1 for a in (-1, 0, 1, 2)]


def _linear(image: Tensor, points: Tensor, padding: Padding) -> Tensor:
    """Trilinear values ``(N, C, M)`` at points ``(N, 3, M)``.

    grid_sample counts in half widths of the whole box (``align_corners=False``), which, unlike distances between the
    outermost voxel centres, also makes sense for an axis of one voxel; and it wants the last array axis first.
    """
    dtype = torch.promote_types(points.dtype, image.dtype) if image.is_floating_point() else points.dtype
    grid = torch.stack([(2 * points[:, axis] + 1) / image.shape[2 + axis] - 1 for axis in (2, 1, 0)], dim=-1)
    with torch.autocast(image.device.type, enabled=False):
        values = F.grid_sample(
            image.to(dtype),
            grid.to(dtype)[:, :, None, None, :],
            mode="bilinear",
            padding_mode=padding,
            align_corners=False,
        )
    return values.to(image.dtype) if image.is_floating_point() else values


def _gather(image: Tensor, index: Tensor, padding: Padding) -> Tensor:
    """Values ``(N, C, M)`` at whole-number points ``(N, 3, M)``, exactly."""
    flat = torch.zeros_like(index[:, 0], dtype=torch.long)
    inside = torch.ones_like(flat, dtype=torch.bool)
    for axis, n in enumerate(image.shape[2:]):
        line = index[:, axis]
        inside &= (line >= 0) & (line <= n - 1)
        flat = flat * n + line.clamp(0, n - 1).long()
    values = image.flatten(2).gather(2, flat[:, None].expand(-1, image.shape[1], -1))
    return values if padding == "border" else values.masked_fill(~inside[:, None], 0)


def _vote(image: Tensor, points: Tensor, padding: Padding) -> Tensor:
    """Arg-max over labels of the linearly read indicators; only the labels of the eight corners can win."""
    if padding == "border":
        last = points.new_tensor([n - 1 for n in image.shape[2:]]).view(1, 3, 1)
        points = torch.minimum(points.clamp_min(0), last)
    votes = [_vote_block(image, block, padding) for block in torch.split(points, _LABEL_BLOCK, dim=2)]
    return torch.cat(votes, dim=2)


def _vote_block(image: Tensor, points: Tensor, padding: Padding) -> Tensor:
    floor = torch.floor(points)
    part = points - floor
    labels, weights = [], []
    for corner in product((0, 1), repeat=3):
        step = points.new_tensor(corner).view(1, 3, 1)
        label = _gather(image, floor + step, padding)
        labels.append(label)
        weights.append(torch.where(step == 1, part, 1 - part).prod(dim=1, keepdim=True).expand_as(label))
    winner = labels[0].clone()
    mixed = torch.stack([label != winner for label in labels[1:]]).any(dim=0)
    corner_labels = torch.stack([label[mixed] for label in labels])
    corner_weights = torch.stack([weight[mixed] for weight in weights])
    best = corner_labels[0]
    most = torch.full_like(corner_weights[0], -1.0)
    for candidate in corner_labels:
        score = torch.where(corner_labels == candidate, corner_weights, 0).sum(dim=0)
        better = (score > most) | ((score == most) & (candidate < best))
        most, best = torch.where(better, score, most), torch.where(better, candidate, best)
    winner[mixed] = best
    return winner
