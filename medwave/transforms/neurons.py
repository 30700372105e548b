"""Synthetic neurons: trees that grow, and light microscopy volumes rendered from trees, with exact truth.

Arrays are ``(z, y, x)``; tree positions ``(x, y, z)`` voxels. ``seed`` is an int or a ``numpy.random.Generator``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medwave.core.tree import DENDRITE, SOMA, Tree
from medwave.transforms.rasterise import draw_centre_lines, draw_tubes

Seed = int | np.random.Generator
Shape3 = tuple[int, int, int]


@dataclass(frozen=True)
class Microscope:
    """How a tree becomes an image. Lengths are in voxels; photons are counts at the brightness of a typical tube.

    Attributes:
        radius_factor: tubes are drawn with this share of the tree's radius, and at least ``least_radius``.
        least_radius: see above.
        psf_sigma: Gaussian blur (z, y, x).
        signal_photons, background_photons: expected counts of tube and background.
        read_noise: standard deviation of the camera, in photons.
        beading: relative size of the smooth brightness changes along the tubes (0.35: varicosities).
        dim_share: share of the tree in stretches of a few to many voxels dimmed to a third.
        gap_share: share of the tree in short stretches that vanish.
        unevenness: relative size of the smooth changes of the background.
        blobs: number of bright out-of-tree blobs per million voxels.
        stripes: relative size of plane-wise and row-wise stripes.
        black_level: photons taken off every voxel before it is stored, as programs do that remove the background.
    """

    radius_factor: float = 0.6
    least_radius: float = 0.8
    psf_sigma: tuple[float, float, float] = (1.2, 1.0, 1.0)
    signal_photons: float = 90.0
    background_photons: float = 2.0
    read_noise: float = 0.8
    beading: float = 0.35
    dim_share: float = 0.0
    gap_share: float = 0.0
    unevenness: float = 0.3
    blobs: float = 0.0
    stripes: float = 0.0
    black_level: float = 0.0


@dataclass(frozen=True)
class RenderedNeuron:
    """A synthetic volume with its truth.

    Attributes:
        image: ``(z, y, x)`` uint8.
        mask: voxels of the tubes, gaps included.
        centre_lines: voxels of the centre lines.
        tree: the tree, in voxels of the image.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    centre_lines: npt.NDArray[np.bool_]
    tree: Tree


