"""Which similarity suits a pair of images: local correlation where contrasts are alike, else a local curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from medwave.core.geometry import Volume
from medwave.engine.loops import Loops
from medwave.engine.pyramid import block_means
from medwave.engine.refine import refine
from medwave.engine.refine_terms import Channel
from medwave.workflows.options import RegisterOptions
from medwave.workflows.pair import WorkingPair, resample
from medwave.workflows.presets import levels_for

FloatVolume = npt.NDArray[np.float32]
# After the affine the share is .86 to .99 for T1 of two people (.82 of single voxels, whose noise and partial volumes
# bend the curve) and .67 to .72 for T2; after the coarsest scale .88 to .97, and .92. T1 and FLAIR of one head have at
# most .77 and .74.
_LEAST_CORRELATION, _LEAST_SHARE = 0.3, 0.86
_BINS = 40


def chosen_metric(
    pair: WorkingPair, options: RegisterOptions, channels: Sequence[Channel], initial: FloatVolume | None, loops: Loops
) -> str:
    """The metric asked for, or the one that suits the images as the refinement begins.

    The affine leaves people so far apart that alike contrasts may not look so (T2 of heads with ventricles of other
    sizes do not); what mutual information, which takes any contrast, aligns at the coarsest scale is looked at once
    more.
    """
    if options.metric != "auto":
        return options.metric
    region = pair.subject & (pair.weight > 0)
    if pair.excluded is not None:
        region &= ~pair.excluded
    compared = [Channel(pair.fixed, pair.moving), *channels]
    if alike(_moved(compared, pair, initial), region):
        return "lncc"
    if not options.deformable or options.formulation != "compositive":
        return "curve"
    coarsest = levels_for(options.preset, "mi", pair.grid.shape)[:1]
    coarse = refine(
        pair.fixed, pair.moving, coarsest, metric="mi", radius_voxels=options.radius, weight=pair.weight,
        excluded=pair.excluded, initial_voxels=initial, loops=loops, channels=channels,
    )  # fmt: skip
    return "lncc" if alike(_moved(compared, pair, coarse.displacement_voxels), region) else "curve"


def _moved(channels: Sequence[Channel], pair: WorkingPair, field: FloatVolume | None) -> list[Channel]:
    """Channels whose moving images went through a displacement on the working grid."""
    if field is None:
        return list(channels)
    return [replace(c, moving=resample(Volume(c.moving, pair.grid), np.eye(4), pair.grid, field)) for c in channels]


def alike(channels: Sequence[Channel], region: np.ndarray) -> bool:
    """Whether the two images of every channel have alike contrast, so that local correlation serves.

    Their intensities must go together, and a straight line must tell about as much of one from the other as any curve
    does (squared correlation against the correlation ratio; Roche et al., MICCAI 1998, doi 10.1007/BFb0056301): T1 and
    FLAIR of one head go together too, by a curve that rises and falls. Both are measured on means of 2x2x2 voxels.

    Args:
        channels: the pairs of images.
        region: where to measure, ``(D, H, W)`` bool.
    """
    inside = _halved(region) > 0.99
    if not inside.any():
        return all(_straight(channel.fixed[region], channel.moving[region]) for channel in channels)
    halves = ((_halved(channel.fixed)[inside], _halved(channel.moving)[inside]) for channel in channels)
    return all(_straight(one, other) for one, other in halves)


def _halved(data: np.ndarray) -> np.ndarray:
    return block_means(np.asarray(data, dtype=np.float32), 2)


def _straight(one: np.ndarray, other: np.ndarray) -> bool:
    if one.min() == one.max() or other.min() == other.max():  # such as a mask, inside of which nothing varies
        return False
    correlation = float(np.corrcoef(one, other)[0, 1])
    ratio = max(_correlation_ratio(one, other), _correlation_ratio(other, one))
    return correlation > _LEAST_CORRELATION and correlation**2 >= _LEAST_SHARE * ratio


def _correlation_ratio(values: np.ndarray, by: np.ndarray) -> float:
    """Share of the variance of values that their means over bins of another image explain."""
    bins = (np.clip(by, 0.0, 1.2) * _BINS).astype(np.int64)
    counts = np.bincount(bins)
    means = np.bincount(bins, values) / np.maximum(counts, 1)
    return float(np.var(means[bins]) / max(float(np.var(values)), 1e-12))
