"""The loops of the refinement on a CUDA device, as Triton kernels: the numbers of the compiled loops to rounding.

Why they are made so
    At full resolution the memory to be moved is the floor. In float32 volumes, read and written, an iteration with
    local correlation needs: warp 5, sums and coefficients 8, gradient 8, smoothing of the update with its longest
    vector 6, composition 9, smoothing of the field 6: 42 in all. Filters up to
    :data:`FUSED_RADIUS` go in one pass over memory; longer ones filter rows first, which moves the volumes that are
    filtered twice, but does no work that grows with the square of the filter: on an H100 the force with windows of
    radius 2 takes 0.33 ms so and 0.41 in one pass, where its 16 volumes at the speed of a copy take 0.11.
    At coarse scales what counts is that the device never waits: similarity and longest vector stay there, and so does
    the test of convergence (:mod:`medwave.engine.gpu_run`).
    :data:`TILE` and :data:`PROGRAMS` say how a volume is split: rows and columns of a tile, and how many programs are
    wanted before a march along the depth grows longer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medwave.core.errors import InputError
from medwave.engine import gpu_curve, gpu_filters, gpu_lncc, gpu_sampling
from medwave.engine.loops import Similarity
from medwave.engine.torch_loops import TorchLoops
from medwave.fields.filters import gaussian_taps

FUSED_RADIUS = 1
TILE = (8, 32)
PROGRAMS = 2112
BLOCK = 512
_WARPS = 4
_MOST_ELEMENTS = 2**31


def _ceil(n: int, d: int) -> int:
    return -(-n // d)


class Tiling:
    """How programs share a grid ``(D, H, W)``: sizes as kernels take them, and how many programs there are."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        depth, height, width = shape
        self.voxels = depth * height * width
        tiles = _ceil(height, TILE[0]) * _ceil(width, TILE[1])
        chunk = min(depth, _ceil(depth * tiles, PROGRAMS))
        self.count = tiles * _ceil(depth, chunk)
        self.blocks = _ceil(self.voxels, BLOCK)
        self.size = (depth, height, width, self.voxels)
        self.march = (*self.size, chunk)
        self.tile = {"BR": TILE[0], "BW": TILE[1], "num_warps": _WARPS}
        self.block = {"BLOCK": BLOCK, "num_warps": _WARPS}


def _padded(taps: npt.NDArray[np.float32]) -> tuple[int, tuple[float, ...]]:
    """Radius of a filter, at least 1, and its half as five numbers."""
    radius = max(1, int(np.flatnonzero(taps)[-1]))
    return radius, tuple(float(t) for t in np.pad(taps, (0, 5 - len(taps))))


class _Windows:
    """What both local similarities share: sums over boxes of a fixed and a warped image, and the force from them."""

    kernels: Any
    products: int
    bound = 0.0
    """One over the length that no vector of the force reaches."""
    recorded = False
    """Whether iterations are started as a recorded graph: where that was seen on a GPU to give the same numbers."""

    def __init__(self, loops: TritonLoops, fixed: Tensor, weight: Tensor, radius: int, kept: int, *more: float) -> None:
        self.loops, self.fixed, self.weight, self.radius = loops, fixed, weight, radius
        self.tiling = Tiling(fixed.shape)
        self.fused = radius <= FUSED_RADIUS
        self.count = float((2 * radius + 1) ** 3)
        self.total_weight = max(float(weight.sum(dtype=torch.float64)), 1.0)
        self.moments = loops.empty(kept, *fixed.shape)
        self.sums = loops.empty(self.products, *fixed.shape)
        self.rows = self.sums if self.fused else loops.empty(self.products, *fixed.shape)
        self.partial = torch.empty(self.tiling.count, dtype=torch.float64, device=fixed.device)
        source = fixed if self.fused else self._by_rows(fixed, fixed, "powers", 2 if kept == 2 else 4)
        self.kernels.moments[(self.tiling.count,)](
            source, self.moments, *self.tiling.march, self.count, *more, R=radius, FUSED=self.fused, **self.tiling.tile
        )

    def _by_rows(self, x: Tensor, y: Tensor, kind: str, count: int) -> Tensor:
        ones = (1.0,) * 5
        gpu_filters.filter_rows[(self.tiling.blocks,)](
            x, y, self.rows, self.tiling.voxels, x.shape[-1], *ones, R=self.radius, KIND=kind, COUNT=count,
            **self.tiling.block,
        )  # fmt: skip
        return self.rows

    def enqueue(self, warped: Tensor, out: Tensor) -> None:
        """Write the force into ``out`` and the parts of the similarity into ``partial``, without waiting."""
        tiling, filters = self.tiling, {"R": self.radius, "FUSED": self.fused, **self.tiling.tile}
        source = warped if self.fused else self._by_rows(warped, self.fixed, "products", self.products)
        self.kernels.coefficients[(tiling.count,)](
            source, self.fixed, self.moments, self.weight, self.sums, self.partial, *tiling.march, self.count,
            self.steady, **filters,
        )  # fmt: skip
        source = self.sums if self.fused else self._by_rows(self.sums, self.sums, "stored", self.products)
        self.kernels.force[(tiling.count,)](source, self.fixed, warped, out, *tiling.march, self.bound, **filters)

    def force(self, warped: Tensor, out: Tensor) -> float:
        with torch.cuda.device_of(warped):
            self.enqueue(warped, out)
        return float(self.partial.sum()) / self.total_weight