def render_neuron(
    tree: Tree, shape: Shape3, microscope: Microscope | None = None, *, seed: Seed,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> RenderedNeuron:  # fmt: skip
    """Image a tree: tubes of uneven brightness, blur, background, photon and read noise, 8 bits.

    Args:
        tree: positions and radii in voxels of the image.
        shape: of the image, ``(z, y, x)``.
        microscope: how; a clean bright one by default.
        seed: of the noise.
        spacing: voxel size ``(z, y, x)`` in units of the radii: in thick slices a tube fills fewer of them.
    """
    scope, rng = microscope or Microscope(), np.random.default_rng(seed)
    drawn = Tree(tree.positions, tree.radius * scope.radius_factor, tree.parent, tree.kind)
    mask = draw_tubes(drawn, shape, spacing=spacing, slack=0.0, least_radius=scope.least_radius)
    bright = mask * np.clip(1 + scope.beading * smooth_noise(shape, (3, 12, 12), rng), 0.25, 2).astype(np.float32)
    if scope.dim_share or scope.gap_share:
        bright *= _stretches(drawn, shape, scope, rng)
    signal = ndimage.gaussian_filter(bright, scope.psf_sigma)
    level = float(np.percentile(signal[mask], 90)) if mask.any() else 1.0
    signal /= max(level, 1e-6)
    if scope.blobs:
        signal += _blobs(shape, scope.blobs, rng)
    background = scope.background_photons * (1 + scope.unevenness * smooth_noise(shape, (6, 40, 40), rng))
    expected = np.maximum(scope.signal_photons * signal + background, 0)
    if scope.stripes:
        expected *= 1 + scope.stripes * (rng.normal(size=(shape[0], 1, 1)) + rng.normal(size=(1, shape[1], 1)))
        expected = np.maximum(expected, 0)
    photons = rng.poisson(expected) + scope.read_noise * rng.normal(size=shape)
    photons -= scope.black_level
    image = np.clip(photons * (180 / (scope.signal_photons + scope.background_photons)), 0, 255).astype(np.uint8)
    return RenderedNeuron(image, mask, draw_centre_lines(tree, shape), tree)


def random_microscope(seed: Seed, *, black_levels: float = 0.5) -> Microscope:
    """A microscope drawn from clean and bright to dim and noisy, with every kind of trouble now and then.

    ``black_levels`` is the share of microscopes whose program takes the background off.
    """
    rng = np.random.default_rng(seed)

    def sometimes(chance: float, low: float, high: float) -> float:
        return float(rng.uniform(low, high)) if rng.random() < chance else 0.0

    signal = float(np.exp(rng.uniform(np.log(8), np.log(120))))
    scope = Microscope(
        radius_factor=float(rng.uniform(0.5, 1.0)),
        least_radius=float(rng.uniform(0.7, 1.1)),
        psf_sigma=(float(rng.uniform(0.8, 1.8)), *(float(rng.uniform(0.6, 1.4)),) * 2),
        signal_photons=signal,
        background_photons=float(np.exp(rng.uniform(np.log(1), np.log(12)))),
        read_noise=float(rng.uniform(0.5, 4.0)),
        beading=float(rng.uniform(0.1, 0.5)),
        dim_share=sometimes(0.7, 0.05, 0.3),
        gap_share=sometimes(0.6, 0.01, 0.06),
        unevenness=float(rng.uniform(0.0, 0.5)),
        blobs=sometimes(0.4, 1, 12),
        stripes=sometimes(0.25, 0.02, 0.1),
    )
    if rng.random() >= black_levels:
        return scope
    noise = float(np.hypot(np.sqrt(scope.background_photons), scope.read_noise))
    return replace(scope, black_level=scope.background_photons + float(rng.uniform(-0.5, 2.5)) * noise)


@dataclass(frozen=True)
class Growth:
    """How a tree grows. Lengths are in voxels.

    Attributes:
        stems: number of neurites that leave the soma.
        step: length of an edge.
        stiffness: share of the direction kept from one step to the next (0 wiggles, 1 straight).
        branch_every: mean length between branch points.
        length: mean length of a neurite until it ends.
        soma_radius, stem_radius, tip_radius: radii.
        flatness: how much smaller steps along z are (a stack is usually flat).
    """

    stems: int = 4
    step: float = 3.0
    stiffness: float = 0.85
    branch_every: float = 60.0
    length: float = 220.0
    soma_radius: float = 5.0
    stem_radius: float = 2.0
    tip_radius: float = 0.8
    flatness: float = 0.5


@dataclass
class _Nodes:
    positions: list[npt.NDArray[np.float64]] = field(default_factory=list)
    radius: list[float] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)

    def add(self, position: npt.NDArray[np.float64], radius: float, parent: int) -> int:
        self.positions.append(position)
        self.radius.append(radius)
        self.parent.append(parent)
        return len(self.parent) - 1


def grow_tree(shape: Shape3, growth: Growth | None = None, *, seed: Seed) -> Tree:
    """Grow a tree inside a volume: persistent random walks that branch, taper and end.

    Args:
        shape: of the volume, ``(z, y, x)``; a neurite that leaves it ends there.
        growth: how; a middling neuron by default.
        seed: of the growth.
    """
    how, rng = growth or Growth(), np.random.default_rng(seed)
    size = np.asarray(shape, dtype=np.float64)
    nodes = _Nodes()
    soma = nodes.add(size * rng.uniform(0.2, 0.8, 3), how.soma_radius, -1)
    tips = [(soma, _direction(rng, how), how.stem_radius, 0.0) for _ in range(how.stems)]
    while tips:
        node, heading, radius, travelled = tips.pop()
        reach = rng.gamma(4.0, how.length / 4.0)
        until_branch = rng.exponential(how.branch_every)
        while travelled < reach:
            heading = how.stiffness * heading + (1 - how.stiffness) * _direction(rng, how) * 2
            heading /= np.linalg.norm(heading)
            place = nodes.positions[node] + how.step * heading
            if (place < 0).any() or (place > size - 1).any():
                break
            radius = max(how.tip_radius, radius * (1 - 0.4 * how.step / how.length) * np.exp(0.05 * rng.normal()))
            node = nodes.add(place, radius, node)
            travelled += how.step
            until_branch -= how.step
            if until_branch <= 0 and len(tips) < 64:
                side = heading + 0.9 * _direction(rng, how)
                tips.append((node, side / np.linalg.norm(side), max(how.tip_radius, 0.8 * radius), travelled))
                until_branch = rng.exponential(how.branch_every)
    kind = np.full(len(nodes.parent), DENDRITE)
    kind[0] = SOMA
    return Tree(np.array(nodes.positions)[:, ::-1], np.array(nodes.radius), np.array(nodes.parent), kind)


