"""Instance refinement: a diffeomorphic displacement field by compositive updates, coarse to fine, without weights.

At each iteration the moving image is warped by the current field u; the gradient of the similarity by a displacement
of the warped image, its long vectors shortened where there is a ``force_limit``, is smoothed
(``update_sigma``: fluid regularisation), scaled so that its longest vector is ``step_voxels``, and composed,
``u <- u o (id + d) + d``; the field is then smoothed lightly (``field_sigma``: elastic regularisation). Steps below a
voxel that are smoothed over a voxel compose to an invertible map, and coarse scales carry more elastic smoothing than
fine ones. (Vercauteren et al., NeuroImage 45:S61-S72, 2009, doi 10.1016/j.neuroimage.2008.10.040.)
Folds that are left are smoothed away at the end (:func:`medwave.engine.unfold.unfold`).

Fields are ``(3, D, H, W)`` float32 in voxels of the grid they are handed on, pull-back. The loop runs on compiled
loops (:class:`medwave.engine.loops.CpuLoops`), on Triton kernels (:class:`medwave.engine.gpu_loops.TritonLoops`) or on
torch operators (:class:`medwave.engine.torch_loops.TorchLoops`) with the same numbers; images go there once and the
field comes back once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError
from medwave.engine.fixed_contrast import FixedContrast
from medwave.engine.loops import CpuLoops, Level, Loops, converged, metric_at
from medwave.engine.pyramid import block_means
from medwave.engine.refine_terms import Channel, FurtherChannels, LandmarkPull, Landmarks, touched, without

FloatVolume = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Progress:
    """Where the refinement stands: handed to the callback after each iteration."""

    level: int
    levels: int
    iteration: int
    iterations: int
    similarity: float


@dataclass(frozen=True)
class Refinement:
    """Outcome of a refinement.

    Attributes:
        displacement_voxels: ``(3, D, H, W)`` float32, pull-back.
        similarity: for each level the similarity at each iteration.
    """

    displacement_voxels: FloatVolume
    similarity: list[list[float]]


def _level_weight(loops: Loops, weight: Any, excluded: npt.NDArray[np.bool_] | None, factor: int, radius: int) -> Any:
    """Weight of the window centres of a scale: no window of this half-width may touch an excluded voxel."""
    left_out = None if excluded is None else touched(excluded, factor, radius)
    return without(loops, loops.coarsen(weight, factor), left_out)


def refine(
    fixed: FloatVolume,
    moving: FloatVolume,
    levels: tuple[Level, ...],
    *,
    formulation: str = "compositive",
    metric: str = "lncc",
    radius_voxels: int = 2,
    weight: FloatVolume | None = None,
    excluded: npt.NDArray[np.bool_] | None = None,
    initial_voxels: FloatVolume | None = None,
    step_voxels: float = 0.65,
    loops: Loops | None = None,
    channels: Sequence[Channel] = (),
    landmarks: Landmarks | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Refinement:
    """Find the displacement that makes ``moving(p + u(p))`` like ``fixed(p)``.

    Args:
        fixed, moving: ``(D, H, W)`` float32 on one grid, roughly aligned, intensities about 0 to 1.
        levels: the scales, coarsest first; factors are powers of two.
        formulation: ``"compositive"`` updates of the displacement, or ``"wavelet"`` coefficients of a stationary
            velocity (:mod:`medwave.engine.refine_wavelet`); ``initial_voxels`` is then taken as a velocity.
        metric: ``"lncc"`` (local squared correlation), ``"curve"`` (local curve; at the coarse scales local correlation
            with the moving image in the contrast of the fixed one: :func:`medwave.engine.loops.metric_at`) or ``"mi"``
            (global mutual information).
        radius_voxels: half-width of the local window, 1 to 4.
        weight: ``(D, H, W)``, how much the window about a voxel counts.
        excluded: ``(D, H, W)``, voxels that no window may touch, at any scale.
        initial_voxels: field to start from, ``(3, D, H, W)`` in voxels of the grid.
        step_voxels: longest vector of an update.
        loops: where the loops run; compiled CPU loops by default.
        channels: further images of the two subjects on the same grid; the similarity is the mean over all.
        landmarks: points that belong together, in voxels of the grid. With them all iterations are made.
        report: called after each iteration.

    Raises:
        GeometryError: when the arrays do not have one shape.
        InputError: when there is no level, or the wavelet formulation is asked for channels or landmarks.
    """
    _check_shapes(fixed.shape, moving=moving, weight=weight, excluded=excluded, initial_voxels=initial_voxels)
    for channel in channels:
        _check_shapes(
            fixed.shape, channel_fixed=channel.fixed, channel_moving=channel.moving, channel_missing=channel.missing
        )
    terms: dict[str, Any] = {"channels": channels, "landmarks": landmarks} if channels or landmarks else {}
    if terms and formulation != "compositive":
        raise InputError(f"several channels and landmarks need the compositive formulation, not {formulation!r}")
    loops = loops or CpuLoops()
    weight = np.ones(fixed.shape, dtype=np.float32) if weight is None else weight
    whole = [loops.upload(image) for image in (fixed, moving, weight)]
    field: Any = None
    run: Any = None
    histories = []
    for index, level in enumerate(levels):
        chosen = metric_at(metric, level.factor)
        reach = 0 if chosen == "mi" else radius_voxels
        images = [loops.coarsen(image, level.factor) for image in whole[:2]]
        images.append(_level_weight(loops, whole[2], excluded, level.factor, reach))
        further = _coarser(terms, level.factor, reach)
        shape = tuple(images[0].shape)
        if field is not None:
            reached, before = run.displacement(field), levels[index - 1].factor
            field = loops.enlarge(field, shape, before // level.factor)
        else:
            field = loops.upload(_start(initial_voxels, shape, level.factor))
            reached, before = field, level.factor
        if chosen != metric:
            alike = FixedContrast(loops, reached, before, whole[2], excluded)
            images[1] = loops.coarsen(loops.upload(alike.moving(*whole[:2])), level.factor)
            further = alike.channels(further, channels, level.factor)
        run = _run_of(formulation)(loops, level, chosen, radius_voxels, step_voxels, *images, **further)
        field, history = run(field, lambda i, s, at=index: report and report(
            Progress(at, len(levels), i, levels[at].iterations, s)))  # fmt: skip
        histories.append(history)
    if field is None:
        raise InputError("refinement needs at least one level")
    field = loops.unfold(run.displacement(field))
    return Refinement(loops.download(loops.enlarge(field, fixed.shape, levels[-1].factor)), histories)


def _start(initial_voxels: FloatVolume | None, shape: tuple[int, ...], factor: int) -> FloatVolume:
    """The field that a scale of this shape starts from."""
    if initial_voxels is None:
        return np.zeros((3, *shape), dtype=np.float32)
    return np.stack([block_means(component, factor) / factor for component in initial_voxels]).astype(np.float32)


def _coarser(terms: dict[str, Any], factor: int, radius: int) -> dict[str, Any]:
    """Channels and landmarks at a scale, whose windows have this half-width."""
    if not terms:
        return {}
    channels = [channel.coarser(factor, radius) for channel in terms["channels"]]
    landmarks = terms["landmarks"]
    return {"channels": channels, "landmarks": landmarks and landmarks.coarser(factor)}


def _run_of(formulation: str) -> Any:
    """The class that runs the iterations of a scale."""
    if formulation == "compositive":
        return CompositiveRun
    from medwave.engine.refine_wavelet import WaveletVelocityRun  # torch takes two seconds to import

    return WaveletVelocityRun


def _check_shapes(shape: tuple[int, ...], **arrays: npt.NDArray[Any] | None) -> None:
    """The compiled loops trust shapes: a wrong one would read foreign memory."""
    for name, array in arrays.items():
        expected = (3, *shape) if name == "initial_voxels" else shape
        if array is not None and array.shape != expected:
            raise GeometryError(f"{name} must have shape {expected} beside a fixed image of {shape}, got {array.shape}")


class CompositiveRun:
    """The iterations of one scale; all memory is taken once."""

    def __init__(
        self, loops: Loops, level: Level, metric: str, radius: int, step: float,
        fixed: Any, moving: Any, weight: Any, channels: Sequence[Channel] = (), landmarks: Landmarks | None = None,
    ) -> None:  # fmt: skip
        self.loops, self.level, self.step = loops, level, step
        self.further = FurtherChannels(loops, channels, metric, radius, weight, level.force_limit) if channels else None
        self.pull = LandmarkPull(loops, landmarks, step, fixed.shape) if landmarks else None
        self.moving = moving
        self.similarity = loops.similarity(metric, fixed, weight, radius, level.force_limit)
        self.warped = loops.empty(*fixed.shape)
        self.update, self.smoothed = loops.empty(3, *fixed.shape), loops.empty(3, *fixed.shape)

    def displacement(self, field: Any) -> Any:
        """The displacement of this run's unknown: itself."""
        return field

    def __call__(self, field: Any, report: Callable[[int, float], Any]) -> tuple[Any, list[float]]:
        """Work on a field of the loops' arrays, in place; returns it and the similarity at each iteration."""
        loops, level = self.loops, self.level
        if hasattr(self.similarity, "enqueue") and self.further is None and self.pull is None:
            from medwave.engine.gpu_run import iterate  # triton, where it is in use

            return field, iterate(self, field, report)
        history: list[float] = []
        for iteration in range(level.iterations):
            loops.warp(self.moving, field, self.warped)
            value = self.similarity.force(self.warped, self.update)
            history.append(value if self.further is None else self.further.join(field, self.update, value))
            loops.smooth(self.update, level.update_sigma, self.smoothed)
            longest = loops.largest_length(self.smoothed)
            report(iteration, history[-1])
            if self.pull is None and (longest < 1e-12 or converged(history)):
                break
            scale = self.step / max(longest, 1e-12)
            if self.pull is not None:
                self.smoothed *= scale
                self.pull.add(field, self.smoothed)
                scale = 1.0
            loops.compose(field, self.smoothed, scale, self.update)
            loops.smooth(self.update, level.field_sigma, field)
        return field, history