class LocalCorrelation(_Windows):
    """See :class:`medwave.engine.lncc_kernels.LocalCorrelation`."""

    kernels, products, recorded = gpu_lncc, 3, True

    def __init__(
        self, loops: TritonLoops, fixed: Tensor, weight: Tensor, radius: int, epsilon: float = 1e-7,
        limit: float = np.inf,
    ) -> None:  # fmt: skip
        self.bound = 1 / limit
        self.steady = epsilon * float((2 * radius + 1) ** 6)
        super().__init__(loops, fixed, weight, radius, 2)


class LocalCurve(_Windows):
    """See :class:`medwave.engine.curve_kernels.LocalCurve`."""

    kernels, products = gpu_curve, 4

    def __init__(
        self, loops: TritonLoops, fixed: Tensor, weight: Tensor, radius: int, ridge: float = 3e-5, least: float = 1e-4
    ) -> None:
        count = float((2 * radius + 1) ** 3)
        self.steady = least * count
        super().__init__(loops, fixed, weight, radius, 5, ridge * count)


class TritonLoops(TorchLoops):
    """The operations of :class:`medwave.engine.loops.Loops` on one CUDA device.

    What is needed once per scale, and mutual information, is left to torch (:class:`TorchLoops`).

    Raises:
        InputError: for arrays of 2^31 elements or more.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.open = torch.zeros(1, dtype=torch.int32, device=device)  # the gate of what is always written

    def empty(self, *shape: int) -> Tensor:
        if np.prod(shape) >= _MOST_ELEMENTS:
            raise InputError(f"the loops for a GPU take arrays below 2^31 elements, got {shape}; use --device cpu")
        return super().empty(*shape)

    def similarity(self, metric: str, fixed: Tensor, weight: Tensor, radius: int, limit: float = np.inf) -> Similarity:
        with torch.cuda.device_of(fixed):
            if metric == "lncc":
                return LocalCorrelation(self, fixed, weight, radius, limit=limit)
            if metric == "curve":
                return LocalCurve(self, fixed, weight, radius)
        return super().similarity(metric, fixed, weight, radius)

    def warp(self, image: Tensor, field: Tensor, out: Tensor) -> None:
        tiling = Tiling(out.shape)
        with torch.cuda.device_of(out):
            gpu_sampling.warp[(tiling.blocks,)](image, field, out, *tiling.size, **tiling.block)

    def smooth(self, field: Tensor, sigma_voxels: float, out: Tensor) -> None:
        tiling = Tiling(out.shape[1:])
        radius, _ = _padded(gaussian_taps(sigma_voxels))
        rows = None if radius <= FUSED_RADIUS else torch.empty_like(field)
        with torch.cuda.device_of(out):
            self.smooth_gated(field, sigma_voxels, out, self.open, torch.empty(tiling.count, device=out.device), rows)

    def smooth_gated(
        self, field: Tensor, sigma_voxels: float, out: Tensor, gate: Tensor, longest: Tensor, rows: Tensor | None
    ) -> None:
        """Smooth unless ``gate`` is set; per program the largest squared length of a vector, whatever the gate.

        ``rows`` is memory like the field's, for filters that do not go in one pass.
        """
        tiling = Tiling(out.shape[1:])
        radius, taps = _padded(gaussian_taps(sigma_voxels))
        fused = radius <= FUSED_RADIUS
        if not fused:
            gpu_filters.filter_rows[(tiling.blocks,)](
                field, field, rows, tiling.voxels, out.shape[-1], *taps, R=radius, KIND="stored", COUNT=3,
                **tiling.block,
            )  # fmt: skip
            field = rows
        gpu_filters.smooth_field[(tiling.count,)](
            field, out, gate, longest, *tiling.march, *taps, R=radius, FUSED=fused, **tiling.tile
        )

    def compose(self, outer: Tensor, inner: Tensor, scale: float, out: Tensor) -> None:
        self.compose_scaled(outer, inner, torch.full((1,), scale, device=out.device), out)

    def compose_scaled(self, outer: Tensor, inner: Tensor, scale: Tensor, out: Tensor) -> None:
        """:meth:`compose` with the scale in memory of the device."""
        tiling = Tiling(out.shape[1:])
        with torch.cuda.device_of(out):
            gpu_sampling.compose[(tiling.blocks,)](outer, inner, scale, out, *tiling.size, **tiling.block)

    def folded(self, field: Tensor, least: float) -> Tensor:
        out, tiling = self.empty(*field.shape[1:]), Tiling(field.shape[1:])
        with torch.cuda.device_of(out):
            gpu_sampling.folded[(tiling.blocks,)](field, out, least, *tiling.size, **tiling.block)
        return out
