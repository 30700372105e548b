"""One label map from several: atlases that were registered to a target vote at each voxel.

Majority: each atlas has one vote. Joint: votes have weights that make the expected error of the vote smallest, when the
chance that two atlases err together is told by how alike their differences from the target are, in a patch about the
voxel. Atlases that make the same mistake then share one vote.

Conventions
    Images are ``(D, H, W)`` on the grid of the target, labels ``(n, D, H, W)`` of n atlases on it. Where all atlases
    agree nothing is computed. Of labels with equal votes the smallest wins.

Source
    H. Wang et al., "Multi-atlas segmentation with joint label fusion", IEEE TPAMI 35(3):611-623, 2013,
    doi 10.1109/TPAMI.2012.143: M(i, j) = <|a_i - t|, |a_j - t|>^beta over the patch, t and a_i patches of zero mean and
    unit norm; weights w = (M + alpha I)^-1 1, scaled to sum 1. Its local search of patches is left out: the deformable
    registration has done it.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError

FloatVolume = npt.NDArray[np.float32]
METHODS = ("joint", "majority")
_AT_ONCE = 1 << 14


def fuse_labels(
    labels: npt.NDArray[Any],
    *,
    method: str = "joint",
    target: FloatVolume | None = None,
    images: FloatVolume | None = None,
    radius_voxels: int = 2,
    alpha: float = 0.1,
    beta: float = 2.0,
) -> tuple[npt.NDArray[Any], FloatVolume]:
    """Fuse label maps.

    Args:
        labels: ``(n, D, H, W)``, whole numbers.
        method: ``"joint"`` or ``"majority"``.
        target: ``(D, H, W)``, for joint fusion.
        images: ``(n, D, H, W)``, the atlases' images on the target, for joint fusion.
        radius_voxels: half-width of the patches; beyond the grid its border voxels are repeated.
        alpha: how much all atlases are taken to err on their own; more brings joint fusion nearer to majority.
        beta: how sharply differences between images count.

    Returns:
        ``(D, H, W)`` labels, of the dtype given, and the share of the vote that each got, float32 in [0, 1] (joint
        fusion may count an atlas against another, so that sums pass 1; they are cut there).

    Raises:
        GeometryError: when the shapes do not fit together.
        InputError: for an unknown method, or joint fusion without images.
    """
    if method not in METHODS:
        raise InputError(f"method: one of {', '.join(METHODS)}, got {method!r}")
    if labels.ndim != 4 or not len(labels):
        raise GeometryError(f"label maps to fuse are (n, D, H, W), got {labels.shape}")
    fused, share = labels[0].copy(), np.ones(labels.shape[1:], dtype=np.float32)
    open_to = np.argwhere((labels != labels[:1]).any(axis=0))
    if method == "joint":
        if target is None or images is None:
            raise InputError("joint fusion compares images: give the target and the atlases' images on it")
        if images.shape != labels.shape or target.shape != labels.shape[1:]:
            raise GeometryError(
                f"images and labels of the atlases lie on the target's grid {target.shape}, "
                f"got {images.shape} and {labels.shape}"
            )
        padded = [np.pad(image, radius_voxels, mode="edge").astype(np.float32) for image in (target, *images)]
    for start in range(0, len(open_to), _AT_ONCE):
        at = open_to[start : start + _AT_ONCE]
        votes = labels[:, at[:, 0], at[:, 1], at[:, 2]].T
        weights = np.full(votes.shape, 1 / len(labels))
        if method == "joint":
            weights = _weights(padded, at, radius_voxels, alpha, beta)
        winners, shares = _count(votes, weights)
        fused[tuple(at.T)], share[tuple(at.T)] = winners, shares
    return fused, share


def _weights(
    padded: list[FloatVolume], at: npt.NDArray[np.intp], radius: int, alpha: float, beta: float
) -> npt.NDArray[np.float64]:
    """Weights ``(voxels, n)`` that sum to 1."""
    offsets = np.array(list(product(range(2 * radius + 1), repeat=3)))
    places = tuple((at[:, None] + offsets[None])[..., axis] for axis in range(3))
    target, *atlases = (_standard(image[places]) for image in padded)
    away = np.stack([np.abs(patch - target) for patch in atlases], axis=1).astype(np.float64)
    pairs = (away @ away.transpose(0, 2, 1)) ** beta + alpha * np.eye(len(atlases))
    weights = np.linalg.solve(pairs, np.ones((*pairs.shape[:2], 1)))[..., 0]
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _standard(patches: FloatVolume) -> FloatVolume:
    """Patches ``(voxels, size)`` with mean 0 and norm 1; flat ones become 0."""
    centred = patches - patches.mean(axis=1, keepdims=True)
    norm = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    return centred / np.maximum(norm, np.float32(1e-6))


def _count(votes: npt.NDArray[Any], weights: npt.NDArray[np.float64]) -> tuple[npt.NDArray[Any], FloatVolume]:
    """Of votes ``(voxels, n)`` with weights, the label with the largest sum and that sum."""
    order = np.argsort(votes, axis=1, kind="stable")
    votes, weights = np.take_along_axis(votes, order, 1), np.take_along_axis(weights, order, 1)
    sums = np.stack([((votes == votes[:, [i]]) * weights).sum(axis=1) for i in range(votes.shape[1])], axis=1)
    best = (np.round(sums, 9)).argmax(axis=1)[:, None]  # equal but for rounding: the smallest label
    share = np.clip(np.take_along_axis(sums, best, 1)[:, 0], 0, 1)
    return np.take_along_axis(votes, best, 1)[:, 0], share.astype(np.float32)