def random_growth(seed: Seed) -> Growth:
    """A habit drawn from sparse and straight to dense and wiggly."""
    rng = np.random.default_rng(seed)
    stem = float(rng.uniform(1.0, 2.6))
    return Growth(
        stems=int(rng.integers(2, 7)),
        step=float(rng.uniform(2, 4)),
        stiffness=float(rng.uniform(0.7, 0.95)),
        branch_every=float(np.exp(rng.uniform(np.log(25), np.log(120)))),
        length=float(np.exp(rng.uniform(np.log(60), np.log(300)))),
        soma_radius=float(rng.uniform(2, 7)),
        stem_radius=stem,
        tip_radius=float(rng.uniform(0.6, min(1.2, stem))),
        flatness=float(rng.uniform(0.3, 1.0)),
    )


def smooth_noise(shape: Shape3, sigma: tuple[float, float, float], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Gaussian noise of unit variance, smooth over ``sigma`` voxels; made on a coarse grid and interpolated."""
    factors = [max(1.0, s / 2) for s in sigma]
    coarse = [int(np.ceil(n / f)) + 2 for n, f in zip(shape, factors, strict=True)]
    noise = ndimage.gaussian_filter(rng.normal(size=coarse), [s / f for s, f in zip(sigma, factors, strict=True)])
    noise /= max(float(noise.std()), 1e-9)
    matrix = [1 / f for f in factors]
    return ndimage.affine_transform(noise, matrix, 0.5, shape, order=1, mode="nearest").astype(np.float32)


def _direction(rng: np.random.Generator, how: Growth) -> npt.NDArray[np.float64]:
    vector = rng.normal(size=3) * (how.flatness, 1, 1)
    return np.asarray(vector / np.linalg.norm(vector))


def _stretches(tree: Tree, shape: Shape3, scope: Microscope, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Brightness factor per voxel: a third near dim stretches, nothing near gaps."""
    factor = np.ones(shape, dtype=np.float32)
    places = tree.positions[:, ::-1]
    places = places[((places >= 0) & (places <= np.array(shape) - 1)).all(axis=1)]
    if len(places) == 0:
        return factor
    for share, length, value in ((scope.dim_share, 25.0, 0.33), (scope.gap_share, 6.0, 0.0)):
        wanted = rng.poisson(share * len(places) * 3.0 / length)
        for place in places[rng.integers(0, len(places), wanted)]:
            half = 0.5 * length * rng.uniform(0.5, 1.5)
            low = np.maximum(np.floor(place - half), 0).astype(int)
            high = np.minimum(np.ceil(place + half) + 1, shape).astype(int)
            axes = [np.arange(a, b) - p for a, b, p in zip(low, high, place, strict=True)]
            near = sum(d**2 for d in np.ix_(*axes)) <= half**2
            view = factor[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
            np.minimum(view, np.where(near, np.float32(value), np.float32(1)), out=view)
    return factor


def _blobs(shape: Shape3, per_million: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Round bright spots that belong to no tree."""
    field = np.zeros(shape, dtype=np.float32)
    for _ in range(rng.poisson(per_million * np.prod(shape) / 1e6)):
        sigma, center = rng.uniform(1.0, 4.0), rng.uniform(0, 1, 3) * shape
        low = np.maximum(center - 3 * sigma, 0).astype(int)
        high = np.minimum(center + 3 * sigma + 1, shape).astype(int)
        axes = [np.arange(a, b) - c for a, b, c in zip(low, high, center, strict=True)]
        spot = np.exp(-0.5 * sum(d**2 for d in np.ix_(*axes)) / sigma**2)
        field[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] += rng.uniform(0.3, 1.2) * spot
    return field
