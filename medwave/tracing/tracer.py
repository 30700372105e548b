"""Trace neurons in a volume: APP2 (all-path pruning) with physical lengths, many trees and bridged gaps.

A volume becomes foreground by a threshold; cheapest paths from the roots cover it with trees; the trees are cut into
segments of which only those stay that the image supports and no stronger one explains; radii are measured, broken
pieces joined, and the staircase of voxels smoothed off.

Conventions: volumes are (z, y, x); trees are x y z in voxels of the volume, the first voxel at 0, radii in voxels of
x. Inside this module trees are in voxels of x along all axes. Equal inputs give equal trees, bit for bit.

Source: Xiao and Peng, APP2: automatic tracing of 3D neuron morphology based on hierarchical pruning of a
gray-weighted image distance-tree, Bioinformatics 29:1448 (2013), doi 10.1093/bioinformatics/btt170.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medwave.core.errors import InputError
from medwave.core.tree import Tree
from medwave.tracing.foreground import Foreground, build_foreground
from medwave.tracing.forest import assemble
from medwave.tracing.grey import GreyScale, threshold_of_counts, to_grey
from medwave.tracing.guard import MOST_FOREGROUND_VOXELS, check_foreground
from medwave.tracing.options import TraceOptions
from medwave.tracing.pieces import large_pieces, trace_pieces
from medwave.tracing.roots import given_roots, nearest_voxels
from medwave.tracing.voxels import VoxelsInMemory


def trace(volume_zyx: np.ndarray, *, options: TraceOptions | None = None) -> Tree:
    """Trace the fibres of a volume.

    Args:
        volume_zyx: (D, H, W), any type of number; what its values mean is ``options.kind``.
        options: all settings; the defaults suit a bright neuron on a dark background.

    Returns:
        A forest, x y z in voxels of the volume, radii in voxels of x. The first tree holds the first root. Roots at
        somata have the kind SOMA, all other nodes are UNDEFINED.

    Raises:
        GeometryError: the volume has not three axes, or no voxels.
        InputError: unusable values, nothing above the threshold, more foreground than can be traced (the message
            says how much, and a better threshold), a given root far from any foreground, or no branch long enough.
    """
    options = options or TraceOptions()
    volume = np.asarray(volume_zyx)
    grey = to_grey(volume, options.kind, options.threshold)
    levels = grey_levels(grey.scale, np.bincount(grey.grey.reshape(-1), minlength=256), options)
    spacing = voxel_spacing(options)
    foreground = build_foreground(
        grey.grey, levels.threshold, spacing, connectivity=options.connectivity, dark_rim=options.cross_gaps
    )
    given = _given(foreground, options)
    pieces = trace_pieces(large_pieces(foreground, options, given), given, levels.radius, options)
    return assemble(pieces, VoxelsInMemory(grey.grey), spacing, options)


class GreyLevels(NamedTuple):
    """Grey levels of a trace: voxels above the first are foreground, at or below the second they end a fibre."""

    threshold: float
    radius: float


def voxel_spacing(options: TraceOptions) -> np.ndarray:
    """(3,) voxel size along z, y, x in voxels of x."""
    return np.array(options.spacing, dtype=np.float64) / options.spacing[2]


def grey_levels(
    scale: GreyScale, counts: np.ndarray, options: TraceOptions, most_voxels: int = MOST_FOREGROUND_VOXELS
) -> GreyLevels:  # fmt: skip
    """The levels of a volume.

    Args:
        counts: (256,) of its grey values.
        most_voxels: of the foreground.

    Raises:
        InputError: when nothing, or more than can be traced, is above the threshold, or that is below all values.
    """
    is_mask = scale.rule == "mask"
    if is_mask:
        level = 0.0
    elif options.threshold is not None:
        level = scale.threshold_level(options.threshold)
    elif options.kind == "probability":
        level = scale.level(0.5)
    else:
        level = threshold_of_counts(counts)
    if not np.isfinite(level) or level < 0:
        raise InputError(f"the threshold {options.threshold} lies below all values of the volume")
    check_foreground(
        counts, scale, level, largest_share=options.largest_foreground_share, is_mask=is_mask, most_voxels=most_voxels
    )
    if options.radius_threshold is None or is_mask:
        return GreyLevels(level, level)
    return GreyLevels(level, max(level, scale.level(options.radius_threshold)))


def _given(foreground: Foreground, options: TraceOptions) -> np.ndarray:
    """Positions of the roots that were asked for."""
    if options.roots is None:
        return np.empty(0, np.int64)
    wanted = np.array(options.roots, dtype=np.float64).reshape(-1, 3)
    return given_roots(wanted, *nearest_voxels(foreground.place, wanted, foreground.spacing))
