"""Refuse what cannot end well: a threshold that takes much of the volume for fibre makes a trace run for minutes and
return a tangle. Counting is done before anything else, and the message names the way out."""

from __future__ import annotations

import numpy as np

from medwave.core.errors import InputError
from medwave.tracing.grey import GreyScale

MOST_FOREGROUND_VOXELS = 30_000_000
"""About 6 GB of working memory and a minute: of an array, or of one piece of a volume that is seen in blocks."""


def check_foreground(
    counts: np.ndarray, scale: GreyScale, level: float, *, largest_share: float, is_mask: bool,
    most_voxels: int = MOST_FOREGROUND_VOXELS,
) -> None:  # fmt: skip
    """Compare the foreground (grey values above ``level``) to what can be traced.

    Args:
        counts: (256,) of the grey values of a volume.
        most_voxels: of the foreground.

    Raises:
        InputError: no voxel is above the threshold; more than ``largest_share`` of the volume is; or more than
            ``most_voxels`` are.
    """
    above = np.append(np.cumsum(counts[::-1])[::-1], 0)  # above[v]: voxels with at least grey value v
    total = int(counts.sum())
    threshold = scale.value(level) if scale.cut is None else scale.cut
    foreground = int(above[int(np.clip(np.floor(level) + 1, 0, 256))])
    if foreground == 0:
        if is_mask:
            raise InputError("the mask is empty: there is nothing to trace")
        brightest = scale.value(float(np.flatnonzero(counts)[-1]))
        raise InputError(
            f"no voxel is above the threshold {threshold:.4g} (the brightest is {brightest:.4g}): there is "
            "nothing to trace. Lower the threshold, or check that the volume is the right one."
        )
    share = foreground / total
    most = min(largest_share * total, most_voxels)
    if foreground <= most:
        return
    rule = f"at most {largest_share:.0%} may be" if share > largest_share else f"at most {int(most)} voxels may be"
    if is_mask:
        raise InputError(
            f"{share:.1%} of the mask ({foreground} voxels) is foreground, {rule}: a trace would run for long and be a "
            "tangle. Check that fibres and not the background are marked, or raise the largest foreground share."
        )
    below = 0.5 if scale.rule == "linear" else 1.0  # grey values are rounded there
    better = scale.value(float(np.flatnonzero(above <= min(0.01 * total, most))[0]) - below)
    raise InputError(
        f"{share:.1%} of the volume ({foreground} voxels) is above the threshold {threshold:.4g}, {rule}: a "
        f"trace would run for long and be a tangle. Raise the threshold ({better:.4g} leaves 1 % or less), or trace a "
        "segmentation of the volume, or raise the largest foreground share."
    )
