"""Affine start: the 4x4 matrix from the fixed world to the moving world (RAS+, mm) that aligns two images.

The search cannot be led astray by a bad header: rotations over the whole sphere are tried at a coarse scale about the
centres of mass, beside the header's own placement and the principal axes; the best ones are refined as rigid motions,
then with a common scale, then as a full affine, each by BFGS on normalised mutual information and its gradient (the
mean over all channels). All choices are deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from medwave.core.geometry import Float64Array, Grid, Volume
from medwave.core.masks import grown
from medwave.core.threads import run_each
from medwave.engine.minimise import minimise
from medwave.engine.mutual_information import MeanInformation, MutualInformation, quantise
from medwave.engine.pyramid import coarsen_to_spacing, foreground

_STEPS_ACROSS = (20, 48, 80)  # samples across the subject at the three scales
_BINS = (16, 32, 32)
_MOST_SAMPLES = (8_000, 50_000, 150_000)
_RANKING_SAMPLES = 2_500  # are enough to put rotations in order
_IDENTITY = np.eye(4)
_FEWEST_VOXELS = 30  # a subject of fewer says nothing about its place
_LEAST_SIMILARITY = 1.02  # normalised mutual information: noise stays below, T1 and FLAIR of two people reach 1.04


@dataclass(frozen=True)
class AffineResult:
    """Outcome of :func:`align`.

    Attributes:
        matrix: 4x4, fixed world mm -> moving world mm (RAS+).
        similarity_before: normalised mutual information with the header's placement (1 = unrelated), the mean over
            channels.
        similarity_after: the same after alignment.
        failed: whether the result should not be trusted.
        reason: why, in words; empty when it did not fail.
    """

    matrix: Float64Array
    similarity_before: float
    similarity_after: float
    failed: bool
    reason: str


@dataclass(frozen=True)
class _Subject:
    """One image at one scale: its foreground with its first two moments in mm, and the voxels that have no say."""

    data: npt.NDArray[np.float32]
    grid: Grid
    mask: npt.NDArray[np.bool_]
    left_out: npt.NDArray[np.bool_]

    @classmethod
    def from_volume(cls, volume: Volume, spacing_mm: float, exclude: Volume | None = None) -> _Subject:
        data, grid = coarsen_to_spacing(np.asarray(volume.data, dtype=np.float32), volume.grid, spacing_mm)
        mask, left_out = foreground(data), np.zeros(data.shape, dtype=bool)
        if mask.sum() < _FEWEST_VOXELS:
            mask[:] = True
        if exclude is not None:
            share = _share_left_out(exclude, spacing_mm, grid)
            if (mask & (share < 0.25)).sum() >= _FEWEST_VOXELS:  # else this scale is too coarse for what is left
                left_out = share >= 0.25
        return cls(data, grid, mask & ~left_out, left_out)

    @cached_property
    def positions_mm(self) -> Float64Array:
        return self.grid.to_mm(np.argwhere(self.mask))

    @cached_property
    def center_mm(self) -> Float64Array:
        return np.asarray(self.positions_mm.mean(axis=0))

    @property
    def intensity_range(self) -> tuple[float, float]:
        low, high = np.percentile(self.data[self.mask], [1.0, 99.0])
        return min(float(low), float(self.data.min())) if low > 0 else float(low), float(high)


def _share_left_out(exclude: Volume, spacing_mm: float, grid: Grid) -> npt.NDArray[np.float32]:
    """How much of each voxel of a grid lies in a mask, which may lie on another grid of the same world.

    Beyond its own grid a mask goes on as it ends: around a brain all is left out, around a lesion nothing is.
    """
    share, own = coarsen_to_spacing(exclude.data.astype(np.float32), exclude.grid, spacing_mm)
    if own.matches(grid):
        return share
    nearest = np.rint(own.to_voxels(grid.to_mm(np.indices(grid.shape).reshape(3, -1).T))).astype(np.int64)
    i, j, k = np.clip(nearest, 0, np.asarray(own.shape) - 1).T
    return share[i, j, k].reshape(grid.shape)


def _similarity(
    fixed: _Subject, moving: _Subject, bins: int, margin_voxels: int, most_samples: int
) -> MutualInformation:
    """NMI sampled on the fixed subject and a rim of background around it, without the voxels that are left out."""
    region = grown(fixed.mask, margin_voxels) & ~fixed.left_out
    moving_bins = quantise(moving.data, *moving.intensity_range, bins)
    moving_bins[moving.left_out] = np.nan  # a sample that meets one does not count
    places = np.flatnonzero(region)
    indices = np.stack(np.unravel_index(places[:: -(-len(places) // most_samples)], region.shape), axis=1)
    fixed_bins = quantise(fixed.data[tuple(indices.T)], *fixed.intensity_range, bins)
    return MutualInformation(
        points_mm=np.ascontiguousarray(fixed.grid.to_mm(indices)),
        fixed_bins=np.rint(fixed_bins).astype(np.int64),
        moving=moving_bins,
        moving_affine=moving.grid.affine,
        bins=bins,
    )


def _turn(vector: Float64Array) -> Float64Array:
    """The rotation about a vector by its length in radians (Rodrigues)."""
    x, y, z = vector.tolist()  # plain numbers: this runs some thousand times, and arrays of three are slow
    angle = math.sqrt(x * x + y * y + z * z)
    half = angle / 2
    s = math.sin(angle) / angle if angle > 1e-9 else 1.0
    c = 0.5 * ((math.sin(half) / half) ** 2 if half > 1e-9 else 1.0)
    return np.array([
        [1.0 - c * (y * y + z * z), c * x * y - s * z, c * x * z + s * y],
        [c * x * y + s * z, 1.0 - c * (x * x + z * z), c * y * z - s * x],
        [c * x * z - s * y, c * y * z + s * x, 1.0 - c * (x * x + y * y)],
    ])  # fmt: skip


class _Motion:
    """A matrix about two centres as a vector of parameters of similar weight: rigid, similarity or affine."""

    def __init__(self, kind: str, start: Float64Array, fixed_center: Float64Array, radius_mm: float) -> None:
        self.kind, self.start, self.center, self.radius = kind, start, fixed_center, radius_mm
        self.size = {"rigid": 6, "similarity": 7, "affine": 12}[kind]
        self._jacobian: Float64Array | None = None

    def matrix(self, parameters: Float64Array) -> Float64Array:
        p = parameters / self.radius
        if self.kind == "affine":
            linear = _IDENTITY[:3, :3] + p[3:12].reshape(3, 3)
        else:
            linear = _turn(p[3:6]) * (math.exp(p[6]) if self.size == 7 else 1.0)
        step = _IDENTITY.copy()
        step[:3, :3] = linear
        step[:3, 3] = parameters[:3] + self.center - linear @ self.center
        return np.asarray(self.start @ step)

    def jacobian(self, parameters: Float64Array) -> Float64Array:
        """d matrix / d parameters, ``(size, 3, 4)``, by central differences (cheap and plenty accurate)."""
        if self.kind == "affine" and self._jacobian is not None:  # the matrix is linear in its parameters
            return self._jacobian
        h = 1e-4 * self.radius
        shifts = np.eye(self.size)[3:] * h
        slopes = [(self.matrix(parameters + s) - self.matrix(parameters - s))[:3] / (2 * h) for s in shifts]
        moves = np.zeros((3, 3, 4))
        moves[:, :, 3] = self.start[:3, :3].T  # translations are exact
        self._jacobian = np.concatenate([moves, slopes])
        return self._jacobian


def _optimise(
    similarity: MeanInformation, kind: str, start: Float64Array, fixed: _Subject, iterations: int
) -> tuple[Float64Array, float]:
    """Maximise NMI from ``start``; parameters are in mm of motion at the rim of the subject."""
    radius = float(np.sqrt(((fixed.positions_mm - fixed.center_mm) ** 2).sum(axis=1).mean()))
    motion = _Motion(kind, start, fixed.center_mm, radius)

    def objective(parameters: Float64Array) -> tuple[float, Float64Array]:
        score, gradient = similarity.value_and_gradient(motion.matrix(parameters))
        return -1e3 * score, -1e3 * np.tensordot(motion.jacobian(parameters), gradient, axes=([1, 2], [0, 1]))

    found, value = minimise(objective, np.zeros(motion.size), iterations=iterations, tolerance=1e-7)
    return motion.matrix(found), -value / 1e3


def _about_centers(rotations: Float64Array, fixed: _Subject, moving: _Subject) -> Float64Array:
    """Matrices ``(N, 4, 4)`` that turn about the centres of mass."""
    matrices = np.tile(np.eye(4), (len(rotations), 1, 1))
    matrices[:, :3, :3] = rotations
    matrices[:, :3, 3] = moving.center_mm - rotations @ fixed.center_mm
    return matrices


def _principal_axes(subject: _Subject) -> Float64Array:
    _, vectors = np.linalg.eigh(np.cov(subject.positions_mm.T))
    return np.asarray(vectors)


def _sphere_of_rotations(count: int) -> Float64Array:
    """Rotations spread evenly over SO(3): a super-Fibonacci spiral (Alexa, CVPR 2022)."""
    s = np.arange(count) + 0.5
    t, d = s / count, 2 * np.pi * s
    phi, psi = np.sqrt(2.0), 1.533751168755204288118041
    r, big = np.sqrt(t), np.sqrt(1 - t)
    x, y, z, w = r * np.sin(d / phi), r * np.cos(d / phi), big * np.sin(d / psi), big * np.cos(d / psi)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def _candidates(fixed: _Subject, moving: _Subject) -> Float64Array:
    """Starting matrices ``(N, 4, 4)``: the header's placement first, then about the centres of mass."""
    rotations = [np.eye(3)]
    rotations += [
        _turn(np.radians([0, 0, c])) @ _turn(np.radians([0, b, 0])) @ _turn(np.radians([a, 0, 0]))
        for a in (-30, 0, 30) for b in (-30, 0, 30) for c in (-30, 0, 30)
    ]  # fmt: skip
    fixed_axes, moving_axes = _principal_axes(fixed), _principal_axes(moving)
    for signs in np.array(np.meshgrid([1, -1], [1, -1], [1, -1])).reshape(3, -1).T:
        rotation = moving_axes @ np.diag(signs) @ fixed_axes.T
        if np.linalg.det(rotation) > 0:
            rotations.append(rotation)
    spread = np.concatenate([rotations, _sphere_of_rotations(1200)])
    return np.concatenate([np.eye(4)[None], _about_centers(spread, fixed, moving)])


