"""What the refinement runs on: scales, the array operations of an iteration, and when to stop.

The operations come as compiled loops over numpy arrays (:class:`CpuLoops`), as Triton kernels on a CUDA device
(:class:`medwave.engine.gpu_loops.TritonLoops`) or as torch operators on any device
(:class:`medwave.engine.torch_loops.TorchLoops`), with the same numbers.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from medwave.core.threads import run_slabs
from medwave.engine.curve_kernels import LocalCurve
from medwave.engine.lncc_kernels import LocalCorrelation
from medwave.engine.mi_force import GlobalMutualInformation
from medwave.engine.pyramid import block_means, enlarge
from medwave.engine.unfold import unfold
from medwave.fields.filters import gaussian_taps, smooth
from medwave.fields.kernels import compose_scaled, largest_length, warp_border

FloatVolume = npt.NDArray[np.float32]
_COARSE = 4
_CURVE_UPDATE_SIGMA = 1.5
_CURVE_FIELD_SIGMAS = {8: 0.5, 4: 0.5, 2: 0.46, 1: 0.46}
"""By the size of a scale's voxels; less leaves outlines of ventricles nearer, more suits smooth deformations."""
CONVERGENCE = (10, 1e-4)
"""Iterations over which the similarity must rise, and by which share of itself."""


@dataclass(frozen=True)
class Level:
    """One scale of the refinement.

    Attributes:
        factor: voxels of the working grid per voxel of this scale.
        iterations: number of updates at most; the loop ends earlier when the similarity stops rising.
        update_sigma: smoothing of each update, in voxels of this scale.
        field_sigma: smoothing of the field after each update, in voxels of this scale.
        force_limit: length that no vector of the force of the local correlation reaches. The longest vector of an
            update is one step: without a limit a few edges of much contrast take it, and the rest hardly moves.
    """

    factor: int
    iterations: int
    update_sigma: float
    field_sigma: float
    force_limit: float = np.inf


class Similarity(Protocol):
    """Force of a fixed image on warped images.

    One that has a method ``enqueue`` leaves its value on the device: see :mod:`medwave.engine.gpu_run`.
    """

    def force(self, warped: Any, out: Any) -> float:
        """Write the gradient by displacement ``(3, D, H, W)`` and return the similarity."""


class Loops(Protocol):
    """The array operations of the refinement; arrays are numpy's or torch's, whichever the class works on."""

    def upload(self, array: FloatVolume) -> Any: ...
    def download(self, array: Any) -> FloatVolume: ...
    def empty(self, *shape: int) -> Any: ...
    def coarsen(self, image: Any, factor: int) -> Any: ...
    def enlarge(self, field: Any, shape: tuple[int, ...], ratio: int) -> Any: ...
    def unfold(self, field: Any) -> Any: ...
    def similarity(self, metric: str, fixed: Any, weight: Any, radius: int, limit: float = np.inf) -> Similarity: ...
    def warp(self, image: Any, field: Any, out: Any) -> None: ...
    def smooth(self, field: Any, sigma_voxels: float, out: Any) -> None: ...
    def largest_length(self, field: Any) -> float: ...
    def compose(self, outer: Any, inner: Any, scale: float, out: Any) -> None: ...


class CpuLoops:
    """Compiled loops over numpy arrays; threads as torch is set."""

    def upload(self, array: FloatVolume) -> FloatVolume:
        return np.ascontiguousarray(array, dtype=np.float32)

    def download(self, array: FloatVolume) -> FloatVolume:
        return array

    def empty(self, *shape: int) -> FloatVolume:
        return np.empty(shape, dtype=np.float32)

    def coarsen(self, image: FloatVolume, factor: int) -> FloatVolume:
        return block_means(image, factor)

    def enlarge(self, field: FloatVolume, shape: tuple[int, ...], ratio: int) -> FloatVolume:
        return enlarge(field, shape, ratio)

    def unfold(self, field: FloatVolume) -> FloatVolume:
        return unfold(field)

    def similarity(
        self, metric: str, fixed: FloatVolume, weight: FloatVolume, radius: int, limit: float = np.inf
    ) -> Similarity:
        if metric == "mi":
            return GlobalMutualInformation(fixed, weight)
        if metric == "curve":
            return LocalCurve(fixed, weight, radius)
        return LocalCorrelation(fixed, weight, radius, limit=limit)

    def warp(self, image: FloatVolume, field: FloatVolume, out: FloatVolume) -> None:
        run_slabs(warp_border, len(out), image, field, out)

    def smooth(self, field: FloatVolume, sigma_voxels: float, out: FloatVolume) -> None:
        smooth(field, gaussian_taps(sigma_voxels), out)

    def largest_length(self, field: FloatVolume) -> float:
        return largest_length(field)

    def compose(self, outer: FloatVolume, inner: FloatVolume, scale: float, out: FloatVolume) -> None:
        run_slabs(compose_scaled, outer.shape[1], outer, inner, np.float32(scale), out)


def loops_for(device: str) -> Loops:
    """The loops of the refinement for a device name.

    Raises:
        DeviceError: when torch does not know the device or does not see it.
    """
    if device == "cpu":
        return CpuLoops()
    from medwave.engine.predict import usable_device  # torch takes two seconds, which the CPU loops do without

    chosen = usable_device(device)
    if chosen.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from medwave.engine.gpu_loops import TritonLoops

        return TritonLoops(chosen)
    from medwave.engine.torch_loops import TorchLoops

    return TorchLoops(chosen)


def metric_at(metric: str, factor: int) -> str:
    """The metric of a scale: local correlation leads where coarse voxels mix tissues, so that no local curve fits.

    It is that of the moving image in the contrast of the fixed one (:mod:`medwave.engine.fixed_contrast`).
    """
    return "lncc" if metric == "curve" and factor >= _COARSE else metric


def level_for(metric: str, level: Level) -> Level:
    """A scale as a metric takes it.

    A local curve also fits noise, so that its updates are smoothed more strongly; fields are smoothed alike in all
    presets, the coarse ones less than for other metrics (``benchmarks/contrasts.py``, ``benchmarks/ventricles.py``).
    """
    if metric != "curve":
        return level
    leads = metric_at(metric, level.factor) == "curve"
    return replace(
        level,
        update_sigma=max(level.update_sigma, _CURVE_UPDATE_SIGMA if leads else 0.0),
        field_sigma=_CURVE_FIELD_SIGMAS[level.factor],
    )


def converged(history: list[float]) -> bool:
    """Whether the similarity rose by less than a share of itself over the last iterations (:data:`CONVERGENCE`)."""
    window, tolerance = CONVERGENCE
    return len(history) > 2 * window and max(history[-window:]) <= max(history[:-window]) * (1 + tolerance)