def _rotation_between_degrees(a: Float64Array, b: Float64Array) -> float:
    cosine = (np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _distinct_best(
    matrices: Sequence[Float64Array] | Float64Array, scores: Float64Array, count: int, degrees: float
) -> list[int]:
    """Indices of the best matrices that differ by more than ``degrees`` from any better one."""
    chosen: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if all(_rotation_between_degrees(matrices[index], matrices[c]) > degrees for c in chosen):
            chosen.append(int(index))
        if len(chosen) == count:
            break
    return chosen


def _search(similarity: MeanInformation, fixed: _Subject, moving: _Subject) -> list[Float64Array]:
    """A few promising rigid motions, best first, from the coarsest scale."""
    starts = _candidates(fixed, moving)
    scores = similarity.thinned(_RANKING_SAMPLES).values(starts)
    picked = _distinct_best(starts, scores, count=12, degrees=18.0)
    picked += [i for i in (0, 1) if i not in picked]  # the header's placement and orientation are always tried
    tried = run_each(lambda i: _optimise(similarity, "rigid", starts[i], fixed, 8), picked)
    leading = _leading(tried, count=6, share=0.5)
    ended = run_each(lambda found: _optimise(similarity, "rigid", found[0], fixed, 25), leading)
    return [m for m, _ in _leading(ended, 4, share=0.85)]


def _leading(found: list[tuple[Float64Array, float]], count: int, share: float) -> list[tuple[Float64Array, float]]:
    """The best of (matrix, NMI), ten degrees apart, that have this share of the best one's rise above 1."""
    scores = np.array([score for _, score in found])
    order = _distinct_best([matrix for matrix, _ in found], scores, count=count, degrees=10.0)
    return [found[i] for i in order if scores[i] - 1 >= share * (scores.max() - 1)]


def _scales(
    pairs: Sequence[tuple[Volume, ...]], weights: tuple[float, ...], left_out: Sequence[Volume | None]
) -> list[tuple[MeanInformation, _Subject, _Subject]]:
    """What is compared at each scale, coarsest first, with the subjects of the first pair."""
    extent_mm = min(run_each(_extent_mm, pairs[0]))
    images = [(v, n, m) for n in _STEPS_ACROSS for pair in pairs for v, m in zip(pair, left_out, strict=True)]
    subjects = run_each(lambda image: _Subject.from_volume(image[0], extent_mm / image[1], image[2]), images)
    couples = list(zip(subjects[::2], subjects[1::2], strict=True))  # pair by pair, scale by scale
    settings = [s for s in zip(_BINS, (1, 2, 3), _MOST_SAMPLES, strict=True) for _ in pairs]
    parts = run_each(lambda both: _similarity(*both[0], *both[1]), list(zip(couples, settings, strict=True)))
    scales = [slice(first, first + len(pairs)) for first in range(0, len(parts), len(pairs))]
    return [(MeanInformation(tuple(parts[s]), weights), *couples[s.start]) for s in scales]


def align(
    fixed: Volume,
    moving: Volume,
    *,
    kind: str = "affine",
    start: Float64Array | None = None,
    exclude_fixed: npt.NDArray[np.bool_] | None = None,
    exclude_moving: npt.NDArray[np.bool_] | None = None,
    channels: Sequence[tuple[Volume, Volume, float]] = (),
) -> AffineResult:
    """Find the affine from the fixed world to the moving world.

    Args:
        fixed, moving: images with their grids; contrasts may differ.
        kind: ``"affine"`` or ``"rigid"``.
        start: 4x4 to begin from in place of the search, which then tries nothing else.
        exclude_fixed, exclude_moving: voxels to leave out (lesions), each of its image's shape.
        channels: further images of the two subjects: fixed, moving, and how much their similarity counts beside the 1
            of the first pair. They lie on any grids in the worlds of their subjects; where a subject is, how large it
            is, and what is left out of it, the first pair says.
    """
    pairs = [tuple(map(_as_float, pair)) for pair in ((fixed, moving), *(channel[:2] for channel in channels))]
    weights = (1.0, *(weight for _, _, weight in channels))
    left_out = [
        None if mask is None else Volume(mask, image.grid)
        for mask, image in ((exclude_fixed, fixed), (exclude_moving, moving))
    ]
    coarse, middle, fine = _scales(pairs, weights, left_out)
    starts = _search(*coarse) if start is None else [np.asarray(start, dtype=np.float64)]
    first = "rigid" if kind == "rigid" else "similarity"
    refined = run_each(lambda s: _optimise(middle[0], first, s, middle[1], 30), starts)
    matrix = max(refined, key=lambda pair: pair[1])[0]
    if kind == "affine":
        matrix, _ = _optimise(middle[0], "affine", matrix, middle[1], 40)
    matrix, score = _optimise(fine[0], kind, matrix, fine[1], 40)
    before = fine[0].value(np.eye(4))
    reason = _why_not(matrix, fine[0].most(matrix), *middle, searched=start is None)
    return AffineResult(matrix, before, score, bool(reason), reason)


def _as_float(volume: Volume) -> Volume:
    return Volume(np.asarray(volume.data, dtype=np.float32), volume.grid, volume.name)


def _extent_mm(volume: Volume) -> float:
    """Mean size of the foreground in mm, from a coarse copy."""
    longest = float((volume.grid.spacing_mm * volume.grid.shape).max())
    subject = _Subject.from_volume(volume, longest / 48)
    return float(2 * np.sqrt(5 / 3) * np.sqrt(np.trace(np.cov(subject.positions_mm.T))))


def _why_not(
    matrix: Float64Array, score: float, similarity: MeanInformation, fixed: _Subject, moving: _Subject,
    *, searched: bool,
) -> str:  # fmt: skip
    """A reason to distrust the result, or an empty string.

    A search begins where both subjects meet, and they part again only where nothing holds them together.
    """
    unlike = searched and score < _LEAST_SIMILARITY
    singular = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    if (singular.max() > 2.0 or singular.min() < 0.5) and not unlike:
        return f"it stretches by {singular.min():.2f} to {singular.max():.2f}, beyond 0.5 to 2"
    inside = moving.grid.to_voxels(fixed.positions_mm @ matrix[:3, :3].T + matrix[:3, 3])
    share = float(((inside >= 0) & (inside <= np.asarray(moving.grid.shape) - 1)).all(axis=1).mean())
    if share < 0.25 and not unlike:
        return f"only {100 * share:.0f} % of the fixed subject falls inside the moving image"
    if score < _LEAST_SIMILARITY:
        return f"the images tell next to nothing about each other (normalised mutual information {score:.4f})"
    chance = similarity.values(_about_centers(_sphere_of_rotations(24), fixed, moving))
    if similarity.value(matrix) < np.mean(chance) + 4 * np.std(chance):
        return "the images are no more alike than under any rotation"
    return ""
